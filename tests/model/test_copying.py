"""Copying from the source: the mixture and its gradients, bits, search with words that only the source has, text."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Batch, ModelConfig, Seq2Seq, Vocabulary
from dhyan.model import copying
from dhyan.search.beam import beam_search
from dhyan.text import copies
from spec import model as reference

ORDERS = {"bahdanau": ("bahdanau", True), "luong": ("luong", False), "luong, input feeding": ("luong", True)}
# One of each way to read, through the core's loop and step by step; all make weights that are 0 on some word but one.
READS: dict[str, dict[str, Any]] = {
    "additive": dict(),
    "uniform": dict(attention="uniform", cell="rnn"),
    "oracle": dict(attention="oracle", order="luong"),
    "sparsemax": dict(attention="dot", normalize="sparsemax", cell="lstm"),
    "window": dict(attention="general", window=1, order="luong, input feeding"),
    "location": dict(attention="location", max_source=8),
    "two heads": dict(heads=2, hidden=4, order="luong"),
    "predictive": dict(attention="general", window="predictive:2", cell="rnn"),
    "monotonic": dict(attention="dot", normalize="monotonic", order="luong, input feeding"),
    "coverage": dict(attention="coverage", cell="lstm", layers=2),
    "coverage, sparsemax": dict(attention="coverage", normalize="sparsemax"),
}
reads = pytest.mark.parametrize("choices", READS.values(), ids=READS)
LOSSES = dict(smoothing=0.1, guided=0.7, coverage=0.9)


def config_of(**changes: Any) -> ModelConfig:
    values: dict[str, Any] = dict(source_size=5, target_size=6, embedding=3, hidden=2, dropout=0.0, cell="gru")
    values |= changes
    values["order"], values["input_feeding"] = ORDERS[values.get("order", "bahdanau")]
    return ModelConfig(**values | dict(copy=True))


def model_of(config: ModelConfig, seed: int = 0, dtype: str = "float64", scale: float = 0.5) -> Seq2Seq:
    model = Seq2Seq(config, seed=seed, dtype=dtype)
    values = reference.random_parameters(config, np.random.default_rng(seed), scale)
    for name, array in model.parameters().items():
        array[...] = values[name]
    return model


def batch_of(
    config: ModelConfig,
    source_lengths: tuple[int, ...] = (5, 1, 3, 0),
    target_lengths: tuple[int, ...] = (7, 2, 5, 3),
    seed: int = 0,
) -> Batch:
    """Sources whose tokens are words of the target, repeated ones among them, or their own; so are the targets."""
    rng = np.random.default_rng(seed)
    shape = (len(source_lengths), max(source_lengths))
    source = rng.integers(0, config.source_size, shape)
    copies = rng.integers(config.target_size - 3, config.target_size + 3, shape)
    target = rng.integers(0, config.target_size, (len(target_lengths), max(target_lengths)))
    for b, length in enumerate(source_lengths):
        if length:  # every other target token is a word of the source
            target[b, 1::2] = rng.choice(copies[b, :length], target[b, 1::2].shape)
    s, t = np.arange(shape[1]), np.arange(max(target_lengths) - 1)
    inside = (t < np.array(target_lengths)[:, None] - 1)[:, :, None] & (s < np.array(source_lengths)[:, None])[:, None]
    links = inside * rng.random(inside.shape) * (t % 3 != 2)[:, None]
    alignment = links / np.maximum(links.sum(-1, keepdims=True), 1e-9)
    return Batch(source, np.array(source_lengths), target, np.array(target_lengths), alignment, copies)


@cache
def exact(config: ModelConfig, **losses: float) -> tuple[float, dict[str, np.ndarray]]:
    p, batch = model_of(config).parameters(), batch_of(config)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, batch, **losses), p)
    return float(reference.loss(p, config, batch, **losses)), slopes


def assert_exact(config: ModelConfig, **losses: float) -> None:
    model, (loss, slopes) = model_of(config), exact(config, **losses)
    got, model_cache = model.forward(batch_of(config), **losses)
    np.testing.assert_allclose(got, loss, rtol=1e-12)
    gradients = model.backward(model_cache)
    assert gradients.keys() == slopes.keys() >= {"copy.weight", "copy.bias"}
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradients[name], slope, atol=1e-9, rtol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------------ the formula


def test_the_mixture_by_hand() -> None:
    """V = 4, p = (.1 .2 .3 .4), p_gen = 1/4; the source reads word 1, an own word, word 1: weights .5 .2 .3.

    p(0) = .1/4, p(1) = .2/4 + .8 * 3/4, p(own) = .2 * 3/4; generated shares 1, 1/13, 0.
    """
    r, w, b = np.zeros((3, 1)), np.zeros((1, 4)), np.log([0.1, 0.2, 0.3, 0.4])
    targets = np.array([0, 1, 4])
    _, loss = dhyan.ops.cross_entropy_forward(r, w, b, np.array([0, 1, 3]))
    weights, copies = np.tile([0.5, 0.2, 0.3], (3, 1)), np.tile([1, 4, 1], (3, 1))
    gate = np.zeros((1, 1)), np.log([1 / 3])
    found = copying.copy_forward(loss, *gate, weights, copies, targets)
    np.testing.assert_allclose(np.exp(found.log_p), [0.025, 0.65, 0.15], rtol=1e-14)
    np.testing.assert_allclose(found.p_gen, 0.25, rtol=1e-14)
    np.testing.assert_allclose(found.generated, [1, 1 / 13, 0], rtol=1e-14)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_loss_and_every_gradient(isa: str, cell: str, order: str) -> None:
    assert_exact(config_of(cell=cell, order=order))
    assert_exact(config_of(cell=cell, order=order, layers=2), **LOSSES)


@reads
def test_loss_and_every_gradient_however_the_source_is_read(choices: dict[str, Any]) -> None:
    """Windows, sparsemax and links leave words without a weight: neither loss nor gradient is lost to that."""
    config = config_of(**choices)
    assert_exact(config)
    assert_exact(config, **LOSSES)
    assert_exact(config, coverage=1.0)


@pytest.mark.parametrize("step", [None, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_central_differences_of_the_model_itself(smoothing: float, step: int | None) -> None:
    """No reference at all: entries of parameters() edited in place, with and without dropout."""
    config = config_of(layers=2, dropout=0.3, attention="coverage")
    model, batch, rng = model_of(config), batch_of(config), np.random.default_rng(0)
    losses = dict(step=step, smoothing=smoothing, coverage=0.5)
    gradients = model.backward(model.forward(batch, **losses)[1])
    width = 1e-5
    for name, array in model.parameters().items():
        for _ in range(3):
            entry = tuple(rng.integers(0, array.shape))
            before, found = array[entry], []
            for shift in (width, -width):
                array[entry] = before + shift
                found.append(model.forward(batch, **losses)[0])
            array[entry] = before
            # truncation is width^2 f'''/6, rounding eps loss/width: both about 1e-10
            slope = (found[0] - found[1]) / (2 * width)
            np.testing.assert_allclose(gradients[name][entry], slope, atol=2e-9, err_msg=f"{name}{entry}")


@pytest.mark.parametrize("choices", [c for name, c in READS.items() if name != "predictive"])
def test_float32_is_float64_up_to_rounding(isa: str, choices: dict[str, Any]) -> None:
    # Not predictive: its float32 weights are right to 1e-4 of themselves, far less than their sum, and p may be one.
    config = config_of(**choices | dict(hidden=14, embedding=7))
    narrow, wide = model_of(config, dtype="float32"), model_of(config)
    wide.flat[...] = narrow.flat
    batch = batch_of(config)
    (loss32, cache32), (loss64, cache64) = narrow.forward(batch, smoothing=0.1), wide.forward(batch, smoothing=0.1)
    terms = 2 * (config.hidden * 3 + config.embedding) * (batch.source.shape[1] + batch.target.shape[1])
    np.testing.assert_allclose(loss32, loss64, rtol=4 * 2**-23 * np.sqrt(terms))
    expected = wide.backward(cache64)
    for name, gradient in narrow.backward(cache32).items():
        assert gradient.dtype == np.float32
        reference.assert_rounded(gradient, expected[name], terms)


def test_smoothing_is_that_of_the_vocabulary_alone() -> None:
    """A gate that is wide open gives the loss of a model without copying, smoothing and all."""
    config = config_of()
    model = model_of(config)
    plain = Seq2Seq(dataclasses.replace(config, copy=False), dtype="float64")
    for name, array in plain.parameters().items():
        array[...] = model.parameters()[name]
    model.parameters()["copy.weight"][...] = 0
    model.parameters()["copy.bias"][...] = 60.0  # p_gen = 1 - 1e-26
    batch = batch_of(config)
    batch = dataclasses.replace(batch, target=np.minimum(batch.target, config.target_size - 1))
    for smoothing in (0.0, 0.3):
        (loss, with_cache), (expected, cache) = (m.forward(batch, smoothing=smoothing) for m in (model, plain))
        np.testing.assert_allclose(loss, expected, rtol=1e-13)
        gradients = model.backward(with_cache)
        for name, gradient in plain.backward(cache).items():
            np.testing.assert_allclose(gradients[name], gradient, atol=1e-14, err_msg=name)


def test_a_weight_of_nothing_is_no_infinity() -> None:
    """An own word that a window hides: the loss is that of LEAST, and only the gate can learn from it."""
    config = config_of(attention="general", window=0, target_size=6)
    model = model_of(config)
    source, lengths = np.array([[4, 4, 4]]), np.array([3])
    batch = Batch(source, lengths, np.array([[1, 7, 2]]), np.array([3]), None, np.array([[6, 7, 2]]))
    log_p, _, p_gen, copied = model.force_copying(batch)
    np.testing.assert_allclose(log_p[0, 0], np.log(1 - p_gen[0, 0]) + np.log(copying.LEAST), rtol=1e-12)
    assert copied[0, 0] == 1 and copied[0, 1] == 0  # the window of the second step is on the own word
    for dtype in ("float32", "float64"):
        loss, model_cache = (narrow := model_of(config, dtype=dtype)).forward(batch)
        assert np.isfinite(loss) and all(np.isfinite(g).all() for g in narrow.backward(model_cache).values())


def test_nan_is_not_hidden() -> None:
    config = config_of()
    for name in ("copy.bias", "attention.v", "output.bias"):
        model = model_of(config)
        model.parameters()[name][...] = np.nan
        loss, model_cache = model.forward(batch_of(config))
        assert np.isnan(loss) and np.isnan(model.backward(model_cache)["source_embedding"]).any()


# ------------------------------------------------------------------------------------------------ teacher forcing


@reads
def test_force_gives_the_mixture(choices: dict[str, Any]) -> None:
    config = config_of(**choices)
    model, batch = model_of(config), batch_of(config)
    log_p, weights, p_gen, copied = model.force_copying(batch)
    for one, same in zip(model.force(batch), (log_p, weights), strict=True):
        np.testing.assert_array_equal(one, same)
    given = (batch.source, batch.source_lengths, batch.target, batch.alignment)
    mixed, attended = reference.force(model.parameters(), config, *given, hard=True, copies=batch.copies)
    vocabulary = reference.force_parts(model.parameters(), config, *given, None, hard=True)[0]
    valid = np.arange(6) < batch.target_lengths[:, None] - 1
    targets = batch.target[:, 1:, None]
    expected = np.take_along_axis(mixed, targets, -1)[..., 0]
    np.testing.assert_allclose(log_p, np.where(valid, expected, 0), atol=1e-12)
    np.testing.assert_allclose(weights, np.where(valid[..., None], attended, 0), atol=1e-14)
    # The generated share is p_gen softmax / p, and 0 for own words.
    known = targets < config.target_size
    log_v = np.take_along_axis(vocabulary, np.where(known, targets, 0), -1)[..., 0]
    share = np.where(known[..., 0], p_gen * np.exp(log_v - expected), 0)
    np.testing.assert_allclose(copied, np.where(valid, 1 - share, 0), atol=1e-12)
    # A distribution over the vocabulary and the source's words, where the weights are one.
    full = valid & (attended.sum(-1) > 1 - 1e-12)
    np.testing.assert_allclose(np.exp(mixed).sum(-1)[full], 1, rtol=1e-12)
    assert ((p_gen > 0) == valid).all() and (p_gen < 1).all()


def test_force_copying_is_for_models_that_copy() -> None:
    config = dataclasses.replace(config_of(), copy=False)
    with pytest.raises(ValueError, match="does not copy"):
        Seq2Seq(config, dtype="float64").force_copying(batch_of(config))


# ------------------------------------------------------------------------------------------------ bits


def wide_case(**changes: Any) -> tuple[Seq2Seq, Batch]:
    """Large enough that kernels are dealt to threads and rows end anywhere in a tile."""
    sizes = dict(hidden=37 - ("heads" in changes), embedding=21, source_size=50, target_size=77)
    more = dict(max_source=20) if "max_source" in changes else {}
    config = config_of(**changes | sizes | more)
    rng = np.random.default_rng(0)
    batch = batch_of(config, (11, *rng.integers(0, 12, 19)), (13, *rng.integers(2, 14, 19)))
    return model_of(config, dtype="float32", scale=0.3), batch


@reads
def test_bits_do_not_depend_on_threads(threads: None, choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices | dict(dropout=0.2))
    results = []
    for count in (1, 2, 3, 7):
        dhyan.set_num_threads(count)
        loss, model_cache = model.forward(batch, step=1, **LOSSES)
        ids, weights = model.greedy(batch.source, batch.source_lengths, 9, batch.alignment, copies=batch.copies)
        results.append({"loss": np.float64(loss), "ids": ids, "weights": weights, **model.backward(model_cache)})
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@reads
def test_sentence_does_not_depend_on_its_batch_or_padding(isa: str, choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices)
    together = model.force_copying(batch)
    ids, attended = model.greedy(batch.source, batch.source_lengths, 9, batch.alignment, copies=batch.copies)
    for i in range(batch.size):
        s, t = max(int(batch.source_lengths[i]), 1), int(batch.target_lengths[i])
        one = Batch(
            batch.source[i : i + 1, :s], batch.source_lengths[i : i + 1], batch.target[i : i + 1, :t],
            batch.target_lengths[i : i + 1], batch.alignment[i : i + 1, : t - 1, :s], batch.copies[i : i + 1, :s],
        )  # fmt: skip
        for alone, all_of in zip(model.force_copying(one), together, strict=True):
            np.testing.assert_array_equal(alone[0], all_of[i, : t - 1] if all_of.ndim == 2 else all_of[i, : t - 1, :s])
        alone_ids, alone_attended = model.greedy(one.source, one.source_lengths, 9, one.alignment, copies=one.copies)
        steps = alone_ids.shape[1]
        np.testing.assert_array_equal(alone_ids[0], ids[i, :steps])
        np.testing.assert_array_equal(alone_attended[0], attended[i, :steps, :s])
        assert not ids[i, steps:].any()


@reads
def test_padding_cannot_be_seen(choices: dict[str, Any]) -> None:
    config = config_of(**choices)
    model, batch = model_of(config), batch_of(config)
    loss, model_cache = model.forward(batch, **LOSSES)
    expected = model.backward(model_cache)
    past = np.arange(5) >= batch.source_lengths[:, None]
    changed = Batch(
        np.pad(np.where(past, 0, batch.source), ((0, 0), (0, 2))), batch.source_lengths,
        np.pad(np.where(np.arange(7) >= batch.target_lengths[:, None], 0, batch.target), ((0, 0), (0, 3))),
        batch.target_lengths, np.pad(batch.alignment, ((0, 0), (0, 3), (0, 2))),
        np.pad(np.where(past, 10**9, batch.copies), ((0, 0), (0, 2)), constant_values=7),
    )  # fmt: skip
    other, model_cache = model.forward(changed, **LOSSES)
    assert other == loss
    for name, gradient in model.backward(model_cache).items():
        np.testing.assert_array_equal(gradient, expected[name], err_msg=name)


def test_cache_may_be_used_again() -> None:
    model, batch = wide_case()
    model_cache = model.forward(batch, step=3, **LOSSES)[1]
    first = {name: gradient.copy() for name, gradient in model.backward(model_cache).items()}
    model.backward(model.forward(batch)[1])
    for name, gradient in model.backward(model_cache).items():
        np.testing.assert_array_equal(gradient, first[name], err_msg=name)


# ------------------------------------------------------------------------------------------------ search

LENGTHS = np.array([4, 1, 3, 6])


def search_case(seed: int = 3, **changes: Any) -> tuple[Seq2Seq, np.ndarray, np.ndarray]:
    """A model that does not give the same at every step, sources, and copies with own words in all but one."""
    config = config_of(**dict(source_size=8, target_size=9, embedding=5, hidden=6) | changes)
    rng = np.random.default_rng(0)
    source = rng.integers(3, 8, (4, 6))
    copies = rng.integers(2, config.target_size + 4, source.shape)
    copies[1] = 2
    model = model_of(config, seed=seed, scale=1.0)
    model.parameters()["copy.bias"][...] = -2.0  # copies more than it generates
    return model, source, copies


def test_own_words_are_written() -> None:
    model, source, copies = search_case()
    ids, _ = model.greedy(source, LENGTHS, 12, copies=copies)
    assert (ids >= 9).any() and (ids[ids > 0] < 9).any()


@reads
def test_greedy_is_the_reference(choices: dict[str, Any]) -> None:
    if choices.get("attention") == "oracle":
        choices = choices | dict(attention="dot")
    model, source, copies = search_case(**choices)
    ids, weights = model.greedy(source, LENGTHS, 12, copies=copies)
    expected, rows = reference.greedy(model.parameters(), model.config, source, LENGTHS, 12, copies=copies)
    for i, sentence in enumerate(expected):
        n = len(sentence)
        assert ids[i].tolist() == sentence + [0] * (ids.shape[1] - n)
        np.testing.assert_allclose(weights[i, :n], rows[i], atol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
@pytest.mark.parametrize("name", ["additive", "coverage", "monotonic", "window"])
def test_a_wide_beam_is_exhaustive_search(name: str, penalty: float) -> None:
    """Six known words and up to two of the sentence's own: every output in order of score, none of probability 0."""
    model, source, copies = search_case(**READS[name] | dict(target_size=5, hidden=6))
    for i in (0, 1):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        given = copies[i : i + 1, : LENGTHS[i]]
        every = reference.exhaustive(model.parameters(), model.config, one, length, 3, given)
        expected = sorted(((total / len(ids) ** penalty, ids[:-1]) for ids, total in every), key=lambda pair: -pair[0])
        options = {"beam": 400, "max_length": 3, "length_penalty": penalty, "copies": given}
        (found,) = beam_search(model, one, length, nbest=len(expected), **options)
        np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-12)
        # Words that nothing looks at are equally unlikely: those may come in any order.
        assert sorted((round(h.score, 9), h.ids) for h in found) == sorted((round(s, 9), ids) for s, ids in expected)
        assert (i == 1) == (max(max(h.ids, default=0) for h in found) < 5)


@reads
def test_hypotheses_are_what_forcing_gives(choices: dict[str, Any]) -> None:
    """The weights bit for bit, the score up to the order of its sum, and no word of another sentence."""
    if choices.get("attention") == "oracle":
        choices = choices | dict(attention="dot")
    model, source, copies = search_case(**choices)
    results = beam_search(model, source, LENGTHS, beam=6, nbest=6, max_length=8, copies=copies)
    for b, (length, found) in enumerate(zip(LENGTHS, results, strict=True)):
        assert len(found) == 6
        for h in found:
            ids = [1, *h.ids, *([2] if h.finished else [])]
            one = Batch(
                source[b : b + 1, :length], np.array([length]), np.array([ids]), np.array([len(ids)]), None,
                copies[b : b + 1, :length],
            )  # fmt: skip
            log_p, weights = model.force(one)
            np.testing.assert_array_equal(h.weights, weights[0, : len(h.ids)])
            np.testing.assert_allclose(h.score, log_p.mean(), rtol=1e-12)
            assert {i for i in h.ids if i >= 9} <= set(copies[b, :length].tolist())


def test_a_step_is_what_forcing_gives(isa: str) -> None:
    """The same bits, in float32 too, for generated, copied and own words."""
    for dtype in ("float32", "float64"):
        model, source, copies = search_case()
        narrow = Seq2Seq(model.config, dtype=dtype)
        narrow.flat[...] = model.flat
        state = narrow.start(source, LENGTHS, copies=copies)
        log_p, weights, after = narrow.advance(state, np.full(4, 1), np.arange(4))
        assert log_p.dtype == dtype and log_p.shape == (4, 1 + copies.max())
        for b in range(4):
            own = set(copies[b, : LENGTHS[b]].tolist())
            for word in range(log_p.shape[1]):
                if word >= 9 and word not in own:
                    assert log_p[b, word] == -np.inf
                    continue
                one = Batch(
                    source[b : b + 1], LENGTHS[b : b + 1], np.array([[1, word]]), np.array([2]), None,
                    copies[b : b + 1],
                )  # fmt: skip
                forced_p, rows = narrow.force(one)
                assert forced_p[0, 0] == log_p[b, word]
                np.testing.assert_array_equal(rows[0, 0], weights[b])
        again, _, _ = narrow.advance(after, np.array([11, 4, 3, 10]), np.arange(4))
        unknown, _, _ = narrow.advance(after, np.array([3, 4, 3, 3]), np.arange(4))
        np.testing.assert_array_equal(again, unknown)  # an own word is read as unknown


def test_beam_of_one_is_greedy_and_no_sentence_sees_another() -> None:
    model, source, copies = search_case()
    ids, weights = model.greedy(source, LENGTHS, 10, copies=copies)
    together = beam_search(model, source, LENGTHS, beam=4, nbest=4, max_length=8, copies=copies)
    for i, (h,) in enumerate(beam_search(model, source, LENGTHS, beam=1, max_length=10, copies=copies)):
        assert ids[i, : len(h.ids)].tolist() == h.ids
        np.testing.assert_array_equal(h.weights, weights[i, : len(h.ids), : LENGTHS[i]])
        part = slice(i, i + 1), slice(0, LENGTHS[i])
        (alone,) = beam_search(
            model, source[part], LENGTHS[i : i + 1], beam=4, nbest=4, max_length=8, copies=copies[part]
        )
        for a, b in zip(together[i], alone, strict=True):
            assert a.ids == b.ids and a.score == b.score
            np.testing.assert_array_equal(a.weights, b.weights)


def test_a_search_under_way_keeps_the_gate_it_began_with() -> None:
    model, source, copies = search_case()
    state, tokens, every = model.start(source, LENGTHS, copies=copies), np.full(4, 1), np.arange(4)
    expected = model.advance(state, tokens, every)[0]
    model.parameters()["copy.weight"][...] += 1
    np.testing.assert_array_equal(model.advance(state, tokens, every)[0], expected)


def test_the_largest_and_of_equals_the_lower_id() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 2, 5, 13, 20):
        log_p = rng.integers(-4, 0, (7, 13)).astype(float)
        log_p[2, 5:] = -np.inf
        values, ids = copying.largest(log_p, k)
        order = np.argsort(-log_p, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(ids, order)
        np.testing.assert_array_equal(values, np.take_along_axis(log_p, order, 1))


def test_an_ensemble_copies_where_all_its_models_do() -> None:
    """p is the mean over the models, for own words too; one model is itself."""
    (one, source, copies), (other, *_) = search_case(), search_case(seed=4, attention="dot", cell="lstm")
    both = dhyan.Ensemble([one, other])
    (found,) = beam_search(both, source[:1], LENGTHS[:1], beam=3, max_length=6, copies=copies[:1])
    ids = np.array([[1, *found[0].ids, 2]])
    batch = Batch(source[:1], LENGTHS[:1], ids, np.array([ids.shape[1]]), None, copies[:1])
    log_p, _, p_gen, copied = both.force_copying(batch)
    parts = [model.force_copying(batch) for model in (one, other)]
    np.testing.assert_allclose(np.exp(log_p), np.mean([np.exp(part[0]) for part in parts], 0), rtol=1e-12)
    np.testing.assert_allclose(p_gen, np.mean([part[2] for part in parts], 0), rtol=1e-12)
    written = np.mean([np.exp(part[0]) * part[3] for part in parts], 0)
    np.testing.assert_allclose(copied, written / np.exp(log_p), rtol=1e-12)
    for same, alone in zip(dhyan.Ensemble([one]).force_copying(batch), one.force_copying(batch), strict=True):
        np.testing.assert_allclose(same, alone, rtol=1e-15)
    plain = Seq2Seq(dataclasses.replace(one.config, copy=False), dtype="float64")
    with pytest.raises(ValueError, match="copy of model 2 is False, expected True of the first"):
        dhyan.Ensemble([one, plain])


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize("change, words", [
    (dict(source="features"), "'features', expected 'tokens'"),
    (dict(attention="none"), "'none', expected a scoring"),
])  # fmt: skip
def test_configurations_that_cannot_copy(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ModelConfig(source_size=5, target_size=6, copy=True, **change)
    with pytest.raises(TypeError, match="copy is 1, expected true or false"):
        ModelConfig(source_size=5, target_size=6, copy=1)


def test_copies_are_checked_before_anything_is_made_of_them() -> None:
    config = config_of()
    model, batch = model_of(config), batch_of(config)
    expected = model.forward(batch)[0]

    def calls(copies: Any, target: Any = None) -> list[Any]:
        changed = dataclasses.replace(batch, copies=copies)
        search = (batch.source, batch.source_lengths)
        return [
            lambda: model.forward(changed), lambda: model.force(changed),
            lambda: model.start(*search, copies=copies), lambda: model.greedy(*search, copies=copies),
            lambda: beam_search(model, *search, copies=copies),
        ]  # fmt: skip

    for call in calls(None):
        with pytest.raises(ValueError, match=r"needs copies .*got none"):
            call()
    far = batch.copies.copy()
    far[2, 1] = config.target_size + 5  # there are five positions, thus at most five own words
    for call in calls(far):
        with pytest.raises(IndexError, match=r"copies\[2, 1\] is 11, expected 0 <= id < 11"):
            call()
    for bad, error, words in (
        (batch.copies[:, :3], ValueError, r"copies has shape \(4, 3\), expected \(4, 5\)"),
        (batch.copies.astype(float), TypeError, "copies has dtype float64, expected .*int64"),
        (batch.copies.tolist(), TypeError, "copies is a list"),
    ):
        with pytest.raises(error, match=words):
            dataclasses.replace(batch, copies=bad)
        for call in calls(batch.copies)[2:3]:
            call()
        with pytest.raises(error, match=words):
            model.greedy(batch.source, batch.source_lengths, copies=bad)
    with pytest.raises(IndexError, match=r"copies\[0, 0\] is -1"):
        dataclasses.replace(batch, copies=np.where(np.arange(5) == 0, -1, batch.copies))
    assert model.forward(batch)[0] == expected


def test_a_target_beyond_the_vocabulary_must_be_in_its_source() -> None:
    config = config_of()
    model, batch = model_of(config), batch_of(config)
    target = batch.target.copy()
    target[2, 3] = 10
    copies = np.minimum(batch.copies, 9)
    wrong = dataclasses.replace(batch, target=np.where(target > 9, target, np.minimum(target, 5)), copies=copies)
    for call in (model.forward, model.force):
        with pytest.raises(IndexError, match=r"target\[2, 3\] is 10, expected 0 <= id < 6"):
            call(wrong)
    plain = Seq2Seq(dataclasses.replace(config, copy=False), dtype="float64")
    with pytest.raises(IndexError, match=r"target\[\d, \d\] is \d, expected 0 <= id < 6"):
        plain.forward(batch)


def test_a_model_without_copying_does_not_look_at_copies() -> None:
    config = dataclasses.replace(config_of(), copy=False)
    model, batch = model_of(config), batch_of(config)
    batch = dataclasses.replace(batch, target=np.minimum(batch.target, 5))
    bare = dataclasses.replace(batch, copies=None)
    assert model.forward(batch)[0] == model.forward(bare)[0]
    assert "copy.weight" not in model.parameters()


def test_empty_batches() -> None:
    config = config_of()
    model = model_of(config)
    empty = np.zeros((0, 3), np.int64)
    batch = Batch(empty, empty[:, 0], empty, empty[:, 0], None, empty)
    loss, model_cache = model.forward(batch, step=1, coverage=1.0, smoothing=0.1)
    assert loss == 0 and not any(g.any() for g in model.backward(model_cache).values())
    assert [a.shape for a in model.force_copying(batch)] == [(0, 2), (0, 2, 3), (0, 2), (0, 2)]
    assert model.greedy(empty, empty[:, 0], copies=empty)[0].shape[0] == 0
    nothing = batch_of(config, (0, 0), (3, 4))
    nothing = dataclasses.replace(nothing, target=np.minimum(nothing.target, 5))
    assert np.isfinite(model.forward(nothing)[0])
    model.backward(model.forward(nothing)[1])
    model.greedy(nothing.source, nothing.source_lengths, 3, copies=nothing.copies)


# ------------------------------------------------------------------------------------------------ text


def test_own_words_get_ids_of_their_own() -> None:
    target = Vocabulary(["paris", "won"], "word")  # ids 4 and 5
    ids, own = copies.copies_of(["zorba", "beat", "milo", "in", "paris", ",", "zorba", "won"], target)
    assert own == ["zorba", "beat", "milo", "in", ","]
    assert ids == [6, 7, 8, 9, 4, 10, 6, 5]
    assert copies.extended_ids(["zorba", "won", "quietly"], target, own) == [6, 5, 3]
    assert copies.extended_tokens([1, 6, 5, 3, 0, 8, 2, 6], target, own) == ["zorba", "won", "<unk>", "milo"]
    assert copies.copies_of([], target) == ([], [])


def test_special_names_in_a_text_are_words() -> None:
    target = Vocabulary(["a"], "word")
    ids, own = copies.copies_of(["<end>", "<unk>", "a"], target)
    assert (ids, own) == ([5, 6, 4], ["<end>", "<unk>"])
    assert copies.extended_tokens(ids, target, own) == ["<end>", "<unk>", "a"]


def test_batches_of_ids_end_copies_with_the_end_symbol() -> None:
    batch = Batch.from_ids([[5, 6], [7]], [[6], []], copies=[[9, 4], [3]])
    assert batch.copies.tolist() == [[9, 4, 2], [3, 2, 0]] and batch.source.tolist() == [[5, 6, 2], [7, 2, 0]]
    with pytest.raises(ValueError, match="copies has other lengths than sources"):
        Batch.from_ids([[5, 6]], [[6]], copies=[[9]])
