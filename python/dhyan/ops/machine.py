"""Threads, instruction sets and number formats of the core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from dhyan import _core


def set_num_threads(n: int) -> None:
    """Use n threads from now on; results do not depend on it, bit for bit. TypeError unless int, ValueError below 1."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"set_num_threads: n is of type {type(n).__name__}, expected an int")
    _core.set_num_threads(int(n))


def get_num_threads() -> int:
    """The number of threads kernels use."""
    return _core.get_num_threads()


def has_bf16() -> bool:
    """Whether `products(True)` works: the CPU has AVX512-BF16, and no instruction set below x86-64-v4 is forced."""
    return _core.has_bf16_products()


@contextmanager
def products(bf16: bool) -> Iterator[None]:
    """Within it matrix products of this thread are rounded to bfloat16 where bf16 is true; sums stay float32.

    Only products whose weights are packed within it; float64 is untouched. ValueError where the CPU has none.
    """
    before = _core.set_bf16_products(bf16)
    try:
        yield
    finally:
        _core.set_bf16_products(before)


def show_config() -> dict[str, Any]:
    """version, isa (in use), isas (built and runnable here), threads, openmp (built with any threads), threading
    ("pool": the core's own, "openmp": a team, "none"), cuda (toolkit or None), cuda_devices."""
    return _core.show_config()


def empty(size: int, dtype: np.dtype | str) -> np.ndarray:
    """An uninitialised flat array from the core's pool: no page faults where one of this size was freed before."""
    if size >= 1 << 63:
        raise MemoryError(f"empty: an array of {size} {np.dtype(dtype)} exceeds memory")
    return _core.empty(size, np.dtype(dtype) == np.float32)
