"""CUDA arrays around the ops: is an array one, a result as its library's own, and what `dhyan.attend` does with them.

The core looks where the first array of a call lies and runs there; `stream` is the caller's, an integer handle; None, 0
and 1 are the legacy default stream. Arrays of other streams are waited for, and results may be used in the order of the
caller's. Only strided inputs are copied.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np

from dhyan import _core

Array = Any  # a CUDA array of any library
R = TypeVar("R")
on_device = _core.on_device


def give(like: Array, result: R) -> R:
    """What the core returned, with CUDA arrays as those of the library that `like`, the call's first input, is from."""
    given: Any = result
    if isinstance(result, tuple):
        given = tuple(give(like, array) for array in result)
    elif isinstance(result, _core.DeviceArray) and not isinstance(like, _core.DeviceArray):
        from_dlpack = _from_dlpack(like)
        given = result if from_dlpack is None else from_dlpack(result)
    return cast("R", given)


def _from_dlpack(like: object) -> Any:
    for kind in type(like).__mro__[:-1]:  # a subclass may be the user's own
        library = sys.modules.get(kind.__module__.split(".")[0].replace("jaxlib", "jax"))
        for place in (getattr(library, "dlpack", None), library):  # jax.dlpack, torch, cupy
            function = getattr(place, "from_dlpack", None)
            if callable(function):
                return function
    namespace = getattr(like, "__array_namespace__", None)
    return getattr(namespace(), "from_dlpack", None) if callable(namespace) else None


class View:
    """A CUDA array under another shape or scaled to unit rows, for `dhyan.attend`."""

    def __init__(self, op: str, name: str, array: Array, stream: int | None) -> None:
        self.like, self.stream = array, stream
        self.array = _core.cuda_import(array, stream, op, name)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    def reshape(self, shape: Sequence[int]) -> View:
        self.array = self.array.reshape(list(shape))
        return self

    def unit_rows(self) -> View:
        self.array = _core.cuda_unit_rows(self.array, self.stream)
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
    arrays: tuple[Any, Any, Any] = (q.array, k.array, v.array)
    mask_there: Any = None if mask is None else _core.cuda_import(mask, q.stream, "attend", "mask")
    outputs: Any = _core.attention_forward(*arrays, None, "product", scale, begin, end, mask_there, True, q.stream)
    context, weights = (give(q.like, a.reshape(list(a.shape[leading:]))) for a in outputs)
    return context, weights


def to_host(op: str, name: str, array: Array, stream: int | None) -> np.ndarray:
    """A small device array (lengths) in CPU memory; waits for the stream."""
    return _core.cuda_import(array, stream, op, name).download(stream)
