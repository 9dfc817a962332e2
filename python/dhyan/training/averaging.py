"""Means of weights: of several models (checkpoints of one run, fine-tunings of one model), and of a run's last epochs
while it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dhyan.errors import CheckpointError

from . import checkpoint
from .folder import Loaded, check_same_text, folder_names, load_folder, save_best, start_folder


def average(folders: Sequence[str | os.PathLike[str]], out: str | Path) -> None:
    """Write the folder `out`: the first folder's configuration and vocabularies, and the mean of all weights.

    Each weight is added in float64 in the order given and rounded once. This is for models that went separate ways only
    lately; the mean of runs from different seeds is no model at all, use an ensemble there.
    Errors: TypeError for what is no list of folders; ValueError for no folder; CheckpointError naming folder and part
    where configurations, precision or vocabularies differ, where a folder is damaged, and where `out` holds a model
    already.
    """
    folders = folder_names("average: folders", folders)
    if not isinstance(out, str | os.PathLike):
        raise TypeError(f"average: out is of type {type(out).__name__}, expected the path of a folder to write")
    if checkpoint.has_checkpoint(out, "model.safetensors"):
        raise CheckpointError(f"average: {out} holds a model already, expected a new folder")
    first = load_folder(Path(folders[0]))
    sums = {name: array.astype(np.float64) for name, array in first.model.parameters().items()}
    for folder in folders[1:]:
        loaded = load_folder(Path(folder))
        _check_same(first, loaded, folders[0], folder)
        for name, array in loaded.model.parameters().items():
            sums[name] += array
    for name, array in first.model.parameters().items():
        array[...] = sums[name] / len(folders)
    tables = {"model": first.model.config.to_dict(), "train": first.options.to_dict(), "data": first.data.to_dict()}
    with checkpoint.FolderLock(out):
        start_folder(Path(out), tables, first.source_vocabulary, first.target_vocabulary)
        save_best(Path(out), first.model)


def _check_same(first: Loaded, other: Loaded, known: str, folder: str) -> None:
    expected, got = first.model.config.to_dict(), other.model.config.to_dict()
    for key, value in expected.items():
        if got[key] != value:
            raise CheckpointError(f"average: {key} of {folder} is {got[key]!r}, expected {value!r} as in {known}")
    if other.options.precision != first.options.precision:
        raise CheckpointError(
            f"average: precision of {folder} is {other.options.precision!r}, expected {first.options.precision!r} as "
            f"in {known}"
        )
    check_same_text("average", first, other, known, folder)


_BLOCK = 1 << 16  # elements: the float64 sums of a block stay in the cache, and cost no second copy of the weights


class RecentWeights:
    """The flat weights at the ends of the last N - 1 epochs, to be averaged with those of now.

    mean = (w[e - N + 1] + ... + w[e]) / N, w[e] the weights after epoch e; while fewer epochs are over, the mean of all
    there are. The sum is made in float64, the oldest first, and rounded once. Weights close to the end of a run lie
    around a minimum that their mean is nearer to (Junczys-Dowmunt et al. 2016, Vaswani et al. 2017, who average the
    last checkpoints of a finished run). N = 0 and N = 1: nothing is kept, the mean is the weights themselves.

    Memory: N - 1 times the parameters here, and once more for the mean, which the caller owns.
    """

    def __init__(self, count: int) -> None:
        self._slots = max(count - 1, 0)
        self._past: dict[int, np.ndarray] = {}  # epoch, from 1 -> weights, the oldest first

    def __bool__(self) -> bool:
        """Whether the mean is anything but the weights of now."""
        return self._slots > 0

    def mean(self, now: np.ndarray, out: np.ndarray) -> None:
        """Write into `out` the mean of what is kept and `now`, all flat and of one size."""
        every = [*self._past.values(), now]
        for start in range(0, now.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            out[block] = np.sum([weights[block] for weights in every], axis=0, dtype=np.float64) / len(every)

    def keep(self, epoch: int, now: np.ndarray) -> None:
        """Remember a copy of the weights at the end of this epoch, and forget what the next mean does not need."""
        if self:
            self._past[epoch] = now.copy()
            self._past.pop(epoch - self._slots, None)

    def past(self, over: int, like: np.ndarray) -> dict[str, np.ndarray]:
        """Epoch -> weights that are kept after so many epochs, the oldest first; arrays like this one to be filled
        where none are kept yet.
        """
        for epoch in range(max(1, over - self._slots + 1), over + 1) if self else ():
            self._past.setdefault(epoch, np.empty_like(like))
        return {str(epoch): weights for epoch, weights in self._past.items()}
