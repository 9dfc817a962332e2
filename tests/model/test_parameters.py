"""The shapes of every model's parameters, and their initial values."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import numpy as np
import pytest
from dhyan import ModelConfig, scorings
from dhyan.model.parameters import initial_parameters, parameter_shapes
from dhyan.ops.layers import CELLS, GATES

CONFIG = ModelConfig(source_size=30, target_size=20, embedding=12, hidden=16, layers=2, max_source=11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_parameter_starts_on_a_cache_line(dtype: type) -> None:
    for array in initial_parameters(CONFIG, 0, dtype).values():
        assert array.ctypes.data % 64 == 0 and array.flags.c_contiguous


def test_shapes_follow_the_choices() -> None:
    """Bahdanau's cell reads [y; c], Luong's [y; r] or y alone; readout reads [y; s; c] or [s; c]."""
    E, H = CONFIG.embedding, CONFIG.hidden
    for order, bidirectional, fed, cell in itertools.product(
        ("bahdanau", "luong"), (True, False), (True, False), CELLS
    ):
        config = dataclasses.replace(CONFIG, order=order, bidirectional=bidirectional, input_feeding=fed, cell=cell)
        shapes, D, G = parameter_shapes(config), 2 * H if bidirectional else H, GATES[cell]
        first = E + (D if order == "bahdanau" else E if fed else 0)
        assert shapes["decoder.0.weight_ih"] == (first, G * H) and shapes["decoder.1.weight_ih"] == (H, G * H)
        assert shapes["encoder.0.forward.weight_ih"] == (E, G * H)
        assert shapes["encoder.1.forward.weight_ih"] == (D, G * H)
        assert ("encoder.0.backward.weight_ih" in shapes) == bidirectional
        assert shapes["initial.weight"] == (H, 2 * H * (2 if cell == "lstm" else 1))
        assert shapes["readout.weight"] == (H + D + (E if order == "bahdanau" else 0), E)
        assert shapes["output.weight"] == (E, 20) and shapes["output.bias"] == (20,)
        assert shapes["source_embedding"] == (30, E) and shapes["target_embedding"] == (20, E)


def test_feature_vectors_need_no_source_embedding() -> None:
    shapes = parameter_shapes(dataclasses.replace(CONFIG, source="features", cell="rnn"))
    assert "source_embedding" not in shapes and shapes["encoder.0.forward.weight_ih"] == (30, CONFIG.hidden)


@pytest.mark.parametrize("attention", scorings())
def test_initial_values_are_a_function_of_config_seed_and_dtype(attention: str) -> None:
    config = dataclasses.replace(CONFIG, attention=attention)
    first, again, other = (initial_parameters(config, seed, np.float64) for seed in (3, 3, 4))
    assert first.flat.tobytes() == again.flat.tobytes() and first.flat.tobytes() != other.flat.tobytes()
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(config)
    single = initial_parameters(config, 3, np.float32)
    assert all((single[name] == first[name].astype(np.float32)).all() for name in first)


def test_the_streams_of_two_parameters_differ() -> None:
    arrays = initial_parameters(CONFIG, 3, np.float64)
    one, other = arrays["encoder.0.forward.weight_ih"], arrays["encoder.0.backward.weight_ih"]
    assert one.shape == other.shape and abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 5 * one.size**-0.5


@pytest.mark.parametrize("cell", CELLS)
def test_biases_are_zero_but_for_the_forget_gate(cell: str) -> None:
    config = dataclasses.replace(CONFIG, cell=cell)
    for name, array in initial_parameters(config, 0, np.float32).items():
        if "bias" not in name.rsplit(".", 1)[-1]:
            continue
        expected = np.zeros(array.shape)
        if cell == "lstm" and name.endswith("bias_ih"):
            expected.reshape(4, -1)[1] = 1  # gates i f g o
        assert (array == expected).all(), name


def uniform_bound(config: ModelConfig, name: str, shape: tuple[int, ...]) -> float:
    """Glorot's sqrt(6 / (in + out)), a gate counted by itself; 1 / sqrt(H) for what feeds a state back."""
    if name.endswith("weight_hh"):
        return shape[0] ** -0.5
    out = shape[1] if len(shape) > 1 else 1
    return math.sqrt(6 / (shape[0] + (out // GATES[config.cell] if name.endswith("weight_ih") else out)))


@pytest.mark.parametrize(
    "change",
    [
        dict(),
        dict(cell="gru", attention="concat"),
        dict(cell="rnn", attention="general"),
        dict(attention="location"),
        dict(attention="location_sensitive"),
        dict(attention="dot", window="predictive:2"),
    ],
)
def test_weights_fill_their_range(change: dict[str, Any]) -> None:
    config = dataclasses.replace(CONFIG, **change)
    checked = 0
    for name, array in initial_parameters(config, 0, np.float64).items():
        if "bias" in name or name.endswith("_embedding") or array.size < 100:
            continue
        bound = uniform_bound(config, name, array.shape)
        assert np.abs(array).max() <= bound, name
        assert np.abs(array).max() > bound * (1 - 10 / array.size), name  # missed with probability e^-10
        assert abs(array.mean()) < 5 * bound / math.sqrt(3 * array.size), name
        checked += 1
    assert checked >= 8


def test_attention_has_what_its_choices_need() -> None:
    H, D = CONFIG.hidden, CONFIG.memory_size
    tanh = {"query": (H, H), "memory": (D, H), "bias": (H,), "v": (H,)}
    for change, expected in (
        (dict(), tanh),
        (dict(heads=4, normalized=True), tanh | {"g": (1,)}),
        (dict(normalize="monotonic"), tanh | {"threshold": (1,)}),
        (dict(window="predictive:2"), tanh | {"window_query": (H, H), "window_v": (H,)}),
        (dict(attention="location"), {"weight": (H, 11)}),
        (dict(attention="coverage"), tanh | {"coverage": (H,)}),
        (dict(attention="location_sensitive"), tanh | {"filters": (15, 10), "location": (10, H)}),
        (dict(attention="oracle"), {}),
    ):
        shapes = parameter_shapes(dataclasses.replace(CONFIG, **change))
        assert {n.split(".")[1]: shape for n, shape in shapes.items() if n.startswith("attention.")} == expected


def test_initial_values_that_have_a_meaning() -> None:
    """Monotonic attention rather moves on than stops; cosines are sharpened."""
    config = dataclasses.replace(CONFIG, attention="cosine", normalize="monotonic")
    arrays = initial_parameters(config, 0, np.float64)
    assert arrays["attention.threshold"] == -1 and arrays["attention.log_sharpness"] == np.log(10)


def test_embeddings_are_standard_normal() -> None:
    table = initial_parameters(dataclasses.replace(CONFIG, source_size=2000), 0, np.float64)["source_embedding"]
    n = table.size
    assert abs(table.mean()) < 5 * n**-0.5 and abs(table.var() - 1) < 5 * (2 / n) ** 0.5


def test_options_change_what_is_there_and_nothing_else() -> None:
    """Gains start at 1, a shared table as small as an output layer; without options nothing has moved."""
    plain = parameter_shapes(CONFIG)
    normal = dataclasses.replace(CONFIG, layer_norm=True)
    more = parameter_shapes(normal)
    gains = {name for name in more if ".gain" in name}
    assert set(more) - set(plain) == gains and len(gains) == 2 * (4 + 2)  # cells: two directions and a decoder, twice
    for name, array in initial_parameters(normal, 0, np.float32).items():
        assert name not in gains or ((array == 1).all() and array.shape == more[name.replace("gain", "bias")])
    tied = dataclasses.replace(CONFIG, source_size=20, tie="all")
    assert set(plain) - set(parameter_shapes(tied)) == {"source_embedding", "output.weight"}
    table = initial_parameters(tied, 0, np.float64)["target_embedding"]
    assert abs(table.std() * CONFIG.embedding**0.5 - 1) < 0.2
    for other in (
        dict(residual=True),
        dict(variational=True),
        dict(recurrent_dropout=0.5),
        dict(embedding_dropout=0.5),
    ):
        assert parameter_shapes(dataclasses.replace(CONFIG, **other)) == plain


@pytest.mark.parametrize("hidden", [10**6, 10**10, 10**30])
def test_more_parameters_than_memory_are_refused(hidden: int) -> None:
    config = ModelConfig(source_size=5, target_size=5, hidden=hidden)
    with pytest.raises(MemoryError, match=r"^empty: an array of .*[0-9]{12}.* exceeds memory$"):
        initial_parameters(config, 0, np.float32)
