"""bench/tasks/decoding.py: every way of decoding gets its line, with figures of the outputs it timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dhyan.cli import main
from tasks import decoding


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(list("abcdefg"), 3)) for _ in range(64)]
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    options = ["--embedding", "16", "--hidden", "16", "--epochs", "20", "--batch", "8", "--lr", "0.02"]
    folder = str(tmp_path / "m")
    assert main(["train", str(pairs), str(pairs), "--out", folder, *options]) == 0
    capsys.readouterr()
    arguments = [folder, str(pairs), "--train", str(pairs), "--shortlist", "2", "3", "--most", "20"]
    assert decoding.main(arguments) == 0
    out = capsys.readouterr().out
    table = [line.split(" | ") for line in out.splitlines() if line.startswith(("| greedy", "| beam"))]
    assert len(table) == 12 and table[0][0] == "| greedy, float32" and table[-1][0] == "| beam 4, int8, shortlist 2"
    assert table[0][4] == table[6][4] == "100.0% |" and all(float(row[1]) > 0 for row in table)
    shares = [float(row[2].rstrip("%")) for row in table]
    assert shares[0] > 80 and max(shares) - min(shares) <= 5
