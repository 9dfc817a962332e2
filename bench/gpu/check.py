"""The checks of bench/gpu.py: every op in one type against float64 NumPy on fresh random inputs.

    python -m gpu.check --dtype float32 [--small] [--seed N]      # one JSON record a line

By relative norm error; of products also what becomes of bits, NaN and infinity (edges.py). All device memory starts
as NaN, so an element that is not written is found; two runs must give the same bits. Every third problem of the tanh
term has elements up to 10^4 among its queries and keys, which takes its kernels through all their ranges. An op that
fails is named and the next one is checked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpu import edges as gpu_edges

GATES = {"float32": 1e-5, "float64": 1e-13, "float16": 3e-3, "bfloat16": 2e-2}
PRODUCT_GATE = 4e-6  # float32: a part of a factor that is missing on the tensor cores is to be seen
TERMS = ("product", "tanh")
Sizes = tuple[int, int, int, int, int]  # B, T, S, H, D
SMALL: list[Sizes] = [(2, 1, 5, 7, 3), (1, 3, 9, 20, 4), (1, 7, 40, 50, 9), (1, 18, 66, 49, 5)]
SIZES: list[Sizes] = [
    (2, 1, 5, 7, 3), (3, 1, 66, 256, 64), (2, 3, 40, 130, 9), (2, 10, 128, 96, 33), (2, 16, 33, 64, 64),
    (2, 17, 65, 49, 65), (2, 70, 100, 100, 12), (1, 130, 200, 260, 129), (1, 2, 8192, 20, 6), (1, 40, 50, 2048, 8),
    (2, 200, 200, 1024, 320), (5, 74, 75, 512, 512),
]  # fmt: skip


class Device:
    """Host arrays to the device and back, in one of the four types."""

    def __init__(self, core: Any, dtype: str) -> None:
        self.core, self.dtype = core, dtype
        self.wide = "float64" if dtype == "float64" else "float32"

    def put(self, x: np.ndarray, dtype: str | None = None) -> Any:
        from helpers.cuda_emulator import to_bfloat16

        dtype = dtype or self.dtype
        host = to_bfloat16(x) if dtype == "bfloat16" else x.astype(dtype)
        return self.core.cuda_upload(np.ascontiguousarray(host), dtype, 0, None)

    def get(self, a: Any) -> np.ndarray:
        from helpers.cuda_emulator import from_bfloat16

        host = a.download(None)
        return (from_bfloat16(host) if a.dtype == "bfloat16" else host).astype(np.float64)

    def rounded(self, x: np.ndarray) -> np.ndarray:
        return self.get(self.put(x))


class Problem:
    """One attention problem on the device, and what each op should make of it."""

    def __init__(self, ops: Any, device: Device, term: str, size: Sizes, seed: int) -> None:
        from spec import ops as reference

        B, T, S, H, D = size
        self.ops, self.device, self.term, self.size = ops, device, term, size
        rng = np.random.default_rng(seed)
        shapes = ((B, T, H), (B, S, H), (B, S, D), (H,), (B, T, D))
        arrays = [rng.normal(size=n) for n in shapes]
        if term == "tanh" and seed % 3 == 0:  # products of such sizes leave gradients that are all cancellation
            for x in arrays[:2]:
                x[rng.random(x.shape) < 0.02] = rng.choice([9.0, -9.0, 30.0, -30.0, 60.0, -1e4])
        self.q, self.k, self.v, self.w, self.dcontext = map(device.rounded, arrays)
        self.further = rng.normal(size=(B, T, S)).astype(np.float32).astype(np.float64)
        self.ends = np.sort(rng.integers(0, S + 1, (2, B, T)), axis=0) if seed % 2 else (None, None)
        self.mask = rng.random((B, T, S)) < 0.8 if seed % 5 else None
        self.allowed = reference.may_attend((B, T, S), self.ends[0], self.ends[1], self.mask)
        self.scale = H**-0.5
        self.w_given = self.w if term == "tanh" else None
        self.scores = reference.score(self.q, self.k, self.w_given, term, self.scale)
        wide = device.wide
        self.weights = reference.softmax(self.scores, self.allowed).astype(wide).astype(np.float64)

    def cases(self) -> Iterator[tuple[str, tuple[str, ...], Callable[[], Any], Any]]:
        """(op, names of its outputs, the call, float64 results)."""
        from spec import ops as reference

        ops, put, wide = self.ops, self.device.put, self.device.wide
        q, k, v, dcontext = map(put, (self.q, self.k, self.v, self.dcontext))
        w = put(self.w) if self.term == "tanh" else None
        further, weights, scores = (put(x, wide) for x in (self.further, self.weights, self.scores))
        begin, end = (None if x is None else put(x, "int64") for x in self.ends)
        mask = None if self.mask is None else self.device.core.cuda_upload(self.mask, "bool", 0, None)
        may = {"begin": begin, "end": end, "mask": mask}
        how = {"term": self.term, "scale": self.scale}

        def fused(need_weights: bool) -> Any:
            context, kept, cache = ops.attention_forward(q, k, v, w, **how, **may, need_weights=need_weights)
            return context, kept, *ops.attention_backward(dcontext, cache, further)

        arrays = self.q, self.k, self.v, self.w_given, self.term, self.scale, self.allowed
        want = reference.attention(*arrays) + reference.attention_backward(self.dcontext, self.further, *arrays)
        names = ("context", "weights", "dq", "dk", "dv", "dw")
        yield "attention", names, lambda: fused(True), want
        yield "attention without weights", names, lambda: fused(False), want
        yield "score_forward", ("scores",), lambda: (ops.score_forward(q, k, w, **how),), (self.scores,)
        scoring = self.further, self.q, self.k, self.w_given, self.term, self.scale
        yield (
            "score_backward", ("dq", "dk", "dw"), lambda: ops.score_backward(further, q, k, w, **how),
            reference.score_backward(*scoring),
        )  # fmt: skip
        yield "softmax_forward", ("weights",), lambda: (ops.softmax_forward(scores, **may),), (self.weights,)
        yield (
            "softmax_backward", ("dscores",), lambda: (ops.softmax_backward(further, weights),),
            (reference.softmax_backward(self.further, self.weights),),
        )  # fmt: skip
        yield "context_forward", ("context",), lambda: (ops.context_forward(weights, v),), (self.weights @ self.v,)
        yield (
            "context_backward", ("dweights", "dv"), lambda: ops.context_backward(dcontext, weights, v),
            reference.context_backward(self.dcontext, self.weights, self.v),
        )  # fmt: skip
        norms = np.linalg.norm(self.q, axis=-1, keepdims=True)
        yield "unit_rows", ("unit",), lambda: (self.device.core.cuda_unit_rows(q, None),), (self.q / norms,)


def gate_of(dtype: str, term: str) -> float:
    return PRODUCT_GATE if (dtype, term) == ("float32", "product") else GATES[dtype]


def compare(problem: Problem, op: str, names: tuple[str, ...], run: Any, want: Any) -> Iterator[tuple[str, float, str]]:
    """(op and output, relative error, what is wrong or "") of one op's outputs."""
    label, gate = f"{op} {{}} {problem.term} {problem.device.dtype}", gate_of(problem.device.dtype, problem.term)
    try:
        first, second = run(), run()
        for name, a, b, exact in zip(names, first, second, want, strict=True):
            if a is None or exact is None:
                continue
            got, again = problem.device.get(a), problem.device.get(b)
            norm = max(float(np.linalg.norm(exact)), 1e-3 * exact.size**0.5, 1e-30)
            error = float(np.linalg.norm(got - exact)) / norm
            wrong = "" if error <= gate else f"relative error {error:.2e}, expected at most {gate:.0e}"
            if not np.array_equal(got, again):
                wrong = f"{wrong}; two runs differ".strip("; ")
            yield label.format(name), error, wrong
    except Exception as error:  # a launch that failed, too little memory: named, and the next op is tried
        yield label.format("call"), float("nan"), f"{type(error).__name__}: {error}"


def check(dhyan: Any, dtype: str, sizes: list[Sizes], seed: int, emit: Callable[[dict[str, Any]], None]) -> int:
    """Checks one type, a record for each thing that is wrong and one for each term at its end; how many are wrong."""
    from dhyan import _core

    wrong = 0
    _core.cuda_poison(True)
    for term in TERMS:
        begin, worst = time.monotonic(), (0.0, "")
        for number, size in enumerate(sizes):
            problem = Problem(dhyan.ops, Device(_core, dtype), term, size, seed + number)
            for case in problem.cases():
                for label, error, text in compare(problem, *case):
                    worst = max(worst, (error if error == error else 1e99, label))  # NaN is far
                    if text:
                        wrong += 1
                        emit({"kind": "wrong", "dtype": dtype, "term": term, "text": f"{label} {size}: {text}"})
        for text in gpu_edges.wrong(dhyan.ops, Device(_core, dtype)) if term == "product" else ():
            wrong += 1
            emit({"kind": "wrong", "dtype": dtype, "term": term, "text": text})
        emit({
            "kind": "checked", "dtype": dtype, "term": term, "worst": worst[0], "where": worst[1],
            "gate": gate_of(dtype, term), "seconds": round(time.monotonic() - begin, 1), "seed": seed,
        })  # fmt: skip
    _core.cuda_poison(False)
    return wrong


def say(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=list(GATES), action="append", help="the types to check; all by default")
    parser.add_argument("--small", action="store_true", help="a few small problems")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs; fresh ones by default")
    options = parser.parse_args()
    import dhyan

    seed = time.time_ns() % 10**6 if options.seed is None else options.seed
    sizes = SMALL if options.small else SIZES
    return 1 if sum(check(dhyan, dtype, sizes, seed, say) for dtype in options.dtype or GATES) else 0


if __name__ == "__main__":
    sys.exit(main())
