"""How the cost of a token grows: train step and greedy decoding as S, T, B, H and V double, beside the arithmetic.

    python bench/task.py growth                          a minute on two cores
    python bench/task.py growth --cell gru --doublings 2
`x products` is what the products of the case grow by; a ratio of times well above it would be a surprise.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time

import dhyan
import machine
from cases.all import CASES, Case, inputs, work
from sides.ours import model_calls

BASE = {"V": 2000, "E": 256, "H": 256, "B": 16, "S": 16, "T": 16}
AXES = ("S", "T", "B", "H", "V")


def grown(cell: str, section: str, axis: str, factor: int) -> Case:
    """The base case with one axis longer; E goes with H."""
    like = next(c for c in CASES if c.section == section and c.cell == cell and c.op == section)
    sizes = BASE | {axis: BASE[axis] * factor} | ({"E": BASE["E"] * factor} if axis == "H" else {})
    return dataclasses.replace(like, sizes=sizes)


def seconds(case: Case, budget: float) -> float:
    """The median of single calls over about `budget` seconds, after two to warm up."""
    call = model_calls(case, inputs(case))[case.passes[-1]]
    call(), call()
    times, end = [], time.perf_counter() + budget
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def lines(cell: str, doublings: int, budget: float) -> list[str]:
    """The table, in Markdown."""
    rows = [
        "| axis | train step ms | us a token | x time | x products | decode ms | us a token | x time | x products |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for axis in AXES:
        before: dict[str, tuple[float, float]] = {}
        for power in range(doublings + 1):
            cells = []
            for section in ("train", "decode"):
                case = grown(cell, section, axis, 2**power)
                took, flop = seconds(case, budget), work(case, case.passes[-1])[0]
                tokens = case.sizes["B"] * case.sizes["T"]
                cells += [f"{took * 1e3:.2f}", f"{took / tokens * 1e6:.1f}"]
                if section in before:
                    cells += [f"{took / before[section][0]:.2f}", f"{flop / before[section][1]:.2f}"]
                else:
                    cells += ["", ""]
                before[section] = took, flop
            rows.append(f"| {axis} = {BASE[axis] * 2**power} | " + " | ".join(cells) + " |")
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main(argv: list[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cell", default="lstm", choices=["gru", "lstm"])
    parser.add_argument("--doublings", type=int, default=3, help="of each axis (3)")
    parser.add_argument("--budget", type=float, default=0.3, help="seconds a case (0.3)")
    o = parser.parse_args(argv)
    neighbours = machine.Neighbours()
    table = lines(o.cell, o.doublings, o.budget)
    config = dhyan.show_config()
    print(f"- {machine.processor()}, dhyan {config['version']}: {config['isa']}, {config['threads']} threads")
    share = neighbours.share()
    busy = "unknown" if share is None else f"{share:.0%}"
    print(f"- {o.cell}, base {' '.join(f'{k}{v}' for k, v in BASE.items())}; other processes: {busy} of the machine\n")
    print("\n".join(table))
    return 0
