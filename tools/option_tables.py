"""Writes docs/options.md: every option of the four tables, from the tables themselves."""

from __future__ import annotations

from pathlib import Path

from dhyan.options import markdown
from dhyan.search.options import SearchOptions
from dhyan.training.config import TABLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "options.md"
HEAD = """# Options

Written by `python tools/option_tables.py` from the tables in the source. A key is a field of the Python class and of
the table in the TOML file of `--config`. In `train`, `--no-` before an option's name switches it off.
"""
TITLES = {
    "data": "`DataConfig`, table `[data]`, `dhyan train`",
    "model": "`ModelConfig`, table `[model]`, `dhyan train`",
    "train": "`TrainConfig`, table `[train]`, `dhyan train`",
}


def page() -> str:
    """The whole file."""
    parts = [f"## {title}\n\n{markdown(TABLES[name])}" for name, title in TITLES.items()]
    parts.append(f"## `SearchOptions`, all commands that decode\n\n{markdown(SearchOptions)}")
    return "\n".join([HEAD, *parts])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
