"""Short trainings on a tiny corpus: interrupted after so many updates, and compared by digests of their folders."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
from dhyan import ModelConfig, Seq2Seq, TrainConfig
from dhyan.text.pairs import Pair

CONFIG = ModelConfig(source_size=4, target_size=4, embedding=6, hidden=8, cell="gru", dropout=0.2)
OPTIONS = dict(batch=4, epochs=3, lr=0.01, patience=50, seed=5)
WEIGHTS = ("model.safetensors", "last.safetensors", "optimizer.safetensors")


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """Words to be written backwards."""
    rng = np.random.default_rng(seed)
    sentences = [[str(w) for w in rng.choice(list("abcde"), rng.integers(1, 6))] for _ in range(count)]
    return [Pair(" ".join(words), " ".join(reversed(words))) for words in sentences]


TRAIN, VALID = pairs(22), pairs(6, seed=1)  # six batches an epoch, the last one short
BATCHES = 6


def digests(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WEIGHTS}


def train(folder: Path, resume: bool = False, on_step: Any = None, on_report: Any = None, **changes: Any) -> Seq2Seq:
    options = TrainConfig(**(OPTIONS | changes))
    return dhyan.train(
        CONFIG, TRAIN, VALID, out=folder, options=options, resume=resume, on_step=on_step, on_report=on_report
    )


def after(steps: int, act: Callable[[], None]) -> Callable[[int, int, float], None]:
    """An on_step that acts once, right after so many updates."""
    count = 0

    def on_step(step: int, batches: int, loss: float) -> None:
        nonlocal count
        count += 1
        if count == steps:
            act()

    return on_step


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
