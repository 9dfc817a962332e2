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
from safetensors.numpy import load_file

CONFIG = ModelConfig(source_size=4, target_size=4, embedding=6, hidden=8, cell="gru", dropout=0.2)
OPTIONS = dict(batch=4, epochs=3, lr=0.01, patience=50, seed=5)
WEIGHTS = ("model.safetensors", "training.safetensors")


def pairs(count: int, seed: int = 0) -> list[Pair]:
    """Words to be written backwards."""
    rng = np.random.default_rng(seed)
    sentences = [[str(w) for w in rng.choice(list("abcde"), rng.integers(1, 6))] for _ in range(count)]
    return [Pair(" ".join(words), " ".join(reversed(words))) for words in sentences]


TRAIN, VALID = pairs(22), pairs(6, seed=1)  # six batches an epoch, the last one short
BATCHES = 6


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the tensors of each file and part; the state beside them tells the time."""
    found = {}
    for file in WEIGHTS:
        parts: dict[str, Any] = {}
        for name, array in sorted(load_file(folder / file).items()):
            part = f"{file}: {name.partition('/')[0]}" if "training" in file else file
            parts.setdefault(part, hashlib.sha256()).update(name.encode() + array.tobytes())
        found |= {part: digest.hexdigest() for part, digest in parts.items()}
    return found


def train(
    folder: Path,
    resume: bool = False,
    on_step: Any = None,
    on_report: Any = None,
    overwrite: bool = False,
    data: tuple[list[Pair], list[Pair]] = (TRAIN, VALID),
    **changes: Any,
) -> Seq2Seq:
    return dhyan.train(
        CONFIG, *data, out=folder, options=TrainConfig(**(OPTIONS | changes)), resume=resume, overwrite=overwrite,
        on_step=on_step, on_report=on_report,
    )  # fmt: skip


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
