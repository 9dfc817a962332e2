"""One side of the bench in a process of its own: it prepares, checks, times or fills memory when run.py says so.

A process a side: PyTorch's wheel brings its own libgomp, and two OpenMP pools in one process wait actively for work on
each other's cores. While one side works, the others are blocked on their standard input and use no processor.

    python -m sides.worker SIDES                     a JSON request a line, a JSON answer each; a,b: both in here
    python -m sides.worker SIDE --memory CASE FORM   peak memory of the case's last pass, in a fresh process
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from cases.all import CASES, Case, inputs

MODULES = {"dhyan": "sides.ours", "numpy": "sides.numpy", "torch": "sides.torch"}
WARM_UP = 2


class Worker:
    """The case at hand and its prepared forms, of one side."""

    def __init__(self, name: str) -> None:
        self.side = importlib.import_module(MODULES[name]).Side()
        self.calls: dict[str, dict[str, Any]] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """The reply to one request."""
        match request["do"]:
            case "facts":
                return {"facts": self.side.facts()}
            case "forms":
                return {"forms": list(self.side.forms(find(request["case"], request["quick"])))}
            case "outputs":
                self._prepare(request)
                outputs = self.calls[request["form"]][request["pass"]]()
                np.savez(request["path"], **{name: as_numpy(value) for name, value in outputs.items()})
                return {}
            case "time":
                self._prepare(request)
                call = self.calls[request["form"]][request["pass"]]
                return {"seconds": measure(call, request["budget"], request["least"], request["clock"])}
            case "release":
                self.calls = {}
                return {}
        raise ValueError(f"unknown request {request['do']!r}")

    def _prepare(self, request: dict[str, Any]) -> None:
        if request["form"] not in self.calls:
            case = find(request["case"], request["quick"])
            self.calls[request["form"]] = self.side.prepare(case, request["form"], inputs(case))


def find(name: str, quick: bool) -> Case:
    """The case of that name, at its tiny sizes if quick."""
    case = next(case for case in CASES if case.name == name)
    return case.quick() if quick else case


def as_numpy(value: Any) -> np.ndarray:
    """Arrays as they are, tensors as arrays."""
    return value if isinstance(value, np.ndarray) else value.detach().numpy()


def measure(call: Any, budget: float, least: int, clock: str) -> list[float]:
    """Seconds of single calls, after a warm-up, for about `budget` seconds and at least `least` calls."""
    now = time.process_time if clock == "processor" else time.perf_counter
    warm_until = time.perf_counter() + budget
    for _ in range(WARM_UP):
        call()
        if time.perf_counter() > warm_until:
            break
    seconds: list[float] = []
    end = time.perf_counter() + budget
    while len(seconds) < least or (time.perf_counter() < end and len(seconds) < 2000):
        start = now()
        call()
        seconds.append(now() - start)
    return seconds


def status(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def peak_memory(side: Any, case: Case, form: str) -> dict[str, int]:
    """Bytes above what was resident before: for a kernel above its inputs, for a model above the imported library.

    The high-water mark (Linux) is reset after a first call, so that compiling does not count; `peak` is that of three
    more calls, one call's outputs included. `state` is what any trainer of a model holds with Adam: parameters,
    gradients and two moments.
    """
    tiny = case.quick()
    for call in side.prepare(tiny, form, inputs(tiny)).values():
        call()  # libraries load their own parts at the first call
    arrays = inputs(case)
    before = status("VmRSS")
    calls = side.prepare(case, form, arrays)
    call = calls[case.passes[-1]]
    if not case.modelled:
        before = status("VmRSS")  # PyTorch holds copies of the inputs as leaves
    size = 0
    call()
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        outputs = call()
        size = sum(as_numpy(value).nbytes for value in outputs.values())
        del outputs  # or two calls' outputs would be alive at once
    peak = status("VmHWM") - before
    state = 0
    if case.section == "train":
        state = 4 * sum(as_numpy(value).nbytes for name, value in calls["check"]().items() if name.startswith("d"))
    return {"before": before, "peak": peak, "outputs": size, "state": state}


def main(argv: list[str]) -> int:
    """Serve requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not reach run.py
    workers = {name: Worker(name) for name in argv[0].split(",")}
    if argv[1:2] == ["--memory"]:
        case = find(argv[2], False)
        replies.write(json.dumps(peak_memory(workers[argv[0]].side, case, argv[3])) + "\n")
        replies.flush()
        return 0
    for line in sys.stdin:
        try:
            request = json.loads(line)
            reply = workers[request["side"]].answer(request)
        except Exception as error:  # reported to run.py, which decides
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
