"""One model whose weights are the mean of those of several: checkpoints of one run, or fine-tunings of one model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from . import checkpoint
from .errors import CheckpointError
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
