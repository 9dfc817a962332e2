"""Rules of what may be written: a beam wide enough finds exactly what trying every output finds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import SearchOptions
from dhyan.search.beam import beam_search
from dhyan.search.constraints import Constraints, _completions
from helpers.searching import LENGTHS, constraints_of, model_of, same, sources
from spec import search as reference

MOST = 4

# Options, prefix, phrases. Tokens: 0 pad, 1 begin, 2 end, 3 unknown, 4: all but the end symbol are words here.
CASES: dict[str, tuple[dict[str, Any], tuple[int, ...], list[tuple[int, ...]]]] = {
    "gnmt": (dict(length_form="gnmt", length_penalty=0.7), (), []),
    "no length": (dict(length_penalty=0.0), (), []),
    "coverage": (dict(coverage_penalty=0.4), (), []),
    "coverage, gnmt": (dict(coverage_penalty=2.0, length_form="gnmt", length_penalty=1.3), (), []),
    "minimum": (dict(min_length=2), (), []),
    "minimum and maximum": (dict(min_length=2, max_length=3), (), []),
    "exactly": (dict(min_length=3), (), []),
    "no repeated word": (dict(no_repeat_ngram=1), (), []),
    "no repeated pair": (dict(no_repeat_ngram=2), (), []),
    "no unknown": (dict(no_unknown=True), (), []),
    "prefix": ({}, (4,), []),
    "long prefix": ({}, (3, 0, 3), []),
    "banned prefix": (dict(no_unknown=True, no_repeat_ngram=1), (3, 3), []),
    "word": ({}, (), [(4,)]),
    "phrase": ({}, (), [(4, 0)]),
    "words": ({}, (), [(4,), (0,), (3,)]),
    "repeating phrase": ({}, (), [(4, 4)]),
    "phrase that begins again": ({}, (), [(4, 4, 0)]),
    "phrases that overlap": ({}, (), [(3, 4), (4, 3)]),
    "phrase inside a phrase": ({}, (), [(3, 4, 0), (4,), (4,)]),
    "prefix and phrase": ({}, (4,), [(4, 0)]),
    "phrases, no repetition": (dict(no_repeat_ngram=1, length_penalty=0.5), (), [(3,), (0,)]),
    "all of it": (
        dict(
            min_length=2, no_repeat_ngram=2, coverage_penalty=0.3, length_form="gnmt", length_penalty=0.8,
            no_unknown=True,
        ),
        (4,),
        [(0,)],
    ),
}  # fmt: skip
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@cases
@pytest.mark.parametrize("choices", [{}, dict(attention="location_sensitive", normalize="sparsemax")])
def test_a_wide_beam_is_exhaustive_search(case: Any, choices: dict[str, Any]) -> None:
    changes, prefix, phrases = case
    options, constraints = SearchOptions.of(beam=400, **changes), constraints_of(prefix, phrases)
    model, source = model_of(**choices), sources()
    for i in (0, 1):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        most = options.max_length or MOST
        every = reference.exhaustive(model, one, options, most, prefix, phrases)
        assert every
        limits = np.array([most])
        (found,) = beam_search(model, one, length, options, nbest=len(every), limits=limits, constraints=constraints)
        assert [h.ids for h in found] == [ids for _, ids, _ in every]
        assert all(h.finished for h in found)
        np.testing.assert_allclose([h.score for h in found], [score for score, _, _ in every], rtol=1e-11)
        for h, (_, _, weights) in zip(found, every, strict=True):
            np.testing.assert_allclose(h.weights, weights, atol=1e-12)
        (first,) = beam_search(model, one, length, options, nbest=2, limits=limits, constraints=constraints)
        same(first[: len(every)], found[:2])  # stops early, and may not miss anything


@cases
@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_beam_keeps_the_rules(case: Any, beam: int) -> None:
    changes, prefix, phrases = case
    options = SearchOptions.of(**changes | dict(beam=beam, max_length=None))
    model, source = model_of(), sources()
    finished = 0
    for (h,) in beam_search(model, source, LENGTHS, options, constraints=constraints_of(prefix, phrases, 4)):
        # What is cut short may lack the end, not the rest: the limit leaves room for it.
        assert reference.allowed(h.ids, options, prefix, phrases)
        finished += h.finished
    assert finished


@cases
@pytest.mark.parametrize("sample", [False, True])
def test_a_sentence_does_not_depend_on_its_batch(case: Any, sample: bool) -> None:
    """Neither on what is asked of the others."""
    changes, prefix, phrases = case
    phrases = [] if sample else phrases
    options = SearchOptions.of(**changes | dict(beam=4, nbest=3, sample=sample, max_length=None))
    model, source = model_of(7), sources()
    prefixes, asked = [(), prefix, prefix, ()], [[], phrases, [], phrases]
    together = beam_search(model, source, LENGTHS, options, constraints=Constraints.of(prefixes, asked))
    for i in range(4):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        (alone,) = beam_search(model, one, length, options, constraints=Constraints.of([prefixes[i]], [asked[i]]))
        same(together[i], alone)


def test_what_forbids_nothing_changes_no_bit() -> None:
    """Asked through the rules or not: the same hypotheses."""
    model, source = model_of(9), sources()
    plain = beam_search(model, source, LENGTHS, beam=4, nbest=4)
    for options, constraints in (
        (SearchOptions.of(no_repeat_ngram=40), None),
        (SearchOptions.of(), Constraints([()] * 4, Constraints.of(None, [[(4,)]]).take([0] * 4).phrases)),  # type: ignore[union-attr]
    ):
        asked = beam_search(model, source, LENGTHS, options, beam=4, nbest=4, constraints=constraints)
        if constraints is None:
            for a, b in zip(plain, asked, strict=True):
                same(a, b)
        else:
            assert all(4 in h.ids for found in asked for h in found if h.finished)


def test_the_prefix_of_an_output_gives_that_output() -> None:
    """What greedy search wrote, forced half-way, goes on as it did, with the same score and weights."""
    model, source = model_of(9), sources()
    plain = beam_search(model, source, LENGTHS, beam=1)
    prefixes = [h.ids[: len(h.ids) // 2] for (h,) in plain]
    limits = 2 * LENGTHS + 10
    forced = beam_search(model, source, LENGTHS, beam=1, constraints=Constraints.of(prefixes), limits=limits)
    assert any(prefixes)
    for a, b in zip(plain, forced, strict=True):
        same(a, b)


def test_nothing_allowed_is_an_output_cut_there() -> None:
    """Five words, none twice, at least seven of them: there is no such output."""
    model, source = model_of(6), sources()
    for sample in (False, True):
        found = beam_search(model, source, LENGTHS, no_repeat_ngram=1, min_length=7, beam=3, nbest=3, sample=sample)
        for own in found:
            assert len(own) == 3
            for h in own:
                assert not h.finished and sorted(h.ids) == [0, 1, 3, 4, 5] and h.weights.shape[0] == 5
                assert np.isfinite(h.score)


def test_what_is_cut_short_and_holds_its_phrases_comes_first() -> None:
    model, source = model_of(6), sources()
    model.parameters()["output.bias"][2] = -1e3  # never ends
    model.parameters()["output.bias"][5] = -20  # which costs much more than to leave it out
    constraints = Constraints.of(None, [[(5,)]] * 4)
    for own in beam_search(model, source, LENGTHS, beam=4, nbest=4, max_length=5, constraints=constraints):
        assert 5 in own[0].ids and not own[0].finished


def test_repeated_n_grams_are_found() -> None:
    written = np.array([[4, 5, 4, 5, 4], [7, 7, 7, 7, 7], [1, 2, 3, 4, 5]])
    for n in (1, 2, 3, 4):
        for row, completions in zip(written, _completions(written, n), strict=True):
            grams = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
            expected = {int(g[-1]) for g in grams if g[:-1] == tuple(row[len(row) - n + 1 :])}
            assert set(completions.tolist()) - {-1} == expected


@pytest.mark.parametrize("call, message", [
    (lambda: Constraints.of([(4, 2)]), r"sentence 0 has the ids \(4, 2\), expected none of the end symbol 2"),
    (lambda: Constraints.of(None, [[], [(-1,)]]), r"sentence 1 has the ids \(-1,\)"),
    (lambda: Constraints.of([(4,)], [[], []]), "phrases of 2 sentences, expected 1"),
])  # fmt: skip
def test_bad_constraints(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
    assert Constraints.of([(), ()], [[], [()]]) is None and Constraints.of() is None


@pytest.mark.parametrize("constraints, options, message", [
    (([(4,)] * 3, None), {}, "constraints are of 3 sentences, expected B = 4"),
    (([(4, 3)] * 4, None), dict(max_length=2), "max_length is 2, expected at least 3 for prefix, phrases and end"),
    ((None, [[(4,), (3, 4)]] * 4), dict(max_length=2), "max_length is 2, expected at least 3 for prefix, phrases"),
    ((None, [[(4,)]] * 4), dict(sample=True), "phrases that must be written need a beam, got sample = True"),
    (([(99,)] * 4, None), {}, "outside the vocabulary of 5"),
    ((None, [[(99,)]] * 4), {}, "outside the vocabulary of 5"),
])  # fmt: skip
def test_bad_options(constraints: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beam_search(model_of(), sources(), LENGTHS, constraints=Constraints.of(*constraints), **options)
