"""The bench of beam search prints a row for every model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench" / "task.py"


def test_it_prints_a_table() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH), "beam", "--quick", "--beam", "3"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert rows[0] == ["model", "greedy", "beam 1", "beam 3", "beam / greedy"] and len(rows) == 7
    assert all(float(cell) > 0 for row in rows[1:] for cell in row[1:])
