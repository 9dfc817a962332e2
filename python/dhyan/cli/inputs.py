"""Input files of the commands: pairs, prefixes and phrases of outputs, and notes on them to the user."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dhyan import metrics
from dhyan.errors import DataError, unknown_name
from dhyan.model.seq2seq import ROUNDED_WEIGHTS
from dhyan.search.options import SearchOptions
from dhyan.text.config import DataConfig
from dhyan.text.copies import copies_of
from dhyan.text.lexicon import KEPT
from dhyan.text.pairs import BAD_LINES, Pair, check_links, read_pairs, scan_file
from dhyan.training.folder import load_tables
from dhyan.translate.translator import Translator, load
from dhyan.translate.unknown import read_dictionary

from .parser import UsageError, search_options


def read(source: str, target: str | None, data: DataConfig) -> list[Pair]:
    """The pairs of a TSV file, or of a source and a target file; bad lines that are skipped are noted."""
    skipped, notes = list[str](), list[str]()
    pairs = read_pairs(
        source, target, columns=data.columns, tags=data.tags, bad_lines=data.bad_lines, skipped=skipped, notes=notes,
        **data.counted,
    )  # fmt: skip
    for line in notes:
        note(line)
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
    if options.bad_lines not in BAD_LINES:
        raise UsageError(
            f"{options.command}: --bad-lines is {options.bad_lines!r}, expected one of: {', '.join(BAD_LINES)}"
        )


def note(message: str) -> None:
    """One line on standard error."""
    print(f"dhyan: {message}", file=sys.stderr)


class Constraints:
    """The prefix and the phrases of line after line. Errors: DataError naming file and line, or the option.

    What a model that copies can write depends on the line too: it is checked with it, and left out of blank ones.
    """

    def __init__(self, options: argparse.Namespace, translator: Translator) -> None:
        self.translator, self.number = translator, 0
        prefix, self.include = options.prefix or "", list(options.include)
        if not translator.copies:
            for name, texts in (("--prefix", [prefix]), ("--include", self.include)):
                self._check(f"translate: {name}:", texts)
        self.prefixes = self._read(options.prefix_file) if options.prefix_file else itertools.repeat(("", prefix))
        self.phrases = self._read(options.include_file) if options.include_file else itertools.repeat(("", ""))
        self.asks_prefix = bool(options.prefix_file or prefix)
        self.asks_phrases = bool(options.include_file or self.include)

    def of(self, lines: Sequence[str]) -> dict[str, Any]:
        """The arguments of `Translator.translate` for the next lines of input."""
        asked: dict[str, Any] = {}
        first, self.number = self.number + 1, self.number + len(lines)
        if self.asks_prefix:
            prefixes = zip(itertools.islice(self.prefixes, len(lines)), lines, itertools.count(first), strict=False)
            asked["prefix"] = [
                "".join(self._own(f"translate: --prefix: line {number}:", [(where, text)], line))
                for (where, text), line, number in prefixes
            ]
        if self.asks_phrases:
            phrases = zip(itertools.islice(self.phrases, len(lines)), lines, itertools.count(first), strict=False)
            asked["constraints"] = [
                self._own(
                    f"translate: --include: line {number}:",
                    [*(("", text) for text in self.include), *((where, text) for text in texts.split("\t") if text)],
                    line,
                )
                for (where, texts), line, number in phrases
            ]
        return asked

    def _own(self, option: str, asked: list[tuple[str, str]], line: str) -> list[str]:
        """The texts of (where, text), "" for the option, where the model can write them."""
        if self.translator.copies:
            tokens = self.translator.tokenize(line)
            if not tokens:
                return []
            own = copies_of(tokens, self.translator.target_vocab)[1]
            for where, text in asked:
                self._check(where or option, [text], own)
        return [text for _, text in asked]

    def _read(self, path: str) -> Iterator[tuple[str, str]]:
        number = 0
        for line in scan_file(path):
            number, where = line.number, f"{path}:{line.number}:"
            if line.problem:
                raise DataError(f"{where}{'' if line.problem[0].isdigit() else ' '}{line.problem}")
            if not self.translator.copies:
                self._check(where, line.text.split("\t"))
            yield where, line.text
        raise DataError(f"{path}: holds {number} lines, expected one for every line of input")

    def _check(self, where: str, texts: list[str], own: Sequence[str] = ()) -> None:
        for text in texts:
            try:
                self.translator.writable(text, own)
            except DataError as error:
                raise DataError(f"{where} {error}") from None
