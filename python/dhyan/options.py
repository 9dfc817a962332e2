"""Tables of options. An option is one field of a frozen dataclass, made by `option`: its default, range, choices and
help stand there and nowhere else. Checks, command line, page form and documentation are read from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, TypeVar

from dhyan.errors import check_integer, check_number, nearest_first, unknown_name

Table = TypeVar("Table", bound="Options")


@dataclass(frozen=True)
class Form:
    """How the page of `dhyan serve` offers an option: name, hint, the range it accepts, and the group it is in."""

    name: str
    hint: str = ""
    low: float = 0
    high: float = 1
    step: float = 1
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What an option may be, and what is said of it.

    kind: bool, int, float, str, or a function that reads it from a text, whose values the table checks itself.
    Integers: low <= value, value <= most where that is given, value < 2**bits. Numbers: low <= value < high; open_low:
    low < value. Names: one of `choices`; other texts: `expected` says what they are, "" leaves them to the table.
    command: offered on the command line, as `flag`; metavar stands for its value there.
    help and choices may be functions of nothing, where the words stand in a module too heavy to import before they
    are asked for.
    """

    kind: Callable[[str], Any]
    default: Any
    help: str | Callable[[], str]
    low: float
    high: float
    open_low: bool
    most: int | None
    bits: int | None
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]]
    expected: str
    command: bool
    flag: str
    metavar: str
    form: Form | None

    @property
    def names(self) -> tuple[str, ...]:
        """The choices."""
        return self.choices() if callable(self.choices) else self.choices

    @property
    def text(self) -> str:
        """The help."""
        return self.help() if callable(self.help) else self.help

    @property
    def shown_default(self) -> str:
        """The default as a user writes it, "" where there is none to write."""
        if self.default is MISSING or self.default is None or self.default is False or self.default == "":
            return ""
        return f"{self.default:g}" if isinstance(self.default, float) else str(self.default)

    @property
    def values(self) -> str:
        """The values it may have, in words."""
        if self.choices:
            return ", ".join(self.names)
        if self.kind is bool:
            return "true, false"
        if self.kind is float:
            above = "" if self.high == math.inf else f", below {self.high:g}"
            return f"{'above' if self.open_low else 'from'} {self.low:g}{above}"
        if self.kind is int:
            return f"integer, from {self.low}" + ("" if self.most is None else f" to {self.most}")
        return "text" if self.kind is str else self.metavar.lower()

    def check(self, where: str, name: str, value: Any) -> None:
        """TypeError or ValueError unless it may have this value; None is fine where it is the default."""
        if value is None and self.default is None:
            return
        if self.choices:
            if value not in self.names:
                raise unknown_name(f"{where}: {name}", value, self.names)
        elif self.kind is bool:
            if not isinstance(value, bool):
                raise TypeError(f"{where}: {name} is {value!r}, expected true or false")
        elif self.kind is int:
            check_integer(where, name, value, int(self.low))
            if self.most is not None and value > self.most:
                raise ValueError(f"{where}: {name} is {value}, expected at most {self.most}")
            if self.bits is not None and value >= 1 << self.bits:
                raise ValueError(f"{where}: {name} is {value}, expected less than 2**{self.bits}")
        elif self.kind is float:
            check_number(where, name, value, self.low, self.high, open_low=self.open_low)
        elif self.expected and not isinstance(value, str):
            raise TypeError(f"{where}: {name} is {value!r}, expected {self.expected}")


def option(
    default: Any = MISSING,
    help: str | Callable[[], str] = "",
    *,
    kind: Callable[[str], Any] | None = None,
    low: float = 0,
    high: float = math.inf,
    open_low: bool = False,
    most: int | None = None,
    bits: int | None = None,
    choices: tuple[str, ...] | Callable[[], tuple[str, ...]] = (),
    expected: str = "",
    command: bool = True,
    flag: str = "",
    metavar: str = "",
    form: Form | None = None,
) -> Any:
    """A field of a table, see `Option`. kind: that of the default; flag: the field's name.

    beam: int = option(5, "hypotheses kept; 1 is greedy", low=1)
    """
    known = Option(
        kind=kind or type(default), default=default, help=help, low=low, high=high, open_low=open_low, most=most,
        bits=bits, choices=choices, expected=expected, command=command, flag=flag, metavar=metavar, form=form,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={"option": known})


@dataclass(frozen=True, kw_only=True)
class Options:
    @classmethod
    def options(cls) -> dict[str, Option]:
        """Field name -> what it may be, in the order of the table."""
        return {field.name: field.metadata["option"] for field in dataclasses.fields(cls)}

    @classmethod
    def flags(cls) -> dict[str, str]:
        """Option of the command line -> field name."""
        return {o.flag or f"--{name.replace('_', '-')}": name for name, o in cls.options().items() if o.command}

    @classmethod
    def from_dict(cls: type[Table], values: Mapping[str, Any], where: str) -> Table:
        """The table of these values. ValueError for an unknown key, nearest names first."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = ", ".join(nearest_first(key, known)[:3])
                raise ValueError(f"{where}: unknown key {key!r}, did you mean: {near}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value."""
        return dataclasses.asdict(self)

    def check(self, where: str) -> None:
        """TypeError or ValueError for the first field whose value it may not have."""
        for name, known in self.options().items():
            known.check(where, name, getattr(self, name))


def markdown(table: type[Options]) -> str:
    """The table in Markdown, a line an option: key, option of the command line, default, values, meaning."""
    flags = {name: flag for flag, name in table.flags().items()}
    lines = ["| key | option | default | values | meaning |", "|---|---|---|---|---|"]
    for name, known in table.options().items():
        flag, default = (f"`{text}`" if text else "" for text in (flags.get(name, ""), known.shown_default))
        cells = (f"`{name}`", flag, default, known.values, known.text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
