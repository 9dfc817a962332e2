"""Small models, batches for them, and their dropout masks as the specification reads them."""

from __future__ import annotations

from functools import cache
from typing import Any

import dhyan
import numpy as np
from dhyan import Batch, ModelConfig, Seq2Seq
from dhyan.model.dropout import Dropout
from spec import model as reference

ORDERS = {"bahdanau": ("bahdanau", True), "luong": ("luong", False), "luong, input feeding": ("luong", True)}
# One of each way to read that the core's loop does not know.
STEP_BY_STEP: dict[str, dict[str, Any]] = {
    "two heads": dict(heads=2, hidden=4),
    "predictive": dict(attention="general", window=dhyan.PredictiveWindow(2)),
    "monotonic, two heads": dict(attention="dot", normalize="monotonic", heads=2, hidden=4),
    "location_sensitive": dict(attention="location_sensitive", window=2),
    "coverage": dict(attention="coverage", normalize="sparsemax"),
    "coverage, monotonic": dict(attention="coverage", normalize="monotonic", normalized=True),
}


def config_of(**changes: Any) -> ModelConfig:
    """A tiny configuration; order is a key of ORDERS."""
    values: dict[str, Any] = dict(source_size=5, target_size=6, embedding=3, hidden=2, dropout=0.0, cell="gru")
    values |= changes
    values["order"], values["input_feeding"] = ORDERS[values.get("order", "bahdanau")]
    if values.get("attention") == "location":
        values["max_source"] = 12  # longer than any source here
    return ModelConfig(**values)


def model_of(config: ModelConfig, seed: int = 0, dtype: str = "float64", scale: float = 0.5) -> Seq2Seq:
    """A model whose every parameter is random and not small, biases too."""
    model = Seq2Seq(config, seed=seed, dtype=dtype)
    values = reference.random_parameters(config, np.random.default_rng(seed), scale)
    for name, array in model.parameters().items():
        array[...] = values[name]
    return model


def batch_of(
    config: ModelConfig,
    source_lengths: tuple[int, ...] = (4, 1, 3, 0),
    target_lengths: tuple[int, ...] = (5, 2, 4, 3),
    seed: int = 0,
) -> Batch:
    """Random ids or features everywhere, in the padding too; every third row of the alignment has no links."""
    rng = np.random.default_rng(seed)
    shape = (len(source_lengths), max(source_lengths))
    source = rng.integers(0, config.source_size, shape)
    if config.source == "features":
        source = rng.standard_normal((*shape, config.source_size))
    target = rng.integers(0, config.target_size, (len(target_lengths), max(target_lengths)))
    s, t = np.arange(shape[1]), np.arange(max(target_lengths) - 1)
    rows, columns = t < np.array(target_lengths)[:, None] - 1, s < np.array(source_lengths)[:, None]
    inside = rows[:, :, None] & columns[:, None] & (t % 3 != 2)[:, None]
    links = inside * rng.random(inside.shape)
    alignment = links / np.maximum(links.sum(-1, keepdims=True), 1e-9)
    return Batch(source, np.array(source_lengths), target, np.array(target_lengths), alignment)


@cache
def exact(config: ModelConfig, **losses: float) -> tuple[float, dict[str, np.ndarray]]:
    """Loss and every gradient of model_of(config) on batch_of(config), by complex step; once for all of isa."""
    p, batch = model_of(config).parameters(), batch_of(config)
    slopes = reference.complex_step(lambda a: reference.loss(a, config, batch, **losses), p)
    return float(reference.loss(p, config, batch, **losses)), slopes


def assert_exact(config: ModelConfig, **losses: float) -> None:
    model, (loss, slopes) = model_of(config), exact(config, **losses)
    got, cache = model.forward(batch_of(config), **losses)
    np.testing.assert_allclose(got, loss, rtol=1e-12)
    gradients = model.backward(cache)
    assert gradients.keys() == slopes.keys()
    for name, slope in slopes.items():
        np.testing.assert_allclose(gradients[name], slope, atol=1e-9, rtol=1e-6, err_msg=name)


# ------------------------------------------------------------------------------------------------ bits


def wide_case(**changes: Any) -> tuple[Seq2Seq, Batch]:
    """Large enough that kernels are dealt to threads and rows end anywhere in a tile."""
    sizes = dict(hidden=37 - ("heads" in changes), embedding=21, source_size=50, target_size=77)
    config = config_of(**changes | sizes)
    rng = np.random.default_rng(0)
    batch = batch_of(config, (11, *rng.integers(0, 12, 19)), (13, *rng.integers(2, 14, 19)))
    return model_of(config, dtype="float32", scale=0.3), batch


# ------------------------------------------------------------------------------------------------ dropout


def padded_masks(config: ModelConfig, batch: Batch, seed: int, step: int) -> dict[str, np.ndarray]:
    """The masks of the model as the reference wants them: a row per token becomes (B, S) or one array per step."""
    dropout = Dropout.of(config, seed, step, np.dtype("float64"))
    source = np.arange(batch.source.shape[1]) < batch.source_lengths[:, None]
    target = np.arange(batch.target.shape[1] - 1) < batch.target_lengths[:, None] - 1

    def spread(site: str, where: np.ndarray, width: int, layers: int | None = None) -> np.ndarray:
        """(layers, B, S, width) of a mask of tokens, which is one of the whole sentence or one of each token."""
        first = () if layers is None else (layers,)
        tokens = where.shape if config.variational else (int(where.sum()),)
        mask = dropout.mask(site, (*first, *(tokens[:1] if config.variational else tokens), width))
        out = np.ones((layers or 1, *where.shape, width))
        if mask is not None and config.variational:
            out *= mask.reshape(layers or 1, len(where), 1, width)
        elif mask is not None:
            out[:, where] = mask
        return out

    def types(site: str, size: int, ids: np.ndarray) -> np.ndarray | float:
        mask = dropout.mask(f"{site}, types", (size, 1), config.embedding_dropout)
        return 1.0 if mask is None else mask[ids]

    tokens = config.source == "tokens"
    width = config.embedding if tokens else config.source_size
    masks = {"source embedding": spread("source embedding", source, width)[0]}
    if tokens:
        masks["source embedding"] *= types("source embedding", config.source_size, batch.source)
    for layer in range(config.layers):
        masks[f"encoder {layer}"] = spread(f"encoder {layer}", source, config.memory_size)[0]
        for direction in ("forward", "backward")[: 1 + config.bidirectional]:
            state = dropout.state(f"encoder {layer} {direction}", (batch.size, config.hidden))
            masks |= {} if state is None else {f"encoder {layer} {direction}, state": state}
    states = dropout.state("decoder", (config.layers, batch.size, config.hidden))
    for layer, state in enumerate([] if states is None else states):
        masks[f"decoder layer {layer}, state"] = state
    between = spread("decoder layers", target, config.hidden, config.layers - 1) if config.layers > 1 else []
    words = types("target embedding", config.target_size, batch.target[:, :-1])
    for t in range(target.shape[1]):
        for site in ("target embedding", "readout"):
            of_words = words if site == "target embedding" else np.ones((*target.shape, 1))
            masks[f"{site}, step {t}"] = (spread(site, target, config.embedding)[0] * of_words)[:, t]
        for layer, mask in enumerate(between):
            masks[f"decoder layer {layer}, step {t}"] = mask[:, t]
    return masks
