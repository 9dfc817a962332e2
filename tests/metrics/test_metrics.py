"""Metrics against numbers worked out by hand, brute force, and sacreBLEU itself."""

import builtins
import functools
import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from dhyan import metrics
from dhyan.metrics import scores
from dhyan.metrics.alignment import aer, links_from_weights, pharaoh
from dhyan.metrics.failures import FAILURES, Output, failures, failures_of
from dhyan.metrics.scores import (
    bleu,
    by_length,
    chrf,
    edit_distance,
    exact_match,
    length_edges,
    perplexity,
    ter,
    token_error_rate,
)
from dhyan.report.evaluation import evaluate_report
from dhyan.text.pairs import parse_links
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from(["a", "b", "c", "खा"]), max_size=7)
LINKS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.booleans()), unique_by=lambda link: link[:2])


@pytest.fixture
def without_text_extra(monkeypatch):
    """As on a machine without sacreBLEU and rapidfuzz."""
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.split(".")[0] in ("sacrebleu", "rapidfuzz"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.fixture
def sacrebleu():
    return pytest.importorskip("sacrebleu", reason="the text extra is not installed")


def test_perplexity():
    assert perplexity(0.0) == 1.0
    assert perplexity(math.log(8)) == pytest.approx(8, rel=1e-15)
    assert perplexity(1e6) == math.inf


# Edit distance


def distance_by_definition(a, b):
    @functools.cache
    def distance(i, j):
        if not i or not j:
            return i + j
        change = distance(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, change)

    return distance(len(a), len(b))


@given(a=WORDS, b=WORDS)
def test_edit_distance_by_definition(a, b):
    numbers = [[ord(token[0]) for token in tokens] for tokens in (a, b)]
    assert edit_distance(a, b) == scores._edit_distance_plain(*numbers) == distance_by_definition(a, b)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("", "", 0),
        ("", "abc", 3),
        ("kitten", "sitting", 3),
        ("abc", "abc", 0),
        ("ab", "ba", 2),
        ("rosettacode", "raisethysword", 8),
    ],
)
def test_edit_distance_by_hand(a, b, expected):
    assert edit_distance(list(a), list(b)) == edit_distance(list(b), list(a)) == expected


def test_edit_distance_without_rapidfuzz(without_text_extra):
    assert edit_distance(list("kitten"), list("sitting")) == 3


def test_token_error_rate():
    # One substitution, then one deletion and one insertion: 3 edits over 3 + 2 tokens.
    hypotheses, references = [["a", "x", "c"], ["d", "e"]], [["a", "b", "c"], ["e", "d"]]
    assert token_error_rate(hypotheses, references) == 3 / 5
    assert token_error_rate(["a x c", "d  e"], ["a b c", "e d"]) == 3 / 5
    assert token_error_rate([""], ["a b"]) == 1.0
    assert token_error_rate(["a b c"], ["x"]) == 3.0
    assert token_error_rate([list("e\u0301a")], [list("e\u0301a")]) == 0.0
    with pytest.raises(ValueError, match="hold no token"):
        token_error_rate(["a"], [" "])


def test_exact_match():
    assert exact_match(["a b", "a  b ", "a", "A"], ["a b", "a b", "b", "a"]) == 0.5
    assert exact_match([["a", " ", "b"], ["a"]], [["a", " ", "b"], ["a", " "]]) == 0.5
    assert exact_match(["e\u0301"], ["é"]) == 1.0  # the same text in two Unicode forms


@pytest.mark.parametrize("function", [exact_match, token_error_rate, bleu, chrf, ter])
def test_counts_must_agree(function):
    for hypotheses, references in (([], []), (["a"], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="expected the same number and at least one"):
            function(hypotheses, references)


# sacreBLEU

HYPOTHESES = ["the cat sat on the mat", "I am eating food", "he went home, didn't he?"]
REFERENCES = ["the cat sat on the mat", "I am eating", "he went home , did n't he ?"]


def test_scores_are_those_of_sacrebleu(sacrebleu):
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES])
    found = bleu(HYPOTHESES, REFERENCES)
    assert found.score == expected.score and 0 < found.score < 100
    assert found.signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert chrf(HYPOTHESES, REFERENCES).score == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert ter(HYPOTHESES, REFERENCES).score == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    none = bleu(HYPOTHESES, REFERENCES, "none")
    assert none.score == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize="none").score != found.score
    assert "|tok:none|" in none.signature


def test_bleu_by_hand(sacrebleu):
    # Precisions 5/6, 4/5, 3/4, 2/3 and no brevity penalty: their geometric mean is (1/3)^(1/4).
    found = bleu(["a b c d e x"], ["a b c d e f"], "none")
    assert found.score == pytest.approx(100 * (1 / 3) ** 0.25, rel=1e-12)
    # One word less than the reference: precisions 1, penalty exp(1 - 6/5).
    found = bleu(["a b c d e"], ["a b c d e f"], "none")
    assert found.score == pytest.approx(100 * math.exp(-1 / 5), rel=1e-12)


def test_one_edit_in_four_words_is_ter_25(sacrebleu):
    assert ter(["a b c x"], ["a b c d"]).score == pytest.approx(25)
    assert chrf(["abc"], ["abc"]).score == pytest.approx(100)


@pytest.mark.parametrize("tokenize", ["flores200", "spm", "ja-mecab", "13b", ""])
def test_tokenizers_that_would_download_or_do_not_exist(tokenize):
    with pytest.raises(ValueError, match="expected one of 13a, intl, char, zh, none"):
        bleu(["a"], ["a"], tokenize)


def test_without_sacrebleu(without_text_extra):
    assert bleu(["a"], ["a"]) is None and chrf(["a"], ["a"]) is None and ter(["a"], ["a"]) is None
    assert by_length([1], ["a"], ["a"]) == [{"from": 1, "to": 1, "pairs": 1, "bleu": None}]
    assert "pip install 'dhyan[text]'" in metrics.TEXT_EXTRA_MISSING


def test_importing_metrics_imports_no_extra():
    code = "import sys, dhyan.metrics; sys.exit(bool({'sacrebleu', 'rapidfuzz', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_scoring_says_nothing_on_standard_error(sacrebleu, capfd):
    bleu(["a b ."] * 200, ["a b ."] * 200)
    assert capfd.readouterr() == ("", "")


# By length


def test_by_length(sacrebleu):
    lengths = [1, 2, 3, 3, 9]
    hypotheses = ["a", "a b", "a b c", "x y z", "a b c d e"]
    references = ["a", "a b", "a b c", "a b c", "a b c d e"]
    rows = by_length(lengths, hypotheses, references, [1, 3, 5, 7], "none")
    assert [(r["from"], r["to"], r["pairs"]) for r in rows] == [(1, 2, 2), (3, 4, 2), (7, 9, 1)]
    # Effective order: outputs of one and two words score 100 although they hold no 4-gram.
    assert rows[0]["bleu"] == pytest.approx(100) and rows[2]["bleu"] == pytest.approx(100)
    # Orders 1 to 3 of the second range: 3/6, 2/4, 1/2.
    assert rows[1]["bleu"] == pytest.approx(50)


@given(lengths=st.lists(st.integers(0, 30), min_size=1, max_size=80), least=st.integers(1, 20), most=st.integers(1, 9))
def test_length_edges(lengths, least, most):
    edges = length_edges(lengths, least=least, most_ranges=most)
    assert edges == sorted(set(edges)) and edges[0] == min(lengths) and len(edges) <= most
    bounds = [*edges, max(lengths) + 1]
    counts = [sum(a <= n < b for n in lengths) for a, b in itertools.pairwise(bounds)]
    assert sum(counts) == len(lengths)
    assert len(edges) == 1 or min(counts) >= least


@pytest.mark.parametrize("edges", [[], [3, 2], [1, 1], [2, 3]])
def test_malformed_edges(edges):
    with pytest.raises(ValueError, match="expected ascending numbers from 1 or less on"):
        by_length([1, 2], ["a", "a"], ["a", "a"], edges)


# Alignments


def test_aer_by_hand():
    gold = (parse_links("0-0 1-1 2?1"), parse_links("0?0"))
    assert aer([[(0, 0), (1, 1)], []], gold) == 0.0
    # A = {0-0, 2-1, 1-2}, S = {0-0, 1-1}, P = S + {2-1, and 0-0 of the second}: 1 - (1 + 2) / (3 + 2).
    assert aer([[(0, 0), (2, 1), (1, 2)], []], gold) == pytest.approx(1 - 3 / 5, abs=1e-15)
    assert aer([[(5, 5)], [(5, 5)]], gold) == 1.0
    assert aer([[(0, 0), (0, 0)]], [((0, 0, True), (0, 0, False))]) == 0.0  # a link counts once, sure wins


def test_aer_leaves_out_sentences_without_gold():
    assert aer([[(9, 9)], [(0, 0)]], [None, ((0, 0, True),)]) == 0.0
    assert aer([[(9, 9)]], [None]) is None
    assert aer([[]], [()]) is None
    with pytest.raises(ValueError, match="expected the same number"):
        aer([[]], [(), ()])


@given(gold=LINKS, predicted=LINKS)
def test_aer_stays_in_its_range_and_is_zero_for_the_gold_links(gold, predicted):
    value = aer([[link[:2] for link in predicted]], [tuple(gold)])
    assert value is None or 0 <= value <= 1
    sure = [link[:2] for link in gold if link[2]]
    assert aer([sure], [tuple(gold)]) == (0.0 if sure else None)


@given(links=LINKS)
def test_pharaoh_round_trip(links):
    assert parse_links(pharaoh(links)) == tuple(sorted(links))


def test_pharaoh():
    assert pharaoh([(10, 2), (2, 1), (2, 0, False)]) == "2?0 2-1 10-2"
    assert pharaoh([]) == ""


def test_links_from_weights():
    weights = np.array(
        [
            [0.1, 0.7, 0.1, 0.1],
            [0.4, 0.4, 0.1, 0.1],  # the first of equals
            [0.1, 0.2, 0.1, 0.6],  # the end symbol
            [0.0, 0.0, 0.0, 0.0],  # an empty row
            [1.0, 0.0, 0.0, 0.0],  # the row of the output's end symbol
        ]
    )
    assert links_from_weights(weights, 3, 4) == [(1, 0), (0, 1)]
    assert links_from_weights(np.zeros((2, 0)), 0, 2) == []
    for sources, targets in ((5, 4), (3, 6)):
        with pytest.raises(ValueError, match=r"weights has shape \(5, 4\)"):
            links_from_weights(weights, sources, targets)
    with pytest.raises(ValueError, match=r"weights has shape \(3,\)"):
        links_from_weights(np.zeros(3), 3, 3)


# Failures


def sharp(*focus, size):
    """Weights 0.9 on each focus and the rest on the end symbol, at position size."""
    weights = np.zeros((len(focus), size + 1))
    weights[np.arange(len(focus)), list(focus)] = 0.9
    weights[:, size] += 0.1
    return weights


def show(hypothesis, reference, weights=None, size=None, **more):
    return failures_of(Output(hypothesis.split(), reference.split(), weights, size, **more))


def test_a_right_output_shows_no_failure():
    assert show("a b c", "a b c", sharp(0, 1, 2, size=3), 3) == []
    assert show("a a b", "a a b", sharp(0, 0, 0, size=3), 3) == []
    assert show("", "") == []


def test_omission():
    assert show("a c", "a b c", sharp(0, 2, size=3), 3) == ["omission"]
    assert (
        show("a c", "a b c", sharp(0, 2, size=2 + 1) + np.array([0, 0.1, 0, 0]), 3) == []
    )  # all was read: 0.2 in total
    assert show("a c", "a b c") == ["omission"]  # without weights the tokens decide
    assert "omission" not in show("a x c", "a b c", sharp(0, 0, 2, size=3), 3)  # as long as the reference
    assert show("", "a", np.zeros((0, 2)), 1) == ["omission"]


def test_repetition():
    assert show("a b b", "a b", sharp(0, 1, 1, size=2), 2) == ["repetition", "wrong_alignment"]
    assert "repetition" in show("a b a b", "a b c d", sharp(0, 1, 2, 3, size=4), 4)
    assert "repetition" in show("a b c d a b c d", "a b c d")
    assert "repetition" not in show("a b c d e a b c d e", "a b c d e")  # longer than four
    assert "repetition" not in show("that that is", "that that was")  # the reference says it too
    assert "repetition" not in show("a b a", "a b c")


def test_hallucination():
    diffuse = np.full((1, 4), 0.25)
    assert show("x", "a", diffuse, 3) == ["hallucination"]
    assert show("a", "a", diffuse, 3) == []  # diffuse but right
    assert show("x", "a", sharp(1, size=3), 3) == []  # wrong, but read from somewhere
    assert show("x", "a", sharp(3, size=3), 3) == ["hallucination"]  # read from the end symbol only
    assert show("x", "a") == ["hallucination"]


def test_wrong_alignment_without_gold_links():
    # x was read from where b was read.
    assert show("a b x", "a b c", sharp(0, 1, 1, size=3), 3) == ["wrong_alignment"]
    assert show("a b x", "a b c", sharp(0, 1, 2, size=3), 3) == []
    assert show("a x y", "a b c", sharp(0, 1, 1, size=3), 3) == []  # neither of the two is right


def test_wrong_alignment_with_gold_links():
    gold = parse_links("0-0 1?1 2-1")
    assert show("a b", "a b", gold=gold, forced=[(0, 0), (1, 1)]) == []
    assert show("a b", "a b", gold=gold, forced=[(1, 0), (1, 1)]) == ["wrong_alignment"]
    assert show("a b c", "a b c", gold=gold, forced=[(0, 2)]) == []  # c has no gold link to miss
    assert show("a b x", "a b c", sharp(0, 1, 1, size=3), 3, gold=gold, forced=[(0, 0)]) == []  # gold decides


def test_weights_may_hold_the_row_of_the_end_symbol():
    assert show("a b", "a b", sharp(0, 1, 2, size=2), 2) == []
    with pytest.raises(ValueError, match="1 rows of weights, expected 2"):
        show("a b", "a b", sharp(0, size=2), 2)


def test_failures_counts_outputs():
    outputs = [
        Output(["a", "b", "b"], ["a", "b"]),
        Output(["b", "b"], ["b"]),
        Output(["a"], ["a", "b"]),
        Output(["a"], ["a"]),
    ]
    expected = {"omission": 1, "repetition": 2, "hallucination": 2, "wrong_alignment": 0}
    assert failures(outputs) == expected
    assert list(FAILURES) == list(expected)
    assert all(text and "\n" not in text for text in FAILURES.values())


# The report


def report():
    links = parse_links("0-0 1-1")
    outputs = [
        Output(["a", "b"], ["a", "b"], sharp(0, 1, size=2), 2, [(0, 0), (1, 1)], links),
        Output(["a"], ["a", "c"], sharp(0, size=2), 2, [(0, 0), (0, 1)], links),
    ]
    return evaluate_report(["a b", "a"], ["a b", "a c"], outputs, [2, 2], tokenize="none", loss=math.log(3))


def test_evaluate_report(sacrebleu):
    found = report()
    expected = sacrebleu.corpus_bleu(["a b", "a"], [["a b", "a c"]], tokenize="none")
    assert list(found) == [
        "pairs", "bleu", "chrf", "ter", "signature", "exact_match", "token_error_rate", "perplexity", "by_length",
        "aer", "failures",
    ]  # fmt: skip
    assert found["pairs"] == 2 and found["bleu"] == expected.score and "tok:none" in found["signature"]
    assert found["exact_match"] == 0.5 and found["token_error_rate"] == 0.25
    assert found["perplexity"] == pytest.approx(3, rel=1e-15)
    assert [(r["from"], r["to"], r["pairs"]) for r in found["by_length"]] == [(2, 2, 2)]
    assert found["aer"] == pytest.approx(1 - 6 / 8, abs=1e-15)
    assert found["failures"] == {"omission": 1, "repetition": 0, "hallucination": 0, "wrong_alignment": 1}


def test_evaluate_report_without_the_text_extra_and_without_gold(without_text_extra):
    found = evaluate_report(["a"], ["a"], [Output(["a"], ["a"])], [1])
    assert [found[name] for name in ("bleu", "chrf", "ter", "signature", "aer", "perplexity")] == [None] * 6
    assert found["exact_match"] == 1.0 and found["token_error_rate"] == 0.0
    assert found["by_length"] == [{"from": 1, "to": 1, "pairs": 1, "bleu": None}]
