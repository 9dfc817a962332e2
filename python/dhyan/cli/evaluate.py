"""`dhyan evaluate`: the figures of a model or of a file of outputs, and of two of them side by side."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from dhyan import metrics, strict_json
from dhyan.errors import DataError
from dhyan.metrics.measures import BLEU, MEASURES, Measure
from dhyan.report.evaluation import compare, measure, measure_texts
from dhyan.text.config import DataConfig
from dhyan.text.pairs import Pair, read_lines
from dhyan.training.folder import load_tables, short_names
from dhyan.translate.translator import load

from .inputs import check_files, check_tokenize, located, note, pairs_for, replacement_of, search_of, speed_of
from .parser import UsageError


def evaluate(options: argparse.Namespace) -> None:
    """Run the command."""
    check_tokenize(options)
    check_files(options, options.test)
    search = search_of(options)
    names = [options.model] + ([options.against] if options.against else [])
    if options.ensemble and Path(options.model).is_file():
        raise UsageError(f"evaluate: --ensemble joins model folders, got the file {options.model}")
    parts = [options.ensemble, []]  # of the first system
    how = speed_of(options)
    systems = [None if Path(n).is_file() else load([n, *more], **how) for n, more in zip(names, parts, strict=False)]
    folders = [name for name, system in zip(names, systems, strict=True) if system]
    data = load_tables(Path(folders[0]))[2] if folders else DataConfig()
    reader = next((system for system in systems if system and system.needs_links), None)
    pairs = pairs_for(options, options.test, data, reader)
    # Outputs from elsewhere are cut into tokens as the model's own, which they are compared with.
    vocab = next((system.target_vocab for system in systems if system), None)
    texts = [_outputs(name, pairs, options) if not system else [] for name, system in zip(names, systems, strict=True)]
    measured = []
    for system, own in zip(systems, texts, strict=True):
        if system is None:
            measured.append(measure_texts(own, pairs, vocab=vocab, tokenize=options.tokenize))
            continue
        unknown = replacement_of(options, system)
        with located(options, options.test, system, pairs):
            measured.append(measure(system, pairs, options=search, tokenize=options.tokenize, replace_unknown=unknown))
    result = measured[0].result
    if options.against:
        paired = compare(measured[0], measured[1], pairs, tokenize=options.tokenize)
        result |= {"against": measured[1].result, "paired_bootstrap": paired}
    if result["bleu"] is None:
        note(metrics.TEXT_EXTRA_MISSING)
    if options.json:
        print(strict_json.dumps(result))
    else:
        print_report(result, sys.stdout, short_names(names))


def _outputs(name: str, pairs: Sequence[Pair], options: argparse.Namespace) -> list[str]:
    """The lines of a file of outputs, one for each pair; blank ones are empty outputs."""
    lines = read_lines(name)
    if options.bad_lines == "skip" and len(lines) >= max(pair.line or 0 for pair in pairs):
        return [lines[(pair.line or 1) - 1] for pair in pairs]  # the outputs of lines that were left out go with them
    if len(lines) != len(pairs):
        test = options.test or f"{options.source}, {options.target}"
        raise DataError(f"{name} has {len(lines)} lines, expected {len(pairs)}: one output for each pair of {test}")
    return lines


def print_report(result: dict[str, Any], stream: TextIO, names: Sequence[str] = ()) -> None:
    """The numbers of an evaluation, one a line; of two in columns, with the p-values of their comparison."""
    results = [result, result["against"]] if "against" in result else [result]
    widths = [9] if len(results) == 1 else [max(9, len(name) + 2) for name in names]
    measures = result.get("paired_bootstrap", {}).get("measures", {})

    def line(name: str, numbers: Sequence[str | None], key: str = "", unit: str = "", more: str = "") -> None:
        if any(numbers):
            p = f"{measures[key]['p_value']:>7.3f}" if key in measures else ""
            cells = "".join(f"{one or '-':>{width}} {unit:<1}" for one, width in zip(numbers, widths, strict=True))
            print(f"{name:<18}{cells}{p}".rstrip() + more, file=stream)

    def numbers(measure: Measure, figures: Sequence[float | None]) -> list[str | None]:
        return [None if value is None else measure.number(value) for value in figures]

    if len(results) > 1:
        heads = "".join(f"{name:>{width}}  " for name, width in zip(names, widths, strict=True))
        print(f"{'':<18}{heads}{'p':>7}", file=stream)
    line("pairs", [str(one["pairs"]) for one in results])
    for one in MEASURES:
        line(one.name, numbers(one, [figures[one.key] for figures in results]), one.key, one.unit)
    for own in zip(*(one["by_length"] for one in results), strict=True):
        name, pairs = f"{BLEU.name} {own[0]['from']}-{own[0]['to']} words", own[0]["pairs"]
        line(name, numbers(BLEU, [bucket[BLEU.key] for bucket in own]), more=f"   {pairs} pairs")
    for kind in result["failures"]:
        line(kind.replace("_", " "), [str(one["failures"][kind]) for one in results])
    if measures:
        samples = result["paired_bootstrap"]["samples"]
        print(f"p: paired bootstrap resampling of {samples} samples (Koehn 2004)", file=stream)
    if result["signature"]:
        print(result["signature"], file=stream)
