"""Every scoring on one translation task: what each learns, where it fails, what it costs.

    python bench/task.py scorings             all rows, about 15 minutes on two quiet cores
    python bench/task.py scorings --only "additive,dot,additive window 2"   some of them; --list names all
    python bench/task.py scorings --quick     seconds: does it run at all
Each row trains one model on the corpus of `dhyan demo` (Hindi to English, up to 26 words) with the same sizes, data,
order, seed and schedule; only what the first column names differs. So the table compares scorings in one setting, not
at their best. `none` has one vector for any sentence and should fail on long ones; `oracle` reads by gold links and
says what is left when the reading is right (its AER is not 0: of several linked words it points to the first).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dhyan
import machine
from dhyan import corpus
from dhyan.cli.demo import Recipe, sentences
from dhyan.errors import nearest_first
from dhyan.report.evaluation import evaluate
from dhyan.text.pairs import Pair
from dhyan.training.loop import train
from dhyan.translate.translator import load
from paths import RESULTS

FULL = Recipe(pairs=9_000, short_pairs=7_000, test_per_bucket=150, epochs=5)
QUICK = Recipe(pairs=300, short_pairs=100, valid=20, test_per_bucket=5, embedding=16, hidden=16, epochs=1)


@dataclass(frozen=True)
class Row:
    """One model of the table: what differs from the others in ModelConfig and TrainConfig."""

    name: str
    attention: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)


VARIANTS = (
    Row("additive window 2", "additive", {"window": 2}),
    Row("general predictive 4", "general", {"window": "predictive:4"}),
    Row("general predictive 10", "general", {"window": "predictive:10"}),
    Row("additive sparsemax", "additive", {"normalize": "sparsemax"}),
    Row("additive monotonic", "additive", {"normalize": "monotonic", "normalized": True}),
    Row("additive 4 heads", "additive", {"heads": 4}),
    Row("scaled_dot 4 heads", "scaled_dot", {"heads": 4}),
    Row("additive guided 0.5", "additive", {}, {"guided": 0.5}),
    Row("additive coverage loss 0.3", "additive", {}, {"coverage": 0.3}),
)


def rows() -> list[Row]:
    """Every registered scoring as it is, and the variants."""
    return [*(Row(name, name) for name in dhyan.scorings()), *VARIANTS]


def chosen(only: str) -> list[Row]:
    """The rows of these names, with commas between, in the order of the table."""
    wanted = [name.strip() for name in only.split(",")]
    known = [row.name for row in rows()]
    for name in wanted:
        if name not in known:
            near = ", ".join(nearest_first(name, known)[:3])
            raise argparse.ArgumentTypeError(f"no row {name!r}, did you mean: {near}")
    return [row for row in rows() if row.name in wanted]


def measure(row: Row, recipe: Recipe, data: tuple[list[Pair], list[Pair], list[Pair]], beam: int) -> dict[str, Any]:
    """Train and test one row; its figures."""
    training, valid, test = data
    config = replace(recipe.config(row.attention), **row.model)
    options = replace(recipe.options, **row.train)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        model = train(config, training, valid, folder, options=options)
        seconds = time.monotonic() - started
        translator = load(folder)
    edges = [least for least, _ in corpus.BUCKETS]
    result = evaluate(translator, test, beam=beam, edges=edges)
    longest = [pair for pair in test if len(pair.source.split()) >= edges[-1]]
    return {
        **asdict(row),
        "exact_match": result["exact_match"],
        "exact_match_longest": evaluate(translator, longest, beam=beam, edges=edges[-1:])["exact_match"],
        "bleu": result["bleu"],
        "bleu_by_length": [part["bleu"] for part in result["by_length"]],
        "aer": result["aer"],
        "train_seconds": seconds,
        "parameters": sum(array.size for array in model.parameters().values()),
    }  # fmt: skip


def machine_line() -> str:
    """Where, and with what."""
    m, core = machine.facts(), dhyan.show_config()
    steering = f", {m['environment']}" if m["environment"] else ""
    return (
        f"{m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}{steering}; "
        f"dhyan {core['version']}: {core['isa']}, {core['threads']} threads"
    )


def table(run: dict[str, Any]) -> str:
    """The run as a Markdown table, under the lines that say what it is of."""
    recipe, count = run["recipe"], run["pairs"]
    edges = [f"{a}-{b}" for a, b in (corpus.BUCKETS[0], corpus.BUCKETS[-1])]
    head = ["scoring", "exact match", f"on {edges[1]} words", f"BLEU {edges[0]}", f"BLEU {edges[1]}", "AER", "train s",
            "parameters"]  # fmt: skip
    lines = [
        f"- {run['started']}: {run['machine_line']}",
        f"- {count['train']:,} training and {count['test']} test pairs, GRU E={recipe['embedding']} "
        f"H={recipe['hidden']}, batch {recipe['batch']}, {recipe['epochs']} epochs, lr {recipe['lr']:g}, "
        f"seed {run['seed']}, beam {run['beam']}",
        f"- other processes used {_percent(run['neighbours'])} of the machine",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|--:" * (len(head) - 1) + "|",
    ]
    for r in run["results"]:
        cells = [r["name"], _percent(r["exact_match"]), _percent(r["exact_match_longest"])]
        cells += [_number(bleu) for bleu in (r["bleu_by_length"][0], r["bleu_by_length"][-1])]
        cells += [_number(r["aer"], 3), _number(r["train_seconds"]), f"{r['parameters']:,}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", type=chosen, metavar="NAMES", help="rows, with commas between")
    parser.add_argument("--list", action="store_true", help="the names of all rows")
    parser.add_argument("--epochs", type=int, help=f"passes over the training data ({FULL.epochs})")
    parser.add_argument("--seed", type=int, default=1, help="of weights and batches (1)")
    parser.add_argument("--beam", type=int, default=1, help="hypotheses kept in the test (1: greedy)")
    parser.add_argument("--quick", action="store_true", help="tiny data and models: only whether it runs")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the JSON (default: a new file in bench/results)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print the table to stdout, write the JSON."""
    o = arguments(argv)
    if o.list:
        print("\n".join(row.name for row in rows()))
        return 0
    recipe = QUICK if o.quick else FULL
    recipe = recipe if o.epochs is None else replace(recipe, epochs=o.epochs)
    selected, started, neighbours = o.only or rows(), datetime.now(UTC), machine.Neighbours()
    data = sentences(recipe)
    results = []
    for row in selected:
        seeded = replace(row, train={"seed": o.seed, **row.train})
        results.append(measure(seeded, recipe, data, o.beam))
        shown = results[-1]
        print(
            f"{row.name:28s} exact {_percent(shown['exact_match']):>7s}  longest "
            f"{_percent(shown['exact_match_longest']):>7s}  AER {_number(shown['aer'], 3)}  "
            f"{shown['train_seconds']:.1f} s",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    run = {
        "started": started.isoformat(timespec="seconds"), "quick": o.quick, "seed": o.seed, "beam": o.beam,
        "machine": machine.facts(), "dhyan": dhyan.show_config(), "machine_line": machine_line(),
        "neighbours": neighbours.share(), "recipe": asdict(recipe),
        "pairs": dict(zip(("train", "valid", "test"), map(len, data), strict=True)), "results": results,
    }  # fmt: skip
    out = o.out or RESULTS / f"scorings-{started:%Y%m%d-%H%M%S}{'-quick' if o.quick else ''}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(table(run))
    print(f"\nwritten to {out}", file=sys.stderr)
    return 0
