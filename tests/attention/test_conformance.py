"""dhyan.Attention against its specification, whose slopes and masks are what they claim; and errors are found."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from dhyan import ops
from helpers import conformance
from spec import attention as reference_attention
from spec import ops as reference
from spec.attention import SCORINGS
from spec.slopes import Taped, slopes

ISAS = ops.show_config()["isas"]


# ------------------------------------------------------------------------------------------------ the run


@pytest.mark.parametrize("score", SCORINGS)
def test_a_few_cases_of_every_scoring(isa: str, score: str) -> None:
    """Every scoring with every mask and on every instruction set, and both of these together in a part of the pairs."""
    first = (ISAS.index(isa) + SCORINGS.index(score)) % len(ISAS)
    numbers = range(first, len(conformance.PATTERNS), len(ISAS))
    tally = conformance.judged(conformance.cases(0, numbers, [score]))
    assert tally.failures == [] and tally.cases == 2 * len(numbers) and tally.checks > 10 * tally.cases


@pytest.mark.slow
@pytest.mark.parametrize("score", SCORINGS)
def test_four_hundred_cases_of_every_scoring(isa: str, score: str) -> None:
    tally = conformance.judged(conformance.cases(0, range(400), [score]))
    assert tally.failures == [] and tally.cases == 800


def test_cases_are_a_function_of_seed_number_and_scoring() -> None:
    def bits(*what: Any) -> list[bytes]:
        return [x.tobytes() for x in conformance.draw(*what).inputs.values()]

    assert bits(0, 5, "additive") == bits(0, 5, "additive")
    assert bits(0, 5, "additive") != bits(1, 5, "additive")
    assert bits(0, 5, "additive") != bits(0, 6, "additive")


def test_options_are_drawn() -> None:
    """What a run of some hundred shapes is to cover, on a few."""
    drawn = [conformance.draw(0, number, score) for number in range(48) for score in ("dot", "additive", "coverage")]
    seen = [dataclasses.asdict(case.setting) for case in drawn]
    assert {s["normalize"] for s in seen} == {"softmax", "sparsemax", "monotonic"}
    assert {s["heads"] for s in seen} == {1, 2, 4} and {s["normalized"] for s in seen} == {False, True}
    assert {s["predictive"] for s in seen} == {False, True} and len({s["temperature"] for s in seen}) > 2
    assert any(s["radius"] is not None and not s["predictive"] for s in seen)
    assert any(np.isnan(case.garbage) for case in drawn) and any(case.dweights is None for case in drawn)


# ------------------------------------------------------------------------------------------------ errors are found


def tally_of(case: conformance.Case) -> list[str]:
    return conformance.judged([case]).failures


WRONG = [
    ("context", 1e-4),
    ("weights", 1e-4),
    ("query", 1e-4),
    ("memory", 1e-4),
    ("parameter v", 1e-4),
    ("parameter location", 1e-4),
    ("query", 1e-10),  # found in float64 only
    ("memory", np.nan),
]


@pytest.mark.parametrize("name, size", WRONG)
def test_a_wrong_number_is_found(monkeypatch: pytest.MonkeyPatch, name: str, size: float) -> None:
    case = conformance.draw(0, 1, "location_sensitive")
    assert tally_of(case) == []
    right = conformance.computed

    def wrong(*arguments: Any) -> conformance.Arrays:
        found = {n: x.copy() for n, x in right(*arguments).items()}
        at = np.unravel_index(np.abs(found[name]).argmax(), found[name].shape)
        found[name][at] += size
        return found

    monkeypatch.setattr(conformance, "computed", wrong)
    failures = tally_of(case)
    assert any(name in failure and case.name in failure for failure in failures)
    in_float32 = any(failure.startswith("float32") for failure in failures)
    assert in_float32 == (not size < 1e-8)


def test_what_sees_the_masked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(c for c in (conformance.draw(0, n, "dot") for n in itertools.count(1, 16)) if np.isnan(c.garbage))
    right = conformance.computed

    def wrong(case: conformance.Case, dtype: type, hidden: np.ndarray | None = None) -> conformance.Arrays:
        found = right(case, dtype, hidden)
        return found if hidden is None else found | {"memory": found["memory"] + 1e-30}

    monkeypatch.setattr(conformance, "computed", wrong)
    assert any("memory sees nan" in failure for failure in tally_of(case))
    assert any("gradient of unseen memory is not 0" in failure for failure in tally_of(case))


def test_an_exception_is_a_failure_of_its_case(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any) -> None:
        raise ValueError("no such thing")

    monkeypatch.setattr(conformance, "computed", broken)
    case = conformance.draw(0, 1, "dot")
    assert tally_of(case) == [f"float{bits} {case.name}: ValueError: no such thing" for bits in (32, 64)]


# ------------------------------------------------------------------------------------------------ the masks


def test_masks_are_what_they_say() -> None:
    rng = np.random.default_rng(0)
    lengths, T, S = np.array([7, 4, 0, 1]), 5, 7
    frame = conformance.Frame(rng, lengths, T, S)
    assert len(conformance.PATTERNS) == 16
    allowed = {}
    for name, pattern in conformance.PATTERNS.items():
        setting = reference_attention.Setting("dot", radius=1 if name == "window" else None)
        sentences = pattern(frame)
        assert sentences.lengths is None or sentences.mask is None
        allowed[name] = reference_attention.may_attend((4, T, S), setting, sentences, None)
        assert name == "full" or not (allowed[name] & ~frame.inside).any(), name
    counts = {name: x.sum(2) for name, x in allowed.items()}
    some = lengths[:, None] > 0
    assert (counts["full"] == S).all() and (counts["lengths"] == lengths[:, None]).all()
    assert counts["causal"][0].tolist() == [3, 4, 5, 6, 7] and counts["causal"][1].tolist() == [0, 1, 2, 3, 4]
    assert counts["window"].max() == 3
    assert (counts["first only"] == some).all() and allowed["first only"][:2, :, 0].all()
    assert (counts["last only"] == some).all() and allowed["last only"][1, :, 3].all()
    assert counts["single"].max() == 1 and counts["all empty"].max() == 0
    assert counts["sparse"].sum() < counts["half"].sum() < counts["dense"].sum() < counts["lengths"].sum()
    assert not (allowed["checkerboard"][:, 1:] & allowed["checkerboard"][:, :-1]).any()
    assert counts["banded"].max() <= 5 and counts["ends"].max() == 4
    assert 0 < counts["block"].max() < S
    empty = (counts["empty rows"] == 0).all(0)
    assert empty[::2].all() != empty[1::2].all()


# ------------------------------------------------------------------------------------------------ the tape


@pytest.mark.parametrize("score", SCORINGS)
def test_slopes_of_the_tape_are_those_of_the_complex_step(score: str) -> None:
    for number in range(16):
        case = conformance.draw(3, number, score)
        small = max(x.size for x in case.inputs.values()) <= 200
        if not small:
            continue
        inputs = [x.astype(float) for x in case.inputs.values()]
        dweights = 0.0 if case.dweights is None else case.dweights

        def loss(*arguments: Any, case: conformance.Case = case, dweights: Any = dweights) -> Any:
            named = dict(zip(case.inputs, arguments, strict=True))
            read = conformance.specified(case.setting, case.sentences, named)
            return (read.context * case.dcontext).sum() + (read.weights * dweights).sum()

        gradients, _ = conformance.expected(case, np.float64)
        for i, name in enumerate(case.inputs):
            want = reference.complex_step(loss, inputs, i)
            np.testing.assert_allclose(gradients[name], want, rtol=1e-9, atol=1e-12, err_msg=f"{name} of {case.name}")
        return
    raise AssertionError("no small case")


def test_the_tape_keeps_the_precision() -> None:
    """Plain float32 NumPy is what dhyan's float32 is measured by: no float64 may hide in it."""
    for number, score in itertools.product(range(32), SCORINGS):
        found, _ = conformance.expected(conformance.draw(0, number, score), np.float32)
        assert {x.dtype for x in found.values()} == {np.dtype(np.float32)}, (score, number)


def test_what_the_tape_does_not_know_fails() -> None:
    x = Taped(np.ones(3))
    for unknown in (lambda: np.sin(x), lambda: np.add.reduce(x), lambda: np.sort(x), lambda: abs(x)):
        with pytest.raises(NotImplementedError, match="tape: "):
            unknown()


def test_slopes_by_hand() -> None:
    x, y = Taped(np.array([1.0, 2.0])), Taped(np.array([[3.0], [4.0]]))
    unused = Taped(np.ones(2))
    out = x * y / 2 - np.where(np.array([True, False]), x, 0) + 1
    dx, dy, nothing = slopes([(out, np.ones((2, 2))), (x, np.array([10.0, 0.0]))], [x, y, unused])
    assert dx.tolist() == [11.5, 3.5] and dy.tolist() == [[1.5], [1.5]] and nothing.tolist() == [0, 0]
