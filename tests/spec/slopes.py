"""Reverse-mode slopes of plain NumPy formulas: all gradients of a specification at the price of a few forward passes.

A Taped array takes the place of a real array of any precision. Every operation on it notes where its result came from
and how a slope flows back; `slopes` walks the notes in reverse. Only the operations of spec/attention.py are
known; any other fails loudly. `real` is the bare value: choices look at it, so they carry no slope.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray
Back = Callable[[Array], Array]  # the slope of the result -> the slope of one argument

_counter = itertools.count()


class Taped(np.lib.mixins.NDArrayOperatorsMixin):
    """An array that remembers how it was made."""

    def __init__(self, value: Array, parents: Sequence[tuple[Taped, Back]] = ()) -> None:
        self.real, self.parents, self.number = value, parents, next(_counter)
        self.shape, self.ndim, self.dtype = value.shape, value.ndim, value.dtype

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options or ufunc not in ELEMENTWISE:
            raise NotImplementedError(f"tape: {ufunc.__name__}.{method} {options}")
        values = [bare(x) for x in inputs]
        out = ufunc(*values)
        steepness = ELEMENTWISE[ufunc](out, *values)

        def back(i: int) -> Back:
            return lambda g: narrowed(g * steepness[i], values[i].shape)

        return Taped(out, [(x, back(i)) for i, x in enumerate(inputs) if isinstance(x, Taped)])

    def __array_function__(self, function: Any, types: Any, inputs: Any, options: Any) -> Any:
        if function not in FUNCTIONS:
            raise NotImplementedError(f"tape: {function.__name__}")
        return FUNCTIONS[function](*inputs, **options)

    def __getitem__(self, index: Any) -> Taped:
        def back(g: Array) -> Array:
            whole = np.zeros(self.shape, g.dtype)
            whole[index] = g  # basic indexing only: no place is named twice
            return whole

        return Taped(self.real[index], [(self, back)])

    def reshape(self, *shape: int) -> Taped:
        return Taped(self.real.reshape(*shape), [(self, lambda g: g.reshape(self.shape))])

    def swapaxes(self, a: int, b: int) -> Taped:
        return Taped(self.real.swapaxes(a, b), [(self, lambda g: g.swapaxes(a, b))])

    def sum(self, axis: int, keepdims: bool = False) -> Taped:
        def back(g: Array) -> Array:
            return np.broadcast_to(g if keepdims else np.expand_dims(g, axis), self.shape)

        return Taped(self.real.sum(axis, keepdims=keepdims), [(self, back)])


def bare(x: Any) -> Any:
    """The value. A Python number stays one: it does not widen float32."""
    return x.real if isinstance(x, Taped) else x


def narrowed(g: Array, shape: tuple[int, ...]) -> Array:
    """Undo broadcasting: sum over the axes that were repeated."""
    g = g.sum(tuple(range(g.ndim - len(shape))))
    repeated = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(repeated, keepdims=True) if repeated else g


# ufunc -> (result, arguments) -> the derivative of the result by each argument
ELEMENTWISE: dict[np.ufunc, Callable[..., tuple[Any, ...]]] = {
    np.add: lambda out, x, y: (1, 1),
    np.subtract: lambda out, x, y: (1, -1),
    np.multiply: lambda out, x, y: (y, x),
    np.divide: lambda out, x, y: (1 / y, -out / y),
    np.negative: lambda out, x: (-1,),
    np.exp: lambda out, x: (out,),
    np.tanh: lambda out, x: (1 - out * out,),
    np.sqrt: lambda out, x: (0.5 / out,),
}


def _where(condition: Array, x: Any, y: Any) -> Taped:
    out = np.where(condition, bare(x), bare(y))
    chosen = np.broadcast_to(condition, out.shape)
    parents = []
    if isinstance(x, Taped):
        parents.append((x, lambda g: narrowed(np.where(chosen, g, 0), x.shape)))
    if isinstance(y, Taped):
        parents.append((y, lambda g: narrowed(np.where(chosen, 0, g), y.shape)))
    return Taped(out, parents)


def _einsum(formula: str, *operands: Any) -> Taped:
    names, result = formula.replace("...", "").split("->")  # the axis of many copies is for complex steps
    names_of, values = names.split(","), [bare(x) for x in operands]
    size = {
        letter: n for text, x in zip(names_of, values, strict=True) for letter, n in zip(text, x.shape, strict=True)
    }

    def back(i: int) -> Back:
        others = [(text, x) for j, (text, x) in enumerate(zip(names_of, values, strict=True)) if j != i]
        known = result + "".join(text for text, _ in others)
        # an index that only this operand has was summed away: its slope is the same all along
        others += [(letter, np.ones(size[letter], values[i].dtype)) for letter in names_of[i] if letter not in known]
        reverse = ",".join([result, *(text for text, _ in others)]) + "->" + names_of[i]
        return lambda g: np.einsum(reverse, g, *(x for _, x in others))

    return Taped(
        np.einsum(f"{names}->{result}", *values), [(x, back(i)) for i, x in enumerate(operands) if isinstance(x, Taped)]
    )


def _concatenate(pieces: Sequence[Any], axis: int = 0) -> Taped:
    values = [bare(x) for x in pieces]
    ends = np.cumsum([x.shape[axis] for x in values])

    def back(i: int) -> Back:
        begin = ends[i] - values[i].shape[axis]
        return lambda g: np.take(g, range(begin, ends[i]), axis)

    return Taped(np.concatenate(values, axis), [(x, back(i)) for i, x in enumerate(pieces) if isinstance(x, Taped)])


def _stack(pieces: Sequence[Any], axis: int = 0) -> Taped:
    def back(i: int) -> Back:
        return lambda g: np.take(g, i, axis)

    values = [bare(x) for x in pieces]
    return Taped(np.stack(values, axis), [(x, back(i)) for i, x in enumerate(pieces) if isinstance(x, Taped)])


FUNCTIONS: dict[Any, Callable[..., Taped]] = {
    np.where: _where,
    np.einsum: _einsum,
    np.concatenate: _concatenate,
    np.stack: _stack,
}


def slopes(results: Sequence[tuple[Any, Array]], inputs: Sequence[Taped]) -> list[Array]:
    """Gradients of sum(result * slope) over all (result, slope) by every input; zeros for one that plays no part."""
    flowing: dict[int, Array] = {}
    waiting: dict[int, Taped] = {}

    def arrive(node: Taped, g: Array) -> None:
        flowing[node.number] = flowing[node.number] + g if node.number in flowing else g
        waiting[node.number] = node

    for result, slope in results:
        if isinstance(result, Taped):
            arrive(result, slope)
    done: dict[int, Array] = {}
    while waiting:  # from the last made to the first: all that flows into a node has arrived when its turn comes
        number = max(waiting)
        node, g = waiting.pop(number), flowing.pop(number)
        done[number] = g if not node.parents else done.get(number, g)
        for parent, back in node.parents:
            arrive(parent, back(g))
    return [done.get(x.number, np.zeros(x.shape, x.dtype)) for x in inputs]
