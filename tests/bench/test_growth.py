"""bench/tasks/growth.py: every axis grows alone, by the arithmetic it claims, and the command prints its table."""

from __future__ import annotations

import pytest
from cases import all as cases
from tasks import growth


@pytest.mark.parametrize("axis", growth.AXES)
def test_one_axis_doubles(axis: str) -> None:
    small, large = (growth.grown("gru", "train", axis, factor) for factor in (1, 2))
    changed = {letter for letter in small.sizes if small.sizes[letter] != large.sizes[letter]}
    assert changed == ({"H", "E"} if axis == "H" else {axis})
    ratio = cases.work(large, "step")[0] / cases.work(small, "step")[0]
    expected = {"B": (2, 2), "H": (2.9, 4)}.get(axis, (1.05, 2))  # widths grow squares but for the vocabulary's part
    assert expected[0] <= ratio <= expected[1]


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(growth, "BASE", {"V": 9, "E": 3, "H": 4, "B": 2, "S": 3, "T": 4})
    assert growth.main(["--cell", "gru", "--doublings", "1", "--budget", "0"]) == 0
    out = capsys.readouterr().out
    rows = [line for line in out.splitlines() if line.startswith("| ") and "=" in line]
    assert len(rows) == 10 and rows[4].startswith("| B = 2 |") and rows[5].count("|") == 10
