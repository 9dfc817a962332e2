"""The attention ops on CUDA arrays: DLPack in, the core's device side, the same kind of array out. See `ops`.

Every function takes the caller's stream as an integer handle; None, 0 and 1 are the legacy default stream. Arrays of
other streams are waited for, and results may be used in the order of the caller's. Only strided inputs are copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from dhyan import _core

Array = Any  # a CUDA array of any library
_CUDA = (2, 13)  # DLPack's kDLCUDA and kDLCUDAManaged


def on_device(array: object) -> bool:
    """Is this a CUDA array?"""
    if isinstance(array, np.ndarray):
        return False
    device = getattr(array, "__dlpack_device__", None)
    if not callable(device):
        return False
    try:
        return int(device()[0]) in _CUDA
    except (TypeError, ValueError, RuntimeError):
        return False  # whatever it is, the CPU side will say what was expected


class _Call:
    """One op's arrays on their way in and out."""

    def __init__(self, op: str, stream: int | None, first: Array, name: str) -> None:
        if stream is not None and (isinstance(stream, bool) or not isinstance(stream, int | np.integer)):
            raise TypeError(f"{op}: stream is of type {type(stream).__name__}, expected an integer handle or None")
        if stream is not None and stream < 0:
            raise ValueError(f"{op}: stream is {stream}, expected the handle of a stream, 0 or more")
        if _core.show_config()["cuda"] is None:
            raise RuntimeError(f"{op}: {name} is not in CPU memory and this build of dhyan has no CUDA side")
        self.op, self.stream, self.like = op, None if stream is None else int(stream), first

    def take(self, name: str, array: Array | None) -> Any:
        return None if array is None else _core.cuda_import(array, self.stream, self.op, name)

    def take_range(self, name: str, array: Array | None) -> Any:
        """Ranges may stay in CPU memory: they are then checked there and copied."""
        return array if array is None or not on_device(array) else self.take(name, array)

    def give(self, array: Any) -> Any:
        """As an array of the library that the first input came from."""
        if array is None or isinstance(self.like, _core.DeviceArray):
            return array
        from_dlpack = _from_dlpack(self.like)
        return array if from_dlpack is None else from_dlpack(array)


def _from_dlpack(like: object) -> Any:
    for kind in type(like).__mro__[:-1]:  # a subclass may be the user's own
        library = sys.modules.get(kind.__module__.split(".")[0].replace("jaxlib", "jax"))
        for place in (getattr(library, "dlpack", None), library):  # jax.dlpack, torch, cupy
            function = getattr(place, "from_dlpack", None)
            if callable(function):
                return function
    namespace = getattr(like, "__array_namespace__", None)
    return getattr(namespace(), "from_dlpack", None) if callable(namespace) else None


def score_forward(q: Array, k: Array, w: Array | None, term: str, scale: float, stream: int | None) -> Array:
    c = _Call("score_forward", stream, q, "q")
    inputs = c.take("q", q), c.take("k", k), c.take("w", w)
    return c.give(_core.cuda_score_forward(c.stream, *inputs, term, scale))


def score_backward(
    dscores: Array, q: Array, k: Array, w: Array | None, term: str, scale: float, stream: int | None
) -> tuple[Array, Array, Array | None]:
    c = _Call("score_backward", stream, q, "q")
    inputs = c.take("dscores", dscores), c.take("q", q), c.take("k", k), c.take("w", w)
    dq, dk, dw = _core.cuda_score_backward(c.stream, *inputs, term, scale)
    return c.give(dq), c.give(dk), c.give(dw)


def softmax_forward(
    scores: Array, begin: Array | None, end: Array | None, mask: Array | None, stream: int | None
) -> Array:
    c = _Call("softmax_forward", stream, scores, "scores")
    may = c.take_range("begin", begin), c.take_range("end", end), c.take("mask", mask)
    return c.give(_core.cuda_softmax_forward(c.stream, c.take("scores", scores), *may))


def softmax_backward(dweights: Array, weights: Array, stream: int | None) -> Array:
    c = _Call("softmax_backward", stream, weights, "weights")
    return c.give(_core.cuda_softmax_backward(c.stream, c.take("dweights", dweights), c.take("weights", weights)))


def context_forward(weights: Array, v: Array, stream: int | None) -> Array:
    c = _Call("context_forward", stream, weights, "weights")
    return c.give(_core.cuda_context_forward(c.stream, c.take("weights", weights), c.take("v", v)))


def context_backward(dcontext: Array, weights: Array, v: Array, stream: int | None) -> tuple[Array, Array]:
    c = _Call("context_backward", stream, weights, "weights")
    inputs = c.take("dcontext", dcontext), c.take("weights", weights), c.take("v", v)
    dweights, dv = _core.cuda_context_backward(c.stream, *inputs)
    return c.give(dweights), c.give(dv)


def attention_forward(
    q: Array,
    k: Array,
    v: Array,
    w: Array | None,
    term: str,
    scale: float,
    begin: Array | None,
    end: Array | None,
    mask: Array | None,
    need_weights: bool,
    stream: int | None,
) -> tuple[Array, Array | None]:
    c = _Call("attention_forward", stream, q, "q")
    inputs = c.take("q", q), c.take("k", k), c.take("v", v), c.take("w", w)
    may = c.take_range("begin", begin), c.take_range("end", end), c.take("mask", mask)
    context, weights = _core.cuda_attention_forward(c.stream, *inputs, term, scale, *may, need_weights)
    return c.give(context), c.give(weights)


def attention_backward(
    dcontext: Array,
    dweights: Array | None,
    q: Array,
    k: Array,
    v: Array,
    w: Array | None,
    term: str,
    scale: float,
    begin: Array | None,
    end: Array | None,
    mask: Array | None,
    weights: Array | None,
    stream: int | None,
) -> tuple[Array, Array, Array, Array | None]:
    c = _Call("attention_backward", stream, q, "q")
    gradients = c.take("dcontext", dcontext), c.take("dweights", dweights)
    inputs = c.take("q", q), c.take("k", k), c.take("v", v), c.take("w", w)
    may = c.take_range("begin", begin), c.take_range("end", end), c.take("mask", mask)
    kept = c.take("weights", weights)
    dq, dk, dv, dw = _core.cuda_attention_backward(c.stream, *gradients, *inputs, term, scale, *may, kept)
    return c.give(dq), c.give(dk), c.give(dv), c.give(dw)


class View:
    """A CUDA array under another shape or scaled to unit rows, for `dhyan.attend`."""

    def __init__(self, op: str, name: str, array: Array, stream: int | None) -> None:
        self.call = _Call(op, stream, array, name)
        self.array = self.call.take(name, array)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def reshape(self, shape: Sequence[int]) -> View:
        self.array = self.array.reshape(list(shape))
        return self

    def unit_rows(self) -> View:
        self.array = _core.cuda_unit_rows(self.call.stream, self.array)
        return self


def attend(
    q: View,
    k: View,
    v: View,
    scale: float,
    begin: np.ndarray | None,
    end: np.ndarray | None,
    mask: Array | None,
    leading: int,
) -> tuple[Array, Array]:
    """context and weights of product scores, without their first `leading` axes of length 1."""
    c = q.call
    arrays = q.array, k.array, v.array
    context, weights = _core.cuda_attention_forward(
        c.stream, *arrays, None, "product", scale, begin, end, c.take("mask", mask), True
    )
    assert weights is not None  # they were asked for
    outputs = (a.reshape(list(a.shape[leading:])) for a in (context, weights))
    return c.give(next(outputs)), c.give(next(outputs))


def to_host(op: str, name: str, array: Array, stream: int | None) -> np.ndarray:
    """A small device array (lengths) in CPU memory; waits for the stream."""
    c = _Call(op, stream, array, name)
    return c.take(name, array).download(c.stream)
