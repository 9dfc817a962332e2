"""The times of bench/gpu.py: one side's times at the shapes asked for, by device events.

    python -m gpu.time ours                           # one JSON record a line
    python -m gpu.time torch --forms eager,sdpa
    python -m gpu.time torch --forms compile --warm   # compiles into PyTorch's cache, times nothing

A time is the median of single calls, each after passes over a gigabyte: they empty the cache, and while the device is
at them the host gets ahead, so that its own time is not measured. Every record is written as soon as it is known, and
what fails (memory, a compiler that is not there) is a record too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One line of the table to be: an op at a shape in a type."""

    op: str  # "additive" or "scaled dot"
    shape: tuple[int, int, int, int]  # B, T, S, H; values are as wide as keys
    dtype: str

    @property
    def name(self) -> str:
        return f"{self.op} {','.join(map(str, self.shape))} {self.dtype}"

    @property
    def term(self) -> str:
        return "tanh" if self.op == "additive" else "product"

    @property
    def scale(self) -> float:
        return 1.0 if self.op == "additive" else self.shape[3] ** -0.5

    def inputs(self) -> list[np.ndarray]:
        """q, k, v, w and the gradient of the context."""
        B, T, S, H = self.shape
        rng = np.random.default_rng(0)
        return [rng.standard_normal(n, np.float32) for n in ((B, T, H), (B, S, H), (B, S, H), (H,), (B, T, H))]


SHAPES = [(64, 50, 50, 512), (64, 200, 200, 1024), (128, 10, 128, 1024), (1280, 1, 66, 1024), (32, 74, 75, 1024)]
DOT_SHAPES = [*SHAPES, (64, 200, 200, 256), (64, 50, 50, 128)]
QUICK_SHAPES = [(2, 3, 5, 8), (1, 20, 33, 12)]


def rows(quick: bool = False) -> list[Row]:
    """What is timed, the most asked for first."""
    additive, dot = (QUICK_SHAPES, QUICK_SHAPES) if quick else (SHAPES, DOT_SHAPES)
    return [
        Row(op, shape, dtype)
        for dtype in ("float32", "bfloat16")
        for op, shapes in (("additive", additive), ("scaled dot", dot))
        for shape in shapes
    ]


def median(once: Callable[[], float], seconds: float = 0.3) -> float:
    """Of single calls after two to warm up; each call gives milliseconds. Slow ones are made twice, not five times."""
    once()
    once()
    begin, times = time.monotonic(), [once()]
    while (spent := time.monotonic() - begin) < seconds or (len(times) < 5 and spent < 10 * seconds):
        times.append(once())
        if len(times) == 100:
            break
    return statistics.median(times)


# ---- ours ----


class OurClock:
    """Device events of dhyan's own: PyTorch need not be there."""

    def __init__(self, core: Any, quick: bool) -> None:
        self.core = core
        shape = (4, 8) if quick else (1 << 17, 1 << 11)
        self.large = core.cuda_upload(np.ones(shape, np.float32), "float32", 0, None)

    def __call__(self, run: Callable[[], Any]) -> float:
        return median(lambda: self.once(run))

    def once(self, run: Callable[[], Any]) -> float:
        self.core.cuda_unit_rows(self.large, None)
        first = self.core.cuda_mark(0, None)
        run()
        return float(self.core.cuda_between(first, self.core.cuda_mark(0, None)))


def our_times(wanted: list[Row], quick: bool) -> Iterator[dict[str, Any]]:
    """Forward without weights, forward + backward with them, and what the forward call takes of memory besides."""
    from dhyan import _core, ops

    from gpu.check import Device

    clock = OurClock(_core, quick)
    ones = _core.cuda_upload(np.ones((64, 1, 1), np.float32), "float32", 0, None)
    v = _core.cuda_upload(np.ones((64, 1, 64 if quick else 1 << 21), np.float32), "float32", 0, None)
    ms = clock(lambda: _core.context_forward(ones, v, None))
    yield {"kind": "copy", "by": "a weighted sum over one position", "GB/s": 2 * 4 * 64 * v.shape[2] / ms / 1e6}
    del v
    for row in wanted:
        try:
            device = Device(_core, row.dtype)
            q, k, v, w, dcontext = map(device.put, row.inputs())
            arrays = (q, k, v, w) if row.term == "tanh" else (q, k, v)
            how = {"term": row.term, "scale": row.scale}

            def forward(arrays: Any = arrays, how: Any = how) -> Any:
                return ops.attention_forward(*arrays, **how, need_weights=False)[0]

            def both(arrays: Any = arrays, how: Any = how, dcontext: Any = dcontext) -> None:
                _, _, cache = ops.attention_forward(*arrays, **how)
                ops.attention_backward(dcontext, cache)

            _core.cuda_pool_use(0, True)
            context = forward()
            _core.cuda_trim(0)
            used, highest = _core.cuda_pool_use(0, False)
            assert context.shape == (*row.shape[:2], row.shape[3])
            times = {"forward": clock(forward), "fwd+bwd": clock(both)}
            yield {"kind": "ours", "row": row, **times, "extra MB": (highest - used) / 1e6}
        except Exception as error:
            yield failed("ours", row, "ours", error)


def failed(kind: str, row: Row, form: str, error: Exception) -> dict[str, Any]:
    text = (str(error).splitlines() or [""])[0][:160]
    return {"kind": "failed", "of": kind, "row": row, "form": form, "text": f"{type(error).__name__}: {text}"}


# ---- PyTorch's ----


class TorchClock:
    def __init__(self, torch: Any) -> None:
        self.torch = torch
        self.large = torch.ones(1 << 28, device="cuda")

    def __call__(self, run: Callable[[], Any]) -> float:
        return median(lambda: self.once(run))

    def once(self, run: Callable[[], Any]) -> float:
        first, last = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        for _ in range(3):
            self.large.mul_(1.0)
        first.record()
        run()
        last.record()
        last.synchronize()
        return float(first.elapsed_time(last))


BACKENDS = ("", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH")  # of SDPA; "" is its own choice


def torch_form(torch: Any, row: Row, name: str, backend: str = "") -> Callable[..., Any] | None:
    """The op as PyTorch spells it; None where it has no such form."""

    def plain(q: Any, k: Any, v: Any, w: Any = None) -> Any:
        if row.term == "tanh":
            scores = (torch.tanh(q[:, :, None] + k[:, None]) * w).sum(-1)
        else:
            scores = row.scale * (q @ k.transpose(1, 2))
        return torch.softmax(scores.float(), -1).to(v.dtype) @ v

    def sdpa(q: Any, k: Any, v: Any) -> Any:
        attention = torch.nn.functional.scaled_dot_product_attention
        chosen = [getattr(torch.nn.attention.SDPBackend, backend)] if backend else None
        with torch.nn.attention.sdpa_kernel(chosen) if chosen else contextlib.nullcontext():
            return attention(q[:, None], k[:, None], v[:, None], scale=row.scale)[:, 0]

    if name == "sdpa":
        return sdpa if row.term == "product" else None
    return plain if name == "eager" else torch.compile(plain, dynamic=False)


def torch_times(wanted: list[Row], forms: list[str], warm: bool) -> Iterator[dict[str, Any]]:
    """Forward without gradients and forward + backward of each form; with `warm` each is run once and not timed."""
    import torch

    if not torch.cuda.is_available():
        yield {"kind": "note", "text": f"PyTorch {torch.__version__} sees no GPU"}
        return
    torch.set_float32_matmul_precision("highest")  # float32 products in float32, in every form
    count, precision = torch.cuda.get_device_properties(0).multi_processor_count, torch.get_float32_matmul_precision()
    yield {"kind": "torch", "version": torch.__version__, "multiprocessors": count, "matmul precision": precision}
    clock: Callable[[Callable[[], Any]], float] | None = None if warm else TorchClock(torch)
    if clock is not None:
        x, y = torch.randn(1 << 28, device="cuda"), torch.empty(1 << 28, device="cuda")
        yield {"kind": "copy", "by": "PyTorch's copy", "GB/s": 2 * 4 * 2**28 / clock(lambda: y.copy_(x)) / 1e6}
        del x, y
    for row in wanted:
        for name in forms:
            yield from one_form(torch, clock, row, name)
        torch.cuda.empty_cache()


def one_form(torch: Any, clock: Any, row: Row, name: str) -> Iterator[dict[str, Any]]:
    """Both passes of a form; of SDPA the fastest of its backends for each pass."""
    torch._dynamo.reset()
    if torch_form(torch, row, name) is None:
        return
    q, k, v, w, dcontext = (torch.from_numpy(x).to("cuda", getattr(torch, row.dtype)) for x in row.inputs())
    leaves = [x.requires_grad_() for x in ((q, k, v, w) if row.term == "tanh" else (q, k, v))]
    best: dict[str, tuple[float, str]] = {}
    errors: dict[str, Exception] = {}
    for backend in BACKENDS if name == "sdpa" else ("",):
        form = torch_form(torch, row, name, backend)
        assert form is not None

        def forward(form: Any = form) -> None:
            with torch.no_grad():
                form(*leaves)

        def both(form: Any = form) -> None:
            torch.autograd.grad(form(*leaves), leaves, dcontext)

        for which, run in (("forward", forward), ("fwd+bwd", both)):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a backend that does not take these inputs says why at length
                    if clock is None:
                        run()
                    else:
                        best[which] = min(best.get(which, (1e99, "")), (clock(run), backend))
            except Exception as error:  # out of memory for eager, a compiler or a backend that is not there
                errors.setdefault(which, error)
                torch.cuda.empty_cache()
    for which in ("forward", "fwd+bwd") if clock is not None else ():  # else the timing run will say it
        if which in best:
            ms, backend = best[which]
            yield {"kind": "peer", "row": row, "form": name, "pass": which, "ms": ms, "backend": backend}
        elif which in errors:
            yield failed("peer", row, f"{name} {which}", errors[which])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=["ours", "torch"])
    parser.add_argument("--forms", default="eager,sdpa", help="of PyTorch: eager, sdpa, compile")
    parser.add_argument("--rows", default="", help="numbers of the rows, 0,3,4; all by default")
    parser.add_argument("--warm", action="store_true", help="run each form once and time nothing")
    parser.add_argument("--quick", action="store_true", help="tiny shapes: does it run?")
    options = parser.parse_args()
    wanted = rows(options.quick)
    if options.rows:
        wanted = [wanted[int(i)] for i in options.rows.split(",")]
    if options.side == "ours":
        records = our_times(wanted, options.quick)
    else:
        records = torch_times(wanted, options.forms.split(","), options.warm)
    for record in records:
        print(json.dumps(record), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
