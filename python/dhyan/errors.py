"""The exceptions that name what is wrong with a user's data, model folder or numbers, and the one wording of a wrong
name, integer or number.

Each message is one line: what, where, got, expected.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class DataError(ValueError):
    """A text file, or a line of one, that cannot be used."""


class CheckpointError(ValueError):
    """A model folder, or a file of one, that is damaged, hostile or of another version."""


class NumericError(ArithmeticError):
    """NaN or Inf where only finite numbers may stand."""


@contextmanager
def located(where: str) -> Iterator[None]:
    """A DataError from inside says first where it was: "translate: text 3: ..."."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def check_integer(where: str, name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} is {value!r}, expected an integer")
    if value < least:
        raise ValueError(f"{where}: {name} is {value}, expected at least {least}")


def check_number(where: str, name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where}: {name} is {value!r}, expected a number")
    if not math.isfinite(value) or value < low or value >= high or (open_low and value == low):
        raise ValueError(f"{where}: {name} is {value}, expected {low} {'<' if open_low else '<='} {name} < {high}")


def nearest_first(name: str, valid: Iterable[str]) -> list[str]:
    """valid, most similar to name first; equals in their given order."""
    return sorted(valid, key=lambda v: -difflib.SequenceMatcher(None, str(name).lower(), v.lower()).ratio())


def unknown_name(what: str, name: object, valid: Iterable[str]) -> ValueError:
    """The error for an unknown name, listing the valid ones: `raise unknown_name("cell", "lst", CELLS)`."""
    return ValueError(f"{what} is {name!r}, expected one of: {', '.join(nearest_first(str(name), valid))}")
