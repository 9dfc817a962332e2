"""The CUDA kernels on the CPU: the sources of cpp/src/cuda, compiled against tests/cuda_emulation, as NumPy ops.

This says whether the kernels compute the right thing whatever order their threads run in; nothing about speed, and
nothing about what only a GPU has (its approximate reciprocal, its memory model).
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
HERE = ROOT / "tests" / "cuda_emulation"
SOURCES = [
    *(ROOT / "cpp" / "src" / "cuda").glob("*.cu"),
    ROOT / "cpp" / "src" / "attention" / "cuda.cpp",
    HERE / "emulation.cpp",
    HERE / "library.cpp",
]
# longjmp between stacks is what fibres are: the fortified one refuses it. Little scratch: most problems run in pieces.
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-w"]
FLAGS += ["-DDHYAN_CUDA_SCRATCH=3000", "-DDHYAN_CUDA_MULTIPROCESSORS=0"]
INCLUDE = [f"-I{HERE}", f"-I{ROOT}/cpp/include", f"-I{ROOT}/cpp/src"]

Array = np.ndarray[Any, Any]
LIBRARY = "libemulated.so"
CODES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 3}


def build(folder: Path) -> Path:
    """The shared library, compiled into the folder."""

    def compile_one(source: Path) -> str:
        out = folder / f"{source.stem}.o"
        subprocess.run([str(COMPILER), *FLAGS, *INCLUDE, "-x", "c++", "-c", source, "-o", out], check=True)
        return str(out)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    library = folder / LIBRARY
    subprocess.run([str(COMPILER), "-shared", *objects, "-o", library], check=True)
    return library


def to_bfloat16(x: Array) -> Array:
    """float32 rounded to the nearest bfloat16, as its 16 bits."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bfloat16(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Emulator:
    """Ops by name; inputs are float64 arrays that are rounded to `dtype` first, results come back as float64."""

    def __init__(self, library: Path, dtype: str = "float32", shift: int = 0, backwards: bool = False) -> None:
        self._call = ctypes.CDLL(str(library)).emulate
        self.dtype, self.shift, self.backwards = dtype, shift, backwards
        self.fail = False

    def rounded(self, x: Array) -> Array:
        """x as the device would see it."""
        return self._decode(self._encode(x, self.dtype), self.dtype)

    @property
    def weight_dtype(self) -> str:
        return "float64" if self.dtype == "float64" else "float32"

    @staticmethod
    def _encode(x: Array, dtype: str) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return to_bfloat16(x) if dtype == "bfloat16" else np.ascontiguousarray(x, dtype)

    @staticmethod
    def _decode(x: Array, dtype: str) -> Array:
        return (from_bfloat16(x) if dtype == "bfloat16" else x).astype(np.float64)

    def __call__(
        self,
        op: str,
        sizes: Sequence[int],
        inputs: Sequence[tuple[Array | None, bool]],
        outputs: Sequence[tuple[tuple[int, ...] | None, bool]],
        *,
        term: str = "product",
        scale: float = 1.0,
        begin: Array | None = None,
        end: Array | None = None,
        mask: Array | None = None,
    ) -> list[Array]:
        """Inputs and output shapes each with whether they are of the weights' dtype; None is an absent argument."""
        kinds = [self.weight_dtype if weight else self.dtype for _, weight in inputs]
        given = [None if x is None else self._encode(x, kind) for (x, _), kind in zip(inputs, kinds, strict=True)]
        out_kinds = [self.weight_dtype if weight else self.dtype for _, weight in outputs]
        results = [
            None if shape is None else np.zeros(shape, np.uint16 if kind == "bfloat16" else kind)
            for (shape, _), kind in zip(outputs, out_kinds, strict=True)
        ]
        pointer = lambda x: None if x is None else x.ctypes.data  # noqa: E731
        bytes_of = lambda x: -1 if x is None else x.nbytes  # noqa: E731
        message = ctypes.create_string_buffer(1000)
        ranges = [None if x is None else np.ascontiguousarray(x, np.int64) for x in (begin, end)]
        strides = (ctypes.c_int64 * 3)(*(mask.strides if mask is not None else (0, 0, 0)))
        status = self._call(
            op.encode(),
            CODES[self.dtype],
            (ctypes.c_int64 * 5)(*sizes),
            int(term == "tanh"),
            ctypes.c_double(scale),
            len(given),
            (ctypes.c_void_p * len(given))(*map(pointer, given)),
            (ctypes.c_int64 * len(given))(*map(bytes_of, given)),
            len(results),
            (ctypes.c_void_p * len(results))(*map(pointer, results)),
            (ctypes.c_int64 * len(results))(*map(bytes_of, results)),
            *(ctypes.c_void_p(pointer(x)) for x in (*ranges, mask)),
            strides,
            ctypes.c_int64(self.shift),
            int(self.backwards),
            int(self.fail),
            message,
        )
        if status:
            raise RuntimeError(message.value.decode())
        return [self._decode(x, kind) for x, kind in zip(results, out_kinds, strict=True) if x is not None]
