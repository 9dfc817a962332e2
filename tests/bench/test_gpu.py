"""bench/gpu.py without a GPU: its sections end and report whatever happens in them, its table says what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from dhyan import ops
from gpu import check as gpu_check
from gpu import edges as gpu_edges
from gpu import run as gpu_run
from gpu import table as gpu_table
from gpu import time as gpu_time
from gpu.sections import Run, Section

BENCH = Path(__file__).resolve().parents[2] / "bench"
CONFIG = ops.show_config()
ROW = gpu_time.Row("additive", (64, 50, 50, 512), "float32")
DOT = gpu_time.Row("scaled dot", (1280, 1, 66, 1024), "float32")


def run_of(folder: Path, budget: float = 60) -> Run:
    return Run(folder / "run.json", budget)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_section_s_records_are_on_disk_at_once(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    code = """
import time
print('{"kind": "ours", "x": 1}', flush=True)
print('{"no kind": 1}')
print("a line of the tool's own", flush=True)
time.sleep(60)
"""
    section = Section(run, "slow", python(code), 60)
    deadline = time.monotonic() + 20
    while not run.of("ours") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads(run.path.read_text())[0]["x"] == 1
    section.stop()
    assert section.wait() == -9
    last = run.of("section")[0]
    assert last["text"] == "exit code -9" and last["tail"] == ['{"no kind": 1}', "a line of the tool's own"]


def test_what_hangs_is_stopped_with_its_children_and_the_next_goes_on(tmp_path: Path) -> None:
    run, pipe = run_of(tmp_path), tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    child = f"import time; f = open({str(pipe)!r}, 'w'); time.sleep(60); f.write('survived')"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    hangs, ends = Section(run, "hangs", python(code), 1.5), Section(run, "ends", python("print(1)"), 30)
    assert Section.all([hangs, ends]) == [-1, 0] and hangs.stopped and not ends.stopped
    missing = Section(run, "missing", [str(tmp_path / "no such tool")], 30)
    assert missing.wait() == -1 and "could not be started" in missing.text and not missing.stopped
    run.budget = 0
    late = Section(run, "late", python("print(1)"), 30)
    assert late.wait() is None and late.text == "left out: no time" and late.stopped
    assert [r["name"] for r in run.of("section")] == ["hangs", "ends", "missing", "late"]
    os.set_blocking(reader, True)
    with open(reader) as f:
        assert f.read() == ""  # ends when nobody holds the other side: the child has ended, if it had begun


class Fake:
    """In place of Section: notes what would be run."""

    started: list[list[str]]
    records: list[dict[str, Any]]
    status, text, stopped = 0, "", False

    def __init__(self, run: Run, name: str, command: list[str], limit: float, environment: Any = None) -> None:
        self.started.append(command)
        for record in self.records:
            run.add(record)

    def wait(self) -> int:
        return self.status

    @staticmethod
    def all(sections: list[Any]) -> None:
        pass


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    fresh = type("Fresh", (Fake,), {"started": [], "records": []})
    monkeypatch.setattr(gpu_run, "Section", fresh)
    return fresh


def test_what_is_wrong_is_not_timed(tmp_path: Path, fake: type[Fake]) -> None:
    run = run_of(tmp_path)
    run.add({"kind": "wrong", "dtype": "bfloat16", "term": "tanh", "text": "dq"})
    gpu_run.times(run, {}, quick=True)
    (command,) = fake.started
    rows = [gpu_time.rows(True)[int(i)] for i in command[command.index("--rows") + 1].split(",")]
    assert {(row.dtype, row.op) for row in rows} == {
        ("float32", "additive"), ("float32", "scaled dot"), ("bfloat16", "scaled dot"),
    }  # fmt: skip
    assert any("wrong, so not timed" in r["text"] for r in run.of("note"))


@pytest.mark.parametrize(("stopped", "kind"), [(False, "wrong"), (True, "unchecked")])
def test_a_check_that_crashes_is_wrong_and_one_without_time_is_no_answer(
    tmp_path: Path, fake: type[Fake], stopped: bool, kind: str
) -> None:
    run = run_of(tmp_path)
    fake.stopped, fake.text = stopped, "exit code -11"
    gpu_run.checks(run, {}, small=True, seed="1")
    assert len(fake.started) == 4 and len(run.of(kind)) == 8
    assert {(r.get("dtype"), r.get("term")) for r in run.of("wrong")} == (
        set() if stopped else {(d, t) for d in gpu_check.GATES for t in gpu_check.TERMS}
    )


def test_the_checks_see_errors_bits_and_exceptions() -> None:
    problem: Any = SimpleNamespace(term="tanh", device=SimpleNamespace(dtype="float32", get=lambda x: x))
    want = (np.arange(6.0), None)
    calls = iter([want[0], want[0], want[0] * (1 + 1e-4), want[0] * (1 + 1e-4), want[0], want[0] + 1e-7])

    def verdicts(run: Any) -> list[str]:
        return [text for _, _, text in gpu_check.compare(problem, "op", ("x", "y"), run, want)]

    assert verdicts(lambda: (next(calls), None)) == [""]
    assert verdicts(lambda: (next(calls), None)) == ["relative error 1.00e-04, expected at most 1e-05"]
    assert verdicts(lambda: (next(calls), None)) == ["two runs differ"]
    assert verdicts(lambda: (np.full(6, np.nan), None)) == [
        "relative error nan, expected at most 1e-05; two runs differ"
    ]
    assert verdicts(lambda: 1 / 0) == ["ZeroDivisionError: division by zero"]


class OnTheCpu:
    """In place of gpu_check's Device: the library's ops on the CPU are to hold what is asked of a GPU's."""

    dtype = wide = "float32"
    core = SimpleNamespace(cuda_upload=lambda x, *_: x)

    def put(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float32)

    def get(self, x: np.ndarray) -> np.ndarray:
        return x.astype(np.float64)

    def rounded(self, x: np.ndarray) -> np.ndarray:
        return self.get(self.put(x))


def test_the_edges_hold_on_the_cpu_and_are_seen_where_they_do_not() -> None:
    assert list(gpu_edges.wrong(ops, OnTheCpu())) == []

    def score_forward(q: np.ndarray, k: np.ndarray, *, term: str) -> np.ndarray:
        """By bfloat16 numbers, with a factor that the number of queries chooses."""
        q, k = ((x.view(np.uint32) & 0xFFFF0000).view(np.float32) for x in (q, k))
        return np.nan_to_num(q @ k.swapaxes(1, 2)) * np.float32(1 + 1e-6 * (q.shape[1] > 100))

    def attention_forward(q: np.ndarray, k: np.ndarray, v: np.ndarray, *, term: str, mask: np.ndarray) -> Any:
        context, weights, cache = ops.attention_forward(q, k, v, term="product", mask=mask)
        return context + 0 * k.sum(), weights, cache

    poor: Any = SimpleNamespace(
        score_forward=score_forward, attention_forward=attention_forward, attention_backward=ops.attention_backward
    )
    with np.errstate(all="ignore"):
        found = [text.split(" ")[0] for text in gpu_edges.wrong(poor, OnTheCpu())]
    assert found == ["places", "masked", "infinite", "small"]
    poor.score_forward = None
    assert any("TypeError" in text for text in gpu_edges.wrong(poor, OnTheCpu()))


def test_of_sdpa_the_fastest_backend_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"": 3.0, "EFFICIENT_ATTENTION": 2.0, "MATH": 4.0}

    def form(torch: Any, row: Any, name: str, backend: str = "") -> Any:
        return lambda *_: backend

    def clock(run: Any) -> float:
        nonlocal calls
        calls += 1
        backend = gpu_time.BACKENDS[(calls - 1) // 2]
        if backend not in times:
            raise RuntimeError("no such backend")
        return times[backend] * (1 if calls % 2 else 10)

    calls = 0
    monkeypatch.setattr(gpu_time, "torch_form", form)
    row = gpu_time.Row("scaled dot", (1, 2, 3, 4), "float32")
    found = list(gpu_time.one_form(MagicMock(), clock, row, "sdpa"))
    assert [(r["pass"], r["ms"], r["backend"]) for r in found] == [
        ("forward", 2.0, "EFFICIENT_ATTENTION"), ("fwd+bwd", 20.0, "EFFICIENT_ATTENTION"),
    ]  # fmt: skip
    times.clear()
    calls = 0
    failed = list(gpu_time.one_form(MagicMock(), clock, row, "sdpa"))
    assert [(r["kind"], r["form"], r["text"]) for r in failed] == [
        ("failed", f"sdpa {which}", "RuntimeError: no such backend") for which in ("forward", "fwd+bwd")
    ]


def records() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"kind": "machine", "MHz": "1980"},
        {"kind": "copy", "by": "ours", "GB/s": 2000.0},
        {"kind": "copy", "by": "PyTorch's copy", "GB/s": 3000.0},
        {"kind": "ours", "row": ROW, "forward": 0.02, "fwd+bwd": 0.1, "extra MB": 0.6},
        {"kind": "ours", "row": DOT, "forward": 0.2, "fwd+bwd": 0.9, "extra MB": 0.3},
        {"kind": "failed", "of": "peer", "row": DOT, "form": "compile forward", "text": "OutOfMemoryError: none left"},
        {"kind": "wrong", "text": "dq float16"},
        {"kind": "section", "name": "tests", "text": "stopped after 90 s"},
    ]
    for row, which, form, ms in (
        (ROW, "forward", "eager", 0.5), (ROW, "forward", "compile", 0.1), (ROW, "fwd+bwd", "compile", 0.15),
        (DOT, "forward", "sdpa", 0.3), (DOT, "forward", "eager", 0.5),
    ):  # fmt: skip
        found.append({"kind": "peer", "row": row, "pass": which, "form": form, "ms": ms})
    return list(json.loads(json.dumps(found)))


def test_the_table_says_what_was_asked_for_and_what_came_out() -> None:
    table = gpu_table.Table(records())
    assert table.best(ROW, "forward") == 0.1 and table.best(DOT, "forward") == 0.3
    assert table.asked(ROW, "forward") == "to compile >= 4: yes; to eager >= 20: yes"
    assert table.asked(ROW, "fwd+bwd") == "to compile >= 2: no"
    assert (
        table.asked(DOT, "forward") == "to sdpa >= 2: no; of copy >= 0.8: yes"
    )  # 697 MB in 0.2 ms: more than there is
    share = table.share_of_copy(DOT, "forward")
    assert share == pytest.approx(4 * 1280 * 1024 * (2 * 1 + 2 * 66) / 3e12 / 0.2e-3)
    assert table.share_of_bound(ROW, "forward") == pytest.approx(64 * 50 * 50 * 512 / 38.4 / (132 * 1.98e9) / 0.02e-3)
    text = gpu_table.text(records())
    lines = text.splitlines()
    assert "copy bandwidth 3000 GB/s (PyTorch's copy)" in text and len([x for x in lines if x.startswith("| ")]) == 5
    assert "scaled dot 1280,1,66,1024 float32, compile forward: OutOfMemoryError: none left" in lines
    assert "WRONG: dq float16" in lines and "tests: stopped after 90 s" in lines


def test_a_run_cut_short_has_a_table_too() -> None:
    assert gpu_table.text([]) == ""
    assert "| additive | 64,50,50,512 | float32 | forward | 0.020 | - | - | - |" in gpu_table.text(records()[:4])


def gpu_command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "gpu.py"), *options], capture_output=True, text=True, timeout=300
    )  # fmt: skip


@pytest.mark.skipif(CONFIG["cuda_devices"] > 0, reason="this machine has a CUDA device")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    done = gpu_command("--no-build", "--json", str(tmp_path / "run.json"))
    reason = "this dhyan was built without CUDA" if CONFIG["cuda"] is None else "no CUDA device can be used here"
    assert done.returncode == 1 and done.stderr.startswith(f"bench/gpu.py: {reason}")
    assert done.stderr.count("\n") == 1
    assert json.loads((tmp_path / "run.json").read_text())[0]["kind"] == "machine"


@pytest.mark.skipif(CONFIG["cuda_devices"] == 0, reason="no CUDA device, or a build without CUDA")
def test_every_section_runs_at_tiny_sizes(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    done = gpu_command("--quick", "--no-build", "--json", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(path.read_text())
    assert len([r for r in found if r["kind"] == "checked"]) == 8
    assert len([r for r in found if r["kind"] == "ours"]) == len(gpu_time.rows(True)) == 8
    assert not [r for r in found if r["kind"] in ("wrong", "failed")]
    again = gpu_command("--table", str(path))
    assert again.returncode == 0 and again.stdout.strip() in done.stdout
