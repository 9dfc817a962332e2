"""What several commands read: the pairs of a file by the columns and levels of a model, and notes to the user."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dhyan import metrics
from dhyan.cli.parser import UsageError
from dhyan.cli.search import search_options
from dhyan.config import DataConfig
from dhyan.data import Pair, check_links, read_pairs
from dhyan.errors import DataError
from dhyan.folder import load_tables
from dhyan.model import ROUNDED_WEIGHTS
from dhyan.names import unknown_name
from dhyan.search_options import SearchOptions
from dhyan.shortlist import KEPT
from dhyan.translator import Translator, load
from dhyan.unknown import read_dictionary


def read(source: str, target: str | None, data: DataConfig) -> list[Pair]:
    """The pairs of a TSV file, or of a source and a target file; bad lines that are skipped are noted."""
    skipped: list[str] = []
    pairs = read_pairs(source, target, columns=data.columns, bad_lines=data.bad_lines, skipped=skipped, **data.counted)
    note_skipped(source, skipped)
    return pairs


def note_skipped(name: str, skipped: list[str]) -> None:
    """Say on standard error how many lines were left out, and the first of them."""
    if skipped:
        note(f"{name}: {len(skipped)} bad lines skipped, the first: {skipped[0]}")


def check_tokenize(options: argparse.Namespace) -> None:
    """UsageError for a tokenizer that sacreBLEU does not have here."""
    if options.tokenize not in metrics.TOKENIZERS:
        valid = ", ".join(metrics.TOKENIZERS)
        raise UsageError(f"{options.command}: --tokenize is {options.tokenize!r}, expected one of: {valid}")


def model_and_pairs(options: argparse.Namespace, path: str | None) -> tuple[Translator, list[Pair]]:
    """The model, or --ensemble, and the pairs to use it on, read by the columns and levels it was trained with."""
    check_files(options, path)
    translator = load([options.model, *getattr(options, "ensemble", [])])
    data = load_tables(Path(options.model))[2]
    return translator, pairs_for(options, path, data, translator)


def check_files(options: argparse.Namespace, path: str | None) -> None:
    """UsageError unless there is one TSV file, or a source and a target file."""
    if bool(options.source) != bool(options.target) or bool(path) == bool(options.source):
        raise UsageError(f"{options.command}: expected one TSV file, or --source FILE and --target FILE")
    check_bad_lines(options)


def pairs_for(
    options: argparse.Namespace, path: str | None, data: DataConfig, translator: Translator | None = None
) -> list[Pair]:
    """The pairs of the files by these columns and levels; with their gold links where the model reads by them."""
    own = DataConfig.from_dict(data.to_dict() | {"bad_lines": options.bad_lines}, "data")
    name = str(options.source or path)
    pairs = read(name, options.target, own)
    if translator is not None and translator.needs_links:
        check_links(pairs, name, "the model's attention 'oracle' reads by them", **own.counted)
    return pairs


@contextmanager
def located(
    options: argparse.Namespace, path: str | None, translator: Translator, pairs: Sequence[Pair]
) -> Iterator[None]:
    """A DataError for a source or target that the model cannot read names its file and line."""
    try:
        yield
    except DataError:
        for pair in pairs:
            for name, text, read in (
                (options.source or path, pair.source, translator.tokenize),
                (options.target or path, pair.target, translator.tokenize_target),
            ):
                try:
                    read(text)
                except DataError as error:
                    raise DataError(f"{name}:{pair.line}: {error}") from None
        raise


def speed_of(options: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of how a model is loaded; UsageError for what it refuses."""
    if options.weights not in (None, *ROUNDED_WEIGHTS):
        raise UsageError(str(unknown_name(f"{options.command}: --weights", options.weights, ROUNDED_WEIGHTS)))
    if not 0 <= options.shortlist <= KEPT:
        raise UsageError(f"{options.command}: --shortlist is {options.shortlist}, expected 0 to {KEPT}")
    return {"weights": options.weights, "shortlist": options.shortlist}


def search_of(options: argparse.Namespace) -> SearchOptions:
    """What the command line says of decoding; UsageError for what it refuses."""
    try:
        return search_options(options)
    except ValueError as error:
        raise UsageError(f"{options.command}: {error}") from None


def replacement_of(options: argparse.Namespace, translator: Translator) -> bool | dict[str, str]:
    """What --replace-unknown and --dictionary ask for. Errors: DataError for the dictionary."""
    if options.dictionary:
        return read_dictionary(options.dictionary, translator.source_vocab.normalization)
    return bool(options.replace_unknown)


def check_bad_lines(options: argparse.Namespace) -> None:
    """UsageError for a --bad-lines that is neither error nor skip."""
    if options.bad_lines not in ("error", "skip"):
        raise UsageError(f"{options.command}: --bad-lines is {options.bad_lines!r}, expected one of: error, skip")


def note(message: str) -> None:
    """One line on standard error."""
    print(f"dhyan: {message}", file=sys.stderr)
