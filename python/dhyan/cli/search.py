"""The options of decoding on the command line: one for every field of `SearchOptions`. Light, as the parser is."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dhyan.search_options import SearchOptions


def at_least_1(text: str) -> int:
    """An integer from 1 on, or argparse's error."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, expected at least 1")
    return value


# Option -> (field of SearchOptions, type, help). No defaults here: those of SearchOptions hold.
SEARCH_OPTIONS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "--beam": ("beam", at_least_1, "hypotheses kept (5); 1 is greedy"),
    "--max-length": ("max_length", at_least_1, "most tokens of an output, the end symbol counted (from the source)"),
    "--min-length": ("min_length", int, "fewest tokens of an output (0)"),
    "--length-penalty": ("length_penalty", float, "A: log-probability / length^A (1); 0 favours short outputs"),
    "--length-form": ("length_form", str, "power, or gnmt: / ((5 + length) / 6)^A (power)"),
    "--coverage-penalty": ("coverage_penalty", float, "B: prefer outputs that read all of the source, 0.2 say (0)"),
    "--no-repeat-ngram": ("no_repeat_ngram", int, "no N tokens in a row stand in an output twice (0: they may)"),
    "--no-unknown": ("no_unknown", bool, "never write the unknown symbol"),
    "--sample": ("sample", bool, "draw outputs at random instead of searching for the likeliest"),
    "--temperature": ("temperature", float, "with --sample: below 1 likelier tokens, above 1 more variety (1)"),
    "--top-k": ("top_k", int, "with --sample: draw from the K likeliest tokens (0: all)"),
    "--top-p": ("top_p", float, "with --sample: draw from the likeliest tokens of total probability P (1)"),
    "--seed": ("seed", int, "with --sample: the same seed and sentence, the same output (0)"),
}


def add_search(parser: argparse.ArgumentParser, *, nbest: bool = False) -> None:
    """The options of SEARCH_OPTIONS; nbest: --nbest too, where the command writes more than one output."""
    group = parser.add_argument_group("decoding")
    for option, (field, kind, text) in SEARCH_OPTIONS.items():
        if kind is bool:
            group.add_argument(option, dest=field, action="store_true", default=None, help=text)
        else:
            metavar = "P" if kind is float else "NAME" if kind is str else "N"
            group.add_argument(option, dest=field, type=kind, metavar=metavar, help=text)
        if nbest and option == "--beam":
            group.add_argument("--nbest", type=at_least_1, default=1, metavar="N", help="write N outputs a line (1)")


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """--prefix, --include and their files, see `dhyan.cli.wishes`."""
    group = parser.add_argument_group("what outputs hold")
    prefixes = group.add_mutually_exclusive_group()
    prefixes.add_argument("--prefix", metavar="TEXT", help="every output begins with this text")
    prefixes.add_argument("--prefix-file", metavar="FILE", help="one prefix a line of input; an empty line asks none")
    group.add_argument(
        "--include", action="append", default=[], metavar="PHRASE", help="every output holds this phrase; repeatable"
    )
    group.add_argument("--include-file", metavar="FILE", help="phrases for each line of input, tabs between them")


def add_ensemble(parser: argparse.ArgumentParser) -> None:
    """--ensemble."""
    parser.add_argument(
        "--ensemble", nargs="+", default=[], metavar="DIR",
        help="further model folders with the same vocabularies: the mean of all models' probabilities decides",
    )  # fmt: skip


def search_options(options: argparse.Namespace) -> SearchOptions:
    """What the command line says of decoding. Errors: ValueError."""
    from dhyan.search_options import SearchOptions

    given = {field: getattr(options, field) for field, _, _ in SEARCH_OPTIONS.values()}
    nbest = getattr(options, "nbest", 1)
    if given["beam"] is None and not given["sample"]:
        given["beam"] = max(SearchOptions.beam, nbest)
    elif given["beam"] is not None and nbest > given["beam"] and not given["sample"]:
        raise ValueError(f"--nbest is {nbest}, expected at most --beam {given['beam']}")
    return SearchOptions.of(nbest=nbest, **given)
