"""A shortlist of the target vocabulary for every sentence: the tokens its source tokens are likely to become.

The output layer is most of the work of writing a token with a large vocabulary; over a shortlist it is a few hundred
columns instead of thousands. Which tokens follow from which is a small lexicon, learned once from the training pairs by
IBM model 1 (Brown et al. 1993); shortlists as in Jean et al. 2015.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dhyan.errors import CheckpointError

from .vocabulary import END, UNKNOWN

ITERATIONS = 5
CHUNK = 1 << 20  # pairs of positions at once: memory grows with the distinct pairs of words, not with the corpus
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
        pairs = _types(sources, targets, target_size)
        begins = np.searchsorted(pairs, np.arange(source_size + 1) * target_size)  # where each source id's pairs begin
        p = np.ones(len(pairs))
        for _ in range(ITERATIONS):
            counts = np.zeros(len(pairs))
            for chunk in _chunks(sources, targets):
                source_ids, target_ids, places = _occurrences(*chunk)
                own, pair = _distinct(source_ids * target_size + target_ids)
                where = np.searchsorted(pairs, own)
                share = p[where][pair]
                share /= np.bincount(places, share)[places]
                counts[where] += np.bincount(pair, share, minlength=len(own))
            for first, last in pairwise(begins):
                counts[first:last] /= counts[first:last].sum()
            p = counts
        best = np.full((source_size, KEPT), -1)
        for i, (first, last) in enumerate(pairwise(begins)):
            order = np.argsort(-p[first:last], kind="stable")[:KEPT]
            best[i, : len(order)] = pairs[first:last][order] % target_size
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


def _chunks(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> Iterator[tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]]:
    """Runs of sentence pairs with some CHUNK pairs of positions: what is looked at in one go."""
    first = size = 0
    for i, (s, t) in enumerate(zip(sources, targets, strict=True)):
        size += (len(s) + 1) * len(t)
        if size >= CHUNK or (i == len(sources) - 1 and size):
            yield sources[first : i + 1], targets[first : i + 1]
            first, size = i + 1, 0


def _types(sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]], target_size: int) -> np.ndarray:
    """The distinct pairs of a source and a target id that stand in one sentence pair, as source * V_t + target, sorted.

    Chunks of about equal size are merged, so that each id is sorted a few times however long the corpus is.
    """
    merged: list[np.ndarray] = []
    for chunk in _chunks(sources, targets):
        source_ids, target_ids, _ = _occurrences(*chunk)
        merged.append(_sorted(source_ids * target_size + target_ids))
        while len(merged) > 1 and len(merged[-2]) <= 2 * len(merged[-1]):
            merged[-2:] = [_sorted(np.concatenate(merged[-2:]))]
    while len(merged) > 1:
        merged[-2:] = [_sorted(np.concatenate(merged[-2:]))]
    return merged[0] if merged else np.zeros(0, np.int64)


def _occurrences(
    sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source id, target id and target position of every pair of positions that stand in one sentence pair."""
    source = np.fromiter((i for row in sources for i in (*row, END)), np.int64)
    target = np.fromiter((i for row in targets for i in row), np.int64)
    lengths = np.array([len(row) + 1 for row in sources], np.int64)
    steps = np.array([len(row) for row in targets], np.int64)
    first = np.repeat(np.cumsum(lengths) - lengths, steps)  # of the source, for every target position
    lengths = np.repeat(lengths, steps)
    places = np.repeat(np.arange(len(target)), lengths)
    within = np.arange(len(places)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return source[first[places] + within], target[places], places


def _sorted(keys: np.ndarray) -> np.ndarray:
    """np.unique without its hash table, which many distinct numbers make ten times as slow (measured, NumPy 2.4)."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) != 0]


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """np.unique with the inverse, for keys below 2^63 / len(keys): sorting numbers is seven times as fast as sorting
    their positions (measured, NumPy 2.4), so a key carries its position along."""
    order = np.sort(keys * len(keys) + np.arange(len(keys)))
    of_key, position = order // len(keys), order % len(keys)
    is_first = np.diff(of_key, prepend=-1) != 0
    inverse = np.empty(len(keys), np.int64)
    inverse[position] = np.cumsum(is_first) - 1
    return of_key[is_first], inverse
