"""The bench of scorings: it has a row for every one of them, and prints and writes what it measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dhyan

BENCH = Path(__file__).resolve().parents[2] / "bench" / "task.py"


def start(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), "scorings", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_every_scoring_has_a_row() -> None:
    names = start("--list").stdout.splitlines()
    assert names[: len(dhyan.scorings())] == dhyan.scorings() and len(names) == len(set(names))
    text = "\n".join(names)
    assert all(word in text for word in ("window", "predictive", "sparsemax", "monotonic", "heads", "guided"))
    assert not any("," in name for name in names)  # --only separates by commas


def test_it_prints_a_table_and_writes_what_it_measured(tmp_path: Path) -> None:
    out = tmp_path / "new" / "run.json"
    done = start("--quick", "--only", "general, oracle,additive guided 0.5", "--seed", 7, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows == ["scoring", "oracle", "general", "additive guided 0.5"]
    assert done.stdout.startswith("- 20") and "cores" in done.stdout and "seed 7" in done.stdout
    run = json.loads(out.read_text(encoding="utf-8"))
    assert [result["name"] for result in run["results"]] == rows[1:]
    oracle, general, guided = run["results"]
    assert guided["train"] == {"seed": 7, "guided": 0.5} and oracle["parameters"] < general["parameters"]
    assert oracle["aer"] < general["aer"]  # however little was learned, the oracle points to gold links
    for result in run["results"]:
        assert 0 <= result["exact_match_longest"] <= 1 and len(result["bleu_by_length"]) == 4


def test_a_task_that_is_none_is_named() -> None:
    done = subprocess.run([sys.executable, str(BENCH), "scoring"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "published,scorings}" in done.stderr and done.stdout == ""


def test_unknown_rows_list_the_nearest() -> None:
    done = start("--only", "aditive")
    assert done.returncode == 2 and "no row 'aditive', did you mean: additive," in done.stderr and done.stdout == ""
