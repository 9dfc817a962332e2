"""What bench/gpu.py prints of its records: the checks, the table, and what was asked for beside what came out."""

from __future__ import annotations

from typing import Any

from gpu.time import Row

Record = dict[str, Any]
FORWARD_BOUND, BACKWARD_BOUND = 38.4, 12.8  # elements a clock and multiprocessor
FORMS = ("eager", "compile", "sdpa")
HEADS = (
    "op", "B,T,S,H", "dtype", "pass", "ours ms", "eager ms", "compile ms", "sdpa ms", "to best", "to eager", "of copy",
    "of bound", "extra MB", "asked",
)  # fmt: skip


def say_check(record: Record) -> None:
    """One line for a record of gpu_check."""
    if record["kind"] == "wrong":
        print(f"WRONG: {record['text']}", flush=True)
    else:
        print(
            f"check {record['dtype']:<8} {record['term']:<7} worst relative error {record['worst']:.1e} "
            f"({record['where']}), gate {record['gate']:.0e}, {record['seconds']} s",
            flush=True,
        )


def row_of(record: Record) -> Row:
    op, shape, dtype = record["row"]
    B, T, S, H = shape
    return Row(op, (B, T, S, H), dtype)


class Table:
    """The times of all sides, joined by row and pass."""

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.ours = {row_of(r): r for r in records if r["kind"] == "ours"}
        self.peers = {(row_of(r), r["pass"], r["form"]): r["ms"] for r in records if r["kind"] == "peer"}
        copies = [r for r in records if r["kind"] == "copy"]
        self.copy = copies[-1] if copies else None  # PyTorch's, where it was measured
        machine = next((r for r in records if r["kind"] == "machine"), {})
        self.multiprocessors = next((r["multiprocessors"] for r in records if r["kind"] == "torch"), 132)
        text = str(machine.get("MHz", ""))
        self.clocks = self.multiprocessors * float(text if text.isdigit() else 1980) * 1e6

    def best(self, row: Row, which: str) -> float | None:
        """The fastest of PyTorch's fused forms, eager where there is none."""
        found = [self.peers.get((row, which, form)) for form in ("compile", "sdpa")]
        return min((t for t in found if t), default=self.peers.get((row, which, "eager")))

    def share_of_copy(self, row: Row, which: str) -> float | None:
        """Of the copy bandwidth, what reading the inputs and writing the results once in this time takes."""
        if self.copy is None or row not in self.ours:
            return None
        B, T, S, H = row.shape
        arrays = 2 * T + 2 * S if which == "forward" else 5 * T + 6 * S
        moved = (2 if row.dtype == "bfloat16" else 4) * B * H * arrays
        return float(moved / 1e6 / self.ours[row][which] / self.copy["GB/s"])

    def share_of_bound(self, row: Row, which: str) -> float | None:
        if row.term != "tanh" or row not in self.ours:
            return None
        B, T, S, H = row.shape
        clocks = B * T * S * H * (1 / FORWARD_BOUND + (1 / BACKWARD_BOUND if which == "fwd+bwd" else 0))
        return float(clocks / self.clocks * 1e3 / self.ours[row][which])

    def asked(self, row: Row, which: str) -> str:
        """What is asked for of this line, and whether it came out; empty where nothing is, or a side is missing."""
        ours, best = self.ours[row][which], self.best(row, which)
        eager, sdpa = (self.peers.get((row, which, form)) for form in ("eager", "sdpa"))
        _, T, _, H = row.shape
        asked: list[tuple[str, float | None, float]] = []
        if row.term == "tanh" and T >= 32:
            asked.append(("to compile", best and best / ours, 4 if which == "forward" else 2))
            asked += [("to eager", eager and eager / ours, 20)] if which == "forward" else []
        elif row.term == "product":
            asked.append(("to sdpa", sdpa and sdpa / ours, 1 if H <= 256 else 2))
        if T <= 10 and which == "forward":
            asked.append(("of copy", self.share_of_copy(row, which), 0.8))
        return "; ".join(f"{name} >= {want:g}: {'yes' if got >= want else 'no'}" for name, got, want in asked if got)

    def line(self, row: Row, which: str) -> str:
        ours, best, eager = self.ours[row][which], self.best(row, which), self.peers.get((row, which, "eager"))
        times = [ours, *(self.peers.get((row, which, form)) for form in FORMS)]
        cells = [row.op, ",".join(map(str, row.shape)), row.dtype, which]
        cells += ["-" if t is None else f"{t:.3f}" for t in times]
        cells += [f"{t / ours:.2f}" if t else "-" for t in (best, eager)]
        shares = (self.share_of_copy(row, which), self.share_of_bound(row, which))
        cells += ["-" if x is None else f"{x:.0%}" for x in shares]
        cells += [f"{self.ours[row]['extra MB']:.1f}" if which == "forward" else "", self.asked(row, which)]
        return "| " + " | ".join(cells) + " |"


def text(records: list[Record]) -> str:
    """The table of a run and what did not go well in it."""
    table = Table(records)
    lines = []
    if table.copy:
        lines.append(f"copy bandwidth {table.copy['GB/s']:.0f} GB/s ({table.copy['by']})")
    if table.ours:
        lines += [f"{table.clocks / 1e9:.0f} G multiprocessor clocks/s", "", "| " + " | ".join(HEADS) + " |"]
        lines.append("|" + "---|" * len(HEADS))
        lines += [table.line(row, which) for row in table.ours for which in ("forward", "fwd+bwd")]
    lines.append("")
    for r in records:
        if r["kind"] == "failed":
            lines.append(f"{row_of(r).name}, {r['form']}: {r['text']}")
        elif r["kind"] == "wrong":
            lines.append(f"WRONG: {r['text']}")
        elif (r["kind"] == "section" and r["text"]) or r["kind"] == "library":
            lines.append(f"{r['name']}: {r['text']}")
    return "\n".join(lines)
