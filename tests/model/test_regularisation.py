"""Residual layers, tied tables and the kinds of dropout in the whole model: loss and every gradient, bits, training."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Batch, TrainConfig
from dhyan.model.dropout import Dropout
from helpers.models import ORDERS, STEP_BY_STEP, assert_exact, batch_of, config_of, model_of, padded_masks, wide_case
from helpers.training import CONFIG, TRAIN, VALID, after, digests, interrupt
from spec import model as reference

CELLS = ("rnn", "lstm", "gru")
OPTIONS: dict[str, dict[str, Any]] = {
    "residual, 2 layers": dict(residual=True, layers=2),
    "residual, 4 layers, one direction": dict(residual=True, layers=4, bidirectional=False),
    "residual, coverage": dict(residual=True, layers=3, attention="coverage"),
    "layer norm": dict(layer_norm=True, hidden=3),
    "layer norm, residual": dict(layer_norm=True, residual=True, layers=3, attention="general"),
    "layer norm, coverage": dict(layer_norm=True, attention="coverage", layers=2, bidirectional=False),
    "tied output": dict(tie="output"),
    "tied all": dict(tie="all", source_size=6),
    "tied, residual, two heads": dict(tie="all", source_size=6, residual=True, layers=3, heads=2, hidden=4),
}
DROPPED: dict[str, dict[str, Any]] = {
    "variational": dict(variational=True, dropout=0.4),
    "recurrent": dict(recurrent_dropout=0.4),
    "words": dict(embedding_dropout=0.4),
    "all, residual": dict(
        variational=True, dropout=0.3, recurrent_dropout=0.2, embedding_dropout=0.3, residual=True, layers=3
    ),
    "recurrent, plain dropout, tied": dict(recurrent_dropout=0.5, dropout=0.3, layers=2, tie="output"),
    "recurrent, layer norm": dict(recurrent_dropout=0.4, dropout=0.3, layer_norm=True, layers=2),
    "recurrent, two heads": dict(recurrent_dropout=0.5, heads=2, hidden=4, layers=2),
    "features": dict(
        variational=True, dropout=0.4, embedding_dropout=0.4, recurrent_dropout=0.4, source="features", source_size=5
    ),
}


@pytest.mark.parametrize("choices", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("order", ORDERS)
def test_loss_and_every_gradient(isa: str, order: str, choices: dict[str, Any]) -> None:
    cell = CELLS[(list(OPTIONS.values()).index(choices) + list(ORDERS).index(order)) % 3]
    assert_exact(config_of(order=order, cell=cell, **choices))


@pytest.mark.parametrize("choices", DROPPED.values(), ids=DROPPED)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("order", ORDERS)
def test_loss_and_every_gradient_with_dropout(order: str, cell: str, choices: dict[str, Any]) -> None:
    """The masks are those of the model, spread over the padded batch; the formulas are the reference's."""
    config = config_of(order=order, cell=cell, **choices)
    model, batch = model_of(config, seed=5), batch_of(config)
    masks = padded_masks(config, batch, seed=5, step=9)
    loss, cache = model.forward(batch, step=9)
    p = model.parameters()
    np.testing.assert_allclose(loss, reference.loss(p, config, batch, masks=masks), rtol=1e-12)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, batch, masks=masks), p)
    for name, gradient in model.backward(cache).items():
        np.testing.assert_allclose(gradient, slopes[name], atol=1e-9, rtol=1e-6, err_msg=name)
    assert loss != model.forward(batch)[0] and loss == model.forward(batch, step=9)[0]


@pytest.mark.parametrize("choices", OPTIONS.values(), ids=OPTIONS)
def test_steps_of_a_search_agree_with_teacher_forcing(choices: dict[str, Any]) -> None:
    for order in ORDERS:
        config = config_of(order=order, cell="lstm", **choices)
        model, batch = model_of(config), batch_of(config)
        ids, _ = model.greedy(batch.source, batch.source_lengths, 6)
        expected, _ = reference.greedy(model.parameters(), config, batch.source, batch.source_lengths, 6)
        assert [[i for i in row if i] for row in ids.tolist()] == [[i for i in row if i] for row in expected]
        state = model.start(batch.source, batch.source_lengths)
        log_p, _ = model.force(batch)
        sentences = np.arange(batch.size)
        for t in range(2):
            found, _, state = model.advance(state, batch.target[:, t], sentences)
            alive = t < batch.target_lengths - 1
            np.testing.assert_allclose(
                found[sentences, batch.target[:, t + 1]][alive], log_p[alive, t], rtol=1e-12, err_msg=order
            )


@pytest.mark.parametrize("choices", [*OPTIONS.values(), *DROPPED.values()], ids=[*OPTIONS, *DROPPED])
def test_bits_do_not_depend_on_threads(threads: None, choices: dict[str, Any]) -> None:
    changes = {key: value for key, value in choices.items() if key not in ("hidden", "source_size")}
    if choices.get("tie") == "all":
        changes["tie"] = "output"  # the sizes of wide_case differ
    model, batch = wide_case(**{key: value for key, value in changes.items() if key != "source"})  # of tokens
    results = []
    for count in (1, 2, 7):
        dhyan.set_num_threads(count)
        loss, cache = model.forward(batch, step=1)
        results.append((loss, model.backward(cache).flat.copy(), *model.greedy(batch.source, batch.source_lengths, 9)))
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


# ------------------------------------------------------------------------------------------------ masks


def test_variational_masks_are_one_a_sentence() -> None:
    lengths = np.array([3, 0, 5, 1])
    dropout = Dropout(0.4, 1, 2, np.dtype("float64"), variational=True, recurrent=0.3, words=0.5)
    made = dropout.rows("readout", lengths, 7)
    assert made is not None and made.shape == (9, 7)
    ends = np.cumsum(lengths)
    for start, end in zip(ends - lengths, ends, strict=True):
        assert (made[start:end] == made[start : start + 1]).all()
    assert (made[0] != made[3]).any()
    layers = dropout.rows("decoder layers", lengths, 7, 2)
    assert layers is not None and layers.shape == (2, 9, 7) and (layers[0] != layers[1]).any()
    each = dataclasses.replace(dropout, variational=False).rows("readout", lengths, 7)
    assert each is not None and (each[0] != each[1]).any()


def test_embedding_dropout_drops_a_word_everywhere() -> None:
    dropout = Dropout(0.0, 1, 2, np.dtype("float32"), words=0.5)
    ids = np.random.default_rng(0).integers(0, 40, 400)
    made = dropout.embedded("source embedding", ids, 40, np.array([400]), 3)
    assert made is not None and made.shape == (400, 1) and set(np.unique(made)) == {0.0, 2.0}
    for word in range(40):
        assert len(np.unique(made[ids == word])) == 1
    assert 0.2 < (made == 0).mean() < 0.8
    both = dataclasses.replace(dropout, rate=0.5).embedded("source embedding", ids, 40, np.array([400]), 3)
    assert both is not None and both.shape == (400, 3) and not both[made[:, 0] == 0].any()
    assert dataclasses.replace(dropout, words=0.0).embedded("x", ids, 40, np.array([400]), 3) is None


def test_states_have_their_own_rate() -> None:
    dropout = Dropout(0.9, 1, 2, np.dtype("float64"), recurrent=0.25)
    made = dropout.state("decoder", (2, 300, 40))
    assert made is not None and abs((made == 0).mean() - 0.25) < 0.02
    assert dataclasses.replace(dropout, recurrent=0.0).state("decoder", (2, 3, 4)) is None
    assert dataclasses.replace(dropout, step=None).state("decoder", (2, 3, 4)) is None


def test_the_kinds_of_dropout_change_the_loss_and_only_in_training() -> None:
    losses = set()
    for choices in (dict(), dict(dropout=0.3), *list(DROPPED.values())[:3]):
        config = config_of(**choices)
        model, batch = model_of(config), batch_of(config)
        losses.add(model.forward(batch, step=1)[0])
        assert model.forward(batch)[0] == model_of(config_of()).forward(batch)[0]
    assert len(losses) == 5


@pytest.mark.parametrize("choices", STEP_BY_STEP.values(), ids=STEP_BY_STEP)
def test_recurrent_dropout_beside_a_reader(choices: dict[str, Any]) -> None:
    """Central differences: monotonic training is noisy, and its noise does not depend on the parameters."""
    config = config_of(recurrent_dropout=0.5, cell="gru", **choices)
    model, batch, width = model_of(config), batch_of(config), 1e-5
    gradients = model.backward(model.forward(batch, step=3)[1])
    for name in ("decoder.0.weight_hh", "encoder.0.backward.weight_hh", "initial.weight"):
        array, losses = model.parameters()[name], []
        before = array[0, 1]
        for shift in (width, -width):
            array[0, 1] = before + shift
            losses.append(model.forward(batch, step=3)[0])
        array[0, 1] = before
        # truncation is width^2 f'''/6, rounding eps loss/width: both about 1e-10
        np.testing.assert_allclose(gradients[name][0, 1], (losses[0] - losses[1]) / (2 * width), atol=2e-9)


# ------------------------------------------------------------------------------------------------ training


TRAINED: list[dict[str, Any]] = [
    dict(variational=True, recurrent_dropout=0.2, embedding_dropout=0.1),
    dict(residual=True, layers=2, tie="all"),
    dict(layer_norm=True, cell="lstm"),
]


@pytest.mark.parametrize("changes", TRAINED, ids=str)
def test_it_trains_stops_and_resumes(tmp_path: Path, changes: dict[str, Any]) -> None:
    config, options = dataclasses.replace(CONFIG, **changes), TrainConfig(batch=4, epochs=2, lr=0.01, seed=5)
    dhyan.train(config, TRAIN, VALID, out=tmp_path / "whole", options=options)
    with pytest.raises(KeyboardInterrupt):
        dhyan.train(config, TRAIN, VALID, out=tmp_path / "parts", options=options, on_step=after(7, interrupt))
    dhyan.train(config, TRAIN, VALID, out=tmp_path / "parts", options=options, resume=True)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    loaded = dhyan.load(tmp_path / "whole")
    assert loaded.model.config.to_dict() | changes == loaded.model.config.to_dict()
    assert loaded.translate("a b c", beam=3).score < 0


def test_defaults_are_what_they_were() -> None:
    """No option here is on unless asked for."""
    config = config_of()
    assert not (config.variational or config.residual or config.recurrent_dropout or config.embedding_dropout)
    assert config.tie == "none" and TrainConfig().optimizer == "adamw" and not TrainConfig().fine_tune


def test_empty_batches_and_empty_sentences() -> None:
    for choices in (*OPTIONS.values(), *DROPPED.values()):
        config = config_of(**choices)
        empty = np.zeros((0, 3), np.int64)
        source = np.zeros((0, 3, 5)) if config.source == "features" else empty
        loss, cache = (model := model_of(config)).forward(Batch(source, empty[:, 0], empty, empty[:, 0]), step=1)
        assert loss == 0 and not any(gradient.any() for gradient in model.backward(cache).values())
        assert np.isfinite(model.forward(batch_of(config, (0, 0), (3, 4)), step=1)[0])
