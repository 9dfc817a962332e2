"""What `dhyan translate` is asked to put into its outputs: prefixes and phrases, for all lines or one line each."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

from dhyan.data import scan_file
from dhyan.errors import DataError
from dhyan.translator import Translator


class Wishes:
    """The prefix and the phrases of line after line. Errors: DataError naming file and line, or the option."""

    def __init__(self, options: argparse.Namespace, translator: Translator) -> None:
        self.translator = translator
        self.prefix, self.include = options.prefix or "", list(options.include)
        for name, texts in (("--prefix", [self.prefix]), ("--include", self.include)):
            self._check(f"translate: {name}:", texts)
        self.prefixes = self._read(options.prefix_file) if options.prefix_file else itertools.repeat(self.prefix)
        self.phrases = self._read(options.include_file) if options.include_file else itertools.repeat("")
        self.asks_prefix = bool(options.prefix_file or self.prefix)
        self.asks_phrases = bool(options.include_file or self.include)

    def of(self, count: int) -> dict[str, Any]:
        """The arguments of `Translator.translate` for the next `count` lines of input."""
        asked: dict[str, Any] = {}
        if self.asks_prefix:
            asked["prefix"] = list(itertools.islice(self.prefixes, count))
        if self.asks_phrases:
            texts = itertools.islice(self.phrases, count)
            asked["constraints"] = [[*self.include, *filter(None, text.split("\t"))] for text in texts]
        return asked

    def _read(self, path: str) -> Iterator[str]:
        number = 0
        for line in scan_file(path):
            number, where = line.number, f"{path}:{line.number}:"
            if line.problem:
                raise DataError(f"{where}{'' if line.problem[0].isdigit() else ' '}{line.problem}")
            self._check(where, line.text.split("\t"))
            yield line.text
        raise DataError(f"{path}: holds {number} lines, expected one for every line of input")

    def _check(self, where: str, texts: list[str]) -> None:
        for text in texts:
            try:
                self.translator.writable(text)
            except DataError as error:
                raise DataError(f"{where} {error}") from None
