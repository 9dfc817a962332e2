"""What may be passed to an op and what may not: one line that says what, where, got and expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dhyan import model_ops, ops
from dhyan.model_ops import CELL_PARAMETERS

B, T, S, H, D = 2, 3, 7, 16, 5


def good(dtype: type = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    normal = lambda *n: rng.normal(size=n).astype(dtype)  # noqa: E731
    return {"q": normal(B, T, H), "k": normal(B, S, H), "v": normal(B, S, D), "w": normal(H), "term": "tanh"}


def call(**changes: Any) -> tuple[Any, ...]:
    return ops.attention_forward(**{**good(), **changes})


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def refused(error: type[Exception], message: str, f: Callable[[], object]) -> None:
    """f raises this error with this one line, and a good call right after it gives the right bits."""
    want = call()[0]
    with pytest.raises(error) as caught:
        f()
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(re.escape(message), text), text
    np.testing.assert_array_equal(call()[0], want)


@pytest.mark.parametrize(
    ("name", "value", "got"),
    [
        ("q", [[[1.0]]], "q is of type list"),
        ("q", None, "q is None"),
        ("q", zeros(B, T, H, dtype=np.float16), "q has dtype float16, expected float32 or float64"),
        ("q", zeros(B, T, H, dtype=np.int64), "q has dtype int64"),
        ("q", zeros(B, T, H, dtype=complex), "q has dtype complex128"),
        ("q", zeros(B, T, H, dtype=object), "q has dtype object"),
        ("q", zeros(B, T, H, dtype=[("a", "f4")]), "q has dtype [('a', '<f4')]"),
        ("q", zeros(B, T, H, dtype=">f4"), "q has dtype >f4"),
        ("q", 1.0, "q is of type float"),
        ("k", zeros(B, S, H, dtype=np.float64), "k has dtype float64, expected float32"),
        ("k", None, "k is None"),
        ("v", zeros(B, S, D, dtype=np.float64), "v has dtype float64, expected float32"),
        ("w", zeros(H, dtype=np.float64), "w has dtype float64, expected float32"),
        ("w", [1.0] * H, "w is of type list"),
        ("mask", zeros(B, T, S), "mask has dtype float32, expected bool"),
        ("mask", zeros(B, T, S, dtype=np.int8), "mask has dtype int8, expected bool"),
        ("mask", [[True]], "mask is of type list"),
        ("begin", zeros(B, T), "begin has dtype float32, expected int64"),
        ("end", zeros(B, T, dtype=np.int32), "end has dtype int32, expected int64"),
        ("scale", "1", "scale is of type str, expected a number"),
        ("scale", None, "scale is of type NoneType, expected a number"),
        ("scale", 1j, "scale is of type complex, expected a number"),
        ("term", 1, "term is of type int"),
    ],
)
def test_wrong_types(name: str, value: Any, got: str) -> None:
    refused(TypeError, f"attention_forward: {got}", lambda: call(**{name: value}))


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"k": zeros(2, 7, 8)}, "k has shape (2, 7, 8), expected (B=2, S, H=16) to match q (2, 3, 16)"),
        ({"k": zeros(3, 7, 16)}, "k has shape (3, 7, 16), expected (B=2, S, H=16) to match q (2, 3, 16)"),
        ({"k": zeros(7, 16)}, "k has shape (7, 16), expected (B, S, H)"),
        ({"q": zeros(3, 16)}, "q has shape (3, 16), expected (B, T, H)"),
        ({"q": np.float32(1)}, "q has shape (), expected (B, T, H)"),
        ({"v": zeros(2, 6, 5)}, "v has shape (2, 6, 5), expected (B=2, S=7, D) to match k (2, 7, 16)"),
        ({"v": zeros(1, 7, 5)}, "v has shape (1, 7, 5), expected (B=2, S=7, D) to match k (2, 7, 16)"),
        ({"w": zeros(15)}, "w has shape (15,), expected (H=16,) to match q (2, 3, 16)"),
        ({"w": zeros(16, 1)}, "w has shape (16, 1), expected (H,)"),
        ({"w": None}, "w is None, expected shape (H=16,) for term 'tanh'"),
        ({"term": "product"}, "w is given, expected None for term 'product'"),
        ({"term": "bahdanu"}, "term is 'bahdanu', expected 'product' or 'tanh'"),
        ({"scale": np.nan}, "scale is nan, expected a finite number"),
        ({"scale": np.inf}, "scale is inf, expected a finite number"),
        (
            {"mask": np.ones((2, 4, 7), bool)},
            "mask has shape (2, 4, 7), expected one that broadcasts to (B=2, T=3, S=7)",
        ),
        ({"mask": np.ones((1, 2, 3, 7), bool)}, "mask has shape (1, 2, 3, 7)"),
        ({"begin": zeros(2, 4, dtype=np.int64)}, "begin has shape (2, 4), expected (B=2, T=3)"),
        ({"end": zeros(6, dtype=np.int64)}, "end has shape (6,), expected (B, T)"),
        ({"end": np.full((2, 3), 8)}, "end[0, 0] is 8, expected begin=0 <= end <= S=7"),
        ({"begin": np.full((2, 3), -1)}, "begin[0, 0] is -1, expected 0 <= begin"),
        ({"begin": np.full((2, 3), 8)}, "begin[0, 0] is 8, expected 0 <= begin <= S=7"),
        ({"end": np.array([[7, 7, 7], [7, 7, -2]])}, "end[1, 2] is -2, expected begin=0 <= end <= S=7"),
        ({"begin": np.full((2, 3), 5), "end": np.full((2, 3), 4)}, "end[0, 0] is 4, expected begin=5 <= end <= S=7"),
    ],
)
def test_wrong_shapes_and_values(changes: dict[str, Any], got: str) -> None:
    refused(ValueError, f"attention_forward: {got}", lambda: call(**changes))


def test_every_op_names_itself_and_its_argument() -> None:
    a, weights = good(), zeros(B, T, S)
    score = {"term": "product", "scale": 1.0}
    for f, message in [
        (lambda: ops.score_forward(a["q"], zeros(2, 7, 8), **score), "score_forward: k has shape (2, 7, 8), expected "),
        (
            lambda: ops.score_backward(zeros(2, 3, 8), a["q"], a["k"], **score),
            "score_backward: dscores has shape (2, 3, 8)",
        ),
        (lambda: ops.softmax_forward(zeros(3, 7)), "softmax_forward: scores has shape (3, 7), expected (B, T, S)"),
        (lambda: ops.softmax_forward(weights, end=np.full((2, 3), 9)), "softmax_forward: end[0, 0] is 9"),
        (lambda: ops.softmax_backward(zeros(2, 3, 6), weights), "softmax_backward: dweights has shape (2, 3, 6)"),
        (lambda: ops.context_forward(weights, zeros(2, 6, 5)), "context_forward: v has shape (2, 6, 5)"),
        (
            lambda: ops.context_backward(zeros(2, 3, 4), weights, a["v"]),
            "context_backward: dcontext has shape (2, 3, 4)",
        ),
    ]:
        refused(ValueError, message, f)


def test_a_cache_from_elsewhere() -> None:
    context, weights, cache = call()
    refused(TypeError, "attention_backward: cache is of type dict", lambda: ops.attention_backward(context, {}))
    refused(
        ValueError,
        "attention_backward: dcontext has shape (2, 3, 4), expected (B=2, T=3, D=5)",
        lambda: ops.attention_backward(context[..., :4], cache),
    )
    refused(
        ValueError,
        "attention_backward: dweights has shape (2, 3, 6), expected (B=2, T=3, S=7)",
        lambda: ops.attention_backward(context, cache, weights[..., :6]),
    )
    refused(
        TypeError,
        "attention_backward: dcontext has dtype float64, expected float32",
        lambda: ops.attention_backward(context.astype(np.float64), cache),
    )


def test_sizes_beyond_memory_are_named() -> None:
    huge = np.broadcast_to(np.float32(0), (1, 1 << 40, 0)), np.broadcast_to(np.float32(0), (1, 1 << 40, 0))
    with pytest.raises(MemoryError, match=re.escape("(1, 1099511627776, 1099511627776)")):
        ops.score_forward(*huge, term="product")


def bent(x: np.ndarray, how: str, folder: Path) -> np.ndarray:
    """The values of x in memory of another layout."""
    if how == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        wide[..., ::2] = x
        return wide[..., ::2]
    if how == "negative":
        return np.flip(np.ascontiguousarray(np.flip(x)))
    if how == "fortran":
        return np.asfortranarray(x)
    if how == "unaligned":
        raw = np.zeros(x.nbytes + 1, np.uint8)
        y = raw[1:].view(x.dtype).reshape(x.shape)
        y[...] = x
        return y
    if how == "readonly":
        y = x.copy()
        y.flags.writeable = False
        return y
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    x.tofile(path)
    return np.memmap(path, x.dtype, "r", shape=x.shape)


@pytest.mark.parametrize("how", ["strided", "negative", "fortran", "unaligned", "readonly", "mapped"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_layout_gives_the_same_bits(how: str, dtype: type, tmp_path: Path) -> None:
    a = good(dtype)
    a["begin"], a["end"] = np.ones((B, T), np.int64), np.full((B, T), S - 1)
    a["mask"] = np.random.default_rng(1).random((B, T, S)) < 0.7
    context, weights, cache = ops.attention_forward(**a)
    gradients = ops.attention_backward(context, cache)
    b = {n: bent(x, how, tmp_path) if isinstance(x, np.ndarray) else x for n, x in a.items()}
    other_context, other_weights, other_cache = ops.attention_forward(**b)
    others = ops.attention_backward(bent(context, how, tmp_path), other_cache)
    for x, y in zip((context, weights, *gradients), (other_context, other_weights, *others), strict=True):
        np.testing.assert_array_equal(x, y)
        assert y.flags.c_contiguous and y.flags.writeable


def written_to(op: str) -> tuple[dict[str, np.ndarray], list[str], Callable[..., Any]]:
    """The arrays of a call, the names of those that it writes to, and the call."""
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]]
    if op == "linear_backward":
        shapes = {"dy": (6, 6), "x": (6, 6), "w": (6, 6), "dw": (6, 6), "db": (6,), "add_to": (6, 6)}
        call: Callable[..., Any] = ops.linear_backward
    elif op == "embedding_backward":
        shapes = {"dout": (6, 5), "out": (6, 5)}
        call = lambda dout, out: ops.embedding_backward(dout, np.arange(6), 6, out=out)  # noqa: E731
    elif op == "adam_step":
        shapes = dict.fromkeys("pgmv", (6,))
        call = lambda **arrays: ops.adam_step(step=1, lr=0.1, **arrays)  # noqa: E731
    elif op == "recurrent_backward":
        shapes = {n: (6, 6) if "weight" in n else (6,) for n in CELL_PARAMETERS}
        shapes |= {"d" + n: shape for n, shape in shapes.items()} | {"x": (6, 6), "doutput": (6, 6)}

        def call(x: np.ndarray, doutput: np.ndarray, **arrays: np.ndarray) -> Any:
            weights = {n: arrays[n] for n in CELL_PARAMETERS}
            *_, cache = model_ops.recurrent_rows_forward(x, np.array([4, 2]), weights, cell="rnn")
            gradients = {n: arrays["d" + n] for n in CELL_PARAMETERS}
            return model_ops.recurrent_rows_backward(doutput, cache, gradients=gradients)
    else:
        shapes = {"r": (6, 6), "w": (6, 6), "b": (6,), "dw": (6, 6), "db": (6,)}

        def call(r: np.ndarray, w: np.ndarray, b: np.ndarray, dw: np.ndarray, db: np.ndarray) -> Any:
            if op == "cross_entropy_both":
                return ops.cross_entropy_both(1.0, r, w, b, np.arange(6), dw=dw, db=db)
            return ops.cross_entropy_backward(1.0, ops.cross_entropy_forward(r, w, b, np.arange(6))[1], dw=dw, db=db)

    arrays = {name: np.abs(rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}
    written = {"p", "m", "v", "add_to", "out", "dw", "db"} | {"d" + n for n in CELL_PARAMETERS}
    return arrays, [name for name in arrays if name in written], call


WRITING = [
    "linear_backward", "embedding_backward", "adam_step", "recurrent_backward", "cross_entropy_both",
    "cross_entropy_backward",
]  # fmt: skip


@pytest.mark.parametrize("op", WRITING)
def test_what_is_written_to_is_apart_from_all_else(op: str) -> None:
    """Also where only the last element of one is the first of the other."""
    arrays, written, call = written_to(op)
    call(**{name: array.copy() for name, array in arrays.items()})
    for name in written:
        for other in arrays:
            if other == name:
                continue
            both = np.zeros(arrays[name].size + arrays[other].size - 1, np.float32)
            shared = {
                name: both[: arrays[name].size].reshape(arrays[name].shape),
                other: both[arrays[name].size - 1 :].reshape(arrays[other].shape),
            }
            with pytest.raises(ValueError, match=f"{op}: .* shares memory with "):
                call(**arrays | shared)


@pytest.mark.parametrize("op", WRITING)
def test_what_is_written_to_is_aligned(op: str, tmp_path: Path) -> None:
    arrays, written, call = written_to(op)
    for name in written:
        with pytest.raises(ValueError, match=f"{op}: .* is not aligned, expected an address that is a multiple of 4"):
            call(**arrays | {name: bent(arrays[name], "unaligned", tmp_path)})


def test_broadcast_inputs_give_the_same_bits() -> None:
    a = good()
    k, v = (np.broadcast_to(a[n][:1], a[n].shape) for n in "kv")
    np.testing.assert_array_equal(call(k=k, v=v)[0], call(k=k.copy(), v=v.copy())[0])


def test_inputs_are_not_touched() -> None:
    a = good()
    a["mask"] = np.ones((B, T, S), bool)
    before = {n: x.copy() for n, x in a.items() if isinstance(x, np.ndarray)}
    context, weights, cache = ops.attention_forward(**a)
    kept = context.copy(), weights.copy()
    ops.attention_backward(context, cache, weights)
    for n, x in before.items():
        np.testing.assert_array_equal(a[n], x)
    np.testing.assert_array_equal(context, kept[0])
    np.testing.assert_array_equal(weights, kept[1])


class Exporter:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **kwargs: Any) -> Any:
        return self.array.__dlpack__(**kwargs)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()


def test_dlpack_and_the_buffer_protocol_are_arrays() -> None:
    a = good()
    want = call()[0]
    np.testing.assert_array_equal(call(**{n: Exporter(a[n]) for n in "qkvw"})[0], want)
    np.testing.assert_array_equal(call(**{n: memoryview(a[n]) for n in "qkvw"})[0], want)


def test_an_array_on_a_device_is_refused() -> None:
    class OnDevice(Exporter):
        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    refused(RuntimeError, "attention_forward: q", lambda: call(q=OnDevice(good()["q"])))


def test_threads_are_counted_from_one(threads: None) -> None:
    with pytest.raises(ValueError, match="n is 0, expected at least 1"):
        ops.set_num_threads(0)
    for wrong in (True, 1.5, "2"):
        with pytest.raises(TypeError, match="expected an int"):
            ops.set_num_threads(wrong)  # type: ignore[arg-type]
    ops.set_num_threads(np.int64(3))
    assert ops.get_num_threads() == 3
