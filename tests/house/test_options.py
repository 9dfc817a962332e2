"""Tables of options: what is derived from one field, and the page of documentation that holds them all."""

from __future__ import annotations

import math
import re
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dhyan.options import Form, Options, markdown, option
from dhyan.search.options import SearchOptions
from dhyan.training.config import TABLES

ROOT = Path(__file__).resolve().parents[2]


def _late() -> tuple[str, ...]:
    return ("left", "right")


@dataclass(frozen=True, kw_only=True)
class Example(Options):
    size: int = option(kind=int, low=4, help="no default", command=False)
    layers: int = option(2, "how many", low=1, most=8)
    seed: int = option(0, "of weights", bits=63)
    rate: float = option(0.5, "a | b", high=1, open_low=True)
    side: str = option("left", lambda: "asked for late", choices=_late)
    name: str = option("", "a folder", flag="--from", expected="a name", form=Form("Name"))
    fast: bool = option(False, "no check")
    most: int | None = option(None, "may be left out", kind=int, low=1)

    def __post_init__(self) -> None:
        self.check("example")


@pytest.mark.parametrize(
    ("error", "message", "values"),
    [
        (ValueError, "example: size is 3, expected at least 4", {"size": 3}),
        (TypeError, "example: layers is True, expected an integer", {"layers": True}),
        (ValueError, "example: layers is 9, expected at most 8", {"layers": 9}),
        (ValueError, f"example: seed is {2**63}, expected less than 2**63", {"seed": 2**63}),
        (ValueError, "example: rate is 0, expected 0 < rate < 1", {"rate": 0}),
        (ValueError, "example: rate is nan, expected 0 < rate < 1", {"rate": math.nan}),
        (ValueError, "example: side is 'rigth', expected one of: right, left", {"side": "rigth"}),
        (TypeError, "example: name is 3, expected a name", {"name": 3}),
        (TypeError, "example: fast is 1, expected true or false", {"fast": 1}),
        (TypeError, "example: most is 1.5, expected an integer", {"most": 1.5}),
    ],
)
def test_a_value_out_of_range_is_refused(error: type[Exception], message: str, values: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Example(**{"size": 4} | values)


def test_values_at_the_edges_are_taken() -> None:
    for values in ({"layers": 8}, {"seed": 2**63 - 1}, {"rate": 0.999}, {"side": "right"}, {"most": None}, {"most": 1}):
        assert Example(size=4, **values).to_dict() == Example(size=4).to_dict() | values
    assert Example.layers == 2 and "size" not in vars(Example)


def test_flags_are_the_names_or_what_the_option_says() -> None:
    assert Example.flags() == {
        "--layers": "layers", "--seed": "seed", "--rate": "rate", "--side": "side", "--from": "name", "--fast": "fast",
        "--most": "most",
    }  # fmt: skip


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"^here: unknown key 'layer', did you mean: layers, "):
        Example.from_dict({"layer": 1}, "here")


def test_the_markdown_has_a_line_an_option() -> None:
    assert markdown(Example).splitlines() == [
        "| key | option | default | values | meaning |",
        "|---|---|---|---|---|",
        "| `size` |  |  | integer, from 4 | no default |",
        "| `layers` | `--layers` | `2` | integer, from 1 to 8 | how many |",
        "| `seed` | `--seed` | `0` | integer, from 0 | of weights |",
        "| `rate` | `--rate` | `0.5` | above 0, below 1 | a \\| b |",
        "| `side` | `--side` | `left` | left, right | asked for late |",
        "| `name` | `--from` |  | text | a folder |",
        "| `fast` | `--fast` |  | true, false | no check |",
        "| `most` | `--most` |  | integer, from 1 | may be left out |",
    ]


@pytest.mark.parametrize("table", [*TABLES.values(), SearchOptions], ids=lambda t: t.__name__)
def test_every_option_says_what_it_means(table: type[Options]) -> None:
    for name, known in table.options().items():
        assert known.text and (known.values or known.metavar), name


def test_the_documentation_holds_these_tables() -> None:
    """`python tools/option_tables.py` writes it anew."""
    tool = runpy.run_path(str(ROOT / "tools" / "option_tables.py"))
    assert (ROOT / "docs" / "options.md").read_text(encoding="utf-8") == tool["page"]()
