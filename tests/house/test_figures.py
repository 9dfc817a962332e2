"""tools/house.py counts what is there: on modules made here, and on the package itself."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "house.py"
SOURCES = {
    "": "",
    "ground": "x = 1",
    "text": "",
    "text.words": "from dhyan import ground\n",
    "text.batch": "from dhyan.text.words import split, _join\n",
    "model": "from dhyan.text import batch\ndef late():\n    from .ground import x\n",
}


@pytest.fixture(scope="module")
def house() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


def test_imports_and_floors(house: dict[str, Any]) -> None:
    graph, private = house["arrows"](SOURCES)
    assert graph == {
        "": set(), "ground": set(), "text": set(), "text.words": {"ground"}, "text.batch": {"text.words"},
        "model": {"text.batch", "ground"},
    }  # fmt: skip
    assert private == 1 and house["floors"](graph) == 4 and house["circles"](graph) == []
    top = house["folded"]({name: targets for name, targets in graph.items() if name})
    assert top == {"ground": set(), "text": {"ground"}, "model": {"text", "ground"}} and house["floors"](top) == 3


def test_a_circle_is_one_floor(house: dict[str, Any]) -> None:
    circle = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}
    assert house["circles"](circle) == [{"b", "c"}] and house["floors"](circle) == 2


def test_the_table_of_the_working_tree() -> None:
    done = subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = dict(line.strip("| ").split(" | ") for line in done.stdout.splitlines() if "--:" not in line)
    assert int(rows["modules"]) > 50 and rows["their circles"] == rows["private names imported"] == "0"
