"""Attention problems for the emulated CUDA kernels (cuda_emulator.py), and these as a library, compiled once a run."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spec import ops as reference

from helpers.cuda_emulator import LIBRARY, Emulator, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once a run: pytest's workers have a folder together, and the first to come compiles into it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return build(tmp_path_factory.mktemp("cuda"))
    folder = tmp_path_factory.getbasetemp().parent / "cuda"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        compiled = folder / LIBRARY
        return compiled if compiled.exists() else build(folder)


def close(got: np.ndarray, want: np.ndarray, tolerance: float, scale: float | None = None) -> None:
    """Relative error in norm; NaN, as in an element that was not written, is far."""
    assert got.shape == want.shape
    norm = np.linalg.norm(want) if scale is None else scale
    error = np.linalg.norm(got - want)
    assert error <= tolerance * max(norm, 1e-30), f"{error / max(norm, 1e-30):.3g}"


class Problem:
    """One attention problem, rounded to what the device sees, with the ops of both sides."""

    def __init__(self, emulator: Emulator, sizes: tuple[int, ...], term: str, seed: int, spread: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        B, T, S, H, D = sizes
        normal = lambda *n: emulator.rounded(spread * rng.normal(size=n))  # noqa: E731
        self.emulator, self.sizes, self.term, self.scale = emulator, sizes, term, 0.7
        self.q, self.k, self.v, self.dcontext = normal(B, T, H), normal(B, S, H), normal(B, S, D), normal(B, T, D)
        self.w = normal(H) if term == "tanh" else None
        self.dweights = rng.normal(size=(B, T, S)).astype(np.float32).astype(np.float64)
        self.begin = self.end = self.mask = None
        if seed % 2:
            ends = np.sort(rng.integers(0, S + 1, (2, B, T)), axis=0)
            self.begin, self.end = ends[0], ends[1]
        if seed % 3 == 1:
            self.mask = rng.random((B, T, S)) < 0.7
            self.mask[0, 0] = False  # a row with nothing to attend

    @property
    def allowed(self) -> np.ndarray:
        B, T, S, _, _ = self.sizes
        return reference.may_attend((B, T, S), self.begin, self.end, self.mask)

    def call(self, op: str, inputs: Any, outputs: Any, restricted: bool = True) -> list[np.ndarray]:
        may = {"begin": self.begin, "end": self.end, "mask": self.mask} if restricted else {}
        return self.emulator(op, self.sizes, inputs, outputs, term=self.term, scale=self.scale, **may)

    def forward(self, need_weights: bool = True) -> list[np.ndarray]:
        B, T, S, _, D = self.sizes
        inputs = [(self.q, False), (self.k, False), (self.w, False), (self.v, False)]
        return self.call("attention_forward", inputs, [((B, T, D), False), ((B, T, S) if need_weights else None, True)])

    def backward(self, weights: np.ndarray | None, dweights: np.ndarray | None) -> list[np.ndarray]:
        B, T, S, H, D = self.sizes
        inputs = [(self.dcontext, False), (dweights, True), (self.q, False), (self.k, False), (self.w, False)]
        inputs += [(self.v, False), (weights, True)]
        outputs = [((B, T, H), False), ((B, S, H), False), ((B, S, D), False)]
        outputs += [((H,) if self.w is not None else None, False)]
        return self.call("attention_backward", inputs, outputs)

    def want_backward(self, dweights: np.ndarray | float) -> list[np.ndarray]:
        got = reference.attention_backward(
            self.dcontext, dweights, self.q, self.k, self.v, self.w, self.term, self.scale, self.allowed
        )
        return [g for g in got if g is not None]
