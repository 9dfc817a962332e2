"""A shortlist of the target vocabulary for every sentence: the tokens its source tokens are likely to become.

The output layer is most of the work of writing a token with a large vocabulary; over a shortlist it is a few hundred
columns instead of thousands. Which tokens follow from which is a small lexicon, learned once from the training pairs by
IBM model 1 (Brown et al. 1993); shortlists as in Jean et al. 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dhyan.errors import CheckpointError

from .vocabulary import END, UNKNOWN

ITERATIONS = 5
KEPT = 100  # candidates kept for a source token, and of frequent target tokens: what a shortlist may be made of


@dataclass(frozen=True, eq=False)
class Lexicon:
    """best (V_s, K): the target ids likeliest for each source id, best first, -1 where there are no more;
    common (F,): the most frequent target ids, most frequent first.
    """

    best: np.ndarray
    common: np.ndarray

    @classmethod
    def learn(
        cls, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], source_size: int, target_size: int
    ) -> Lexicon:
        """From pairs of ids, without end symbols (the source's stands for words that come from nowhere).

        ValueError for unequal counts; IndexError for ids outside the vocabularies.
        """
        if len(sources) != len(targets):
            raise ValueError(f"Lexicon.learn: {len(sources)} sources and {len(targets)} targets, expected equal counts")
        for name, rows, size in (("source", sources, source_size), ("target", targets, target_size)):
            for number, row in enumerate(rows):
                if row and not 0 <= min(row) <= max(row) < size:
                    raise IndexError(f"Lexicon.learn: {name} {number} holds an id outside 0 <= id < {size}")
        source_ids, target_ids, places = _occurrences(sources, targets)
        pairs, pair = np.unique(source_ids * target_size + target_ids, return_inverse=True)
        of_source = pairs // target_size
        p = np.ones(len(pairs))
        for _ in range(ITERATIONS):
            share = p[pair]
            share /= np.bincount(places, share)[places] if len(places) else 1
            counts = np.bincount(pair, share, minlength=len(pairs))
            p = counts / np.bincount(of_source, counts, minlength=source_size)[of_source]
        order = np.lexsort((pairs, -p, of_source))
        rank = np.arange(len(order)) - np.searchsorted(of_source[order], of_source[order])
        kept = order[rank < KEPT]
        best = np.full((source_size, KEPT), -1)
        best[of_source[kept], rank[rank < KEPT]] = pairs[kept] % target_size
        seen = np.bincount(np.fromiter((i for row in targets for i in row), np.int64), minlength=target_size)
        frequent = np.argsort(-seen, kind="stable")[:KEPT]
        return cls(best, frequent[seen[frequent] > 0])

    def choices(self, source: np.ndarray, lengths: np.ndarray, target_size: int, candidates: int) -> np.ndarray:
        """(B, V) bool: for source (B, S) with lengths (B,) the first `candidates` of every source token, as many of the
        most frequent tokens, the end symbol and the unknown symbol.

        ValueError unless 1 <= candidates <= 100.
        """
        if not 1 <= candidates <= KEPT:
            raise ValueError(f"shortlist: candidates is {candidates}, expected 1 to {KEPT}")
        chosen = np.zeros((len(source), target_size + 1), bool)  # the last column takes the -1
        inside = np.arange(source.shape[1]) < np.asarray(lengths)[:, None]
        rows = np.nonzero(inside)[0]
        chosen[rows[:, None], self.best[source[inside], :candidates]] = True
        chosen[:, self.common[:candidates]] = True
        chosen[:, [END, UNKNOWN]] = True
        return np.ascontiguousarray(chosen[:, :target_size])

    def arrays(self) -> dict[str, np.ndarray]:
        """What a folder keeps."""
        return {"best": self.best, "common": self.common}

    @classmethod
    def of(cls, arrays: dict[str, np.ndarray], source_size: int, target_size: int, name: str) -> Lexicon:
        """The inverse of `arrays`. CheckpointError, naming `name`, where shapes or ids do not fit the vocabularies."""
        best, common = arrays.get("best"), arrays.get("common")
        if best is None or common is None or best.dtype != np.int64 or common.dtype != np.int64:
            raise CheckpointError(f"{name}: expected the int64 arrays best and common")
        if best.shape != (source_size, KEPT) or common.ndim != 1 or len(common) > KEPT:
            raise CheckpointError(
                f"{name}: best has shape {best.shape} and common {common.shape}, expected ({source_size}, {KEPT}) and "
                f"at most {KEPT}"
            )
        if best.min(initial=0) < -1 or max(best.max(initial=0), common.max(initial=0)) >= target_size:
            raise CheckpointError(f"{name}: an id is outside the target vocabulary of {target_size}")
        if common.min(initial=0) < 0:
            raise CheckpointError(f"{name}: an id of common is negative")
        return cls(best, common)


def _occurrences(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source id, target id and target position of every pair of positions that stand in one sentence pair."""
    source_ids, target_ids, places, first = [], [], [], 0
    for s, t in zip(sources, targets, strict=True):
        row = np.array([*s, END], np.int64)
        source_ids.append(np.tile(row, len(t)))
        target_ids.append(np.repeat(np.array(t, np.int64), len(row)))
        places.append(np.repeat(np.arange(first, first + len(t)), len(row)))
        first += len(t)
    none = [np.zeros(0, np.int64)]
    return np.concatenate(source_ids or none), np.concatenate(target_ids or none), np.concatenate(places or none)
