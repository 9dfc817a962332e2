"""The bench itself: every case runs and agrees at tiny sizes, and what does not agree is not timed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report
import run
from cases import all as cases
from cases import attention as attentions
from dhyan import ops
from sides import numpy as plain

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCORED = [c for c in run.distinct(list(cases.CASES)) if c.section == "scorings"]


class Local:
    """A side in this process that computes with NumPy, and may be wrong on purpose."""

    def __init__(self, name: str, spoil: float = 0.0) -> None:
        self.name, self.spoil, self.timed = name, spoil, 0
        self.numpy = plain.Side()

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        case = next(c for c in cases.CASES if c.name == request["case"]).quick() if "case" in request else None
        if do == "forms":
            assert case is not None
            return {"forms": list(self.numpy.forms(case)) if self.name == "numpy" else ["form"]}
        if do == "outputs":
            assert case is not None
            form = request["form"] if self.name == "numpy" else "float32"
            calls = self.numpy.prepare(case, form, cases.inputs(case))
            outputs = {n: np.asarray(a) * (1 + self.spoil) for n, a in calls[request["pass"]]().items()}
            np.savez(request["path"], **outputs)
        if do == "time":
            self.timed += 1
            return {"seconds": [1e-3, 2e-3, 3e-3]}
        return {}


def kernel(op: str) -> cases.Case:
    return next(c for c in cases.CASES if c.op == op and c.section == "kernels")


def bench_of(folder: Path, *sides: Local) -> run.Bench:
    return run.Bench(list(sides), run.Plan(2, 0.0, 1, quick=True), folder)


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(BENCH / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_quick_run_checks_every_case_without_torch(tmp_path: Path) -> None:
    out = tmp_path / "run.json"
    done = start("--quick", "--torch", "none", "--out", str(out))
    assert done.returncode == 0, done.stderr
    result = json.loads(out.read_text())
    assert result["failures"] == []
    assert "torch" not in result["sides"]
    assert [r["name"] for r in result["results"]] == [c.name for c in run.distinct(list(cases.CASES))]
    for r in result["results"]:
        if r["op"] == "bf16" and not ops.has_bf16():
            continue
        assert any(label.startswith("dhyan/") for label in r["errors"]), r["name"]
        assert set(r["passes"]) == set(next(c for c in cases.CASES if c.name == r["name"]).passes)
        for times in r["passes"].values():
            assert report.best(times, "dhyan") is not None, r["name"]
    assert report.tables(result) == done.stdout.rstrip("\n")


def test_quick_cases_cover_every_operation() -> None:
    def kinds(chosen: list[cases.Case]) -> set[tuple[str, str, str, bool]]:
        return {(c.section, c.op, c.cell, c.sizes.get("T") == 1) for c in chosen}

    assert kinds(run.distinct(list(cases.CASES))) == kinds(list(cases.CASES))
    assert len({case.name for case in cases.CASES}) == len(cases.CASES)
    assert len(cases.memory_cases()) == 3


@pytest.mark.parametrize("op", ["additive", "scaled_dot", "softmax", "context", "linear", "output_loss"])
def test_a_wrong_kernel_is_not_timed(tmp_path: Path, op: str) -> None:
    wrong, right = Local("dhyan", spoil=1e-4), Local("torch")
    bench = bench_of(tmp_path, wrong, right, Local("numpy"))
    result = bench.measure_case(kernel(op))
    assert wrong.timed == 0 and right.timed > 0
    assert len(bench.failures) == 1 and "not timed" in bench.failures[0]
    assert all(report.best(times, "dhyan") is None for times in result["passes"].values())
    assert report.row({"fma_peak": None, "results": [], "quick": False}, result, "forward")[2] == "-"


def test_a_right_kernel_is_timed_in_turns(tmp_path: Path) -> None:
    ours = Local("dhyan")
    bench = bench_of(tmp_path, ours, Local("numpy"))
    result = bench.measure_case(kernel("additive"))
    assert bench.failures == []
    assert ours.timed == 2 * len(result["passes"])
    rounds = result["passes"]["forward"]["dhyan/form"]
    assert [r["median"] for r in rounds] == [2e-3, 2e-3]


def test_a_missing_output_fails(tmp_path: Path) -> None:
    class Forgetful(Local):
        def ask(self, do: str, **request: Any) -> dict[str, Any]:
            reply = super().ask(do, **request)
            if do == "outputs":
                with np.load(request["path"]) as arrays:
                    kept = {name: array for name, array in arrays.items() if name != "dq"}
                np.savez(request["path"], **kept)
            return reply

    bench = bench_of(tmp_path, Forgetful("dhyan"), Local("numpy"))
    bench.measure_case(kernel("scaled_dot"))
    assert "dq is missing" in bench.failures[0]


def test_numpy_without_a_result_excuses_nothing() -> None:
    case = kernel("softmax")
    known = run.allowed(case, {"weights": 1e-6}, "weights", "dhyan")
    assert 4e-6 < known < 1e-5
    assert (
        run.allowed(case, {"weights": np.inf}, "weights", "dhyan") == run.allowed(case, {}, "weights", "dhyan") < known
    )


def test_large_scorings_are_checked_by_pytorch_and_tiny_ones_by_the_specification(tmp_path: Path) -> None:
    """The specification is never asked at a real size, which it could not hold in memory."""

    class Asked(Local):
        def ask(self, do: str, **request: Any) -> dict[str, Any]:
            if do == "outputs":
                asked.append((self.name, request["form"], request["quick"]))
            if do == "forms" and self.name == "torch":
                return {"forms": ["eager", "float64"]}
            return super().ask(do, **request)

    case = next(c for c in SCORED if c.op == "dot")
    plan = run.Plan(1, 0.0, 1)
    asked: list[tuple[str, str, bool]] = []
    run.Bench([Asked("dhyan"), Asked("torch"), Asked("numpy")], plan, tmp_path).measure_case(case)
    assert asked[0] == ("torch", "float64", False) and {(name, quick) for name, _, quick in asked} == {
        ("torch", False), ("dhyan", False),
    }  # fmt: skip
    asked.clear()
    result = run.Bench([Asked("dhyan"), Asked("numpy")], plan, tmp_path).measure_case(case)
    assert asked[0] == ("numpy", "float64", True) and all(quick for _, _, quick in asked)
    assert set(result["passes"]["forward"]) == {"dhyan/form"}  # what is checked by is not timed


def test_eager_leaves_compiled_forms_out(tmp_path: Path) -> None:
    class Two(Local):
        def ask(self, do: str, **request: Any) -> dict[str, Any]:
            return {"forms": ["eager", "compile-sum"]} if do == "forms" else super().ask(do, **request)

    for eager, labels in ((True, {"torch/eager"}), (False, {"torch/eager", "torch/compile-sum"})):
        plan = run.Plan(1, 0.0, 1, quick=True, eager=eager)
        result = run.Bench([Two("torch"), Local("numpy")], plan, tmp_path).measure_case(kernel("softmax"))
        assert {label for label in result["passes"]["forward"] if label.startswith("torch/")} == labels


def test_every_scoring_and_every_variant_has_a_case() -> None:
    import dhyan

    for section in ("scorings", "steps"):
        labels = {case.op for case in cases.CASES if case.section == section}
        assert set(dhyan.scorings()) <= labels
        assert all(
            any(word in op for op in labels) for word in ("window", "predictive", "sparsemax", "monotonic", "heads")
        )
    used = {op.partition(" ")[2] for op in (case.op for case in cases.CASES if case.section in ("scorings", "steps"))}
    assert used == set(attentions.VARIANTS)


def test_padding_is_drawn_and_no_choice_is_close() -> None:
    for case in SCORED:
        a, own = cases.inputs(case.quick()), case.op.endswith(attentions.CAUSAL)
        assert own or a["lengths"].min() < a["lengths"].max() == case.quick().sizes["S"]
        which = attentions.setting(case.op)
        if which.predictive or which.normalize == "sparsemax":
            wide = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in a.items()}
            assert attentions.margin(which, wide) > attentions.CLEAR


def test_nan_and_wrong_shapes_are_errors() -> None:
    exact = {"x": np.ones((2, 3)), "y": np.ones((2, 3))}
    found = run.errors({"x": np.full((2, 3), np.nan, np.float32), "y": np.ones((3, 2), np.float32)}, exact)
    assert found == {"x": np.inf, "y": np.inf}


def test_reference_gradients_are_slopes() -> None:
    """float64 central differences along one random direction, every kernel."""
    rng = np.random.default_rng(3)
    dout = dict.fromkeys(("additive", "scaled_dot", "context"), "dcontext") | {"softmax": "dweights", "linear": "dy"}
    for op in ("additive", "scaled_dot", "softmax", "context", "linear", "output_loss"):
        case = kernel(op).quick()
        a = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in cases.inputs(case).items()}
        gradients = plain.Side().prepare(case, "float64", a)[cases.BOTH]()

        def total(b: dict[str, np.ndarray], op: str = op, case: cases.Case = case) -> float:
            y = plain.Side().prepare(case, "float64", b)[cases.FORWARD]()
            (value,) = y.values()
            return float((value * b[dout[op]]).sum() if op in dout else value.sum())

        names = [name for name in a if f"d{name}" in gradients]
        assert names
        for name in names:
            step = rng.standard_normal(a[name].shape)
            slope = (total(a | {name: a[name] + 1e-6 * step}) - total(a | {name: a[name] - 1e-6 * step})) / 2e-6
            np.testing.assert_allclose((gradients[f"d{name}"] * step).sum(), slope, rtol=1e-6, atol=1e-7, err_msg=op)


def times(*medians: float) -> list[dict[str, float]]:
    return [{"calls": 9, "q1": m * 0.99, "median": m, "q3": m * 1.01} for m in medians]


def test_ratio_is_taken_within_rounds() -> None:
    """A moment that slows both sides does not move the ratio."""
    found = {"dhyan/a": times(1, 5, 1), "torch/x": times(3, 15, 3), "torch/y": times(4, 4, 4)}
    assert report.best(found, "torch") == "torch/x"
    assert report.ratio(found, "torch/x", "dhyan/a") == (3, 3, 3)
    assert report.best(found, "numpy") is None


def test_steps_stand_beside_additive() -> None:
    def of(op: str, *medians: float) -> dict[str, Any]:
        passes = {"step": {"dhyan/dhyan": times(*medians)}}
        return {"op": op, "cell": "gru", "shape": "B2", "errors": {"dhyan/dhyan": {"loss": 0.0}}, "passes": passes}

    text = report.steps_table([of("additive", 1, 2, 4), of("coverage", 3, 6, 4)])
    assert "| 1.00 " in text and "| 2.00 " in text
    assert "4000 ±" in report.steps_table([of("coverage", 3, 6, 4)])  # without additive there is nothing to compare


def test_comparison_says_what_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def saved(name: str, *medians: float) -> str:
        r = {"name": "kernels k", "passes": {"forward": {"dhyan/a": times(*medians), "torch/x": times(8, 8, 8)}}}
        m = {"processor": "p", "cores": 2}
        text = {"started": name, "machine": m, "sides": {"dhyan": {"isa": "v4"}}, "results": [r]}
        (tmp_path / name).write_text(json.dumps(text))
        return str(tmp_path / name)

    slow, fast, near = saved("slow", 4, 4, 4), saved("fast", 2, 2, 2), saved("near", 3.98, 4, 4.02)
    for pair, words in (((slow, fast), ("2.00x", "faster", "2.00 -> 4.00")), ((fast, slow), ("0.50x", "SLOWER"))):
        assert report.main(list(pair)) == 0
        text = capsys.readouterr().out
        assert all(word in text for word in words), text
    assert report.main([slow, near]) == 0
    assert "within the spread" in capsys.readouterr().out


def test_bad_arguments_are_one_line(tmp_path: Path) -> None:
    done = start("--only", "no-such-case", "--torch", "none")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and "--list" in done.stderr
    assert report.main([str(tmp_path / "absent.json")]) == 1


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed; only the bench uses it")
def test_twins_compute_the_same(tmp_path: Path) -> None:
    """Eager forms only: compiling takes a minute."""
    from sides import torch as twins

    side = twins.Side()
    bench = bench_of(tmp_path, Local("numpy"))
    for case in run.distinct(list(cases.CASES)):
        tiny = case.quick()
        arrays = cases.inputs(tiny)
        which = "check" if case.modelled else case.passes[-1]
        exact = bench.outputs(bench.sides[0], case, "float64", which, True)
        for form in side.forms(case):
            # autocast: products in bfloat16; float64 is what the section "scorings" is checked by at its real sizes
            limit = {"eager-autocast": 0.05, "float64": 1e-10}.get(form, 1e-4)
            if "compile" not in form:
                outputs = side.prepare(tiny, form, arrays)[which]()
                found = run.errors({n: np.asarray(x.detach()) for n, x in outputs.items()}, exact)
                assert set(found) == set(exact) and max(found.values()) < limit, (case.name, form, found)


def test_memory_table_takes_the_state_off_both_sides() -> None:
    def of(name: str, mine: int, theirs: int, state: int) -> dict[str, Any]:
        peaks = {"dhyan/dhyan": mine, "torch/eager": theirs}
        sides = {side: {"peak": peak * 10**6, "outputs": 0, "state": state * 10**6} for side, peak in peaks.items()}
        return {"op": name, "cell": "gru", "shape": "B1", "pass": "step", "peaks": sides}

    lines = report.memory_table([of("train", 150, 300, 100), of("train", 40, 80, 0)]).splitlines()[2:]
    cells = [[cell.strip() for cell in line.split("|")[6:10]] for line in lines]
    assert cells == [
        ["1.00", "100.0", "50.0", "1.00"],
        ["0.50", "100.0", "200.0", "0.25"],
        ["1.00", "", "", ""],
        ["0.50", "", "", ""],
    ]
