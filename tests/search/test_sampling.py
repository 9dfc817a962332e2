"""Sampling: the right distribution, and the same draw for the same seed and sentence wherever it is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import NumericError, SearchOptions, Seq2Seq
from dhyan.search.beam import Hypothesis, beam_search
from dhyan.search.sampling import Draws
from helpers.searching import LENGTHS, model_of, same, sources


def sampled(model: Seq2Seq, seed: int = 0, **changes: Any) -> list[list[Hypothesis]]:
    return beam_search(model, sources(), LENGTHS, sample=True, seed=seed, **changes)


def share(frequency: float, p: float, n: int) -> None:
    """Within five standard deviations of p, or five draws where it is rare; the seeds are fixed."""
    assert abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / n) + 5 / n


@pytest.mark.parametrize("changes", [{}, dict(temperature=0.5), dict(top_k=3), dict(top_p=0.6), dict(no_unknown=True)])
def test_first_tokens_have_their_probability(changes: dict[str, Any]) -> None:
    model, n = model_of(9), 4000
    log_p = model.advance(model.start(sources(), LENGTHS), np.full(4, 1), np.arange(4))[0]
    found = sampled(model, nbest=n, max_length=1, **changes)
    for row, own in zip(log_p, found, strict=True):
        order = np.argsort(-row)
        if "no_unknown" in changes:
            order = order[order != 3]
        order = order[: changes.get("top_k")]
        p = np.exp(row[order] / changes.get("temperature", 1))
        p /= p.sum()
        if "top_p" in changes:
            kept = np.cumsum(p) - p < changes["top_p"]  # the fewest that together reach it
            order, p = order[kept], p[kept] / p[kept].sum()
            assert len(order) < 9
        first = [h.ids[0] if h.ids else 2 for h in own]
        assert set(first) <= set(order.tolist())
        for token, probability in zip(order, p, strict=True):
            share(first.count(token) / n, probability, n)


def test_whole_outputs_have_their_probability() -> None:
    model, n = model_of(5), 3000
    for own in sampled(model, nbest=n, max_length=3, length_penalty=0.0):
        outputs: dict[tuple[int, ...], list[Hypothesis]] = {}
        for h in own:
            outputs.setdefault((*h.ids, *([2] if h.finished else [])), []).append(h)
        for same_ids in outputs.values():
            assert len({h.score for h in same_ids}) == 1
            share(len(same_ids) / n, float(np.exp(same_ids[0].score)), n)  # the score is its log-probability


@pytest.mark.parametrize("changes", [{}, dict(top_k=2), dict(top_p=0.7, temperature=2.0), dict(min_length=3)])
def test_a_draw_is_a_function_of_seed_and_sentence(isa: str, changes: dict[str, Any]) -> None:
    model, source = model_of(9), sources()
    first = sampled(model, nbest=3, **changes)
    for a, b in zip(first, sampled(model, nbest=3, **changes), strict=True):
        same(a, b)
    for i in range(4):  # alone, or twice in another batch
        one, length = source[[i, i], : LENGTHS[i]], LENGTHS[[i, i]]
        for own in beam_search(model, one, length, sample=True, nbest=3, **changes):
            same(own, first[i])
    other = sampled(model, seed=1, nbest=3, **changes)
    assert [[h.ids for h in own] for own in other] != [[h.ids for h in own] for own in first]


def test_more_samples_begin_with_the_fewer() -> None:
    model = model_of(9)
    for few, many in zip(sampled(model, nbest=2), sampled(model, nbest=5), strict=True):
        assert {tuple(h.ids) for h in few} <= {tuple(h.ids) for h in many}


@pytest.mark.parametrize("changes", [dict(top_k=1), dict(top_p=1e-9), dict(temperature=1e-3)])
def test_the_limits_of_sampling_are_greedy_search(changes: dict[str, Any]) -> None:
    model = model_of(9)
    greedy = beam_search(model, sources(), LENGTHS, beam=1)
    for a, b in zip(greedy, sampled(model, **changes), strict=True):
        same(a, b)


def test_a_model_of_nan_is_refused() -> None:
    model = model_of(9)
    model.parameters()["output.bias"][3] = np.nan
    for changes in ({}, dict(top_k=2)):
        with pytest.raises(NumericError, match="NaN at step 1"):
            sampled(model, **changes)


def test_rows_without_candidates_draw_nothing() -> None:
    draws = Draws.of(sources(), LENGTHS, SearchOptions(sample=True))
    none = np.zeros(0, np.int64)
    assert draws.choose(none, none, np.zeros(0)).tolist() == []
    rows, tokens = np.array([1, 1, 3]), np.array([4, 5, 4])
    chosen = draws.choose(rows, tokens, np.array([-np.inf, 0.0, -np.inf]))
    assert rows[chosen].tolist() == [1, 3] and chosen[0] == 1
