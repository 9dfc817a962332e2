"""The registry, and scorings of installed packages: the example of docs/extending.md by the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dhyan
import pytest
from dhyan.attention.scoring import ProductScoring, registry
from dhyan.registry import Registry

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")


def example() -> str:
    """The file of the page's section "Adding a scoring"."""
    block = re.search(r"## Adding a scoring.*?```python\n(.*?)```", PAGE, re.DOTALL)
    assert block is not None
    return block[1]


def entry_points() -> str:
    """entry_points.txt as an installer makes it of the page's lines of pyproject.toml."""
    block = re.search(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(\w+) = \"(.*?)\"\n```", PAGE)
    assert block is not None
    return f"[{block[1]}]\n{block[2]} = {block[3]}\n"


def install(folder: Path, name: str, entries: str) -> Path:
    """A distribution as pip leaves it, without pip."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entries, encoding="utf-8")
    return folder


def dhyan_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "dhyan", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})


# ------------------------------------------------------------------------------------------------ installed scorings


def test_an_installed_scoring_is_trained_and_read_by_the_command_line(tmp_path: Path) -> None:
    """The file of the page, installed with its entry point; nothing imports it."""
    site = install(tmp_path / "site", "halved", entry_points())
    (site / "halved.py").write_text(example(), encoding="utf-8")
    data = tmp_path / "data.tsv"
    data.write_text("gato\tcat\nperro\tdog\n" * 4, encoding="utf-8")
    out = tmp_path / "model"
    options = ["--attention", "halved", "--hidden", "8", "--embedding", "8", "--epochs", "1", "--batch", "4"]
    done = dhyan_command(site, "train", str(data), str(data), "--out", str(out), *options)
    assert done.returncode == 0, done.stderr
    assert 'attention = "halved"' in (out / "config.toml").read_text(encoding="utf-8")
    done = dhyan_command(site, "evaluate", str(out), str(data), "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["pairs"] == 8, done.stderr
    done = dhyan_command(tmp_path, "evaluate", str(out), str(data), "--json")
    assert done.returncode == 1 and "'halved', expected one of" in done.stderr


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path; what comes from it is forgotten afterwards."""
    before, modules = dict(registry), set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    registry.clear()
    registry.update(before)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def test_a_name_is_loaded_when_it_is_asked_for(site: Path) -> None:
    install(site, "two", "[dhyan.scorings]\nfirst_of_two = first_of_two\nsecond_of_two = second_of_two\n")
    for name in ("first_of_two", "second_of_two"):
        (site / f"{name}.py").write_text(example().replace('"halved"', f'"{name}"'), encoding="utf-8")
    dhyan.Attention("dot", 4, 4)
    assert "first_of_two" not in sys.modules
    dhyan.Attention("first_of_two", 4, 4)
    assert "second_of_two" not in sys.modules
    assert {"first_of_two", "second_of_two"} <= set(dhyan.scorings())


def test_a_package_that_cannot_be_imported_is_a_warning(site: Path) -> None:
    """Once; the scorings of others are as good as ever."""
    install(site, "wrong", "[dhyan.scorings]\nwrong = no_module_of_this_name\n")
    with pytest.warns(RuntimeWarning, match="wrong = no_module_of_this_name of dhyan.scorings cannot be loaded"):
        assert "dot" in dhyan.scorings()
    with pytest.raises(ValueError, match="'wrong', expected one of"):
        dhyan.Attention("wrong", 4, 4)


def test_an_entry_that_registers_nothing_is_a_warning(site: Path) -> None:
    install(site, "empty", "[dhyan.scorings]\nempty = empty_of_scorings\n")
    (site / "empty_of_scorings.py").write_text("", encoding="utf-8")
    with pytest.warns(RuntimeWarning, match="empty = empty_of_scorings of dhyan.scorings registered nothing"):
        dhyan.scorings()


# ------------------------------------------------------------------------------------------------ registration


def test_the_example_may_run_twice(site: Path) -> None:
    for _ in range(2):
        exec(example(), {"__name__": "a_notebook"})
    assert dhyan.scorings().count("halved") == 1


def test_a_name_in_use_is_refused() -> None:
    twin = type("Dot", (ProductScoring,), {"name": "dot"})
    with pytest.raises(ValueError, match=r"the name 'dot' is that of dhyan.attention.scorings.Dot, expected one that"):
        dhyan.register_scoring(twin)


def test_only_scorings_with_a_name_are_registered() -> None:
    with pytest.raises(TypeError, match="expected a subclass of Scoring"):
        dhyan.register_scoring(dict)  # type: ignore[type-var]
    with pytest.raises(ValueError, match=r"Nameless.name is '', expected the scoring's name"):
        dhyan.register_scoring(type("Nameless", (ProductScoring,), {}))


def test_a_registry_finds_by_name() -> None:
    table: Registry[int] = Registry("number")
    assert table.add("one", 1) == 1 and table.find("one") == 1 and table.names() == ["one"]
    for wrong in ("two", ["one"], None):
        with pytest.raises(ValueError, match=r"number is .*, expected one of: one"):
            table.find(wrong)
