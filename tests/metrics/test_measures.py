"""Measures: each fact of one stands once, and what shows figures takes it from there."""

import dataclasses
import io

import pytest
from dhyan.cli import progress
from dhyan.cli.evaluate import print_report
from dhyan.metrics import measures
from dhyan.metrics.failures import Output
from dhyan.metrics.measures import AER, EXACT_MATCH, MEASURES, TOKEN_ERROR_RATE, Measure, Outcome
from dhyan.metrics.significance import paired_bootstrap
from dhyan.report import evaluation
from dhyan.training.loop import Report


def test_values_as_they_are_shown():
    assert EXACT_MATCH.text(0.985) == "98.50 %" and EXACT_MATCH.number(0.985) == "98.50"
    assert AER.text(0.05067) == "0.0507" and AER.text(None) == "–" and AER.text(None, "-") == "-"
    assert [m.better for m in MEASURES] == ["higher", "higher", "lower", "higher", "lower", "lower", "lower"]
    assert len({m.key for m in MEASURES}) == len({m.name for m in MEASURES}) == len(MEASURES)


def test_an_entry_is_all_that_a_new_measure_needs(monkeypatch):
    """It is in the figures of an evaluation, in what the command prints, and is resampled."""
    words = Measure(
        "brevity", "output tokens", "%", 1, "higher",
        measures.Share(lambda hs, rs: sum(map(len, hs)) / sum(map(len, rs)), lambda h, r: (len(h), len(r)), True),
    )  # fmt: skip
    for module in ("dhyan.report.evaluation", "dhyan.cli.evaluate", "dhyan.metrics.significance"):
        monkeypatch.setattr(f"{module}.MEASURES", (*MEASURES, words))
    outputs = [Output(["a"], ["a", "b"]), Output(["c", "d"], ["c", "d"])]
    result = evaluation.evaluate_report(["a", "c d"], ["a b", "c d"], outputs, [1, 1])
    assert result["brevity"] == 0.75
    stream = io.StringIO()
    print_report(result, stream)
    assert "output tokens          75.0 %\n" in stream.getvalue()
    compared = paired_bootstrap(["a", "c d"], ["a b", "c d"], ["a b", "c d"], outputs,
                                [Output(["a", "b"], ["a", "b"]), outputs[1]], samples=20)  # fmt: skip
    assert compared["measures"]["brevity"]["score"] == 0.75 and compared["measures"]["brevity"]["against"] == 1


def test_shares_are_their_counts():
    """What is resampled sums to what is shown."""
    outputs = [Output(list("abcd"), list("abxd")), Output(list("e"), list("ef"))]
    test = Outcome(["abcd", "e"], ["abxd", "e"], outputs)
    for measure, expected in ((EXACT_MATCH, 1 / 2), (TOKEN_ERROR_RATE, 2 / 6)):
        counts = measure.figure.of_sentences(test)
        assert measure.figure(test) == sum(n for n, _ in counts) / sum(n for _, n in counts) == expected


def test_the_error_that_chooses_a_model_and_its_line():
    report = Report(epoch=1, step=10, train_loss=1.0, valid_loss=2.0, token_error_rate=0.3, exact_match=0.25, lr=0.1,
                    seconds=1.0, tokens_per_second=100.0, best=True)  # fmt: skip
    assert report.error == pytest.approx(0.525) and "error" not in dataclasses.asdict(report)
    assert progress.HEADING.split()[4:6] == ["errors", "exact"]
    assert progress.row(report).split()[4:6] == ["30.00%", "25.00%"]
