"""Paired bootstrap resampling: against sacreBLEU, against the normal approximation, and at its edges."""

import math
import sys

import numpy as np
import pytest
from dhyan.metrics import significance
from dhyan.metrics.failures import Output
from dhyan.metrics.scores import bleu, chrf, exact_match, ter, token_error_rate
from dhyan.metrics.significance import paired_bootstrap, resampled

REFERENCES = [f"the {animal} {verb} a {thing}" for animal in ("cat", "dog", "cow") for verb in ("saw", "ate", "hid")
              for thing in ("fish", "bone", "leaf", "hat")]  # fmt: skip


def spoiled(share, seed=0):
    """The references with this share of words replaced."""
    rng = np.random.default_rng(seed)
    return [" ".join("x" if rng.random() < share else word for word in text.split()) for text in REFERENCES]


def outputs(texts, cut=str.split):
    return [Output(cut(text), cut(reference)) for text, reference in zip(texts, REFERENCES, strict=True)]


def compare(one, two, **options):
    return paired_bootstrap(one, two, REFERENCES, outputs(one), outputs(two), **options)


@pytest.fixture
def sacrebleu():
    return pytest.importorskip("sacrebleu", reason="the text extra is not installed")


def test_scores_are_those_of_the_metrics(sacrebleu):
    one, two = spoiled(0.1), spoiled(0.3)
    found = compare(one, two, samples=50)
    assert found["samples"] == 50 and "|bs:50|" in found["signature"] and "tok:13a" in found["signature"]
    assert list(found["measures"]) == ["bleu", "chrf", "ter", "exact_match", "token_error_rate"]
    for name, measure in (("bleu", bleu), ("chrf", chrf), ("ter", ter)):
        for key, texts in (("score", one), ("against", two)):
            assert found["measures"][name][key] == measure(texts, REFERENCES).score
    for name, measure in (("exact_match", exact_match), ("token_error_rate", token_error_rate)):
        for key, texts in (("score", one), ("against", two)):
            assert found["measures"][name][key] == pytest.approx(measure(texts, REFERENCES), rel=1e-15)
    for measure in found["measures"].values():
        assert list(measure) == ["score", "interval", "against", "against_interval", "p_value"]
        assert 0 < measure["p_value"] <= 1 and measure["interval"] > 0 and measure["against_interval"] > 0
    assert compare(one, two, samples=50) == found


def test_the_tokenizer_is_the_given_one(sacrebleu):
    found = compare(spoiled(0.1), spoiled(0.3), samples=5, tokenize="char")
    assert "tok:char" in found["signature"]
    assert found["measures"]["bleu"]["score"] == bleu(spoiled(0.1), REFERENCES, "char").score


def test_a_clear_difference_and_none(sacrebleu):
    perfect, bad = list(REFERENCES), spoiled(0.9)
    for one, two in ((perfect, bad), (bad, perfect)):
        found = compare(one, two, samples=200)["measures"]
        assert all(measure["p_value"] == pytest.approx(1 / 201) for measure in found.values())
    same = compare(bad, bad, samples=200)["measures"]
    assert all(measure["p_value"] == 1 and measure["score"] == measure["against"] for measure in same.values())


def test_the_p_value_is_that_of_a_normal_difference():
    """Right or wrong by sentence: with many of them the difference is normal, sd^2 = mean square difference / N.

    |d| of a sample is |normal(d, sd)|, whose mean is above d where d / sd is small; for z = 2 that shift is 0.02 sd.
    4,000 samples leave a deviation of sqrt(p (1 - p) / 4000) < 0.006.
    """
    N, rng = 3000, np.random.default_rng(3)
    one = (rng.random((N, 1)) < 0.7).astype(float)
    two = one.copy()
    two[:73], two[73:160] = 1 - one[:73], one[73:160]
    d = float((one - two).mean())
    sd = math.sqrt(float(((one - two - d) ** 2).mean()) / N)
    z = abs(d) / sd
    found = resampled(one, two, lambda sums, n: sums[0] / n, 4000)
    assert z > 2 and found["p_value"] == pytest.approx(0.5 * math.erfc(z / math.sqrt(2)), abs=0.015)
    # Half the width of the middle 95 % of a mean of N: 1.96 standard deviations, within 10 % for 4,000 samples.
    for key, known in (("interval", one), ("against_interval", two)):
        assert found[key] == pytest.approx(1.96 * known.std() / math.sqrt(N), rel=0.1)
    assert resampled(two, one, lambda sums, n: sums[0] / n, 4000)["p_value"] == found["p_value"]


def test_tokens_of_two_kinds_are_not_compared():
    one, two = spoiled(0.1), spoiled(0.3)
    found = paired_bootstrap(one, two, REFERENCES, outputs(one), outputs(two, list), samples=5)
    assert "token_error_rate" not in found["measures"] and "exact_match" in found["measures"]


def test_without_sacrebleu(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    found = compare(spoiled(0.1), spoiled(0.3), samples=5)
    assert list(found["measures"]) == ["exact_match", "token_error_rate"] and found["signature"] is None


@pytest.mark.parametrize(("pairs", "samples"), [(1, 1000), (5_000, 1000), (10_000, 500), (10**6, 100)])
def test_many_sentences_are_drawn_less_often(monkeypatch, pairs, samples):
    monkeypatch.setattr(significance, "_by_sacrebleu", lambda *_: ({}, None))
    monkeypatch.setattr(significance, "resampled", lambda one, two, score, samples: {"n": samples})
    texts, made = ["a"] * pairs, [Output(["a"], ["a"])] * pairs
    assert paired_bootstrap(texts, texts, texts, made, made)["samples"] == samples


def test_bad_input():
    one = spoiled(0.1)
    with pytest.raises(ValueError, match="expected the same number of each and at least one"):
        paired_bootstrap(one[1:], one, REFERENCES, outputs(one), outputs(one))
    with pytest.raises(ValueError, match="at least one"):
        paired_bootstrap([], [], [], [], [])
    with pytest.raises(ValueError, match="samples is 0, expected at least 1"):
        compare(one, one, samples=0)
    with pytest.raises(ValueError, match="tokenize is '13b'"):
        compare(one, one, tokenize="13b")
