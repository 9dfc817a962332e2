"""Training that starts from the weights of a model folder and keeps its vocabularies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dhyan.errors import DataError
from dhyan.model.config import ModelConfig
from dhyan.model.parameters import parameter_shapes
from dhyan.model.seq2seq import Seq2Seq
from dhyan.text.config import DataConfig
from dhyan.text.subword import AnyVocabulary

from .folder import load_folder, load_tables, load_vocabulary

SIZES = ("source_size", "target_size", "max_source")  # what the vocabularies and the folder decide


@dataclass(frozen=True)
class Start:
    """A folder to start from: its vocabularies, its model's configuration, and its best weights (None on resume)."""

    source_vocabulary: AnyVocabulary
    target_vocabulary: AnyVocabulary
    config: ModelConfig
    model: Seq2Seq | None

    def write_weights(self, model: Seq2Seq) -> None:
        """Into a new model of the same parameters; another precision is rounded or widened."""
        if self.model is not None:
            for name, array in model.parameters().items():
                array[...] = self.model.parameters()[name]


def start_from(folder: str | Path, config: ModelConfig, data: DataConfig, resumed: Path | None = None) -> Start:
    """What training config's model on data starts from. resumed: the folder of the stopped run to go on with, which
    has weights and vocabularies of its own.

    Whatever does not change the parameters may differ from the folder: dropout, a window, the normaliser.
    Errors: CheckpointError for a damaged folder; DataError, one line, where the parameters or the levels of the
    tokens are not those of the folder.
    """
    if resumed is not None:
        source, target = load_vocabulary(resumed, "source", data), load_vocabulary(resumed, "target", data)
        max_source = load_tables(resumed)[0].max_source
        mine = dataclasses.replace(config, source_size=len(source), target_size=len(target), max_source=max_source)
        return Start(source, target, mine, None)
    loaded = load_folder(folder)
    theirs = loaded.model.config
    mine = dataclasses.replace(config, **{name: getattr(theirs, name) for name in SIZES})
    if parameter_shapes(mine) != parameter_shapes(theirs):
        raise DataError(f"fine_tune: {_difference(mine, theirs)} in {folder}; the weights do not fit another model")
    for name in ("source_level", "target_level", "normalization"):
        if (got := getattr(data, name)) != (known := getattr(loaded.data, name)):
            raise DataError(f"fine_tune: {name} is {got!r}, expected {known!r}, that of the vocabulary in {folder}")
    return Start(loaded.source_vocabulary, loaded.target_vocabulary, mine, loaded.model)


def _difference(mine: ModelConfig, theirs: ModelConfig) -> str:
    """The first key without which the parameters would be the same, or fewer of them differ."""
    a, b = mine.to_dict(), theirs.to_dict()
    different = [name for name in a if a[name] != b[name]]
    shapes = parameter_shapes(theirs)

    def changes(name: str) -> bool:
        try:
            return parameter_shapes(dataclasses.replace(theirs, **{name: getattr(mine, name)})) != shapes
        except ValueError:  # alone it does not fit the rest
            return True

    name = next(filter(changes, different), different[0])
    return f"{name} is {a[name]!r}, expected {b[name]!r} as"
