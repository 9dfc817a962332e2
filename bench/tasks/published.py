"""Every published figure beside ours: trains and tests dhyan on the folder that DHYAN_DATA names, one table at the end.

    python bench/task.py published                        everything, hours; stop it, call it again, and it goes on
    python bench/task.py published --only g2p/hin/1       one task, part and seed; "g2p" or "g2p/*/1" are several
    python bench/task.py published --list                 all runs, done or not, with the command that trains each
    python bench/task.py published --table                the table of what is done; nothing is run
A run is what a person would type, `dhyan train` and then `dhyan evaluate --json`, each in a process of its own; the
commands and their figures are kept as JSON in --out. What is there under the same commands is not run again, and a
training that was stopped is resumed. Cost is the processor time of the training, user and system, all its parts
together, which does not depend on what else the machine does. OMP_NUM_THREADS=1 to run several at a time.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dhyan
import machine
from paths import RESULTS

from tasks import published_table
from tasks.published_tasks import TASKS, Run, runs

DHYAN = [sys.executable, "-m", "dhyan"]


class Failed(Exception):
    """A run that cannot be done; one line."""


class Workplace:
    """Where data are read, models lie and records are kept; `further` options are added to every training."""

    def __init__(self, data: Path, models: Path, out: Path, further: Sequence[str] = ()) -> None:
        self.data, self.models, self.out, self.further = data, models, out, list(further)

    def model(self, r: Run) -> Path:
        """The folder of a run's model."""
        return self.models / r.slug

    def words(self, r: Run) -> dict[str, list[str]]:
        """What is run, with data as "@NAME"; two records with the same words measured the same thing.

        Those of an ensemble are the lines that train its members: it is stale where one of them is.
        """
        joined = [shlex.join(self.words(m)["train"]) for m in r.members]
        return {"train": joined or [*r.train_words, *self.further], "evaluate": r.test_words}

    def record(self, r: Run) -> dict[str, Any] | None:
        """What was measured; None where nothing was, or with other words."""
        try:
            found: dict[str, Any] = json.loads((self.out / f"{r.slug}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return found if {key: found[key] for key in ("train", "evaluate")} == self.words(r) else None

    def records(self) -> dict[str, dict[str, Any]]:
        """Name of a run -> its record, of all that are done."""
        return {r.name: found for r in runs() if (found := self.record(r)) is not None}

    def located(self, r: Run, words: Sequence[str]) -> list[str]:
        """The words with every "@NAME" as the file it stands for."""
        return [str(self._file(r, word[1:])) if word.startswith("@") else word for word in words]

    def _file(self, r: Run, name: str) -> Path:
        every, _, rest = name.rpartition(":")
        if not every:
            return self.data / name
        sample = self.models / f"every-{every}-{Path(rest).name}"
        lines = (self.data / rest).read_bytes().splitlines(keepends=True)[:: int(every)][: r.task.sample]
        sample.write_bytes(b"".join(lines))
        return sample


def train(place: Workplace, r: Run) -> float:
    """Train a run, or go on where it was stopped; the processor seconds of all its parts."""
    folder, spent = place.model(r), place.models / f"{r.slug}.seconds"
    resume = ["--resume"] if (folder / "training.safetensors").exists() else []
    before = float(spent.read_text()) if resume and spent.exists() else 0.0
    words = place.located(r, place.words(r)["train"])
    began = _children()
    try:
        _call([*words, "--out", str(folder), *resume], place.models / f"{r.slug}.log")
    finally:
        spent.write_text(f"{before + _children() - began:.2f}\n")
    return float(spent.read_text())


def measure(place: Workplace, r: Run) -> dict[str, Any]:
    """Train and test one run; its record, which is also written."""
    started = time.monotonic()
    if r.members:
        missing = [m.name for m in r.members if place.record(m) is None]
        if missing:
            raise Failed(f"{r.name} joins {', '.join(missing)}, not done yet")
        records = [place.record(m) for m in r.members]
        seconds = sum(record["train_cpu_seconds"] for record in records if record)
    else:
        seconds = train(place, r)
    trained, began = time.monotonic(), _children()
    models = [str(place.model(m)) for m in r.members or [r]]
    joined = ["--ensemble", *models[1:]] if r.members else []
    figures = json.loads(_call(["evaluate", models[0], *place.located(r, r.test_words), *joined]))
    record = {
        "name": r.name, **place.words(r), "figures": figures, "train_cpu_seconds": round(seconds, 1),
        "train_wall_seconds": round(trained - started, 1), "evaluate_cpu_seconds": round(_children() - began, 1),
        "epochs": sum(len(_lines(place.model(m) / "log.jsonl")) for m in r.members or [r]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.facts(),
        "dhyan": dhyan.show_config(),
    }  # fmt: skip
    whole = place.out / f"{r.slug}.json.part"
    whole.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    whole.replace(place.out / f"{r.slug}.json")
    return record


def _call(words: Sequence[str], log: Path | None = None) -> str:
    """Standard output of one dhyan command; its progress goes to the log. Errors: Failed with its last line."""
    done = subprocess.run([*DHYAN, *words], capture_output=True, text=True)
    if log:
        log.write_text(done.stderr, encoding="utf-8")
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


def _children() -> float:
    """Processor seconds of the processes that were started and have ended."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def chosen(only: str) -> list[Run]:
    """The runs of these names, with commas between: TASK, TASK/PART or TASK/PART/SEED, each of which may be *."""
    found = []
    for wanted in (name.strip() for name in only.split(",")):
        parts = [*wanted.split("/"), "*", "*"]
        matching = [r for r in runs() if all(map(fnmatch.fnmatchcase, r.name.split("/"), parts))]
        if not matching or wanted.count("/") > 2:
            tasks = "; ".join(f"{t.name}/{{{','.join(t.parts)}}}" for t in TASKS.values())
            raise argparse.ArgumentTypeError(f"no run {wanted!r}, expected TASK/PART/SEED of: {tasks}")
        found += matching
    return [r for r in runs() if r in found]


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--only", type=chosen, metavar="NAMES", help="some runs: TASK/PART/SEED, with commas between")
    parser.add_argument("--list", action="store_true", help="all runs and their commands")
    parser.add_argument("--table", action="store_true", help="print the table of what is done, run nothing")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the data (default: $DHYAN_DATA)")
    results = RESULTS / "published"
    parser.add_argument(
        "--out", type=Path, default=results, metavar="DIR", help="the records (bench/results/published)"
    )
    parser.add_argument("--models", type=Path, metavar="DIR", help="the model folders (default: OUT/models)")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="also draw BLEU by length, without and with attention"
    )
    parser.add_argument("--options", default="", metavar="WORDS", help='added to every training, such as "--epochs 1"')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what is not done, then print the table of all that is."""
    o = arguments(argv)
    folder = o.data or Path(os.environ.get("DHYAN_DATA", ""))
    place = Workplace(folder, o.models or o.out / "models", o.out, shlex.split(o.options))
    selected = o.only or runs()
    if o.list:
        for r in selected:
            words = ["the models of", *(m.name for m in r.members)] if r.members else place.words(r)["train"]
            print(f"{r.name:28s} {'done' if place.record(r) else '    '}  {' '.join(words)}")
        return 0
    failed = 0 if o.table else _run(place, selected)
    records = place.records()
    print(published_table.table(records))
    if o.plot:
        published_table.plot(records, o.plot)
    return 1 if failed else 0


def _run(place: Workplace, selected: Sequence[Run]) -> int:
    """Measure what has no record; how many could not be."""
    if not place.data.is_dir() or not place.data.name:
        print(f"published.py: the data folder is {str(place.data)!r}, expected DHYAN_DATA or --data", file=sys.stderr)
        return 1
    place.models.mkdir(parents=True, exist_ok=True)
    place.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for r in selected:
        record = place.record(r)
        try:
            how = "" if record is None else "done before: "
            line = published_table.line(r, record or measure(place, r))
            print(f"{r.name}: {how}{line}", file=sys.stderr, flush=True)
        except Failed as error:
            failed += 1
            print(f"{r.name}: {error}", file=sys.stderr, flush=True)
    return failed
