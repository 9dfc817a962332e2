"""What arrays must be: their dtype, shape, lengths and ids. Each function returns nothing and raises one line: the
operation, the argument, what was got, what was expected.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def check_dtype(where: str, name: str, array: Any, dtype: npt.DTypeLike) -> None:
    """TypeError unless it is a NumPy array of this dtype; there is no silent cast."""
    dtype = np.dtype(dtype)
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        got = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise TypeError(f"{where}: {name} has type {got}, expected {'an' if dtype.kind == 'i' else 'a'} {dtype} array")


def check_shape(where: str, name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    """ValueError unless it has this shape."""
    if array.shape != shape:
        raise ValueError(f"{where}: {name} has shape {array.shape}, expected {shape}")


def check_lengths(where: str, lengths: Any, B: int, S: int) -> None:
    """TypeError unless lengths is an int64 array, ValueError unless it is (B,) of 0 <= length <= S."""
    check_dtype(where, "lengths", lengths, np.int64)
    if lengths.shape != (B,):
        raise ValueError(f"{where}: lengths has shape {lengths.shape}, expected (B={B},)")
    bad = (lengths < 0) | (lengths > S)
    if bad.any():
        b = int(np.argmax(bad))
        raise ValueError(f"{where}: lengths[{b}] is {lengths[b]}, expected 0 to S={S}")


def check_ids(where: str, name: str, ids: np.ndarray, size: int | None = None) -> None:
    """IndexError at the first id outside 0 <= id < size (None: no upper bound), with its position."""
    bad = ids < 0 if size is None else (ids < 0) | (ids >= size)
    if bad.any():
        position = tuple(int(i) for i in np.argwhere(bad)[0])
        bound = "0 <= id" if size is None else f"0 <= id < {size}"
        raise IndexError(f"{where}: {name}[{', '.join(map(str, position))}] is {ids[position]}, expected {bound}")


def check_mask(where: str, mask: Any, shape: tuple[int, ...]) -> None:
    """TypeError unless mask is a bool array, ValueError unless it broadcasts to shape = (B, T, S)."""
    check_dtype(where, "mask", mask, np.bool_)
    fits = mask.ndim <= 3 and all(n in (1, full) for n, full in zip(mask.shape[::-1], shape[::-1], strict=False))
    if not fits:
        raise ValueError(f"{where}: mask has shape {mask.shape}, expected one that broadcasts to (B, T, S) = {shape}")
