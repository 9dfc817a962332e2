"""Facts about the machine that belong beside every number: processor, load, and how fast it can multiply and add."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """Processor, cores this process may use, system, Python, and the environment that steers threads."""
    steering = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOMP_CPU_AFFINITY")
    return {
        "processor": processor(), "cores": cores(), "system": platform.platform(), "python": platform.python_version(),
        "environment": {name: os.environ[name] for name in steering if name in os.environ},
    }  # fmt: skip


def cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's own name, with family and model, since some names say little."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name", platform.machine())
    return f"{name} (family {found.get('cpu family', '?')}, model {found.get('model', '?')})"


def fma_peak(threads: int) -> float | None:
    """GFLOP/s of independent multiply-adds in registers, float32; None where no C compiler is found."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "fma_peak")
        source = str(Path(__file__).with_name("fma_peak.c"))
        flags = ["-O2", "-march=native", "-ffp-contract=fast", "-fopenmp"]
        built = subprocess.run([compiler, *flags, source, "-o", program], capture_output=True)
        if built.returncode:
            return None
        said = subprocess.run([program, str(threads)], capture_output=True, text=True, check=True).stdout
    return float(said.split()[0])


class Neighbours:
    """The share of the machine that processes other than this bench used between start and `share`."""

    def __init__(self) -> None:
        self.busy, self.own = _busy_seconds(), _own_seconds()
        self.wall = _uptime()

    def share(self) -> float | None:
        """0 to 1 of all cores; call it after the workers have ended, or their time counts as foreign."""
        busy, wall = _busy_seconds(), _uptime()
        if busy is None or self.busy is None or wall <= self.wall:
            return None
        foreign = (busy - self.busy) - (_own_seconds() - self.own)
        return max(0.0, foreign / ((wall - self.wall) * (os.cpu_count() or 1)))


def _busy_seconds() -> float | None:
    """All processors' time that was not idle, stolen time included."""
    try:
        fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _uptime() -> float:
    try:
        return float(Path("/proc/uptime").read_text().split()[0])
    except OSError:
        return 0.0
