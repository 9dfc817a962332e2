"""Named arrays in one flat buffer, and what a part of a model says of each parameter: name, shape, initial value.

One buffer makes the optimiser one pass and a checkpoint one write. Weights are (in, out): y = x @ W + b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from dhyan import ops
from dhyan.attention.scoring import Initial

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


class Parameter(NamedTuple):
    """One parameter of a part."""

    name: str
    shape: tuple[int, ...]
    initial: Initial


def under(prefix: str, parameters: Iterable[tuple[str, tuple[int, ...], Initial]]) -> Iterator[Parameter]:
    """The parameters of a part named `prefix`: `prefix.name`."""
    return (Parameter(f"{prefix}.{name}", shape, initial) for name, shape, initial in parameters)


def constant(value: float) -> Initial:
    """The same number everywhere."""
    return lambda array, rng: array.fill(value)


def normal(spread: float) -> Initial:
    """N(0, spread^2)."""
    return lambda array, rng: _draw(array, lambda n: rng.normal(0.0, spread, n))


def glorot(inputs: int, outputs: int) -> Initial:
    """Uniform within sqrt(6 / (inputs + outputs)) (Glorot & Bengio 2010)."""
    bound = (6.0 / (inputs + outputs)) ** 0.5
    return lambda array, rng: _draw(array, lambda n: rng.uniform(-bound, bound, n))


def recurrent(hidden: int) -> Initial:
    """Uniform within 1 / sqrt(hidden), for what feeds a state back."""
    return lambda array, rng: _draw(array, lambda n: rng.uniform(-1.0, 1.0, n) * hidden**-0.5)


def linear(inputs: int, outputs: int) -> tuple[Parameter, Parameter]:
    """Those of a linear layer: weight (inputs, outputs), bias (outputs) of zeros."""
    weight = Parameter("weight", (inputs, outputs), glorot(inputs, outputs))
    return weight, Parameter("bias", (outputs,), constant(0.0))


def _draw(array: np.ndarray, draw: Callable[[int], np.ndarray]) -> None:
    """Fills an array with draws, few at a time: a whole embedding in float64 would be the peak of a small training."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, 1 << 16):
        part = flat[first : first + (1 << 16)]
        part[...] = draw(part.size)
