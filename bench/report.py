"""The JSON of a run as Markdown tables; of two runs, what has become faster or slower.

python bench/report.py RUN.json
python bench/report.py BEFORE.json AFTER.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

HEADS = {
    "gemm": "Matrix product",
    "kernels": "Kernels",
    "scorings": "Every scoring: projections, scores, weights, context of padded sentences",
    "train": "Train step: forward, backward, clip, Adam",
    "steps": "The decoder's loop by scoring: train step of a small model",
    "decode": "Greedy decoding, 25 tokens, encoder included",
    "memory": "Peak memory",
}
BUSY = 0.05  # of the machine: above it a run says that it was not alone
EPS = 2.0**-23


def best(times: dict[str, list[dict[str, float]]], side: str) -> str | None:
    """The label of the side's fastest form: by the median of its rounds' medians."""
    labels = [label for label in times if label.startswith(side + "/")]
    return min(labels, key=lambda label: median(times[label]), default=None)


def median(rounds: list[dict[str, float]]) -> float:
    """Seconds: the median of the rounds' medians."""
    return statistics.median(r["median"] for r in rounds)


def spread(rounds: list[dict[str, float]]) -> float:
    """Half of the distance between the quartiles of single calls and between rounds, the larger, over the median."""
    medians = [r["median"] for r in rounds]
    inside = statistics.median((r["q3"] - r["q1"]) / 2 / r["median"] for r in rounds)
    between = (max(medians) - min(medians)) / 2 / median(rounds) if len(rounds) > 1 else 0.0
    return max(inside, between)


def ratio(times: dict[str, list[dict[str, float]]], slow: str, fast: str) -> tuple[float, float, float]:
    """(median, lowest, highest) over the rounds of slow / fast, each ratio taken within one round."""
    pairs = zip(times[slow], times[fast], strict=False)
    ratios = [a["median"] / b["median"] for a, b in pairs]
    return statistics.median(ratios), min(ratios), max(ratios)


def tables(run: dict[str, Any]) -> str:
    """All of it as Markdown."""
    parts = [machine_lines(run)]
    for section, head in HEADS.items():
        results = [r for r in run["results"] if r["section"] == section]
        if results:
            special = {"memory": memory_table, "steps": steps_table}
            table = special[section](results) if section in special else section_table(run, results)
            parts.append(f"### {head}\n\n{table}")
    if run["failures"]:
        parts.append("### Failures\n\n" + "\n".join(f"- {failure}" for failure in run["failures"]))
    return "\n\n".join(parts)


def machine_lines(run: dict[str, Any]) -> str:
    """Where, when, with what, and whether the machine was quiet."""
    m, sides = run["machine"], run["sides"]
    ours, torch, numpy = sides["dhyan"], sides.get("torch"), sides["numpy"]
    torch_words = "without PyTorch"
    if torch:
        torch_words = f"PyTorch {torch['torch']}: {torch['isa']}, {torch['threads']} threads, {torch['blas']}"
    openmp = "" if ours["openmp"] else ", built without OpenMP"
    lines = [
        f"- {run['started']}: {m['processor']}, {m['cores']} cores, {m['system']}, Python {m['python']}"
        + (f", {m['environment']}" if m["environment"] else ""),
        f"- dhyan {ours['version']}: {ours['isa']}, {ours['threads']} threads{openmp}",
        f"- {torch_words}",
        f"- NumPy {numpy['numpy']}: {numpy['blas']}",
        f"- peak: {peak_words(run)}",
    ]
    share = run.get("neighbours")
    if share is not None:
        quiet = "quiet" if share <= BUSY else "**busy: absolute times are spoiled, ratios unsure**"
        lines.append(f"- other processes used {share:.0%} of the machine during the run: {quiet}")
    if run.get("one_process"):
        lines.append("- all sides in one process")
    if run.get("clock") == "processor":
        lines.append("- one thread, processor time")
    if run["quick"]:
        lines.append("- **quick form at tiny sizes: a check, not a measurement**")
    return "\n".join(lines)


def peak_of(run: dict[str, Any]) -> float | None:
    """GFLOP/s that shares are taken of: the FMA peak, or else the best matrix product of the run."""
    return run["fma_peak"] or best_gemm(run)[0]


def best_gemm(run: dict[str, Any]) -> tuple[float | None, str]:
    """GFLOP/s and side of the fastest matrix product of the run."""
    found: list[tuple[float, str]] = []
    for r in run["results"]:
        if r["section"] == "gemm":
            times = r["passes"]["forward"]
            work = r["work"]["forward"]["work"]
            found += [(work / median(rounds) * 1e-9, label.split("/")[0]) for label, rounds in times.items()]
    return max(found, default=(None, ""))  # type: ignore[type-var]


def peak_words(run: dict[str, Any]) -> str:
    """What is known of the peak."""
    gemm, side = best_gemm(run)
    words = [f"{run['fma_peak']:.0f} GFLOP/s of multiply-adds in registers (fma_peak.c)"] if run["fma_peak"] else []
    if gemm:
        words.append(f"best GEMM of the run {gemm:.0f} GFLOP/s ({side})")
    return "; ".join(words) or "not measured"


def section_table(run: dict[str, Any], results: list[dict[str, Any]]) -> str:
    """One row a case and pass."""
    head = "case, pass, dhyan ms, rate, of peak, PyTorch ms (best form), ratio, must / aim, x NumPy"
    heads = [*head.split(", "), "error d / t / n"]
    rows = [row(run, r, which) for r in results for which in r["passes"]]
    return markdown(heads, rows)


def row(run: dict[str, Any], r: dict[str, Any], which: str) -> list[str]:
    """The cells of one case and pass; a dash where something was not measured."""
    times = r["passes"][which]
    ours, peer, numpy = (best(times, side) for side in ("dhyan", "torch", "numpy"))
    name = " ".join(part for part in ("" if r["op"] == r["section"] else r["op"], r["cell"], r["shape"]) if part)
    asked = f"{r['must']:g} / {r['aim']:g}" if r["must"] and which == list(r["work"])[-1] else ""
    cells = [name, which, "-", "-", "-", "-", "-", asked, "-", error_cell(r)]
    if peer:
        cells[5] = f"{time_cell(times[peer])} ({peer.split('/')[1]})"
    if ours and run["quick"]:
        cells[2] = time_cell(times[ours])
    elif ours:
        seconds = median(times[ours])
        w = r["work"][which]
        rate = w["work"] / seconds * 1e-9
        cells[2] = time_cell(times[ours])
        cells[3] = f"{rate:.3g} G{w['unit']}/s"
        peak = peak_of(run)
        if w["unit"] == "FLOP" and peak:
            cells[4] = f"{rate / peak:.0%}"
        if peer:
            middle, low, high = ratio(times, peer, ours)
            cells[6] = f"**{middle:.2f}** ({low:.2f}-{high:.2f})"
        if numpy:
            cells[8] = f"{ratio(times, numpy, ours)[0]:.1f}"
        if r["section"] == "decode":
            cells[3] = f"{seconds * 1e3 / r['sizes']['T']:.3g} ms/step"
    return cells


def time_cell(rounds: list[dict[str, float]]) -> str:
    """Milliseconds with their spread."""
    return f"{median(rounds) * 1e3:.4g} ±{spread(rounds):.0%}"


def error_cell(r: dict[str, Any]) -> str:
    """The worst output's error of each side in eps = 2^-23 of that output's largest value."""
    worst: dict[str, float] = {}
    for label, found in r["errors"].items():
        side = label.split("/")[0]
        worst[side] = max([worst.get(side, 0.0), *found.values()])
    cells = [f"{worst[side] / EPS:.3g}" if side in worst else "-" for side in ("dhyan", "torch", "numpy")]
    return " / ".join(cells) + " eps"


def memory_table(results: list[dict[str, Any]]) -> str:
    """Peaks above what was resident before, outputs and state among them; what a train step takes above its state."""
    head = ["case", "pass", "form", "peak MB", "of these outputs MB", "dhyan / form"]
    head += ["of these state MB", "above it MB", "dhyan / form"]
    rows = []
    for r in results:
        ours = next((p for label, p in r["peaks"].items() if label.startswith("dhyan/")), None)
        for label, p in r["peaks"].items():
            name = f"{r['op']} {r['cell']} {r['shape']}".replace("  ", " ")
            row = [name, r["pass"], label, f"{p['peak'] / 1e6:.1f}", f"{p['outputs'] / 1e6:.1f}"]
            row.append(f"{ours['peak'] / p['peak']:.2f}" if ours and p["peak"] else "-")
            if state := p.get("state", 0):
                row += [f"{state / 1e6:.1f}", f"{(p['peak'] - state) / 1e6:.1f}"]
                row.append(f"{(ours['peak'] - ours['state']) / (p['peak'] - state):.2f}" if ours else "-")
            rows.append(row + [""] * (len(head) - len(row)))
    return markdown(head, rows)


def steps_table(results: list[dict[str, Any]]) -> str:
    """Ours alone: what each scoring costs beside `additive`, which the core's loop reads by itself."""
    rounds = {r["op"]: r["passes"].get("step", {}).get("dhyan/dhyan") for r in results}
    base, rows = rounds.get("additive"), []
    for r in results:
        mine = rounds[r["op"]]
        beside = f"{median(mine) / median(base):.2f}" if mine and base else "-"
        rows.append([r["op"], f"{r['cell']} {r['shape']}", time_cell(mine) if mine else "-", beside, error_cell(r)])
    return markdown(["scoring", "model", "step ms", "x additive", "error d / t / n"], rows)


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table, columns aligned for reading as text too."""
    widths = [max(len(line[i]) for line in [head, *rows]) for i in range(len(head))]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)])


def progress(r: dict[str, Any]) -> str:
    """One line for a finished case."""
    parts = []
    for which, times in r["passes"].items():
        ours, peer = best(times, "dhyan"), best(times, "torch")
        text = f"{which} {median(times[ours]) * 1e3:.3g} ms" if ours else f"{which} not timed"
        if ours and peer:
            text += f", {ratio(times, peer, ours)[0]:.2f}x PyTorch ({peer.split('/')[1]})"
        parts.append(text)
    return f"{r['name']}: " + "; ".join(parts or ["not timed"])


def comparison(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Cases of both runs: our times, how they changed, and the ratios to PyTorch, which survive a change of machine."""
    old = {(r["name"], which): times for r in before["results"] for which, times in r.get("passes", {}).items()}
    rows = []
    for r in after["results"]:
        for which, times in r.get("passes", {}).items():
            a, b = old.get((r["name"], which)), times
            if a is None or not best(a, "dhyan") or not best(b, "dhyan"):
                continue
            first, second = a[best(a, "dhyan") or ""], b[best(b, "dhyan") or ""]
            change = median(first) / median(second)
            unsure = abs(change - 1) <= spread(first) + spread(second)
            word = "within the spread" if unsure else "faster" if change > 1 else "SLOWER"
            peers = [f"{peer_ratio(times):.2f}" if peer_ratio(times) else "-" for times in (a, b)]
            cells = [time_cell(first), time_cell(second), f"{change:.2f}x", word, " -> ".join(peers)]
            rows.append([r["name"], which, *cells])
    head = ["case", "pass", "before ms", "after ms", "speed", "verdict", "ratio to PyTorch"]
    notes = []
    for key in ("processor", "cores"):
        if before["machine"][key] != after["machine"][key]:
            pair = f"{before['machine'][key]} and {after['machine'][key]}"
            notes.append(f"- not the same {key}: {pair}; read the ratios only")
    if before["sides"]["dhyan"]["isa"] != after["sides"]["dhyan"]["isa"]:
        notes.append(f"- instruction sets: {before['sides']['dhyan']['isa']} and {after['sides']['dhyan']['isa']}")
    header = f"- before: {before['started']}\n- after: {after['started']}"
    return "\n".join([header, *notes, "", markdown(head, rows)])


def peer_ratio(times: dict[str, list[dict[str, float]]]) -> float | None:
    """The ratio to the best PyTorch form, None without PyTorch."""
    ours, peer = best(times, "dhyan"), best(times, "torch")
    return ratio(times, peer, ours)[0] if ours and peer else None


def main(argv: list[str] | None = None) -> int:
    """Print one run, or two compared."""
    parser = argparse.ArgumentParser(description="tables of one run, or a comparison of two")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN.json", help="one run, or before and after")
    paths = parser.parse_args(argv).runs
    if len(paths) > 2:
        parser.error(f"{len(paths)} runs given, expected one or two")
    try:
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    except (OSError, ValueError) as error:
        print(f"report.py: {error}", file=sys.stderr)
        return 1
    print(tables(runs[0]) if len(runs) == 1 else comparison(*runs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
