"""Check the CUDA side on a GPU, then time it: one command, within 8 minutes.

    python bench/gpu.py              # builds where there is no CUDA build, checks, sanitizes, times, prints the table
    python bench/gpu.py --check      # the checks alone
    python bench/gpu.py --no-build   # uses the dhyan that this interpreter imports
    python bench/gpu.py --small      # a few small checks in one process: what compute-sanitizer runs
    python bench/gpu.py --table RUN.json

Needs: an NVIDIA driver and GPU, NumPy, and for the build nvcc 12 or 13, a C++ compiler, cmake, ninja (or make) and
pybind11; nothing is fetched. With PyTorch (a CUDA build) ours is timed beside eager, torch.compile and SDPA; without it
ours alone. With CuPy and JAX arrays of theirs are tried, with pytest the device's tests are run, and compute-sanitizer
where it is installed.

Each section is a process of its own with a time limit: what fails or hangs, or a kernel that takes the device's context
with it, is reported and the next section goes on. Everything known is in the JSON file at any moment.

Checked first (check.py). What differs is named, is not timed, and makes the exit code 1. Times (time.py) are
medians of device-event times. *Of copy* is the share of the copy bandwidth measured in the same run that reading q, k
and v and writing the results once would take; *of bound* the share of 38 elements a clock and multiprocessor (forward)
or 12.8 (backward), what the arithmetic of the tanh kernels allows. PyTorch's float32 products are float32, its default;
of SDPA the fastest backend counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

from paths import BENCH, RESULTS, ROOT, importing

from gpu import check as gpu_check
from gpu import table as gpu_table
from gpu import time as gpu_time
from gpu.sections import Run, Section

BUDGET = 465.0  # seconds for everything
LIMITS = {"build": 200, "check": 100, "sanitizer": 100, "ours": 75, "torch": 100}


# ---- build ----


def asked(command: list[str]) -> str:
    """The first line a tool prints, "" where there is no such tool."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def gpu_of(field: str) -> str:
    return asked(["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", "--id=0"])


def facts() -> dict[str, Any]:
    """The machine, as the driver's tool describes it."""
    query = {"gpu": "name", "driver": "driver_version", "memory MiB": "memory.total", "MHz": "clocks.max.sm"}
    found: dict[str, Any] = {name: gpu_of(field) for name, field in query.items()}
    return {"kind": "machine", "python": sys.version.split()[0], "cores": os.cpu_count(), **found}


def config(environment: dict[str, str]) -> dict[str, Any]:
    """What `dhyan.show_config` of that environment says; empty where there is no dhyan."""
    code = "import json, dhyan; print(json.dumps(dhyan.show_config()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir()
    )
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def build(run: Run) -> Path:
    """A CUDA build of this checkout in build/gpu, for the architecture of this GPU, its package beside it."""
    folder = ROOT / "build" / "gpu"
    package = folder / "python"
    for name, there in (("cmake", shutil.which("cmake")), ("pybind11", importlib.util.find_spec("pybind11"))):
        if there is None:
            raise SystemExit(f"bench/gpu.py: the build needs {name} (pip install {name})")
    import pybind11

    command = ["cmake", "-S", str(ROOT), "-B", str(folder), "-DDHYAN_CUDA=ON", "-DSKBUILD_PROJECT_VERSION=0.1.0"]
    command += [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    command += ["-GNinja"] if shutil.which("ninja") else []
    capability = gpu_of("compute_cap").replace(".", "")
    command += [f"-DCMAKE_CUDA_ARCHITECTURES={capability}-real"] if capability.isdigit() else []
    for name, step in (("configure", command), ("build", ["cmake", "--build", str(folder), "-j", str(os.cpu_count())])):
        if Section(run, name, step, LIMITS["build"]).wait() != 0:
            raise SystemExit(f"bench/gpu.py: the {name} step failed; its last lines are above")
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(folder / f"_core{sysconfig.get_config_var('EXT_SUFFIX')}", package / "dhyan")
    return package


def prepare(run: Run, may_build: bool) -> dict[str, str]:
    """The environment in which dhyan has a CUDA side and a device; ends the program where there is none."""
    environment = dict(os.environ)
    found = config(environment)
    if not found.get("cuda") and may_build:
        paths = [str(build(run)), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        found = config(environment)
    if not found.get("cuda"):
        raise SystemExit("bench/gpu.py: this dhyan was built without CUDA" if found else "bench/gpu.py: no dhyan here")
    if not found["cuda_devices"]:
        raise SystemExit(
            "bench/gpu.py: no CUDA device can be used here; tests/cuda/test_cuda_kernels.py tests the kernels' logic"
        )
    run.add({"kind": "dhyan", **{name: found[name] for name in ("version", "cuda", "cuda_devices")}})
    return importing(environment)


# ---- sections ----


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def warmers(run: Run, quick: bool) -> list[Section]:
    """Processes that compile PyTorch's forms into its cache while the checks run: compiling takes longest of all."""
    if quick or importlib.util.find_spec("torch") is None:
        return []
    count, hands = len(gpu_time.rows()), max(1, min(6, (os.cpu_count() or 1) // 3))
    parts = [",".join(str(i) for i in range(hand, count, hands)) for hand in range(hands)]
    options = ("--forms", "compile", "--warm")
    commands = [python("gpu.time", "torch", *options, "--rows", part) for part in parts]
    return [Section(run, f"compile {i}", words, 240, importing(), quiet=True) for i, words in enumerate(commands)]


def checks(run: Run, environment: dict[str, str], small: bool, seed: str) -> None:
    """Every type in a process of its own, all at once."""
    arguments = ("--seed", seed, *(["--small"] if small else []))
    sections = {}
    for dtype in gpu_check.GATES:
        command = python("gpu.check", "--dtype", dtype, *arguments)
        sections[dtype] = Section(run, f"check {dtype}", command, LIMITS["check"], environment)
    Section.all(list(sections.values()))
    for record in run.of("checked"):
        gpu_table.say_check(record)
    ended = {(r["dtype"], r["term"]) for r in run.of("checked")}
    for dtype, section in sections.items():
        for term in gpu_check.TERMS:
            if (dtype, term) not in ended:  # a crash is an answer, too little time is none
                text = f"check {dtype} {term}: {section.text}"
                if section.stopped:
                    run.add({"kind": "unchecked", "dtype": dtype, "term": term, "text": text})
                else:
                    run.wrong(text, dtype=dtype, term=term)


def further_checks(run: Run, environment: dict[str, str]) -> None:
    """Arrays of other libraries, the tests of the device, a training, the sanitizer: all at once, none is timed."""
    sections = [Section(run, "libraries", python("gpu.libraries"), LIMITS["sanitizer"], environment)]
    if importlib.util.find_spec("pytest"):
        tests = [str(ROOT / "tests" / name) for name in ("cuda/test_cuda.py", "house/test_torch_bridge.py")]
        # warnings are no errors there
        options = ["-q", "-W", "default", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        sections.append(Section(run, "tests", command, LIMITS["sanitizer"], environment))
    if importlib.util.find_spec("torch"):
        example = [sys.executable, str(ROOT / "examples" / "torch_gpu.py")]
        sections.append(Section(run, "training", example, LIMITS["sanitizer"], environment))
    tool = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")
    for kind in ("memcheck", "racecheck") if tool else ():
        command = [str(tool), "--tool", kind, "--error-exitcode", "9", sys.executable, str(BENCH / "gpu.py")]
        command += ["--small", "--no-build"]
        sections.append(Section(run, f"compute-sanitizer {kind}", command, LIMITS["sanitizer"], environment))
    if not tool:
        run.note("compute-sanitizer is not installed: not run")
    Section.all(sections)
    for section in sections:  # a tool that cannot work here, or had too little time, says nothing about the kernels
        if section.status == (9 if section.name.startswith("compute-sanitizer") else 1):
            run.wrong(f"{section.name}: {section.tail[-1] if section.tail else section.text}")


def times(run: Run, environment: dict[str, str], quick: bool) -> None:
    """Ours, then PyTorch's: one process after the other, nothing else on the device."""
    bad = {(r["dtype"], r["term"]) for r in run.of("wrong") if "dtype" in r}
    rows = gpu_time.rows(quick)
    good = [i for i, row in enumerate(rows) if (row.dtype, row.term) not in bad]
    for i, row in enumerate(rows):
        if i not in good:
            run.note(f"{row.name}: wrong, so not timed")
    if not good:
        return
    only = ["--rows", ",".join(map(str, good)), *(["--quick"] if quick else [])]
    Section(run, "times of ours", python("gpu.time", "ours", *only), LIMITS["ours"], environment).wait()
    if quick or importlib.util.find_spec("torch") is None:
        run.note("PyTorch's times are left out: ours is timed alone")
        return
    for forms in ("eager,sdpa", "compile"):
        command = python("gpu.time", "torch", "--forms", forms, *only)
        Section(run, f"times of {forms}", command, LIMITS["torch"], environment).wait()


def small_check(seed: int) -> int:
    """A few small problems in this process."""
    import dhyan

    found = dhyan.show_config()
    if not found["cuda_devices"]:
        raise SystemExit("bench/gpu.py: no CUDA device can be used here, or this dhyan was built without CUDA")
    print(f"dhyan {found['version']}, CUDA {found['cuda']}, seed {seed}", flush=True)
    wrong = [gpu_check.check(dhyan, d, gpu_check.SMALL, seed, gpu_table.say_check) for d in gpu_check.GATES]
    print(f"{sum(wrong)} checks failed" if sum(wrong) else "all checks passed")
    return 1 if sum(wrong) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check, do not time")
    parser.add_argument("--small", action="store_true", help="a few small checks only (what the sanitizer runs)")
    parser.add_argument("--quick", action="store_true", help="all sections at tiny sizes: do they run?")
    parser.add_argument("--no-build", action="store_true", help="use the dhyan that is installed")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs; fresh ones by default")
    parser.add_argument(
        "--json", type=Path, default=None, help="where to write; bench/results/gpu-DATE.json by default"
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything")
    parser.add_argument("--table", type=Path, help="print the table of a run again")
    options = parser.parse_args()
    if options.table:
        print(gpu_table.text(json.loads(options.table.read_text())))
        return 0
    seed = time.time_ns() % 10**6 if options.seed is None else options.seed
    if options.small:
        return small_check(seed)
    path = options.json or RESULTS / f"gpu-{time.strftime('%Y%m%d-%H%M%S')}.json"
    run = Run(path, options.budget)
    run.add(facts())
    compiling = [] if options.check else warmers(run, options.quick)
    try:
        environment = prepare(run, not options.no_build)
        checks(run, environment, options.quick, str(seed))
        if not options.quick:
            further_checks(run, environment)
        Section.all(compiling)
        if not options.check:
            times(run, environment, options.quick)
    finally:
        for section in compiling:
            section.stop()
    print(gpu_table.text(run.records))
    wrong, unchecked = len(run.of("wrong")), len(run.of("unchecked"))
    text = f"{wrong} checks failed" if wrong else "all checks passed" if not unchecked else "no check failed"
    run.note(f"{text}, {unchecked} of {2 * len(gpu_check.GATES)} did not end" if unchecked else text)
    run.note(f"done in {run.spent():.0f} s, written to {run.path}")
    return 1 if wrong or unchecked else 0
