"""The parameters of a Seq2Seq: names, shapes and initial values, all of them views into one flat buffer.

One buffer makes the optimiser one pass and a checkpoint one write. Weights are (in, out): y = x @ W + b.

One table may serve for several matrices of words (Press & Wolf 2017, Inan et al. 2017):

    tie = "output"   output.weight = target_embedding^T
    tie = "all"      and source_embedding = target_embedding, for one vocabulary of both sides

The table E (V, width) is the parameter target_embedding. Read as an embedding its rows are multiplied with
sqrt(width) (Vaswani et al. 2017, section 3.4), so that it can start as small as an output layer must. The layers know
nothing of this: they get arrays of the untied names, and their gradients are added up here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from dhyan import ops
from dhyan.ops.layers import CELL_GAINS, CELL_PARAMETERS, GATES

from .config import ModelConfig

_ALIGN = 16  # elements: every parameter starts on a cache line


_Places = list[tuple[str, tuple[int, ...], int, int, int]]  # name, shape, first and last element, and with the gap


class Arrays(dict[str, np.ndarray]):
    """Named arrays that are views into `flat`, in one order; gaps between them are zero."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype | str) -> None:
        offset, places = 0, []
        for name, shape in shapes.items():
            end = offset + math.prod(shape)
            padded = -(-end // _ALIGN) * _ALIGN
            places.append((name, shape, offset, end, padded))
            offset = padded
        self._place(places, offset, np.dtype(dtype), {})

    def _place(self, places: _Places, size: int, dtype: np.dtype, groups: dict[str, list[tuple[str, str]]]) -> None:
        self._places, self._groups = places, groups
        self.flat = flat = ops.empty(size, dtype)
        for name, shape, first, end, padded in places:
            self[name] = flat[first:end].reshape(shape)
            if end < padded:
                flat[end:padded] = 0

    def like(self) -> Arrays:
        """Arrays of the same names and shapes, not initialised."""
        if not self._places:  # made by `beside`
            made = Arrays({name: array.shape for name, array in self.items()}, self.flat.dtype)
            made._groups = self._groups
            return made
        made = Arrays.__new__(Arrays)
        made._place(self._places, self.flat.size, self.flat.dtype, self._groups)
        return made

    def beside(self, others: Mapping[str, np.ndarray]) -> Arrays:
        """The same arrays, with these beside them or in the place of those of the same names, which `flat` has."""
        made = Arrays({}, self.flat.dtype)
        made.update({**self, **others})
        made.flat = self.flat
        return made

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays under `prefix.`, named by what follows it."""
        names = self._groups.get(prefix)
        if names is None:  # found once for all arrays of these names: a training step asks ten times
            names = [(name[len(prefix) + 1 :], name) for name in self if name.startswith(prefix + ".")]
            self._groups[prefix] = names
        return {short: self[name] for short, name in names}


def cell_shapes(cell: str, input_size: int, hidden: int, *, layer_norm: bool = False) -> dict[str, tuple[int, ...]]:
    """weight_ih (I, G*H), weight_hh (H, G*H), bias_ih (G*H), bias_hh (G*H); layer_norm: gain_ih, gain_hh (G*H)."""
    width = GATES[cell] * hidden
    shapes = dict(zip(CELL_PARAMETERS, [(input_size, width), (hidden, width), (width,), (width,)], strict=True))
    return shapes | (dict.fromkeys(CELL_GAINS, (width,)) if layer_norm else {})


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter of the model, from the source to the output."""
    c = config
    E, H, D = c.embedding, c.hidden, c.memory_size
    shapes: dict[str, tuple[int, ...]] = {}
    if c.source == "tokens" and c.tie != "all":
        shapes["source_embedding"] = (c.source_size, E)
    shapes["target_embedding"] = (c.target_size, E)
    for layer in range(c.layers):
        width = (E if c.source == "tokens" else c.source_size) if layer == 0 else D
        for direction in ("forward", "backward") if c.bidirectional else ("forward",):
            for name, shape in cell_shapes(c.cell, width, H, layer_norm=c.layer_norm).items():
                shapes[f"encoder.{layer}.{direction}.{name}"] = shape
    states = c.layers * H * (2 if c.cell == "lstm" else 1)
    shapes["initial.weight"], shapes["initial.bias"] = (H, states), (states,)
    for name, shape in c.plan.shapes().items():
        shapes[f"attention.{name}"] = shape
    fed = D if c.order == "bahdanau" else E if c.input_feeding else 0
    for layer in range(c.layers):
        width = E + fed if layer == 0 else H
        for name, shape in cell_shapes(c.cell, width, H, layer_norm=c.layer_norm).items():
            shapes[f"decoder.{layer}.{name}"] = shape
    read = H + D + (E if c.order == "bahdanau" else 0)
    shapes["readout.weight"], shapes["readout.bias"] = (read, E), (E,)
    if c.tie == "none":
        shapes["output.weight"] = (E, c.target_size)
    shapes["output.bias"] = (c.target_size,)
    if c.copy:
        shapes["copy.weight"], shapes["copy.bias"] = (E, 1), (1,)
    return shapes


def initial_parameters(config: ModelConfig, seed: int, dtype: np.dtype | str) -> Arrays:
    """Initial values, a function of (config, seed, dtype): each parameter draws from its own stream."""
    arrays = Arrays(parameter_shapes(config), dtype)
    for index, (name, array) in enumerate(arrays.items()):
        rng = np.random.Generator(np.random.Philox(key=[seed, index]))
        _initialise(config, name, array, rng)
    return arrays


def _initialise(config: ModelConfig, name: str, array: np.ndarray, rng: np.random.Generator) -> None:
    shape = array.shape
    if name.startswith("attention."):
        array[...] = config.plan.initial(name.removeprefix("attention."), shape, rng)
    elif name.endswith("_embedding"):
        tied = name == "target_embedding" and config.tie != "none"
        spread = shape[1] ** -0.5 if tied else 1.0
        _draw(array, lambda n: rng.normal(0.0, spread, n))
    elif ".gain" in name:
        array[...] = 1.0
    elif ".bias" in name:
        array[...] = 0.0
        if config.cell == "lstm" and name.endswith("bias_ih"):
            hidden = config.hidden
            array[hidden : 2 * hidden] = 1.0  # an open forget gate: gradients reach far from the first step on
    elif name.endswith("weight_hh"):
        _draw(array, lambda n: rng.uniform(-1.0, 1.0, n) * shape[0] ** -0.5)
    else:
        fan_out = shape[1] // GATES[config.cell] if name.endswith("weight_ih") else shape[1]
        bound = (6.0 / (shape[0] + fan_out)) ** 0.5
        _draw(array, lambda n: rng.uniform(-bound, bound, n))


def _draw(array: np.ndarray, draw: Callable[[int], np.ndarray]) -> None:
    """Fills an array with draws, few at a time: a whole embedding in float64 would be the peak of a small training."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, 1 << 16):
        part = flat[first : first + (1 << 16)]
        part[...] = draw(part.size)


def _names(config: ModelConfig) -> tuple[str, ...]:
    return ("target_embedding", "source_embedding") if config.tie == "all" else ("target_embedding",)


def untied(config: ModelConfig, p: Arrays) -> Arrays:
    """What the layers read: p itself, or its arrays beside copies made of the table."""
    if config.tie == "none":
        return p
    table = p["target_embedding"]
    rows = table * table.dtype.type(config.embedding**0.5)
    return p.beside({**dict.fromkeys(_names(config), rows), "output.weight": np.ascontiguousarray(table.T)})


def tied_gradients(config: ModelConfig, written: Arrays, p: Arrays) -> Arrays:
    """The gradients of p from those of the untied names, which are p's own where nothing is tied.

    That of the table is the sum over its uses.
    """
    if config.tie == "none":
        return written
    gradients = p.like()
    for name, array in gradients.items():
        array[...] = written[name]
    total = gradients["target_embedding"]
    for name in _names(config)[1:]:
        total += written[name]
    total *= total.dtype.type(config.embedding**0.5)
    total += written["output.weight"].T
    return gradients
