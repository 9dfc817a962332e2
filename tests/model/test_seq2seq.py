"""The whole model: loss and every gradient, bits, dropout, configurations, bad input. One file, as model.py is one."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Batch, ModelConfig, Seq2Seq, ops
from dhyan.model.dropout import Dropout
from helpers.models import ORDERS, STEP_BY_STEP, assert_exact, batch_of, config_of, model_of, padded_masks, wide_case
from spec import model as reference

NOT_OF_CONTENT = ["oracle", "location", "location_sensitive", "coverage"]  # half of the depths and widths do for these
GRID = [
    pytest.param(
        dict(cell=cell, order=order, layers=layers, bidirectional=both, attention=attention),
        id=f"{cell}-{order}-{layers}-{'bi' if both else 'uni'}-{attention}",
    )
    for cell, order, layers, both, attention in itertools.product(
        ["rnn", "lstm", "gru"], ORDERS, [1, 2], [True, False], dhyan.scorings()
    )
    if both == (layers == 1) or attention not in NOT_OF_CONTENT
]
SOME = GRID[::11]  # every scoring, cell and order is among them
SCORED = [name for name in dhyan.scorings() if name not in ("none", "uniform", "oracle")]
CONTENT = [name for name in SCORED if name not in NOT_OF_CONTENT]
# What can be chosen beside a scoring; hidden is 4 where the heads would else be a number wide.
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"two heads, {name}": dict(attention=name, heads=2, hidden=4) for name in CONTENT},
    **{f"sparsemax, {name}": dict(attention=name, normalize="sparsemax") for name in SCORED},
    **{f"monotonic, {name}": dict(attention=name, normalize="monotonic") for name in SCORED},
    **{f"predictive, {name}": dict(attention=name, window=f"predictive:{1 + len(name) % 2}") for name in CONTENT},
    "normalized": dict(normalized=True),
    "normalized, location_sensitive": dict(normalized=True, attention="location_sensitive"),
    "normalized, coverage, two layers": dict(normalized=True, attention="coverage", layers=2),
    "normalized, two heads, window": dict(normalized=True, heads=2, hidden=4, window=1),
    "temperature, additive": dict(temperature=0.5),
    "temperature, cosine": dict(attention="cosine", temperature=2.5),
    "temperature, coverage, window": dict(attention="coverage", temperature=0.5, window=1),
    "temperature, monotonic": dict(attention="dot", normalize="monotonic", temperature=1.5),
    "predictive, sparsemax, two heads": dict(
        window=dhyan.PredictiveWindow(2), normalize="sparsemax", heads=2, hidden=4, temperature=0.7
    ),
    "monotonic, two heads, two layers": dict(normalize="monotonic", heads=2, hidden=4, layers=2, bidirectional=False),
    "sparsemax, location_sensitive, window": dict(attention="location_sensitive", normalize="sparsemax", window=2),
    "coverage, features": dict(attention="coverage", source="features", source_size=5),
}
step_by_step = pytest.mark.parametrize("choices", STEP_BY_STEP.values(), ids=STEP_BY_STEP)
CELLS_AND_ORDERS = [pytest.param(dict(cell=c, order=o), id=f"{c}-{o}") for c in ("rnn", "lstm", "gru") for o in ORDERS]


# ------------------------------------------------------------------------------------------------ loss and gradients


@pytest.mark.parametrize("choices", GRID)
def test_loss_and_every_gradient(isa: str, choices: dict[str, Any]) -> None:
    assert_exact(config_of(**choices))


@pytest.mark.parametrize("radius", [0, 1, 2])
@pytest.mark.parametrize("attention", dhyan.scorings())
@pytest.mark.parametrize("order", ORDERS)
def test_windows(order: str, attention: str, radius: int) -> None:
    assert_exact(config_of(order=order, attention=attention, window=dhyan.Window(radius)))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("order", ORDERS)
def test_loss_and_every_gradient_of_variants(order: str, variant: str) -> None:
    cell = ("rnn", "lstm", "gru")[(list(VARIANTS).index(variant) + list(ORDERS).index(order)) % 3]
    assert_exact(config_of(order=order, cell=cell, **VARIANTS[variant]))


@pytest.mark.parametrize("choices", [
    dict(), dict(attention="uniform"), dict(attention="dot", normalize="sparsemax"), *STEP_BY_STEP.values(),
])  # fmt: skip
def test_losses_on_the_weights(choices: dict[str, Any]) -> None:
    """guided and coverage flow through the reader and through the core's own loop, alone and together."""
    for order, cell, guided, coverage in (
        ("bahdanau", "gru", 0.7, 0.9), ("luong", "rnn", 0.7, 0.9), ("luong, input feeding", "lstm", 0.7, 0.9),
        ("bahdanau", "gru", 0.7, 0.0), ("bahdanau", "gru", 0.0, 0.9),
    ):  # fmt: skip
        assert_exact(config_of(order=order, cell=cell, **choices), guided=guided, coverage=coverage)


def test_losses_on_the_weights_are_added_to_that_of_the_tokens() -> None:
    """Every part is linear in its factor, and label smoothing stands beside them."""
    config = config_of(attention="coverage")
    model, batch = model_of(config), batch_of(config)
    plain, more, most = (model.forward(batch, guided=g, coverage=c)[0] for g, c in ((0, 0), (0.5, 0), (0.5, 2.0)))
    doubled = model.forward(batch, guided=1.0, coverage=4.0)[0]
    np.testing.assert_allclose(doubled - plain, 2 * (most - plain), rtol=1e-12)
    assert plain < more < most
    assert_exact(config, smoothing=0.1, guided=0.5, coverage=2.0)


@pytest.mark.parametrize("choices", CELLS_AND_ORDERS)
def test_feature_vectors_as_source(choices: dict[str, Any]) -> None:
    assert_exact(config_of(**choices, source="features", source_size=5))


@pytest.mark.parametrize("choices", CELLS_AND_ORDERS)
def test_label_smoothing(choices: dict[str, Any]) -> None:
    assert_exact(config_of(**choices, layers=2), smoothing=0.1)


@pytest.mark.parametrize("width", reference.SIZES)
@pytest.mark.parametrize("attention, order", [*(("additive", order) for order in ORDERS), ("general", "luong")])
def test_every_width(isa: str, attention: str, order: str, width: int) -> None:
    """Hidden sizes that end anywhere in a vector; the embedding and the vocabularies have other tails."""
    cell = ("rnn", "lstm", "gru")[reference.SIZES.index(width) % 3]
    config = config_of(
        cell=cell, order=order, attention=attention, hidden=width, embedding=width + 2, target_size=width + 5
    )
    model, directions, (loss, slopes) = model_of(config, scale=width**-0.5), *exact_along(config)
    got, cache = model.forward(batch_of(config))
    np.testing.assert_allclose(got, loss, rtol=1e-12)
    for name, gradient in model.backward(cache).items():
        along = (directions[name] * gradient).reshape(len(directions[name]), -1).sum(-1)
        np.testing.assert_allclose(along, slopes[name], atol=1e-9, rtol=1e-6, err_msg=name)


@cache
def exact_along(config: ModelConfig) -> tuple[dict[str, np.ndarray], tuple[float, dict[str, np.ndarray]]]:
    """A random direction a parameter, the loss and its slopes along them."""
    p, batch = model_of(config, scale=config.hidden**-0.5).parameters(), batch_of(config)
    rng = np.random.default_rng(1)
    directions = {name: rng.standard_normal((1, *array.shape)) / array.size**0.5 for name, array in p.items()}
    slopes = reference.complex_step_along(lambda a: reference.loss(a, config, batch), p, directions)
    return directions, (float(reference.loss(p, config, batch)), slopes)


@pytest.mark.parametrize("step", [None, 7])
@pytest.mark.parametrize("choices", CELLS_AND_ORDERS)
def test_central_differences_of_the_model_itself(choices: dict[str, Any], step: int | None) -> None:
    """No reference at all: entries of parameters() edited in place, with and without dropout."""
    config = config_of(**choices, layers=2, dropout=0.3)
    model, batch, rng = model_of(config), batch_of(config), np.random.default_rng(0)
    gradients = model.backward(model.forward(batch, step=step)[1])
    width = 1e-5
    for name, array in model.parameters().items():
        for _ in range(2):
            entry = tuple(rng.integers(0, array.shape))
            before, losses = array[entry], []
            for shift in (width, -width):
                array[entry] = before + shift
                losses.append(model.forward(batch, step=step)[0])
            array[entry] = before
            # truncation is width^2 f'''/6, rounding eps loss/width: both about 1e-10
            slope = (losses[0] - losses[1]) / (2 * width)
            np.testing.assert_allclose(gradients[name][entry], slope, atol=2e-9, err_msg=f"{name}{entry}")


@pytest.mark.parametrize("choices", [*CELLS_AND_ORDERS, *STEP_BY_STEP.values()])
def test_float32_is_float64_up_to_rounding(isa: str, choices: dict[str, Any]) -> None:
    config = config_of(**choices | dict(hidden=14, embedding=7))
    narrow, wide = model_of(config, dtype="float32"), model_of(config)
    wide.flat[...] = narrow.flat
    batch = batch_of(config)
    loss32, cache32 = narrow.forward(batch)
    loss64, cache64 = wide.forward(batch)
    terms = 2 * (config.hidden * 3 + config.embedding) * (batch.source.shape[1] + batch.target.shape[1])
    assert abs(loss32 - loss64) <= 4 * 2**-23 * np.sqrt(terms) * loss64
    expected = wide.backward(cache64)
    for name, gradient in narrow.backward(cache32).items():
        assert gradient.dtype == np.float32
        reference.assert_rounded(gradient, expected[name], terms)


def test_gradient_of_a_sum_of_losses_is_the_weighted_sum() -> None:
    """The mean is over target tokens of the whole batch, not over sentences."""
    config = config_of()
    model, batch = model_of(config), batch_of(config)
    loss, cache = model.forward(batch)
    total, sums = 0.0, {name: 0.0 for name in model.parameters()}
    for i in range(4):
        parts = (getattr(batch, field.name) for field in dataclasses.fields(batch))
        one = Batch(*(None if array is None else array[i : i + 1] for array in parts))
        part, part_cache = model.forward(one)
        total += part * one.target_tokens
        for name, gradient in model.backward(part_cache).items():
            sums[name] = sums[name] + gradient * one.target_tokens
    np.testing.assert_allclose(loss, total / batch.target_tokens, rtol=1e-14)
    for name, gradient in model.backward(cache).items():
        np.testing.assert_allclose(gradient, sums[name] / batch.target_tokens, atol=1e-15, err_msg=name)


# ------------------------------------------------------------------------------------------------ teacher forcing


@pytest.mark.parametrize("choices", [*SOME, *STEP_BY_STEP.values()])
def test_force_gives_log_probabilities_and_weights(choices: dict[str, Any]) -> None:
    config = config_of(**choices)
    model, batch = model_of(config), batch_of(config)
    log_p, weights = model.force(batch)
    given = batch.source, batch.source_lengths, batch.target, batch.alignment
    expected, attended = reference.force(model.parameters(), config, *given, hard=True)
    expected = np.take_along_axis(expected, batch.target[:, 1:, None], -1)[..., 0]
    valid = np.arange(4) < batch.target_lengths[:, None] - 1
    np.testing.assert_allclose(log_p, np.where(valid, expected, 0), atol=1e-13)
    np.testing.assert_allclose(weights, np.where(valid[..., None], attended, 0), atol=1e-14)
    assert not weights[np.broadcast_to((np.arange(4) >= batch.source_lengths[:, None])[:, None], weights.shape)].any()
    if config.normalize != "monotonic":  # which is soft in training, and hard in search and here
        loss, _ = model.forward(batch)
        np.testing.assert_allclose(loss, -log_p.sum() / batch.target_tokens, rtol=1e-14)


@pytest.mark.parametrize("attention", SCORED)
def test_monotonic_decoding_is_hard(attention: str) -> None:
    """Every head takes one position or none, and never goes back; hence none after none."""
    for heads in (1, 2) if attention in CONTENT else (1,):
        config = config_of(attention=attention, normalize="monotonic", hidden=4, heads=heads)
        for seed in range(5):
            model, batch = model_of(config, seed=seed, scale=1.5), batch_of(config, (6, 3, 0), (7, 5, 4))
            _, weights = model.force(batch)
            assert set(np.unique(weights * heads)) <= set(range(heads + 1))
            assert (weights.sum(-1) <= 1).all() and not weights[2].any()
            if heads == 1:
                for rows, steps in zip(weights, batch.target_lengths - 1, strict=True):
                    place = np.where(rows[:steps].any(1), rows[:steps].argmax(1), 6)
                    assert (np.diff(place) >= 0).all()
            np.testing.assert_array_equal(model.greedy(batch.source, batch.source_lengths, 6)[1] * heads % 1, 0)


def assert_bits_of_any_thread_count(model: Seq2Seq, batch: Batch, counts: tuple[int, ...], **losses: float) -> None:
    results = []
    for count in counts:
        dhyan.set_num_threads(count)
        loss, cache = model.forward(batch, step=1, **losses)
        ids, weights = model.greedy(batch.source, batch.source_lengths, 9)
        results.append({"loss": np.float64(loss), "ids": ids, "weights": weights, **model.backward(cache)})
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("choices", CELLS_AND_ORDERS)
def test_tokens_that_repeat_are_computed_once(
    monkeypatch: pytest.MonkeyPatch, isa: str, choices: dict[str, Any], layers: int
) -> None:
    """Their share of the gates is: the loss keeps its bits, gradients are the same sums in another order."""
    config = config_of(**choices, layers=layers, source_size=7, target_size=7)
    model, rng = model_of(config), np.random.default_rng(0)
    lengths, targets = np.array([7, 3, 6]), np.array([5, 8, 2])
    source, target = rng.integers(4, 7, (3, 7)), rng.integers(4, 6, (3, 8))
    batch, found, distinct = Batch(source, lengths, target, targets), [], ops.distinct
    monkeypatch.setattr(ops, "distinct", lambda ids, size: found.append(distinct(ids, size)) or found[-1])
    loss, cache = model.forward(batch)
    gradients = model.backward(cache)
    assert [None if f is None else len(f[0]) for f in found] == [3, 2]
    monkeypatch.setattr(ops, "distinct", lambda ids, size: None)
    plain, cache = model.forward(batch)
    assert loss == plain
    for name, expected in model.backward(cache).items():
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-11, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("choices", CELLS_AND_ORDERS[::2])
@pytest.mark.parametrize("attention", ["additive", "general"])
def test_bits_do_not_depend_on_threads(threads: None, isa: str, attention: str, choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices, attention=attention, layers=2, dropout=0.2)
    assert_bits_of_any_thread_count(model, batch, (1, 2, 3, 4, 7, 8, 16))


@step_by_step
def test_bits_of_a_read_outside_the_core_do_not_depend_on_threads(threads: None, choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices, dropout=0.2)
    assert_bits_of_any_thread_count(model, batch, (1, 2, 7), guided=0.5, coverage=0.5)


@pytest.mark.parametrize("choices", [*SOME, *STEP_BY_STEP.values()])
def test_sentence_does_not_depend_on_its_batch_or_padding(isa: str, choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices)
    log_p, weights = model.force(batch)
    ids, attended = model.greedy(batch.source, batch.source_lengths, 9, batch.alignment)
    for i in range(batch.size):
        s, t = max(int(batch.source_lengths[i]), 1), int(batch.target_lengths[i])
        one = Batch(
            batch.source[i : i + 1, :s], batch.source_lengths[i : i + 1],
            batch.target[i : i + 1, :t], batch.target_lengths[i : i + 1], batch.alignment[i : i + 1, : t - 1, :s],
        )  # fmt: skip
        alone_p, alone_weights = model.force(one)
        np.testing.assert_array_equal(alone_p[0], log_p[i, : t - 1])
        np.testing.assert_array_equal(alone_weights[0], weights[i, : t - 1, :s])
        alone_ids, alone_attended = model.greedy(one.source, one.source_lengths, 9, one.alignment)
        steps = alone_ids.shape[1]
        np.testing.assert_array_equal(alone_ids[0], ids[i, :steps])
        assert not ids[i, steps:].any()
        np.testing.assert_array_equal(alone_attended[0], attended[i, :steps, :s])
        assert not attended[i, steps:].any()


@pytest.mark.parametrize("choices", [dict(), *STEP_BY_STEP.values()])
def test_padding_cannot_be_seen(choices: dict[str, Any]) -> None:
    losses = dict(guided=0.5, coverage=0.5)
    for source in ("tokens", "features"):
        config = config_of(source=source, order="luong, input feeding", **choices)
        model, batch = model_of(config), batch_of(config)
        loss, cache = model.forward(batch, **losses)
        expected = model.backward(cache)
        past = np.arange(4) >= batch.source_lengths[:, None]
        changed_source = np.where(past, 0, batch.source) if source == "tokens" else batch.source.copy()
        if source == "features":
            changed_source[past] = np.nan
        changed_target = np.where(np.arange(5) >= batch.target_lengths[:, None], 0, batch.target)
        more = ((0, 0), (0, 2), *(((0, 0),) if source == "features" else ()))
        changed = Batch(
            np.pad(changed_source, more, constant_values=1), batch.source_lengths,
            np.pad(changed_target, ((0, 0), (0, 3))), batch.target_lengths,
            np.pad(batch.alignment, ((0, 0), (0, 3), (0, 2))),
        )  # fmt: skip
        other, cache = model.forward(changed, **losses)
        assert other == loss
        for name, gradient in model.backward(cache).items():
            np.testing.assert_array_equal(gradient, expected[name], err_msg=name)


@pytest.mark.parametrize("choices", [dict(), *STEP_BY_STEP.values()])
def test_cache_may_be_used_again(choices: dict[str, Any]) -> None:
    model, batch = wide_case(**choices)
    cache = model.forward(batch, step=3, guided=0.5, coverage=0.5)[1]
    first = {name: gradient.copy() for name, gradient in model.backward(cache).items()}
    model.backward(model.forward(batch)[1])
    second = model.backward(cache)
    for name, gradient in first.items():
        np.testing.assert_array_equal(gradient, second[name], err_msg=name)


@pytest.mark.parametrize("choices", CELLS_AND_ORDERS)
def test_dropout_stands_where_the_model_says(choices: dict[str, Any]) -> None:
    config = config_of(**choices, layers=2, dropout=0.4)
    model, batch = model_of(config, seed=5), batch_of(config)
    masks = padded_masks(config, batch, seed=5, step=9)
    loss, cache = model.forward(batch, step=9)
    p = model.parameters()
    np.testing.assert_allclose(loss, reference.loss(p, config, batch, masks=masks), rtol=1e-12)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, batch, masks=masks), p)
    for name, gradient in model.backward(cache).items():
        np.testing.assert_allclose(gradient, slopes[name], atol=1e-9, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("choices", [
    dict(attention="additive", heads=2, hidden=4), dict(attention="location_sensitive", dropout=0.3, temperature=0.6),
])  # fmt: skip
def test_monotonic_training_is_noisy(choices: dict[str, Any], order: str) -> None:
    """Standard normal noise on the scores, a function of (seed, step); it is there without dropout too, and only with
    a step. Sentences draw in the order of the reader: the longest target first."""
    config = config_of(**choices, order=order, normalize="monotonic")
    model, batch = model_of(config, seed=5), batch_of(config)
    masks = padded_masks(config, batch, seed=5, step=9) if config.dropout else {}
    steps = batch.target_lengths - 1
    for t in range(steps.max()):
        running = [b for b in np.argsort(-steps, kind="stable") if steps[b] > t]
        noise = Dropout(0.0, 5, 9, np.dtype("float64")).noise(f"alignment {t}", (len(running), config.heads, 1, 4))
        assert noise is not None
        masks[f"alignment, step {t}"] = np.zeros((4, config.heads, 4))
        masks[f"alignment, step {t}"][running] = noise[:, :, 0]
    loss, cache = model.forward(batch, step=9)
    p = model.parameters()
    np.testing.assert_allclose(loss, reference.loss(p, config, batch, masks=masks), rtol=1e-12)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, batch, masks=masks), p)
    for name, gradient in model.backward(cache).items():
        np.testing.assert_allclose(gradient, slopes[name], atol=1e-9, rtol=1e-6, err_msg=name)
    model.forward(batch, step=3)
    assert model.forward(batch, step=9)[0] == loss  # nothing is drawn in an order
    assert len({loss, model.forward(batch, step=10)[0], model.forward(batch)[0]}) == 3


def test_only_monotonic_training_is_noisy() -> None:
    for choices in STEP_BY_STEP.values():
        model, batch = model_of(config := config_of(**choices)), batch_of(config)
        assert (model.forward(batch, step=4)[0] != model.forward(batch)[0]) == (config.normalize == "monotonic")


def test_dropout_is_a_function_of_seed_and_step() -> None:
    config = config_of(dropout=0.5)
    batch = batch_of(config)
    model, same, other = model_of(config, seed=1), model_of(config, seed=1), model_of(config, seed=2)
    other.flat[...] = model.flat
    losses = [model.forward(batch, step=step)[0] for step in range(20)]
    assert losses == [same.forward(batch, step=step)[0] for step in reversed(range(20))][::-1]
    assert len(set(losses)) == 20
    assert not set(losses) & {other.forward(batch, step=step)[0] for step in range(20)}
    plain = model.forward(batch)[0]
    assert plain == other.forward(batch)[0] and plain not in losses
    assert model_of(config_of(dropout=0.0), seed=1).forward(batch, step=3)[0] == plain


# ------------------------------------------------------------------------------------------------ parameters


@pytest.mark.parametrize("choices", [*GRID, *VARIANTS.values()])
def test_names_and_shapes_of_parameters(choices: dict[str, Any]) -> None:
    config = config_of(**choices)
    model = Seq2Seq(config)
    assert {name: array.shape for name, array in model.parameters().items()} == reference.parameter_shapes(config)
    for array in model.parameters().values():
        assert np.shares_memory(array, model.flat) and array.dtype == np.float32 and np.isfinite(array).all()


def test_initial_values_are_a_function_of_the_seed() -> None:
    config = config_of(hidden=9)
    one, same, other = Seq2Seq(config, seed=4), Seq2Seq(config, seed=4), Seq2Seq(config, seed=5)
    np.testing.assert_array_equal(one.flat, same.flat)
    assert (one.flat != other.flat).any()


def test_initial_loss_is_that_of_a_guess() -> None:
    """A fresh model knows nothing: the loss is near log V."""
    config = ModelConfig(source_size=500, target_size=400, embedding=32, hidden=32)
    loss, _ = Seq2Seq(config, seed=0).forward(batch_of(config, (7, 5), (6, 4)))
    assert 0.7 * np.log(400) < loss < 1.4 * np.log(400)


@pytest.mark.parametrize("window", [2**62, 2**63, 2**64])
def test_a_window_wider_than_the_source_is_none(window: int) -> None:
    config = config_of(attention="additive", order="luong")
    batch, results = batch_of(config, (5, 3), (4, 4)), []
    for radius in (None, window):
        model = Seq2Seq(dataclasses.replace(config, window=radius), dtype="float64")
        loss, cache = model.forward(batch)
        ids, _ = model.greedy(batch.source, batch.source_lengths, 5)
        results.append([loss, ids, *model.backward(cache).values()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------------ bad input


def test_lengths_that_change_between_the_passes_are_refused() -> None:
    """The sum is the same, but one sentence is now longer than anything that forward made room for."""
    config = config_of()
    model, batch = Seq2Seq(config), batch_of(config, (5, 5, 5), (4, 4, 4))
    _, cache = model.forward(batch)
    kept = batch.source_lengths.copy()
    batch.source_lengths[:] = 15, 0, 0
    with pytest.raises(ValueError, match="decoder_backward: memory lengths have changed since the forward call"):
        model.backward(cache)
    batch.source_lengths[:] = kept
    model.backward(cache)


@pytest.mark.parametrize("change, words", [
    (dict(hidden=0), "hidden"), (dict(hidden=-1), "hidden"), (dict(layers=0), "layers"),
    (dict(embedding=0), "embedding"),
    (dict(source_size=0), "source_size"), (dict(target_size=0), "target_size"),
    (dict(dropout=1.0), "dropout"), (dict(dropout=-0.1), "dropout"), (dict(dropout=float("nan")), "dropout"),
    (dict(heads=0), "heads"), (dict(window=-1), "radius|window"),
    (dict(cell="lstn"), r"'lstn'.*: '?lstm"), (dict(order="bahdanu"), r"'bahdanu'.*: '?bahdanau"),
    (dict(attention="aditive"), r"'aditive'.*: '?additive"), (dict(attention="scaled"), r"'scaled'.*: '?scaled_dot"),
    (dict(source="feature"), r"'feature'.*: '?features"), (dict(normalize="sofmax"), r"'sofmax'.*: '?softmax"),
])  # fmt: skip
def test_bad_configurations(change: dict[str, Any], words: str) -> None:
    good = dict(source_size=6, target_size=7)
    with pytest.raises(ValueError, match=words) as caught:
        ModelConfig(**(good | change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [
    dict(hidden=2.0), dict(hidden="3"), dict(layers=True), dict(dropout="0"), dict(bidirectional=1), dict(window=1.5),
])  # fmt: skip
def test_configurations_of_wrong_types(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=next(iter(change)) if "window" not in change else "radius"):
        ModelConfig(**(dict(source_size=6, target_size=7) | change))


@pytest.mark.parametrize(
    "side, position, bad", [("source", (2, 1), 5), ("target", (0, 3), 6), ("target", (1, 1), 2**40)]
)
def test_ids_outside_the_vocabulary_are_named(side: str, position: tuple[int, int], bad: int) -> None:
    config = config_of()
    model, batch = model_of(config), batch_of(config)
    ids = getattr(batch, side).copy()
    ids[position] = bad
    wrong = dataclasses.replace(batch, **{side: ids})
    for call in (model.forward, model.force):
        with pytest.raises(IndexError, match=rf"{side}\[{position[0]}, {position[1]}\] is {bad}"):
            call(wrong)
    if side == "source":
        with pytest.raises(IndexError, match=rf"source\[2, 1\] is {bad}"):
            model.greedy(wrong.source, wrong.source_lengths)
    expected, _ = model_of(config).forward(batch)
    assert model.forward(batch)[0] == expected  # the next good call is right


def test_cache_of_another_configuration() -> None:
    batch = batch_of(config_of())
    cache = model_of(config_of()).forward(batch)[1]
    with pytest.raises(ValueError, match="another configuration"):
        model_of(config_of(cell="lstm")).backward(cache)


@pytest.mark.parametrize("lengths, error", [
    (np.array([4, 1, 3]), ValueError), (np.array([4, 1, 3, 5]), ValueError), (np.array([4, 1, 3, -1]), ValueError),
    (np.array([4.0, 1.0, 3.0, 0.0]), TypeError),
])  # fmt: skip
def test_greedy_checks_lengths(lengths: np.ndarray, error: type[Exception]) -> None:
    config = config_of()
    with pytest.raises(error, match="length"):
        model_of(config).greedy(batch_of(config).source, lengths)


def test_features_of_the_wrong_width_or_type() -> None:
    config = config_of(source="features", source_size=5)
    model, lengths = model_of(config), np.array([4])
    with pytest.raises(ValueError, match=r"\(1, 4, 6\).*F=5"):
        model.greedy(np.zeros((1, 4, 6)), lengths)
    with pytest.raises(TypeError, match="float32"):
        model.greedy(np.zeros((1, 4, 5), np.float32), lengths)


@pytest.mark.parametrize("choices", [dict(), *STEP_BY_STEP.values()])
def test_empty_batch(choices: dict[str, Any]) -> None:
    config = config_of(**choices)
    empty = np.zeros((0, 3), np.int64)
    batch = Batch(empty, empty[:, 0], empty, empty[:, 0])
    loss, cache = (model := model_of(config)).forward(batch, step=1, coverage=1.0)
    assert loss == 0 and not any(gradient.any() for gradient in model.backward(cache).values())
    assert model.force(batch)[1].shape == (0, 2, 3) and model.greedy(empty, empty[:, 0])[0].shape[0] == 0


@step_by_step
def test_batch_of_empty_sources(choices: dict[str, Any]) -> None:
    """There is nothing to read, but there is a language model."""
    config = config_of(**choices)
    model, batch = model_of(config), batch_of(config, (0, 0), (3, 4))
    loss, cache = model.forward(batch, step=1)
    gradients = model.backward(cache)
    assert np.isfinite(loss) and gradients["output.weight"].any()
    assert not any(array.any() for name, array in gradients.items() if name.startswith(("attention", "encoder")))
    assert model.force(batch)[1].shape == (2, 3, 0) and not model.greedy(batch.source, batch.source_lengths)[1].any()


def test_oracle_needs_an_alignment_of_its_batch() -> None:
    config = config_of(attention="oracle")
    model, batch = model_of(config), batch_of(config)
    bare = dataclasses.replace(batch, alignment=None)
    for call in (model.forward, model.force):
        with pytest.raises(ValueError, match=r"'oracle'.*alignment"):
            call(bare)
    for search in (model.greedy, model.start):
        with pytest.raises(ValueError, match=r"'oracle'.*alignment"):
            search(batch.source, batch.source_lengths)
        for wrong in (batch.alignment[:3], batch.alignment[:1], batch.alignment[..., :3], batch.alignment[0]):
            with pytest.raises(ValueError, match=r"alignment has shape .*expected \(B=4, T, S\), S at least 4"):
                search(batch.source, batch.source_lengths, alignment=wrong)
        with pytest.raises(TypeError, match="alignment is of type list"):
            search(batch.source, batch.source_lengths, alignment=[[[1.0]]])


def test_guided_needs_an_alignment() -> None:
    model, batch = model_of(config := config_of()), batch_of(config)
    with pytest.raises(ValueError, match=r"guided.*alignment"):
        model.forward(dataclasses.replace(batch, alignment=None), guided=1.0)


def test_location_knows_so_many_positions() -> None:
    config = config_of(attention="location")
    model = model_of(config)
    for most, good in ((12, True), (13, False)):
        batch = batch_of(config, (3, most), (4, 4))
        assert batch.source.shape[1] == most
        calls = (model.forward, model.force, lambda b: model.greedy(b.source, b.source_lengths))
        for call in calls:
            if good:
                call(batch)
                continue
            with pytest.raises(ValueError, match="13 positions, expected at most max_source = 12"):
                call(batch)
    with pytest.raises(ValueError, match="max_source"):
        Seq2Seq(dataclasses.replace(config, max_source=0))
