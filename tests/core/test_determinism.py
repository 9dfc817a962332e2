"""The same bits for any number of threads, any batch, any padding and any number of rows in a call."""

from __future__ import annotations

import threading

import dhyan
import numpy as np
import pytest
from dhyan import ops

Arrays = list[np.ndarray]


def inputs(rng: np.random.Generator, B: int, T: int, S: int, H: int, D: int, term: str, dtype: type) -> Arrays:
    return [
        rng.normal(size=n).astype(dtype)
        for n in ((B, T, H), (B, S, H), (B, S, D), *(((H,),) if term == "tanh" else ()))
    ]


def everything(arrays: Arrays, term: str, dcontext: np.ndarray, keep: bool = True, **may: np.ndarray | None) -> Arrays:
    """Outputs and gradients of the joined op: context, (weights), dq, dk, dv, (dw)."""
    context, weights, cache = ops.attention_forward(*arrays, term=term, need_weights=keep, **may)
    results = [context, weights, *ops.attention_backward(dcontext, cache)]
    return [x for x in results if x is not None]


def assert_same_bits(a: Arrays, b: Arrays) -> None:
    for x, y in zip(a, b, strict=True):
        assert x.tobytes() == y.tobytes()


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("shape", [(3, 70, 33, 72, 40), (21, 13, 19, 40, 33), (1, 300, 40, 64, 16)])
def test_same_bits_for_any_number_of_threads(threads: None, term: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = inputs(rng, *shape, term, np.float32)
    dcontext = rng.normal(size=(*shape[:2], shape[4])).astype(np.float32)
    mask = rng.random((shape[0], 1, shape[2])) < 0.8
    ops.set_num_threads(1)
    want = everything(arrays, term, dcontext, mask=mask)
    parts = separate_ops(arrays, term, dcontext)
    for repeat in range(84):  # 252 with the three shapes
        ops.set_num_threads((1, 2, 3, 4, 7, 8, 16)[repeat % 7])
        assert_same_bits(everything(arrays, term, dcontext, mask=mask), want)
        if repeat < 21:
            assert_same_bits(everything(arrays, term, dcontext, keep=False, mask=mask), [want[0], *want[2:]])
            assert_same_bits(separate_ops(arrays, term, dcontext), parts)


def separate_ops(arrays: Arrays, term: str, dcontext: np.ndarray) -> Arrays:
    q, k, v, *w = arrays
    scores = ops.score_forward(q, k, *w, term=term)
    weights = ops.softmax_forward(scores)
    context = ops.context_forward(weights, v)
    dweights, dv = ops.context_backward(dcontext, weights, v)
    dscores = ops.softmax_backward(dweights, weights)
    gradients = ops.score_backward(dscores, q, k, *w, term=term)
    return [scores, weights, context, dweights, dv, dscores, *(g for g in gradients if g is not None)]


def random_case(rng: np.random.Generator, dtype: type) -> tuple[str, Arrays, np.ndarray, np.ndarray]:
    term = ("product", "tanh")[rng.integers(2)]
    B, T = rng.integers(2, 6), rng.integers(1, 12)
    S, H, D = (int(rng.choice([1, 2, 3, 5, 7, 11, 16, 17, 31, 33, 40, 65])) for _ in range(3))
    arrays = inputs(rng, B, T, S, H, D, term, dtype)
    arrays[1] *= rng.choice([1, 20], (B, S, 1)).astype(dtype)  # keys that take the other paths
    return term, arrays, rng.normal(size=(B, T, D)).astype(dtype), rng.integers(1, S + 1, B)


def test_a_row_does_not_depend_on_its_batch(isa: str) -> None:
    rng = np.random.default_rng(1)
    for case in range(334):
        term, arrays, dcontext, lengths = random_case(rng, (np.float32, np.float64)[case % 2])
        end = np.repeat(lengths[:, None], dcontext.shape[1], 1)
        together = everything(arrays, term, dcontext, end=end)
        b = case % len(lengths)
        alone = [a[b : b + 1] if a.ndim == 3 else a for a in arrays]
        single = everything(alone, term, dcontext[b : b + 1], end=end[b : b + 1])
        assert_same_bits([x[b : b + 1] for x in together if x.ndim == 3], [x for x in single if x.ndim == 3])


def test_a_row_does_not_depend_on_its_padding(isa: str) -> None:
    rng = np.random.default_rng(2)
    for case in range(334):
        dtype = (np.float32, np.float64)[case % 2]
        term, arrays, dcontext, _ = random_case(rng, dtype)
        (B, T, H), S = arrays[0].shape, arrays[1].shape[1]
        plain = everything(arrays, term, dcontext)
        more_s, more_t = rng.integers(1, 40), rng.integers(0, 9)
        pad = lambda x, n: np.concatenate(  # noqa: E731
            [x, np.full((x.shape[0], n, x.shape[2]), np.nan, x.dtype)], axis=1
        )
        q = np.concatenate([arrays[0], rng.normal(size=(B, more_t, H)).astype(dtype)], axis=1)
        wide = [q, pad(arrays[1], more_s), pad(arrays[2], more_s), *arrays[3:]]
        dwide = np.concatenate([dcontext, np.zeros((B, more_t, dcontext.shape[2]), dtype)], axis=1)
        end = np.full((B, T + more_t), S)
        end[:, T:] = rng.integers(0, S + 1, (B, more_t))
        context, weights, dq, dk, dv, *dw = everything(wide, term, dwide, end=end)
        assert (weights[:, :, S:] == 0).all() and (dk[:, S:] == 0).all() and (dv[:, S:] == 0).all()
        cut = [context[:, :T], weights[:, :T, :S], dq[:, :T], dk[:, :S], dv[:, :S], *dw]
        if dw:  # a sum over all rows; rows that add zeros leave it alone
            assert_same_bits([plain.pop()], [cut.pop()])
        assert_same_bits(cut, plain)


def test_one_row_a_call_gives_the_bits_of_all_rows_at_once(isa: str) -> None:
    rng = np.random.default_rng(3)
    for case in range(334):
        term, arrays, dcontext, lengths = random_case(rng, (np.float32, np.float64)[case % 2])
        q, T = arrays[0], dcontext.shape[1]
        end = np.repeat(lengths[:, None], T, 1)
        end[:, ::2] = np.maximum(end[:, ::2] - 1, 0)
        context, weights, dq, *_ = everything(arrays, term, dcontext, end=end)
        for t in range(T):
            row = slice(t, t + 1)
            got = everything([q[:, row], *arrays[1:]], term, dcontext[:, row], end=end[:, row])
            assert_same_bits([context[:, row], weights[:, row], dq[:, row]], got[:3])


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_several_groups_and_blocks_give_the_bits_of_any_part(isa: str, term: str, dtype: type) -> None:
    """Beyond a group of rows (72), a block of keys (64), and the widest query whose keys are not prepared (1024)."""
    rng = np.random.default_rng(4)
    for H in (33, 250, 1024, 1030):
        arrays = inputs(rng, 2, 101, 131, H, 70, term, dtype)
        arrays[1] *= rng.choice([1, 20], (2, 131, 1)).astype(dtype)
        dcontext = rng.normal(size=(2, 101, 70)).astype(dtype)
        end = rng.integers(0, 130, (2, 101))
        end[:, :2] = 129
        context, weights, dq, *_ = everything(arrays, term, dcontext, end=end)
        for a in arrays[1:3]:
            a[:, 129:] = np.nan  # no row may see it
        for part in (slice(0, 1), slice(1, 3), slice(15, 40), slice(100, 101)):
            got = everything([arrays[0][:, part], *arrays[1:]], term, dcontext[:, part], end=end[:, part])
            assert_same_bits([context[:, part], weights[:, part], dq[:, part]], got[:3])
            assert all(np.isfinite(x).all() for x in got)
            assert (got[3][:, 129:] == 0).all() and (got[4][:, 129:] == 0).all()


def test_eight_python_threads_at_once_give_the_serial_bits() -> None:
    rng = np.random.default_rng(4)
    jobs = []
    for term in ("product", "tanh") * 4:
        arrays = inputs(rng, 5, 20, 30, 48, 24, term, np.float32)
        dcontext = rng.normal(size=(5, 20, 24)).astype(np.float32)
        jobs.append((arrays, term, dcontext, everything(arrays, term, dcontext)))
    wrong: list[int] = []

    def work(i: int) -> None:
        arrays, term, dcontext, want = jobs[i]
        for _ in range(20):
            got = everything(arrays, term, dcontext)
            if any(x.tobytes() != y.tobytes() for x, y in zip(got, want, strict=True)):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


@pytest.mark.parametrize("choices", [
    dict(attention="coverage"), dict(attention="dot", heads=2), dict(normalize="monotonic", order="luong"),
])  # fmt: skip
def test_python_threads_that_train_with_a_reader_give_the_serial_bits(choices: dict[str, object]) -> None:
    """The core asks Python once a step and gives the lock away between: models at work at once must not meet."""
    rng = np.random.default_rng(5)
    source, target = rng.integers(0, 9, (2, 6, 7))
    lengths = rng.integers(2, 8, (2, 6))
    batch = dhyan.Batch(source, lengths[0], target, lengths[1])
    config = dhyan.ModelConfig(source_size=9, target_size=9, embedding=6, hidden=8, **choices)
    models = [dhyan.Seq2Seq(config, seed=seed) for seed in range(4)]

    def bits(model: dhyan.Seq2Seq) -> Arrays:
        loss, cache = model.forward(batch, step=1)
        found = [np.float64(loss), *model.backward(cache).values(), *model.greedy(source, lengths[0], 6)]
        return [np.asarray(x) for x in found]

    serial = [bits(model) for model in models]
    together: list[list[Arrays]] = [[] for _ in models]

    def work(i: int) -> None:
        for _ in range(5):
            together[i].append(bits(models[i]))

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    for want, found in zip(serial, together, strict=True):
        assert len(found) == 5
        for got in found:
            assert_same_bits(got, want)
