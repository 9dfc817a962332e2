"""Measure dhyan beside PyTorch and NumPy: every case is checked first, then timed in turns, side after side.

    python bench/run.py                          everything, 30 to 40 minutes with PyTorch
    python bench/run.py --only train,decode      sections, or any part of a case's name
    python bench/run.py --quick                  every case at tiny sizes in seconds: does it all still run and agree?
    python bench/run.py --torch PYTHON           the interpreter that has PyTorch; by default this one
Writes one JSON file a run and prints it as tables (report.py). Exit 1 if any result does not match its reference.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Protocol

import machine
import numpy as np
import report
from cases.all import CASES, SECTIONS, Case, memory_cases, work
from paths import RESULTS, importing

INSTALL = "PyTorch is not here, ours runs alone; to compare: pip install torch==2.13.0"
ORDER = ("numpy", "torch", "dhyan")  # of the checks: the plain forms first, whose error is the measure of ours
EPS = float(np.finfo(np.float32).eps)
PAUSE = 0.02  # seconds between sides: OpenMP's threads wait actively for some milliseconds before they sleep
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MEMORY_FORMS = ("dhyan", "weights", "eager", "compile-sum")  # compiling whole models takes minutes a process


class WorkerError(RuntimeError):
    """A side could not do what it was asked; the message is one line."""


class Side(Protocol):
    """What `measure_case` needs of a side."""

    name: str

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        ...


class Host:
    """A worker process; a dead one is replaced, so that one crash costs one case."""

    def __init__(self, names: str, python: str) -> None:
        self.names, self.python = names, python
        self.start()

    def start(self) -> None:
        """A fresh process."""
        command, pipe = [self.python, "-m", "sides.worker", self.names], subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=importing())

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer. WorkerError when it failed or died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.close()
            code = self.process.returncode
            self.start()
            raise WorkerError(f"{request['side']}: the worker ended with code {code} at {request['do']!r}")
        reply = json.loads(line)
        if "error" in reply:
            raise WorkerError(f"{request['side']}: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


class Remote:
    """A side that lives in a host."""

    def __init__(self, name: str, host: Host) -> None:
        self.name, self.host, self.python = name, host, host.python

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        return self.host.ask({"side": self.name, "do": do, **request})


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to measure: rounds of turns, and seconds a side and form gets in each."""

    rounds: int = 7
    budget: float = 0.25
    least: int = 2
    quick: bool = False
    clock: str = "wall"
    eager: bool = False  # without torch.compile


def errors(outputs: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, float]:
    """Name -> largest difference over the largest value of the reference (over 1 where that is all zeros)."""
    found = {}
    for name, want in exact.items():
        if name not in outputs:
            continue
        got = outputs[name]
        if got.size != want.size or (want.ndim and got.ndim and got.shape != want.shape and want.size != 1):
            found[name] = float("inf")
            continue
        difference = np.abs(got.astype(np.float64).reshape(want.shape) - want).max(initial=0.0)
        found[name] = float(np.nan_to_num(difference, nan=np.inf) / (np.abs(want).max(initial=0.0) or 1.0))
    return found


def allowed(case: Case, plain: dict[str, float], name: str, side: str) -> float:
    """The gate before timing: does this compute the right thing? (How accurately is what the tests promise.)

    Kernels: 4 times the error of plain float32 NumPy (of attention with all its options at its real sizes: of eager
    PyTorch) on the same inputs, and 16 eps. Whole models have no NumPy form:
    200 eps on sizes below 10, where a wrong term is off by percents. A peer need only compute the same thing: 1e-4.
    Products in bfloat16: 2^-9 a factor, through ten products, 5 %. Decoded ids are equal or not. Where NumPy itself has
    no finite result, it excuses nothing.
    """
    if case.section == "decode":
        return 0.0
    if case.op == "bf16":
        return 0.05
    known = plain.get(name, 0.0)
    ours = 200 * EPS if case.modelled else 4 * (known if np.isfinite(known) else 0.0) + 16 * EPS
    return max(ours, 1e-4) if side == "torch" else ours


def side_checks(case: Case, side: str) -> tuple[str, ...]:
    """Forms to check by, which are not timed: the specification is written for reading."""
    return ("float64", "float32") if side == "numpy" and case.section == "scorings" else ("float64",)


class Bench:
    """The sides, and what has been measured with them."""

    def __init__(self, sides: list[Side], plan: Plan, folder: Path) -> None:
        self.sides, self.plan, self.folder = sides, plan, folder
        self.failures: list[str] = []

    def outputs(self, side: Side, case: Case, form: str, which: str, quick: bool) -> dict[str, np.ndarray]:
        """What one form of one side computes."""
        path = self.folder / "outputs.npz"
        side.ask("outputs", case=case.name, quick=quick, form=form, path=str(path), **{"pass": which})
        with np.load(path) as arrays:
            return dict(arrays)

    def check(self, case: Case, forms: dict[str, list[str]]) -> tuple[dict[str, dict[str, float]], set[str]]:
        """Errors of every side's forms against the reference in float64, and the labels that do not match.

        The reference is NumPy's: plain formulas, or the tests' specification where sizes are tiny. Attention with all
        its options has no other form in NumPy; at its real sizes the reference is PyTorch's in float64, which the tests
        compare with the specification, and without PyTorch the check is made at tiny sizes.
        """
        sides = {side.name: side for side in sorted(self.sides, key=lambda side: ORDER.index(side.name))}
        which, quick, judge = case.passes[-1], self.plan.quick, sides["numpy"]
        if case.modelled:
            which, quick = "check", True
        elif case.section == "scorings" and not quick:
            judge, quick = (sides["torch"], False) if "torch" in sides else (judge, True)
            sides = {name: side for name, side in sides.items() if name != "numpy" or quick}
        exact = self.outputs(judge, case, "float64", which, quick)
        found: dict[str, dict[str, float]] = {}
        wrong: set[str] = set()
        for side in sides.values():
            for form in forms[side.name]:
                label = f"{side.name}/{form}"
                try:
                    outputs = self.outputs(side, case, form, which, quick)
                except WorkerError as error:
                    self.fail(case, label, str(error))
                    wrong.add(label)
                    continue
                found[label] = errors(outputs, exact)
                plain = found.get("numpy/float32", {} if "torch/eager" in wrong else found.get("torch/eager", {}))
                gates = {name: allowed(case, plain, name, side.name) for name in exact}
                missing = [name for name in exact if name not in found[label]]
                bad = [name for name, error in found[label].items() if error > gates[name]] + missing
                if side.name != "numpy" and bad:
                    name = bad[0]
                    got = found[label].get(name)
                    off = (
                        "missing"
                        if got is None
                        else f"off by {got:.1e} of its largest value, allowed {gates[name]:.1e}"
                    )
                    self.fail(case, label, f"{name} is {off}; it is not timed")
                    wrong.add(label)
        return found, wrong

    def fail(self, case: Case, label: str, what: str) -> None:
        """Note a failure; the run goes on and ends with exit code 1."""
        self.failures.append(f"{case.name}: {label}: {what}")
        print(f"FAILED {self.failures[-1]}", file=sys.stderr, flush=True)

    def measure_case(self, case: Case) -> dict[str, Any]:
        """Check, then time in turns: A B C A B C ... so that a busy moment of the machine meets every side."""
        name = case.name
        forms = {s.name: s.ask("forms", case=case.name, quick=self.plan.quick)["forms"] for s in self.sides}
        if self.plan.eager:
            forms = {name: [form for form in some if not form.startswith("compile")] for name, some in forms.items()}
        found, wrong = self.check(case, forms)
        for side in self.sides:
            side.ask("release")
        turns = [
            (side, form)
            for side in self.sides
            for form in forms[side.name]
            if form not in side_checks(case, side.name) and f"{side.name}/{form}" not in wrong
        ]
        passes = {which: self._time(case, which, list(turns)) for which in case.passes} if turns else {}
        for side in self.sides:
            side.ask("release")
        asked = {"must": case.must, "aim": case.aim}
        case = dataclasses.replace(case.quick(), must=case.must, aim=case.aim) if self.plan.quick else case
        shape = {"section": case.section, "op": case.op, "cell": case.cell, "sizes": case.sizes, "shape": case.shape}
        rates = {which: dict(zip(("work", "unit"), work(case, which), strict=True)) for which in case.passes}
        return {"name": name, **shape, **asked, "work": rates, "errors": found, "passes": passes}

    def _time(self, case: Case, which: str, turns: list[tuple[Side, str]]) -> dict[str, list[dict[str, float]]]:
        """label -> a summary of each round. A form far behind its side's best is not measured again."""
        times: dict[str, list[dict[str, float]]] = {}
        for number in range(self.plan.rounds):
            for side, form in list(turns):
                label = f"{side.name}/{form}"
                time.sleep(0 if self.plan.quick else PAUSE)
                least = self.plan.least if side.name != "numpy" else 1
                budget = {"budget": self.plan.budget, "least": least, "clock": self.plan.clock}
                request = {"case": case.name, "quick": self.plan.quick, "form": form, "pass": which}
                try:
                    seconds = side.ask("time", **request, **budget)["seconds"]
                    times.setdefault(label, []).append(summary(seconds))
                except WorkerError as error:
                    self.fail(case, label, str(error))
                    turns.remove((side, form))
            if number == 0:
                turns = [(side, form) for side, form in turns if not self._hopeless(times, side.name, form)]
        return times

    @staticmethod
    def _hopeless(times: dict[str, list[dict[str, float]]], side: str, form: str) -> bool:
        medians = {label: rounds[0]["median"] for label, rounds in times.items() if label.startswith(side + "/")}
        mine = medians.get(f"{side}/{form}")
        if side == "numpy":  # a slow reference need not be measured seven times
            return mine is not None and mine > 1.0
        return mine is not None and mine > 1.6 * min(medians.values())


def summary(seconds: list[float]) -> dict[str, float]:
    """One turn's calls: how many, and the quartiles of their seconds."""
    q1, middle, q3 = (float(x) for x in np.percentile(seconds, (25, 50, 75)))
    return {"calls": len(seconds), "q1": q1, "median": middle, "q3": q3}


def measure_memory(case: Case, sides: list[Remote]) -> dict[str, Any]:
    """Peak memory of the last pass, one fresh process a side and form."""
    peaks = {}
    for side in sides:
        forms = side.ask("forms", case=case.name, quick=False)["forms"]
        for form in (form for form in forms if form in MEMORY_FORMS):
            command = [side.python, "-m", "sides.worker", side.name, "--memory", case.name, form]
            done = subprocess.run(command, capture_output=True, text=True, env=importing())
            if done.returncode:  # its last line says why
                raise WorkerError(f"{side.name}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
            peaks[f"{side.name}/{form}"] = json.loads(done.stdout.splitlines()[-1])
    return {"name": case.name.replace(case.section, "memory", 1), "section": "memory", "shape": case.shape,
            "op": case.op, "cell": case.cell, "pass": case.passes[-1], "peaks": peaks}  # fmt: skip


def chosen(only: str) -> list[Case]:
    """The cases whose section is, or whose name contains, one of the words of `only`."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    return [case for case in CASES if not words or any(word == case.section or word in case.name for word in words)]


def distinct(cases: list[Case]) -> list[Case]:
    """Cases that still differ at their tiny sizes."""
    return list({(c.section, c.op, c.cell, c.quick().shape): c for c in reversed(cases)}.values())[::-1]


def torch_python(asked: str | None) -> str | None:
    """The interpreter with PyTorch, or None."""
    if asked == "none":
        return None
    if asked:
        return asked
    return sys.executable if importlib.util.find_spec("torch") else None


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", default="", help=f"sections ({', '.join(SECTIONS)}) or parts of names, comma between")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: do all cases run and agree?")
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has PyTorch; none: leave PyTorch out")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side (7)")
    parser.add_argument("--budget", type=float, default=0.25, help="seconds of a turn (0.25)")
    parser.add_argument("--cpu-time", action="store_true", help="one thread, processor time: for a busy machine")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out: minutes less, a weaker peer")
    parser.add_argument("--one-process", action="store_true", help="all sides in one process, to see what that does")
    parser.add_argument("--out", type=Path, help="the JSON file (bench/results/DATE.json)")
    parser.add_argument("--list", action="store_true", help="print the names of the cases and stop")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run what was asked for; 1 if anything did not match."""
    o = arguments(argv)
    cases = chosen(o.only)
    wants_memory = not o.quick and (not o.only or "memory" in o.only)
    if o.list:
        print("\n".join(case.name for case in cases))
        return 0
    if not cases and not wants_memory:
        print(f"--only {o.only}: no case has such a section or name; see --list", file=sys.stderr)
        return 2
    plan = Plan(o.rounds, o.budget, clock="processor" if o.cpu_time else "wall", eager=o.eager)
    if o.quick:
        plan = Plan(1, 0.0, 1, True, eager=o.eager)
    if o.cpu_time:
        os.environ.update(dict.fromkeys(THREADS, "1"))
    cases = distinct(cases) if o.quick else cases
    python = torch_python(o.torch)
    if python is None and o.torch != "none":
        print(INSTALL, file=sys.stderr)
    started = datetime.datetime.now().astimezone()
    neighbours = machine.Neighbours()
    pythons = {"dhyan": sys.executable, **({"torch": python} if python else {}), "numpy": sys.executable}
    hosts = {name: Host(name, path) for name, path in pythons.items()} if not o.one_process else {}
    shared = Host(",".join(pythons), python or sys.executable) if o.one_process else None
    sides = [Remote(name, shared or hosts[name]) for name in pythons]
    results: list[dict[str, Any]] = []
    try:
        try:
            facts = {side.name: side.ask("facts")["facts"] for side in sides}
        except WorkerError as error:  # the worker itself has said why, on stderr
            print(f"run.py: {error}", file=sys.stderr)
            return 1
        peak = None if o.quick else machine.fma_peak(1 if o.cpu_time else machine.cores())
        if peak is None and not o.quick:  # no compiler: shares are then of the best matrix product of the run
            cases = [c for c in CASES if c.section == "gemm"] + [c for c in cases if c.section != "gemm"]
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(list(sides), plan, Path(folder))
            for case in cases:
                results.append(bench.measure_case(case))
                print(report.progress(results[-1]), file=sys.stderr, flush=True)
        for case in memory_cases() if wants_memory else []:
            try:
                results.append(measure_memory(case, sides))
            except WorkerError as error:
                bench.fail(case, "memory", str(error))
        again = sides[0].ask("facts")["facts"]
        if again["built"] != facts["dhyan"]["built"]:
            bench.failures.append("dhyan was built anew while the run went on: its figures are of no one version")
    finally:
        for host in {id(side.host): side.host for side in sides}.values():
            host.close()
    run = {
        "started": started.isoformat(timespec="seconds"), "quick": o.quick, "rounds": plan.rounds,
        "one_process": o.one_process, "clock": plan.clock,
        "machine": machine.facts(), "sides": facts, "fma_peak": peak, "neighbours": neighbours.share(),
        "failures": bench.failures, "results": results,
    }  # fmt: skip
    out = o.out or RESULTS / f"{started:%Y%m%d-%H%M%S}{'-quick' if o.quick else ''}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(report.tables(run))
    print(f"\nwritten to {out}", file=sys.stderr)
    return 1 if bench.failures else 0


if __name__ == "__main__":
    sys.exit(main())
