"""What `dhyan translate` is asked to put into its outputs: prefixes and phrases, for all lines or one line each."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from dhyan.copying import copies_of
from dhyan.data import scan_file
from dhyan.errors import DataError
from dhyan.translator import Translator


class Wishes:
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
