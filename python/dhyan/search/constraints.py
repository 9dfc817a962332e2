"""Constraints of a search: banned tokens (end symbol too early, unknown symbol, repeated n-grams), a forced prefix, and
phrases that must stand in the output before it may end (lexical constraints).

How far a hypothesis is with each phrase is a function of what it has written: for every phrase how much of it stands at
the end of the output (Knuth, Morris and Pratt 1977), or all of it once it has been written. Phrases may overlap. A beam
is shared out between hypotheses that have come equally far.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from dhyan.text.vocabulary import END, UNKNOWN

from .options import SearchOptions

Ids = Sequence[int]


@dataclass(frozen=True, eq=False)
class Constraints:
    """Prefix and lexical constraints of each output: it begins with `prefixes[b]`, and holds all of `phrases[b]`."""

    prefixes: list[tuple[int, ...]]
    phrases: list[Phrases]

    @classmethod
    def of(
        cls, prefixes: Sequence[Ids] | None = None, phrases: Sequence[Sequence[Ids]] | None = None
    ) -> Constraints | None:
        """prefixes: ids of each sentence; phrases: lists of ids of each. None where there is neither.

        ValueError for unequal counts and for the end symbol, which both leave out.
        """
        if prefixes is None and phrases is None:
            return None
        B = len(prefixes if prefixes is not None else phrases or ())
        if prefixes is not None and phrases is not None and len(phrases) != B:
            raise ValueError(f"Constraints: phrases of {len(phrases)} sentences, expected {B} as of prefixes")
        constraints = cls(
            [tuple(int(i) for i in prefix) for prefix in prefixes or [()] * B],
            [Phrases(own) for own in phrases or [()] * B],
        )
        for b in range(B):
            for ids in (constraints.prefixes[b], *constraints.phrases[b].phrases):
                if any(i < 0 or i == END for i in ids):
                    raise ValueError(
                        f"Constraints: sentence {b} has the ids {ids}, expected none of the end symbol {END}"
                    )
        return constraints if any(constraints.prefixes) or constraints.constrained else None

    def __len__(self) -> int:
        """The number of sentences."""
        return len(self.prefixes)

    @property
    def constrained(self) -> bool:
        """True where some sentence has a phrase."""
        return any(phrases.size for phrases in self.phrases)

    def take(self, sentences: Sequence[int]) -> Constraints:
        """Those of these sentences."""
        return Constraints([self.prefixes[b] for b in sentences], [self.phrases[b] for b in sentences])

    def steps(self) -> np.ndarray:
        """(B,) steps that suffice for prefix, phrases and end symbol."""
        pairs = zip(self.prefixes, self.phrases, strict=True)
        return np.array([len(prefix) + phrases.size + 1 for prefix, phrases in pairs], np.int64)

    def least(self) -> np.ndarray:
        """(B,) steps without which they have no room even where they overlap."""
        parts = [[prefix, *own.phrases] for prefix, own in zip(self.prefixes, self.phrases, strict=True)]
        return np.array([max(map(len, own)) + 1 for own in parts], np.int64)


class Bans:
    """The tokens that every open hypothesis (row) may not, or must, write next: a function of what it has written."""

    def __init__(self, options: SearchOptions, constraints: Constraints | None, sentence: np.ndarray) -> None:
        self.options, self.constraints = options, constraints
        self.sentence = sentence
        self.written = np.zeros((len(sentence), 0), np.int64)
        self.progress: list[Progress] = [constraints.phrases[b].start for b in sentence] if constraints else []

    # ------------------------------------------------------------ before a step

    def forced(self) -> np.ndarray:
        """(N,) the token that the prefix asks of each row, -1 where it asks none."""
        tokens = np.full(len(self.sentence), -1)
        if self.constraints:
            t = self.written.shape[1]
            for row, b in enumerate(self.sentence):
                if t < len(self.constraints.prefixes[b]):
                    tokens[row] = self.constraints.prefixes[b][t]
        return tokens

    def needed(self) -> list[tuple[int, int]]:
        """(row, token) of what brings a row's phrases further."""
        if not self.constraints:
            return []
        pairs = zip(self.sentence, self.progress, strict=True)
        return [(row, i) for row, (b, s) in enumerate(pairs) for i in sorted(self.constraints.phrases[b].needs(s))]

    def banned(self) -> np.ndarray:
        """(N, K) tokens that each row may not write now, -1 for none."""
        N, t = self.written.shape
        parts = []
        if t < self.options.min_length:
            parts.append(np.full((N, 1), END))
        elif self.constraints:
            parts.append(np.where([self.missing(row) > 0 for row in range(N)], END, -1)[:, None])
        if self.options.no_unknown:
            parts.append(np.full((N, 1), UNKNOWN))
        n = self.options.no_repeat_ngram
        if n and t >= n:
            parts.append(_completions(self.written, n))
        return np.concatenate(parts, axis=1) if parts else np.zeros((N, 0), np.int64)

    # ------------------------------------------------------------ after it

    def missing(self, row: int, token: int | None = None) -> int:
        """Tokens of its phrases that the row (and one more token) still lacks."""
        if not self.constraints:
            return 0
        phrases = self.constraints.phrases[self.sentence[row]]
        progress = self.progress[row]
        return phrases.missing(progress if token is None or token == END else phrases.after(progress, token))

    def shared_out(self, b: int, rows: np.ndarray, tokens: np.ndarray, capacity: int) -> np.ndarray:
        """The candidates of sentence b (best first) that its beam keeps: their indices."""
        size = self.constraints.phrases[b].size if self.constraints else 0
        if not size:
            return np.arange(min(capacity, len(rows)))
        missing = np.array([self.missing(int(r), int(i)) for r, i in zip(rows, tokens, strict=True)])
        return allocate(missing, size, capacity)

    def take(self, rows: np.ndarray, tokens: np.ndarray) -> None:
        """The open rows are now these, each with one more token."""
        self.sentence = self.sentence[rows]
        self.written = np.concatenate([self.written[rows], tokens[:, None]], axis=1)
        if self.constraints:
            extended = zip(self.sentence, rows, tokens, strict=True)
            self.progress = [self.constraints.phrases[b].after(self.progress[r], int(i)) for b, r, i in extended]


def _completions(written: np.ndarray, n: int) -> np.ndarray:
    """(N, t - n + 1): what followed each earlier occurrence of the last n - 1 tokens, -1 where they did not stand."""
    t = written.shape[1]
    same = np.ones((len(written), t - n + 1), dtype=bool)
    for k in range(n - 1):
        same &= written[:, k : t - n + 1 + k] == written[:, t - n + 1 + k, None]
    return np.where(same, written[:, n - 1 :], -1)


Progress = tuple[int, ...]  # of each phrase: how many of its tokens are there


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
    def start(self) -> Progress:
        """Before the first token."""
        return (0,) * len(self.phrases)

    def after(self, progress: Progress, token: int) -> Progress:
        """The progress after one more token."""
        return tuple(
            have if have == len(phrase) else _next(phrase, fallback, have, token)
            for phrase, fallback, have in zip(self.phrases, self._fallbacks, progress, strict=True)
        )

    def needs(self, progress: Progress) -> set[int]:
        """The tokens that bring an unfinished phrase further."""
        return {phrase[have] for phrase, have in zip(self.phrases, progress, strict=True) if have < len(phrase)}

    def missing(self, progress: Progress) -> int:
        """Tokens still to write, at most; 0 where every phrase is there. The phrase begun furthest counts as begun."""
        open_ = [(len(p), have) for p, have in zip(self.phrases, progress, strict=True) if have < len(p)]
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
