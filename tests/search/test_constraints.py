"""Phrases: how far an output has got, by its definition; how a beam is shared out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from dhyan.search.constraints import Phrases, allocate
from spec.search import contains

PHRASES = [[(1,)], [(1, 2)], [(1, 1, 2)], [(1, 2, 1, 3)], [(1, 2), (2, 1)], [(1, 1), (1,), (1, 1), ()], [(2, 2, 2)]]


@pytest.mark.parametrize("given", PHRASES, ids=str)
def test_progress_is_what_the_output_says(given: list[tuple[int, ...]]) -> None:
    """Against the definition: the longest beginning of a phrase that the output ends in; all of it once it stood."""
    phrases = Phrases(given)
    assert phrases.phrases == tuple(dict.fromkeys(p for p in given if p))
    for ids in itertools.product((1, 2, 3), repeat=6):
        progress = phrases.start
        for n in range(7):
            for phrase, have in zip(phrases.phrases, progress, strict=True):
                ends = max(k for k in range(min(n, len(phrase)) + 1) if ids[n - k : n] == phrase[:k])
                assert have == (len(phrase) if contains(ids[:n], phrase) else ends)
            done = all(contains(ids[:n], phrase) for phrase in phrases.phrases)
            assert (phrases.missing(progress) == 0) == done == (not phrases.needs(progress))
            best = min((phrases.missing(phrases.after(progress, i)) for i in phrases.needs(progress)), default=-1)
            assert best < phrases.missing(progress)  # some needed token always brings it nearer
            if n < 6:
                progress = phrases.after(progress, ids[n])


def test_no_phrases() -> None:
    phrases = Phrases([])
    assert phrases.size == 0 and phrases.missing(phrases.start) == 0 and phrases.needs(phrases.start) == set()


@pytest.mark.parametrize("missing, size, capacity, kept", [
    ([2, 2, 1, 0, 2, 1], 2, 6, [0, 1, 2, 3, 4, 5]),  # room for all
    ([2, 2, 1, 0, 2, 1], 2, 3, [0, 2, 3]),  # one of each
    ([2, 2, 1, 0, 2, 1], 2, 1, [3]),  # the one furthest on
    ([2, 2, 1, 1, 2, 1], 2, 2, [2, 3]),  # nobody is there yet: the next bank
    ([2, 2, 1, 0, 0, 1], 2, 4, [0, 2, 3, 4]),  # the rest goes to those furthest on
    ([2, 2, 2, 1], 2, 4, [0, 1, 2, 3]),
    ([], 2, 4, []),
])  # fmt: skip
def test_a_beam_is_shared_out(missing: list[int], size: int, capacity: int, kept: list[int]) -> None:
    assert allocate(np.array(missing, dtype=np.int64), size, capacity).tolist() == kept
