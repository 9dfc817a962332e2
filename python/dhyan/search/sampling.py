"""Drawing tokens at random: temperature, the k likeliest, the nucleus; the same seed and sentence draw the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from .options import SearchOptions


@dataclass(eq=False)
class Draws:
    """A stream of random numbers for every open row. What it gives depends on nothing but seed, sentence and sample."""

    options: SearchOptions
    streams: list[np.random.Generator]

    @classmethod
    def of(cls, source: np.ndarray, lengths: np.ndarray, options: SearchOptions) -> Draws:
        """`nbest` streams of each sentence, the sentences in order."""
        keys = [np.ascontiguousarray(row[:length]).tobytes() for row, length in zip(source, lengths, strict=True)]
        return cls(options, [_stream(options.seed, key, i) for key in keys for i in range(options.nbest)])

    def choose(self, rows: np.ndarray, tokens: np.ndarray, log_probabilities: np.ndarray) -> np.ndarray:
        """Of every row one of its candidates: their indices (as many as there are rows with candidates)."""
        order = np.lexsort((tokens, -log_probabilities, rows))
        grouped = rows[order]
        starts = np.flatnonzero(np.diff(grouped, prepend=-1))
        groups = zip(grouped[starts], np.split(order, starts[1:]), strict=True) if len(order) else ()
        return np.array([own[self._draw(row, log_probabilities[own])] for row, own in groups], np.int64)

    def take(self, rows: np.ndarray) -> None:
        """The open rows are now these."""
        self.streams = [self.streams[row] for row in rows]

    def _draw(self, row: int, log_probabilities: np.ndarray) -> int:
        """An index of the row's log-probabilities, largest first."""
        o = self.options
        logs = log_probabilities[: o.top_k or None].astype(np.float64)
        if logs[0] == -np.inf:
            return 0
        with np.errstate(over="ignore"):  # of the smallest temperatures: -inf, whose exp is 0 as it should be
            total = np.cumsum(np.exp((logs - logs[0]) / o.temperature))
        n = min(int(np.searchsorted(total, o.top_p * total[-1])) + 1, len(total))
        at = self.streams[row].random() * total[n - 1]
        return min(int(np.searchsorted(total[:n], at, side="right")), n - 1)


def _stream(seed: int, sentence: bytes, sample: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {sample} ".encode() + sentence).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
