"""The sections of bench/gpu.py: each a process with a limit, whose records are on disk as soon as they are known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Run:
    """The records of a run, written anew after each, and the time there is for it."""

    def __init__(self, path: Path, budget: float) -> None:
        self.path, self.budget, self.begin = path, budget, time.monotonic()
        self.records: list[Record] = []
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)

    def spent(self) -> float:
        return time.monotonic() - self.begin

    def left(self) -> float:
        return self.budget - self.spent()

    def of(self, kind: str) -> list[Record]:
        return [r for r in self.records if r["kind"] == kind]

    def add(self, record: Record) -> None:
        with self._lock:
            self.records.append({**record, "at": round(self.spent(), 1)})
            part = self.path.with_suffix(".part")
            part.write_text(json.dumps(self.records, indent=1))
            part.replace(self.path)

    def wrong(self, text: str, **about: str) -> None:
        print(f"WRONG: {text}", flush=True)
        self.add({"kind": "wrong", "text": text, **about})

    def note(self, text: str) -> None:
        print(text, flush=True)
        self.add({"kind": "note", "text": text})


class Section:
    """A process, started at once and stopped at its limit or at the run's. Its lines of JSON become records."""

    def __init__(
        self, run: Run, name: str, command: list[str], limit: float, environment: dict[str, str] | None = None,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        self.run, self.name, self.quiet, self.begin = run, name, quiet, time.monotonic()
        self.end = self.begin + min(limit, run.left())
        self.tail: deque[str] = deque(maxlen=25)
        self.status: int | None = None
        self.text, self.stopped = "", False
        self.process: subprocess.Popen[str] | None = None
        if run.left() <= 1:
            self._finish(None, "left out: no time")
            return
        try:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                env=environment, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._finish(-1, f"could not be started: {error}")
            return
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            try:
                record = json.loads(line) if line.startswith("{") else None
            except ValueError:
                record = None
            if isinstance(record, dict) and "kind" in record:
                self.run.add({**record, "section": self.name})
                if record["kind"] == "wrong":
                    print(f"WRONG: {record['text']}", flush=True)
            else:
                self.tail.append(line.rstrip()[:300])

    def stop(self) -> None:
        """Ends the process and what it started, if it still runs."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait(self) -> int | None:
        """The exit status; None where there was no time for it. Only the first call reports."""
        if self.process is None or self.status is not None:
            return self.status
        try:
            status = self.process.wait(max(0.0, min(self.end, self.run.begin + self.run.budget) - time.monotonic()))
            text = "" if status == 0 else f"exit code {status}"
        except subprocess.TimeoutExpired:
            self.stop()
            self.stopped = True
            status, text = -1, f"stopped after {time.monotonic() - self.begin:.0f} s"
        self._reader.join(5)
        if not self._reader.is_alive():  # else something it started holds the pipe
            assert self.process.stdout is not None
            self.process.stdout.close()
        self._finish(status, text)
        return status

    def _finish(self, status: int | None, text: str) -> None:
        self.status, self.text = status, text
        self.stopped |= status is None
        seconds = round(time.monotonic() - self.begin, 1)
        self.run.add({
            "kind": "section", "name": self.name, "status": status, "seconds": seconds, "text": text,
            "tail": list(self.tail),
        })  # fmt: skip
        if not self.quiet or text:
            last = self.tail[-1] if status == 0 and self.tail else "done"  # a tool's own last words
            print(f"{self.name}: {text or last} ({seconds:.0f} s)", flush=True)
        if status not in (0, None) and not self.quiet:
            for line in self.tail:
                print(f"    {line}", file=sys.stderr, flush=True)

    @staticmethod
    def all(sections: list[Section]) -> list[int | None]:
        return [section.wait() for section in sections]
