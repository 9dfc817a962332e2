"""Check the CUDA side on a GPU, then time it: one command, within 8 minutes.

    python bench/gpu.py              # builds where there is no CUDA build, checks, sanitizes, times, prints the table
    python bench/gpu.py --check      # the checks alone, a minute
    python bench/gpu.py --no-build   # uses the dhyan that this interpreter imports

Needs: an NVIDIA driver and GPU, NumPy, and for the build nvcc 12 or 13, a C++ compiler, cmake, ninja (or make) and
pybind11; nothing is fetched. With PyTorch (a CUDA build) ours is timed beside eager, torch.compile and SDPA; without it
ours alone. compute-sanitizer is run where it is on the PATH. One file, because it is carried to where a GPU is.

Checked first: every op in every type against float64 NumPy on fresh random inputs, by relative norm error; all device
memory starts as NaN, so an element that is not written is found; two runs must give the same bits. What differs is
named, and nothing is timed then (exit code 1). Times are medians of device-event times, each after a pass over a
gigabyte that lets the host run ahead and empties the cache; *of copy* is the share of the copy bandwidth measured in
the same run that reading q, k, v and writing the results once would take; *of bound* the share of 38 elements a clock
and multiprocessor (forward) or 12.8 (backward), what the arithmetic of the tanh kernels allows.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
sys.path.append(str(ROOT / "bench"))
BEGIN = time.monotonic()
BUDGET = 460.0  # seconds for everything
SHAPES = [(64, 50, 50, 512), (64, 200, 200, 1024), (128, 10, 128, 1024), (1280, 1, 66, 1024), (32, 74, 75, 1024)]
DOT_SHAPES = [*SHAPES, (64, 200, 200, 256), (64, 50, 50, 128)]
FORWARD_BOUND, BACKWARD_BOUND = 38.4, 12.8  # elements a clock and multiprocessor


def left() -> float:
    return BUDGET - (time.monotonic() - BEGIN)


def say(text: str) -> None:
    print(text, flush=True)


# ---- build ----


def build() -> Path:
    """A CUDA build of this checkout in build/gpu, its package beside it. Only the architecture of this GPU."""
    folder = ROOT / "build" / "gpu"
    package = folder / "python"
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    import pybind11

    if shutil.which("cmake") is None:
        sys.exit("bench/gpu.py: the build needs cmake (pip install cmake)")
    command = ["cmake", "-S", ROOT, "-B", folder, "-DDHYAN_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native"]
    command += ["-DSKBUILD_PROJECT_VERSION=0.1.0", f"-DPython_EXECUTABLE={sys.executable}"]
    command += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}", *(["-GNinja"] if shutil.which("ninja") else [])]
    begin = time.monotonic()
    for step in (command, ["cmake", "--build", folder, "-j", str(os.cpu_count() or 1)]):
        done = subprocess.run(list(map(str, step)), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"bench/gpu.py: {step[0]} failed\n{(done.stdout + done.stderr)[-4000:]}")
    shutil.rmtree(package, ignore_errors=True)
    shutil.copytree(ROOT / "python", package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(folder / f"_core{suffix}", package / "dhyan")
    say(f"built in {time.monotonic() - begin:.0f} s")
    return package


def import_dhyan(may_build: bool) -> Any:
    """dhyan with its CUDA side: the one that is installed, or a fresh build."""
    if may_build:
        try:
            installed = importlib.import_module("dhyan").show_config()["cuda"]
        except ImportError:
            installed = None
        if installed is None:
            for name in [n for n in sys.modules if n == "dhyan" or n.startswith("dhyan.")]:
                del sys.modules[name]
            sys.path.insert(0, str(build()))
    dhyan = importlib.import_module("dhyan")
    config = dhyan.show_config()
    if config["cuda"] is None:
        sys.exit("bench/gpu.py: this dhyan was built without CUDA")
    if config["cuda_devices"] == 0:
        sys.exit(
            "bench/gpu.py: no CUDA device can be used here; the kernels' logic is tested by tests/test_cuda_kernels.py"
        )
    return dhyan


# ---- checks ----


class Device:
    """Host arrays to the device and back, in one of the four types."""

    def __init__(self, core: Any, dtype: str) -> None:
        self.core, self.dtype = core, dtype
        self.wide = "float64" if dtype == "float64" else "float32"

    def put(self, x: np.ndarray, dtype: str | None = None) -> Any:
        from cuda_emulator import to_bfloat16

        dtype = dtype or self.dtype
        host = to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)
        return self.core.cuda_upload(np.ascontiguousarray(host), dtype, 0, None)

    def get(self, a: Any) -> np.ndarray:
        from cuda_emulator import from_bfloat16

        host = a.download(None)
        return (from_bfloat16(host) if a.dtype == "bfloat16" else host).astype(np.float64)

    def rounded(self, x: np.ndarray) -> np.ndarray:
        return self.get(self.put(x))


CHECK_SIZES = [(2, 1, 5, 7, 3), (3, 1, 66, 256, 64), (2, 3, 40, 130, 9), (2, 10, 128, 96, 33), (2, 16, 33, 64, 64)]
CHECK_SIZES += [
    (2, 17, 65, 49, 65),
    (2, 70, 100, 100, 12),
    (1, 130, 200, 260, 129),
    (1, 2, 8192, 20, 6),
    (1, 40, 50, 2048, 8),
]
GATES = {"float32": 1e-5, "float64": 1e-13, "float16": 3e-3, "bfloat16": 2e-2}


def check(dhyan: Any, sizes: list[tuple[int, ...]], seed: int) -> list[str]:
    """What is wrong; one line for each."""
    from dhyan import _core

    wrong: list[str] = []
    worst: dict[str, float] = {}
    _core.cuda_poison(True)
    for dtype, gate in GATES.items():
        for term in ("product", "tanh"):
            for number, size in enumerate(sizes):
                for op, name, got, again, want in results(dhyan.ops, Device(_core, dtype), term, size, seed + number):
                    norm = float(np.linalg.norm(want))
                    error = float(np.linalg.norm(got - want)) / max(norm, 1e-3 * want.size**0.5, 1e-30)
                    label = f"{op} {name} {term} {dtype}"
                    worst[label] = max(worst.get(label, 0.0), error)
                    if not error <= gate:
                        wrong.append(f"{label} {size}: relative error {error:.2e}, expected at most {gate:.0e}")
                    if not np.array_equal(got, again):
                        wrong.append(f"{label} {size}: two runs differ")
    _core.cuda_poison(False)
    for dtype in GATES:
        largest = max((e, label) for label, e in worst.items() if label.endswith(f" {dtype}"))
        say(f"check {dtype:<8} worst relative error {largest[0]:.1e} ({largest[1]}), gate {GATES[dtype]:.0e}")
    return wrong


def results(ops: Any, device: Device, term: str, size: tuple[int, ...], seed: int) -> Any:
    """(op, output, value, value of a second run, float64 reference) of every op."""
    import reference

    B, T, S, H, D = size
    rng = np.random.default_rng(seed)
    q, k, v, w, dcontext = (
        device.rounded(rng.normal(size=n)) for n in ((B, T, H), (B, S, H), (B, S, D), (H,), (B, T, D))
    )
    further = rng.normal(size=(B, T, S)).astype(np.float32).astype(np.float64)
    w_or_none = w if term == "tanh" else None
    ends = np.sort(rng.integers(0, S + 1, (2, B, T)), axis=0) if seed % 2 else (None, None)
    mask = rng.random((B, T, S)) < 0.8 if seed % 3 else None
    allowed = reference.may_attend((B, T, S), ends[0], ends[1], mask)
    scale = H**-0.5
    put, wide = device.put, device.wide
    d = {n: put(x) for n, x in (("q", q), ("k", k), ("v", v), ("dcontext", dcontext))}
    dw, further_d = put(w) if term == "tanh" else None, put(further, wide)
    begin, end = (None if x is None else put(x, "int64") for x in ends)
    mask_d = None if mask is None else device.core.cuda_upload(mask, "bool", 0, None)
    scores = reference.score(q, k, w_or_none, term, scale)
    weights = reference.softmax(scores, allowed).astype(wide).astype(np.float64)
    weights_d, scores_d = put(weights, wide), put(scores, wide)
    may = {"begin": begin, "end": end, "mask": mask_d}

    def fused() -> Any:
        context, kept, cache = ops.attention_forward(d["q"], d["k"], d["v"], dw, term=term, scale=scale, **may)
        return context, kept, *ops.attention_backward(d["dcontext"], cache, further_d)

    def unkept() -> Any:
        arrays = d["q"], d["k"], d["v"], dw
        context, _, cache = ops.attention_forward(*arrays, term=term, scale=scale, need_weights=False, **may)
        return context, None, *ops.attention_backward(d["dcontext"], cache, further_d)

    want = reference.attention(q, k, v, w_or_none, term, scale, allowed)
    want += reference.attention_backward(dcontext, further, q, k, v, w_or_none, term, scale, allowed)
    names = ("context", "weights", "dq", "dk", "dv", "dw")
    cases: list[tuple[str, tuple[str, ...], Callable[[], Any], Any]] = [
        ("attention", names, fused, want),
        ("attention without weights", names, unkept, want),
        (
            "score_forward",
            ("scores",),
            lambda: (ops.score_forward(d["q"], d["k"], dw, term=term, scale=scale),),
            (scores,),
        ),
        (
            "score_backward",
            ("dq", "dk", "dw"),
            lambda: ops.score_backward(further_d, d["q"], d["k"], dw, term=term, scale=scale),
            reference.score_backward(further, q, k, w_or_none, term, scale),
        ),
        ("softmax_forward", ("weights",), lambda: (ops.softmax_forward(scores_d, **may),), (weights,)),
        (
            "softmax_backward",
            ("dscores",),
            lambda: (ops.softmax_backward(further_d, weights_d),),
            (reference.softmax_backward(further, weights),),
        ),
        ("context_forward", ("context",), lambda: (ops.context_forward(weights_d, d["v"]),), (weights @ v,)),
        (
            "context_backward",
            ("dweights", "dv"),
            lambda: ops.context_backward(d["dcontext"], weights_d, d["v"]),
            reference.context_backward(dcontext, weights, v),
        ),
    ]
    for op, outputs, run, expected in cases:
        first, second = run(), run()
        for name, a, b, exact in zip(outputs, first, second, expected, strict=True):
            if a is not None and exact is not None:
                yield op, name, device.get(a), device.get(b), exact


def sanitize() -> list[str]:
    """compute-sanitizer over a few small sizes, where it is installed."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        say("compute-sanitizer is not on the PATH: not run")
        return []
    wrong = []
    for kind in ("memcheck", "racecheck"):
        command = [tool, "--tool", kind, "--error-exitcode", "9", sys.executable, __file__, "--small", "--no-build"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=min(90, left()))
        except subprocess.TimeoutExpired:
            say(f"compute-sanitizer {kind}: no result in its time")
            continue
        summary = [line for line in done.stdout.splitlines() if "ERROR SUMMARY" in line or "RACECHECK SUMMARY" in line]
        say(f"compute-sanitizer {kind}: {summary[-1].strip('= ') if summary else f'exit code {done.returncode}'}")
        if done.returncode == 9:
            wrong.append(f"compute-sanitizer {kind}:\n{done.stdout[-1500:]}")
    return wrong


# ---- times ----


class Clock:
    """Medians of device-event times, in milliseconds."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.large = core.cuda_upload(np.ones((1 << 17, 1 << 11), np.float32), "float32", 0, None)

    def __call__(self, run: Callable[[], Any], seconds: float = 0.4) -> float:
        run()
        self._once(run)
        times = [self._once(run)]
        repeats = int(min(100, max(5, seconds * 1e3 / max(times[0], 1e-3))))
        times += [self._once(run) for _ in range(repeats)]
        return statistics.median(times)

    def _once(self, run: Callable[[], Any]) -> float:
        """While the device passes over a gigabyte, the host gets ahead: its own time is not measured."""
        self.core.cuda_unit_rows(None, self.large)
        first = self.core.cuda_mark(0, None)
        run()
        return float(self.core.cuda_between(first, self.core.cuda_mark(0, None)))


def torch_with_cuda() -> Any:
    """PyTorch where it is installed and sees the GPU, else None."""
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def copy_bandwidth(clock: Clock, core: Any) -> float:
    """GB/s read and written by a large copy on the device: PyTorch's where it is there, else by ours."""
    torch = torch_with_cuda()
    if torch is not None:
        x = torch.randn(1 << 28, device="cuda")
        y = torch.empty_like(x)
        return 2 * 4 * 2**28 / clock(lambda: y.copy_(x)) / 1e6
    say("no PyTorch with CUDA: the copy bandwidth is that of a weighted sum over one position, a read and a write")
    ones = core.cuda_upload(np.ones((64, 1, 1), np.float32), "float32", 0, None)
    v = core.cuda_upload(np.ones((64, 1, 1 << 21), np.float32), "float32", 0, None)
    return 2 * 4 * 64 * 2**21 / clock(lambda: core.cuda_context_forward(None, ones, v)) / 1e6


def rows_of_table(dhyan: Any, clock: Clock, bandwidth: float, clock_rate: float) -> None:
    torch = torch_with_cuda()
    if torch is None:
        say("no PyTorch with CUDA here: ours is timed alone")
    say(f"\ncopy bandwidth {bandwidth:.0f} GB/s, {clock_rate / 1e9:.0f} G multiprocessor clocks/s")
    heads = (
        "op",
        "B,T,S,H",
        "dtype",
        "pass",
        "ours ms",
        "eager ms",
        "compile ms",
        "sdpa ms",
        "ratio",
        "of copy",
        "of bound",
    )
    say("| " + " | ".join(heads) + " |\n|" + "---|" * len(heads))
    for op, shapes in (("additive", SHAPES), ("scaled dot", DOT_SHAPES)):
        for dtype in ("float32", "bfloat16"):
            for shape in shapes:
                if left() < 25:
                    say("out of time: the rest of the table is left out")
                    return
                try:
                    lines = time_one(dhyan, clock, torch, op, shape, dtype, bandwidth, clock_rate)
                except MemoryError as error:
                    lines = [f"| {op} | {shape} | {dtype} | {error} |"]
                for line in lines:
                    say(line)


def time_one(
    dhyan: Any, clock: Clock, torch: Any, op: str, shape: tuple[int, ...], dtype: str, bandwidth: float, rate: float
) -> list[str]:
    from dhyan import _core

    B, T, S, H = shape
    term, scale = ("tanh", 1.0) if op == "additive" else ("product", H**-0.5)
    device = Device(_core, dtype)
    rng = np.random.default_rng(0)
    host = [rng.standard_normal(n, np.float32) for n in ((B, T, H), (B, S, H), (B, S, H), (H,), (B, T, H))]
    q, k, v, w, dcontext = map(device.put, host)
    arrays = (q, k, v, w) if term == "tanh" else (q, k, v)
    forward = lambda: dhyan.ops.attention_forward(*arrays, term=term, scale=scale, need_weights=False)  # noqa: E731

    def both() -> None:
        _, _, cache = dhyan.ops.attention_forward(*arrays, term=term, scale=scale)
        dhyan.ops.attention_backward(dcontext, cache)

    ours = [clock(forward), clock(both)]
    item = 2 if dtype == "bfloat16" else 4
    traffic = [item * B * H * (2 * T + 2 * S), item * B * H * (5 * T + 6 * S)]
    elements = B * T * S * H
    bounds = [elements / FORWARD_BOUND / rate, elements * (1 / FORWARD_BOUND + 1 / BACKWARD_BOUND) / rate]
    peers = torch_times(clock, torch, term, scale, host, dtype) if torch is not None else {}
    if torch is not None:
        torch.cuda.empty_cache()
    lines = []
    for i, name in enumerate(("forward", "fwd+bwd")):
        times = [peers.get(form, (None, None))[i] for form in ("eager", "compile", "sdpa")]
        best = min((t for t in times[1:] if t), default=None) or times[0]
        cells = [op, ",".join(map(str, shape)), dtype, name, f"{ours[i]:.3f}"]
        cells += ["-" if t is None else f"{t:.3f}" for t in times]
        cells += [f"{best / ours[i]:.2f}" if best else "-", f"{traffic[i] / bandwidth / 1e6 / ours[i]:.0%}"]
        cells += [f"{bounds[i] * 1e3 / ours[i]:.0%}" if term == "tanh" else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def torch_times(
    clock: Clock, torch: Any, term: str, scale: float, host: list[np.ndarray], dtype: str
) -> dict[str, tuple[float | None, float | None]]:
    """Forward and forward + backward of PyTorch's forms; None for what it cannot do here."""
    kind = getattr(torch, dtype)
    q, k, v, w, dcontext = (torch.from_numpy(x).to("cuda", kind) for x in host)
    leaves = [q, k, v, w] if term == "tanh" else [q, k, v]
    for leaf in leaves:
        leaf.requires_grad_()

    def plain(q: Any, k: Any, v: Any, w: Any = None) -> Any:
        if term == "tanh":
            scores = (torch.tanh(q[:, :, None] + k[:, None]) * w).sum(-1)
        else:
            scores = scale * (q @ k.transpose(1, 2))
        return torch.softmax(scores.float(), -1).to(v.dtype) @ v

    def sdpa(q: Any, k: Any, v: Any) -> Any:
        attention = torch.nn.functional.scaled_dot_product_attention
        return attention(q[:, None], k[:, None], v[:, None], scale=scale)[:, 0]

    forms = {"eager": plain, "compile": torch.compile(plain, dynamic=False)}
    if term == "product":
        forms["sdpa"] = sdpa
    times: dict[str, tuple[float | None, float | None]] = {}
    for name, form in forms.items():
        if left() < 30:
            continue
        torch._dynamo.reset()

        def forward(form: Any = form) -> None:
            with torch.no_grad():
                form(*leaves)

        def both(form: Any = form) -> None:
            torch.autograd.grad(form(*leaves), leaves, dcontext)

        found: list[float | None] = []
        for run in (forward, both):
            try:
                found.append(clock(run, 0.2))
            except Exception as error:  # out of memory for eager, a compiler that is not there
                found.append(None)
                say(f"  {name}: {type(error).__name__} {str(error).splitlines()[0][:100] if str(error) else ''}")
                torch.cuda.empty_cache()
        times[name] = found[0], found[1]
    return times


def multiprocessor_clocks() -> float:
    """Clocks a second of all multiprocessors together, at the highest clock the tool names; of an H200 without it."""
    torch = torch_with_cuda()
    count = 132 if torch is None else torch.cuda.get_device_properties(0).multi_processor_count
    query = ["nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0"]
    try:
        mhz = float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        mhz = 1980.0
    return count * mhz * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="check, do not time")
    parser.add_argument("--small", action="store_true", help="a few small checks only (what the sanitizer runs)")
    parser.add_argument("--no-build", action="store_true", help="use the dhyan that is installed")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs; fresh ones by default")
    options = parser.parse_args()
    dhyan = import_dhyan(not options.no_build)
    seed = time.time_ns() % 10**6 if options.seed is None else options.seed
    say(f"dhyan {dhyan.show_config()['version']}, CUDA {dhyan.show_config()['cuda']}, seed {seed}")
    if options.small:
        wrong = check(dhyan, [(2, 1, 5, 7, 3), (1, 3, 9, 20, 4), (1, 7, 40, 50, 9), (1, 18, 66, 49, 5)], seed)
    else:
        wrong = check(dhyan, CHECK_SIZES, seed)
        wrong += sanitize()
    for line in wrong:
        say(f"WRONG: {line}")
    if wrong or options.small or options.check:
        say("all checks passed" if not wrong else f"{len(wrong)} checks failed")
        return 1 if wrong else 0
    say("all checks passed")
    from dhyan import _core

    clock = Clock(_core)
    rows_of_table(dhyan, clock, copy_bandwidth(clock, _core), multiprocessor_clocks())
    say(f"done in {time.monotonic() - BEGIN:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
