"""What a model folder holds and how it is written and read: config, vocabularies, best and last weights, state."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dhyan import strict_json
from dhyan.errors import CheckpointError, DataError
from dhyan.model.config import ModelConfig
from dhyan.model.parameters import parameter_shapes
from dhyan.model.seq2seq import Seq2Seq
from dhyan.text.config import DataConfig
from dhyan.text.lexicon import Lexicon
from dhyan.text.subword import AnyVocabulary, SubwordVocabulary
from dhyan.text.vocabulary import Vocabulary

from . import checkpoint
from .config import MAX_CONFIG, TABLES, TrainConfig, parse_toml, to_toml
from .optimizer import Optimizer
from .state import Progress

BEST = "model.safetensors"
TRAINING = "training.safetensors"
SHORTLIST = "shortlist.safetensors"
_SINGLE = {"model": "last.safetensors", "optimizer": "optimizer.safetensors"}  # of version 1, with state.json
_RECENT = "recent-"
_RESUMED = ("optimizer", "average", "seed", "precision", "select")  # of [train]: what the state of a run is made for
Tables = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Loaded:
    """A model folder in memory."""

    model: Seq2Seq
    source_vocabulary: AnyVocabulary
    target_vocabulary: AnyVocabulary
    options: TrainConfig
    data: DataConfig


def start_folder(out: Path, tables: Tables, source: AnyVocabulary, target: AnyVocabulary) -> None:
    """Write what does not change during a run. What an older run left is replaced as one set.

    Weights of another model or of other vocabularies are no longer those of the folder: a run that is killed before it
    saves its own must not leave a model of both.
    """
    sides = {vocabulary_file(side, v.level): _contents(v) for side, v in (("source", source), ("target", target))}
    try:
        fits = load_tables(out)[0].to_dict() == tables["model"]
        fits = fits and all(checkpoint.load_file(out, name) == contents for name, contents in sides.items())
    except CheckpointError:  # there is no folder, or nothing of use in it
        fits = False
    files = {"config.toml": to_toml(tables).encode(), **sides}
    checkpoint.save_files(out, files, without=() if fits else (BEST, TRAINING, *_version_1(out)), new=True)


def check_free(out: Path) -> None:
    """DataError where the folder holds a model, or a run to go on with."""
    if {BEST, TRAINING, *_SINGLE.values()} & set(checkpoint.listed(out)):
        raise DataError(
            f"{out} holds a trained model: --resume goes on with it, --overwrite replaces it, or choose another --out"
        )


def _version_1(out: Path) -> list[str]:
    """The files of a run that format version 1 left; none in a folder of version 2."""
    return [
        name for name in checkpoint.listed(out) if name in (*_SINGLE.values(), "state.json") or name.startswith(_RECENT)
    ]


def vocabulary_file(side: str, level: str) -> str:
    """Name of the file that holds the vocabulary of a side, source or target."""
    return f"{side}.{'model' if level == 'subword' else 'vocab'}"


def _contents(vocabulary: AnyVocabulary) -> bytes:
    return vocabulary.model if isinstance(vocabulary, SubwordVocabulary) else vocabulary.to_text().encode()


def save_best(out: Path, model: Seq2Seq) -> None:
    """model.safetensors: the weights that translate."""
    checkpoint.save_files(out, {"model.safetensors": checkpoint.tensors_to_bytes(model.parameters())})


def save_training(
    out: Path,
    model: Seq2Seq,
    optimizer: Optimizer,
    progress: Progress,
    recent: Mapping[str, np.ndarray],
    best: Seq2Seq | None = None,
) -> None:
    """training.safetensors: all that an exact resume needs, as one file; best: the new model.safetensors beside it.

    recent: epoch -> weights, see `averaging.RecentWeights`.
    """
    parts = {"model": model.parameters(), "optimizer": optimizer.state(), "recent": recent}
    tensors = {f"{part}/{name}": array for part, arrays in parts.items() for name, array in arrays.items()}
    state = strict_json.plain({**progress.to_dict(), "optimizer_steps": optimizer.steps})
    files = {TRAINING: checkpoint.tensors_to_bytes(tensors, state)}
    if best is not None:
        files[BEST] = checkpoint.tensors_to_bytes(best.parameters())
    checkpoint.save_files(out, files, without=_version_1(out))


def restore(out: Path, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Fill the arrays from a file of the folder. Errors: CheckpointError where names, shapes or dtypes differ."""
    expected = {key: (array.shape, array.dtype) for key, array in arrays.items()}
    loaded = checkpoint.tensors_from_bytes(checkpoint.load_file(out, name), expected, name=str(out / name))
    for key, array in arrays.items():
        array[...] = loaded[key]


def load_tables(out: Path) -> tuple[ModelConfig, TrainConfig, DataConfig]:
    """The three tables of config.toml. Errors: CheckpointError."""
    name = str(out / "config.toml")
    try:
        tables = parse_toml(checkpoint.load_file(out, "config.toml", limit=MAX_CONFIG).decode(), name)
        tables.setdefault("data", {}).setdefault("tags", "commas")  # folders of before this key split at commas alone
        model, options, data = (
            cls.from_dict(tables.get(title, {}), f"{name}: [{title}]") for title, cls in TABLES.items()
        )
    except (DataError, ValueError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{name}: {error}") from None
    assert isinstance(model, ModelConfig) and isinstance(options, TrainConfig) and isinstance(data, DataConfig)
    return model, options, data


def load_vocabulary(out: Path, side: str, data: DataConfig) -> AnyVocabulary:
    """The vocabulary of a side, source or target. Errors: CheckpointError; ImportError without sentencepiece."""
    level = data.source_level if side == "source" else data.target_level
    name = vocabulary_file(side, level)
    contents = checkpoint.load_file(out, name)
    try:
        if level == "subword":
            return SubwordVocabulary(contents, data.normalization, name=str(out / name))
        vocabulary = Vocabulary.from_text(contents.decode(), str(out / name), data.normalization)
    except (DataError, UnicodeDecodeError) as error:
        raise CheckpointError(str(error) if isinstance(error, DataError) else f"{out / name}: {error}") from None
    if vocabulary.level != level:
        raise CheckpointError(f"{out / name}: holds {vocabulary.level}s, config.toml says {level}")
    return vocabulary


def load_folder(path: str | Path) -> Loaded:
    """The trained model of a folder, every file checked. Errors: CheckpointError naming file and part."""
    out = Path(path)
    config, options, data = load_tables(out)
    source, target = load_vocabulary(out, "source", data), load_vocabulary(out, "target", data)
    for side, size, vocabulary in (("source", config.source_size, source), ("target", config.target_size, target)):
        if size != len(vocabulary):
            name = vocabulary_file(side, vocabulary.level)
            raise CheckpointError(f"{out}: {name} holds {len(vocabulary)} ids, config.toml says {size}")
    # The header of the weights is checked against the configuration before anything of that size is allocated.
    expected = {key: (shape, options.dtype) for key, shape in parameter_shapes(config).items()}
    loaded = checkpoint.tensors_from_bytes(
        checkpoint.load_file(out, "model.safetensors"), expected, name=str(out / "model.safetensors")
    )
    model = Seq2Seq(config, seed=options.seed, dtype=options.dtype)
    for key, array in model.parameters().items():
        array[...] = loaded[key]
    return Loaded(model, source, target, options, data)


def folder_names(where: str, folders: object, expected: str = "a list of folders") -> list[str]:
    """A list of folders as texts; where: operation and argument.

    Errors: TypeError for anything else, ValueError for an empty list.
    """
    if isinstance(folders, str | bytes | os.PathLike) or not isinstance(folders, Iterable):
        raise TypeError(f"{where} is {_kind(folders)}, expected {expected}")
    named, operation = list(folders), where.partition(":")[0]
    for number, one in enumerate(named, 1):
        if not isinstance(one, str | os.PathLike):
            raise TypeError(f"{operation}: folder {number} is {_kind(one)}, expected a path")
    if not named:
        raise ValueError(f"{operation}: got no folder, expected at least one")
    return [os.fspath(one) for one in named]


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def check_same_text(where: str, first: Loaded, other: Loaded, known: str, folder: str) -> None:
    """CheckpointError unless both models read and write the same tokens by the same ids."""
    for name in ("source", "target"):
        expected, got = getattr(first, f"{name}_vocabulary"), getattr(other, f"{name}_vocabulary")
        if got != expected:
            raise CheckpointError(
                f"{where}: the {name} vocabulary of {folder} ({got}) differs from that of {known} ({expected}), "
                "expected the same tokens by the same ids"
            )
    if ("," in first.data.columns) != ("," in other.data.columns):
        raise CheckpointError(
            f"{where}: columns of {folder} are {other.data.columns!r}, expected a source as in {first.data.columns!r} "
            f"of {known}"
        )


def save_lexicon(out: Path, lexicon: Lexicon) -> None:
    """What shortlists are made of, beside the model."""
    arrays = lexicon.arrays() | {"vocabularies": _vocabularies_digest(out)}
    checkpoint.save_files(out, {SHORTLIST: checkpoint.tensors_to_bytes(arrays)})


def load_lexicon(out: Path, config: ModelConfig) -> Lexicon:
    """What `dhyan shortlist` left in the folder.

    Errors: DataError where it left nothing, or where another model was trained there since; CheckpointError.
    """
    how = f"with: dhyan shortlist {out} TRAIN"
    if not checkpoint.has_checkpoint(out, SHORTLIST):
        raise DataError(f"{out}: there is no {SHORTLIST}; make it {how}")
    name = str(out / SHORTLIST)
    arrays = checkpoint.tensors_from_bytes(checkpoint.load_file(out, SHORTLIST), name=name)
    # Of other vocabularies of the same sizes its ids would be other words, and the list a wrong one.
    known, now = arrays.get("vocabularies"), _vocabularies_digest(out)
    if known is None or not np.array_equal(known, now):
        raise DataError(
            f"{name}: it was made for other vocabularies than those that are there now; make it again {how}"
        )
    return Lexicon.of(arrays, config.source_size, config.target_size, name)


def _vocabularies_digest(out: Path) -> np.ndarray:
    """SHA-256 of the vocabularies of both sides."""
    data, digest = load_tables(out)[2], hashlib.sha256()
    for side, level in (("source", data.source_level), ("target", data.target_level)):
        digest.update(hashlib.sha256(checkpoint.load_file(out, vocabulary_file(side, level))).digest())
    return np.frombuffer(digest.digest(), np.uint8)


def load_progress(out: Path) -> Progress:
    """Where the run of a folder stands. Errors: CheckpointError."""
    if checkpoint.has_checkpoint(out, TRAINING) or not checkpoint.has_checkpoint(out, "state.json"):
        where, data = f"{out / TRAINING}: state", checkpoint.load_file(out, TRAINING)
        return Progress.from_dict(checkpoint.metadata_from_bytes(data, name=str(out / TRAINING)), where)
    where = str(out / "state.json")
    return Progress.from_dict(checkpoint.json_object(checkpoint.load_file(out, "state.json"), where), where)


def check_resumable(out: Path, tables: Tables, source: AnyVocabulary, target: AnyVocabulary, now: Progress) -> Progress:
    """The progress of a stopped run that this call goes on with; its changed options are stored.

    now: the progress of a run that begins, whose `run` says on which data and instruction set.
    Errors: CheckpointError in one line where model, vocabularies, data or what the state was made for are not those of
    the stopped run. Another instruction set is only said: it changes the last bits.
    """
    config, options, data = load_tables(out)
    known, new = options.to_dict(), {**options.to_dict(), **tables["train"]}
    before = {**config.to_dict(), **{key: known[key] for key in _RESUMED}}
    for key, value in {**tables["model"], **{key: new[key] for key in _RESUMED}}.items():
        if before[key] != value:
            raise CheckpointError(f"{out}: cannot resume, {key} was {before[key]!r} and is now {value!r}")
    for side, vocabulary in (("source", source), ("target", target)):
        if load_vocabulary(out, side, data) != vocabulary:
            name = vocabulary_file(side, vocabulary.level)
            raise CheckpointError(f"{out}: cannot resume, {name} differs from that of the training data")
    progress = load_progress(out)
    if progress.batch and known["batch"] != new["batch"]:
        raise CheckpointError(
            f"{out}: cannot resume inside an epoch, batch was {known['batch']} and is now {new['batch']}"
        )
    for what, value in now.run.items():
        earlier = progress.run.get(what, value)  # a run of format version 1 does not say
        if what == "isa" and earlier != value:
            print(f"{out}: the run used {earlier} and goes on with {value}: other last bits", file=sys.stderr)
        elif earlier != value:
            raise CheckpointError(f"{out}: cannot resume, the {what} are not those of the stopped run")
    progress.run = now.run
    if new["lr"] != known["lr"]:
        progress.lr = new["lr"]
    return progress


def load_training(
    out: Path, model: Seq2Seq, optimizer: Optimizer, progress: Progress, recent: Mapping[str, np.ndarray]
) -> None:
    """Fill weights, moments and recent weights with those of a stopped run. Errors: CheckpointError."""
    parts = {"model": model.parameters(), "optimizer": optimizer.state(), "recent": recent}
    if checkpoint.has_checkpoint(out, TRAINING):
        arrays = {f"{part}/{name}": array for part, named in parts.items() for name, array in named.items()}
        restore(out, TRAINING, arrays)
    else:
        for part, name in _SINGLE.items():
            restore(out, name, parts[part])
        files = max(load_tables(out)[1].average - 1, 1)  # that took turns
        for epoch, array in recent.items():
            restore(out, f"{_RECENT}{int(epoch) % files}.safetensors", {epoch: array})
    optimizer.steps = progress.optimizer_steps


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or where those are equal the paths as they were given."""
    short = [Path(path).resolve().name for path in paths]
    return short if len(set(short)) == len(short) and all(short) else list(paths)
