"""The records of `published.py` as lines, as a table and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tasks.published_tasks import ENSEMBLE, TASKS, Run, Task

Record = Mapping[str, Any]
# What the tables of the field print, from the object of `dhyan evaluate --json`.
MEASURES: dict[str, Callable[[Record], float | None]] = {
    "WER": lambda figures: 100 * (1 - figures["exact_match"]),
    "PER": lambda figures: 100 * figures["token_error_rate"],
    "exact match": lambda figures: 100 * figures["exact_match"],
    "BLEU": lambda figures: figures["bleu"],
    "chrF": lambda figures: figures["chrf"],
}


def line(r: Run, record: Record) -> str:
    """One run in one line."""
    shown = "  ".join(
        f"{name} {_two(value)}" for name, value in zip(r.task.measures, _values(r.task, record), strict=True)
    )
    return f"{shown}  {record['epochs']} epochs, {record['train_cpu_seconds']:.0f} s of processor time"


def table(records: Mapping[str, Record]) -> str:
    """Markdown: a line a part, the mean over parts, ensembles, and for translations BLEU by source words."""
    lines = ["| data | measure | published | dhyan | models | processor s of one |", "|---|---|--:|--:|--:|--:|"]
    for task in TASKS.values():
        lines += _rows(task, records)
    parts = [f"\n{text}" for task in TASKS.values() if (text := _by_length(task, records))]
    sources = [
        f"- {t.name}: published is {t.source}."
        for t in TASKS.values()
        if any(n.startswith(t.name + "/") for n in records)
    ]
    return "\n".join([*lines, "", *sources, *parts])


def _rows(task: Task, records: Mapping[str, Record]) -> list[str]:
    """The models of every part, the mean of parts, and the same of ensembles."""
    rows = []
    for kind, seeds in (("", task.seeds), (f", {ENSEMBLE} of {len(task.ensemble)}", (ENSEMBLE,))):
        found = []
        for part in task.parts:
            names = [f"{task.name}/{part}/{seed}" for seed in seeds]
            group = [records[name] for name in names if name in records]
            if group:
                found.append((group, _mean([_values(task, record) for record in group])))
                published = () if kind else task.published.get(part, ())
                rows.append(_row(f"{task.title}: {part}{kind}", task, published, *found[-1]))
        if "mean" in task.published and len(found) == len(task.parts):
            every = [record for group, _ in found for record in group]
            published = () if kind else task.published["mean"]
            name = f"**{task.title}: mean of the {len(found)}{kind}**"
            rows.append(_row(name, task, published, every, _mean([values for _, values in found])))
    return rows


def _row(
    name: str, task: Task, published: Sequence[float], group: Sequence[Record], values: Sequence[float | None]
) -> str:
    seconds = fmean(record["train_cpu_seconds"] for record in group)
    figures = [" / ".join(map(_two, row)) for row in (published, values)]
    return "| " + " | ".join([name, " / ".join(task.measures), *figures, str(len(group)), f"{seconds:.0f}"]) + " |"


def _by_length(task: Task, records: Mapping[str, Record]) -> str:
    """BLEU by source words of the parts of a task of sentences, side by side; "" for others."""
    curves = curves_of(task, records)
    if len(curves) < 2:
        return ""
    head = ["source words", "pairs", *curves]
    lines = [
        f"{task.title}, BLEU by length:",
        "",
        "| " + " | ".join(head) + " |",
        "|---" + "|--:" * (len(head) - 1) + "|",
    ]
    for rows in zip(*curves.values(), strict=True):
        cells = [f"{rows[0]['from']}-{rows[0]['to']}", str(rows[0]["pairs"]), *(_two(row["bleu"]) for row in rows)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves_of(task: Task, records: Mapping[str, Record]) -> dict[str, list[Any]]:
    """Part -> by_length of its first seed, for a task measured in BLEU."""
    if "BLEU" not in task.measures:
        return {}
    names = {part: f"{task.name}/{part}/{task.seeds[0]}" for part in task.parts}
    return {part: records[name]["figures"]["by_length"] for part, name in names.items() if name in records}


def plot(records: Mapping[str, Record], path: Path) -> None:
    """BLEU against source words of the task that has it without and with attention; .svg, .png or .pdf."""
    from dhyan.plot.curves import save_bleu_by_length

    for task in TASKS.values():
        curves = curves_of(task, records)
        if len(curves) > 1:
            save_bleu_by_length(path, curves, title=f"{task.title}: BLEU by length")


def _values(task: Task, record: Record) -> list[float | None]:
    return [MEASURES[name](record["figures"]) for name in task.measures]


def _mean(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of every column; None where a value is missing."""
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return [fmean(column) if len(column) == len(rows) else None for column in columns]


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
