"""Lexical constraints: phrases that an output must hold, and how a beam is shared out so that it gets there.

Where each hypothesis stands is a function of what it has written: for every phrase how much of it stands at the end of
the output (Knuth, Morris and Pratt 1977), or all of it once it has been written. Phrases may overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

Standing = tuple[int, ...]  # of each phrase: how many of its tokens are there


class Phrases:
    """The phrases of one sentence, each a sequence of ids; an empty or repeated one is left out."""

    def __init__(self, phrases: Sequence[Sequence[int]]) -> None:
        self.phrases = tuple(dict.fromkeys(tuple(int(i) for i in phrase) for phrase in phrases if len(phrase)))
        self._fallbacks = [_fallback(phrase) for phrase in self.phrases]

    @cached_property
    def size(self) -> int:
        """Tokens of all phrases together."""
        return sum(map(len, self.phrases))

    @property
    def start(self) -> Standing:
        """Before the first token."""
        return (0,) * len(self.phrases)

    def after(self, standing: Standing, token: int) -> Standing:
        """The standing after one more token."""
        return tuple(
            have if have == len(phrase) else _next(phrase, fallback, have, token)
            for phrase, fallback, have in zip(self.phrases, self._fallbacks, standing, strict=True)
        )

    def needs(self, standing: Standing) -> set[int]:
        """The tokens that bring an unfinished phrase further."""
        return {phrase[have] for phrase, have in zip(self.phrases, standing, strict=True) if have < len(phrase)}

    def missing(self, standing: Standing) -> int:
        """Tokens still to write, at most; 0 where every phrase is there. The phrase begun furthest counts as begun."""
        open_ = [(len(p), have) for p, have in zip(self.phrases, standing, strict=True) if have < len(p)]
        return sum(size for size, _ in open_) - max((have for _, have in open_), default=0)


def _fallback(phrase: tuple[int, ...]) -> list[int]:
    """[n]: the longest proper beginning of the phrase that its first n tokens end in."""
    table = [0, 0]
    for token in phrase[1:]:
        have = table[-1]
        while have and phrase[have] != token:
            have = table[have]
        table.append(have + (phrase[have] == token))
    return table


def _next(phrase: tuple[int, ...], fallback: list[int], have: int, token: int) -> int:
    while have and phrase[have] != token:
        have = fallback[have]
    return have + (phrase[have] == token)


def allocate(missing: np.ndarray, size: int, capacity: int) -> np.ndarray:
    """Which candidates of one sentence stay: dynamic beam allocation (Post and Vilar 2018). Indices, in their order.

    missing (n,): tokens of the phrases each still has to write, the candidates best first. Those with equally many
    share a bank; the `size` + 1 banks have equal parts of the capacity, the rest goes to the one furthest on, and so do
    parts that are not filled, then to the next. So a beam of any width gets to the end of its phrases.
    """
    kept = np.zeros(len(missing), dtype=bool)
    share = capacity // (size + 1)
    for bank in range(size + 1):
        part = share + (capacity - share * (size + 1) if bank == 0 else 0)
        kept[np.flatnonzero(missing == bank)[:part]] = True
    order = np.argsort(missing, kind="stable")
    kept[order[~kept[order]][: capacity - kept.sum()]] = True
    return np.flatnonzero(kept)
