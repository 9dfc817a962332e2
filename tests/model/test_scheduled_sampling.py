"""Scheduled sampling: what is read, loss and every gradient with it, and exact resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Batch, ModelConfig, TrainConfig
from dhyan.model.dropout import Dropout
from helpers.models import ORDERS, batch_of, config_of, model_of, padded_masks
from helpers.training import CONFIG, TRAIN, VALID, after, digests, interrupt
from spec import model as reference


def mixture(config: ModelConfig, batch: Batch, p: Any, masks: Any, rate: float, seed: int, step: int) -> np.ndarray:
    """target (B, T+1) with what the reference's first pass would have written at the places that are chosen."""
    log_p, _ = reference.force(p, config, batch.source, batch.source_lengths, batch.target, batch.alignment, masks)
    valid = np.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1
    drawn = Dropout(config.dropout, seed, step, np.dtype("float64")).mask(
        "scheduled sampling", (int(valid.sum()),), rate
    )
    assert drawn is not None
    chosen = np.zeros(valid.shape, bool)
    chosen[valid] = drawn == 0
    chosen[:, 0] = False
    read = batch.target.copy()
    read[:, 1:-1] = np.where(chosen[:, 1:], log_p.argmax(-1)[:, :-1], read[:, 1:-1])
    assert (read != batch.target).any()
    return read


@pytest.mark.parametrize("choices", [
    dict(), dict(dropout=0.3, layers=2), dict(tie="output", variational=True, dropout=0.2), dict(attention="coverage"),
    dict(dropout=0.2, embedding_dropout=0.3, recurrent_dropout=0.2),
])  # fmt: skip
@pytest.mark.parametrize("order", ORDERS)
def test_loss_and_every_gradient(order: str, choices: dict[str, Any]) -> None:
    config = config_of(order=order, cell="lstm", **choices)
    model, batch = model_of(config, seed=5), batch_of(config)
    p = model.parameters()
    read = mixture(config, batch, p, padded_masks(config, batch, seed=5, step=9), 0.6, 5, 9)
    masks = padded_masks(config, dataclasses.replace(batch, target=read), seed=5, step=9)  # of the words that are read
    given = SimpleNamespace(**{f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}, read=read)
    loss, cache = model.forward(batch, step=9, smoothing=0.1, scheduled_sampling=0.6)
    np.testing.assert_allclose(loss, reference.loss(p, config, given, smoothing=0.1, masks=masks), rtol=1e-12)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, given, smoothing=0.1, masks=masks), p)
    for name, gradient in model.backward(cache).items():
        np.testing.assert_allclose(gradient, slopes[name], atol=1e-9, rtol=1e-6, err_msg=name)


def test_it_is_a_function_of_seed_and_step() -> None:
    config = config_of()
    model, batch = model_of(config), batch_of(config)
    losses = [model.forward(batch, step=step, scheduled_sampling=0.5)[0] for step in range(8)]
    assert losses == [model.forward(batch, step=step, scheduled_sampling=0.5)[0] for step in reversed(range(8))][::-1]
    assert len(set(losses)) > 4
    plain = model.forward(batch, step=3)[0]
    assert model.forward(batch, step=3, scheduled_sampling=0.0)[0] == plain


def test_a_perfect_model_reads_the_reference_either_way() -> None:
    """Where the first pass writes the reference, nothing changes: bias the output towards one symbol."""
    config = config_of()
    model = model_of(config)
    model.parameters()["output.bias"][4] = 1e3
    target = np.array([[1, 4, 4, 4, 4, 4]])
    batch = Batch(np.array([[4, 4, 2]]), np.array([3]), target, np.array([6]))
    assert model.forward(batch, step=1, scheduled_sampling=0.9)[0] == model.forward(batch, step=1)[0]


def test_bad_rates() -> None:
    model, batch = model_of(config := config_of()), batch_of(config)
    with pytest.raises(ValueError, match=r"scheduled_sampling is 0\.5 without a step"):
        model.forward(batch, scheduled_sampling=0.5)
    for rate in (1.0, -0.1, np.nan):
        with pytest.raises(ValueError, match=r"scheduled_sampling is .*expected 0 <= scheduled_sampling < 1"):
            model.forward(batch, step=1, scheduled_sampling=rate)
    empty = np.zeros((0, 3), np.int64)
    assert model.forward(Batch(empty, empty[:, 0], empty, empty[:, 0]), step=1, scheduled_sampling=0.5)[0] == 0


def test_it_trains_stops_and_resumes(tmp_path: Path) -> None:
    options = TrainConfig(batch=4, epochs=2, lr=0.01, seed=5, scheduled_sampling=0.5, sampling_ramp=8)
    dhyan.train(CONFIG, TRAIN, VALID, out=tmp_path / "whole", options=options)
    with pytest.raises(KeyboardInterrupt):
        dhyan.train(CONFIG, TRAIN, VALID, out=tmp_path / "parts", options=options, on_step=after(5, interrupt))
    dhyan.train(CONFIG, TRAIN, VALID, out=tmp_path / "parts", options=options, resume=True)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    plain = dataclasses.replace(options, scheduled_sampling=0.0)
    dhyan.train(CONFIG, TRAIN, VALID, out=tmp_path / "plain", options=plain)
    assert digests(tmp_path / "plain") != digests(tmp_path / "whole")
