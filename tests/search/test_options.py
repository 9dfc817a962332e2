"""The table of decoding options: its defaults, its checks, its score."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from dhyan import SearchOptions


def test_the_defaults_are_plain_beam_search() -> None:
    options = SearchOptions()
    assert (options.beam, options.nbest, options.max_length, options.sample) == (5, 1, None, False)
    assert not options.restricted and options.length_norm(7) == 7 and options.coverage_penalty == 0


def test_it_cannot_be_changed_but_replaced() -> None:
    options = SearchOptions(beam=3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.beam = 4  # type: ignore[misc]
    changed = SearchOptions.of(options, nbest=2, max_length=None, length_penalty=None)
    assert (changed.beam, changed.nbest, changed.length_penalty) == (
        3,
        2,
        1.0,
    ) and SearchOptions.of() == SearchOptions()


@pytest.mark.parametrize("changes", [dict(min_length=1), dict(no_repeat_ngram=2), dict(no_unknown=True)])
def test_rules_are_known(changes: dict[str, Any]) -> None:
    assert SearchOptions.of(**changes).restricted


def test_length_norm() -> None:
    """Against Wu et al. 2016, equation 14, by hand."""
    gnmt = SearchOptions(length_form="gnmt", length_penalty=0.6)
    assert gnmt.length_norm(1) == 1 and gnmt.length_norm(7) == pytest.approx(2**0.6)
    np.testing.assert_allclose(SearchOptions(length_penalty=0.5).length_norm(np.array([1.0, 4, 9])), [1, 2, 3])


@pytest.mark.parametrize("options, error, message", [
    (dict(beam=0), ValueError, "search: beam is 0, expected at least 1"),
    (dict(beam=2.0), TypeError, "beam is 2.0, expected an integer"),
    (dict(beam=True), TypeError, "beam is True"),
    (dict(nbest=0), ValueError, "nbest is 0, expected at least 1"),
    (dict(nbest=6), ValueError, "nbest is 6, expected at most the beam of 5"),
    (dict(max_length=0), ValueError, "max_length is 0, expected at least 1"),
    (dict(min_length=-1), ValueError, "min_length is -1, expected at least 0"),
    (dict(min_length=3, max_length=3), ValueError, "min_length is 3, expected less than max_length = 3"),
    (dict(length_penalty=-1.0), ValueError, "length_penalty is -1.0"),
    (dict(length_penalty=float("nan")), ValueError, "length_penalty is nan"),
    (dict(length_penalty=1000.0), ValueError, "length_penalty is 1000.0, expected 0 <= length_penalty < 32"),
    (dict(max_length=10**20), ValueError, "max_length is 100000000000000000000, expected less than 2"),
    (dict(min_length=2**31), ValueError, "min_length is 2147483648, expected less than 2"),
    (dict(coverage_penalty=float("inf")), ValueError, "coverage_penalty is inf"),
    (dict(coverage_penalty="much"), TypeError, "coverage_penalty is 'much', expected a number"),
    (dict(length_form="gnm"), ValueError, "length_form is 'gnm', expected one of: gnmt, power"),
    (dict(no_repeat_ngram=-2), ValueError, "no_repeat_ngram is -2"),
    (dict(no_unknown=1), TypeError, "no_unknown is 1, expected true or false"),
    (dict(sample=True, temperature=0.0), ValueError, "temperature is 0.0, expected 0 < temperature"),
    (dict(sample=True, top_p=1.5), ValueError, "top_p is 1.5"),
    (dict(sample=True, top_p=0), ValueError, "top_p is 0"),
    (dict(sample=True, top_k=-1), ValueError, "top_k is -1"),
    (dict(sample=True, seed=1 << 63), ValueError, "seed is 9223372036854775808, expected less"),
    (dict(temperature=0.5), ValueError, r"temperature is 0.5, which only sampling reads \(sample\)"),
    (dict(top_k=5), ValueError, "top_k is 5, which only sampling reads"),
    (dict(seed=1), ValueError, "seed is 1, which only sampling reads"),
    (dict(beem=3), ValueError, "the option is 'beem', expected one of: beam, "),
])  # fmt: skip
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SearchOptions.of(**options)


def test_samples_need_no_beam() -> None:
    assert SearchOptions(sample=True, nbest=50, temperature=0.5, top_p=0.9, top_k=4, seed=7).nbest == 50
