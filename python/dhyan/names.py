"""Names as users meet them: the one wording of "no such name", the nearest first, and short names of folders."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


def nearest_first(name: str, valid: Iterable[str]) -> list[str]:
    """valid, most similar to name first; equals in their given order."""
    return sorted(valid, key=lambda v: -difflib.SequenceMatcher(None, str(name).lower(), v.lower()).ratio())


def unknown_name(what: str, name: object, valid: Iterable[str]) -> ValueError:
    """The error for an unknown name, listing the valid ones: `raise unknown_name("cell", "lst", CELLS)`."""
    return ValueError(f"{what} is {name!r}, expected one of: {', '.join(nearest_first(str(name), valid))}")


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, or where those are equal the paths as they were given."""
    short = [Path(path).resolve().name for path in paths]
    return short if len(set(short)) == len(short) and all(short) else list(paths)
