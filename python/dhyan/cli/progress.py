"""The progress of a training on standard error: a progress line on a terminal, one plain line an epoch otherwise."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from dhyan.metrics.measures import EXACT_MATCH, TOKEN_ERROR_RATE
from dhyan.training.loop import Report

SHARES = (TOKEN_ERROR_RATE, EXACT_MATCH)
_NAMES = ("updates", "loss", "valid", *(measure.heading for measure in SHARES))
HEADING = f"{'epoch':>5} {' '.join(f'{name:>8}' for name in _NAMES)} {'tokens/s':>9} {'lr':>8} * best, kept"


def row(report: Report) -> str:
    """One validation under HEADING; * marks the best so far."""
    shares = " ".join(f"{measure.number(getattr(report, measure.key)):>7}{measure.unit}" for measure in SHARES)
    return (
        f"{report.epoch:>5} {report.step:>8} {report.train_loss:>8.4f} {report.valid_loss:>8.4f} "
        f"{shares} {report.tokens_per_second:>9,.0f} "
        f"{report.lr:>8.2g}{' *' if report.best else ''}"
    )


class Progress:
    """Callbacks for train, as a context manager; everything goes to stderr. `best`: the best report so far.

    select: what the best is chosen by. done: epochs that a resumed run has behind it. epochs: at most (0: not said).
    """

    def __init__(self, title: str, select: str = "error", done: int = 0, epochs: int = 0) -> None:
        self.best: Report | None = None
        self._title = title
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._live: RichProgress | None = None
        self._task = TaskID(0)
        self._headed = False
        self._epoch = done + 1
        self._select, self._of = select, f" of {epochs}" if epochs else ""

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("loss {task.fields[loss]:.3f}"),
                TimeElapsedColumn(),
            )
            self._live = RichProgress(*columns, console=self._console, transient=True)
            self._task = self._live.add_task(self._title, total=None, loss=0.0)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def step(self, step: int, batches: int, loss: float) -> None:
        """After every update: the place in the epoch."""
        if self._live:
            description = f"{self._title}, epoch {self._epoch}{self._of}"
            self._live.update(self._task, completed=step, total=batches, loss=loss, description=description)

    def report(self, report: Report, model: Any) -> None:
        """After every validation: one line."""
        self.next_epoch(report)
        if not self._headed:
            self.say(f"{HEADING} (by {self._select})")
            self._headed = True
        self.say(row(report))

    def next_epoch(self, report: Report) -> None:
        """Remember where training stands, without a line."""
        self._epoch = report.epoch + 1
        if report.best:
            self.best = report

    def say(self, line: str) -> None:
        """A line above the progress line."""
        self._console.print(line, markup=False)
