"""The sections "scorings" and "steps" as data: what dhyan.Attention and the decoder's loop are measured with.

A case's op is a label: a registered scoring, and one of VARIANTS after it. "additive window 4" is additive attention
with a window of radius 4, "scaled_dot causal" is self-attention (query and memory are one array).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from spec import attention as reference_attention
from spec.attention import SCORINGS, Setting, shapes

Arrays = dict[str, np.ndarray]

CAUSAL = "causal"
VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "window 2": {"radius": 2},
    "window 4": {"radius": 4},
    "predictive 2": {"radius": 2, "predictive": True},
    "predictive 4": {"radius": 4, "predictive": True},
    "sparsemax": {"normalize": "sparsemax"},
    "monotonic": {"normalize": "monotonic"},
    "4 heads": {"heads": 4},
    "8 heads": {"heads": 8},
    "normalized": {"normalized": True},
    "temperature 2": {"temperature": 2.0},
    CAUSAL: {},
}
VARIED = (
    "additive window 4", "additive predictive 4", "additive sparsemax", "additive monotonic", "additive 8 heads",
    "additive normalized", "additive temperature 2", "scaled_dot 8 heads",
)  # fmt: skip
SMALL = {"B": 64, "T": 20, "S": 20, "H": 256, "D": 512}
LARGE = {"B": 32, "T": 50, "S": 50, "H": 512, "D": 1024}
SELF = {"B": 8, "T": 200, "S": 200, "H": 512, "D": 512}
TINY = {"B": 3, "T": 5, "S": 7, "H": 16, "D": 32}
CLEAR = 1e-5  # no choice may hang on a rounding error

# Train steps: what the core's decoder loop reads by itself, and what the step-by-step reader serves.
STEPS = (
    "additive", *(name for name in SCORINGS if name != "additive"), "additive window 2", "additive sparsemax",
    "additive predictive 2", "additive monotonic", "additive 4 heads", "scaled_dot 4 heads",
)  # fmt: skip


def scored() -> list[tuple[str, dict[str, int]]]:
    """(label, sizes) of every case of the section scorings."""
    plain = [(name, sizes) for name in SCORINGS for sizes in (SMALL, LARGE)]
    return [*plain, *((name, LARGE) for name in VARIED), (f"scaled_dot {CAUSAL}", SELF)]


def tiny(label: str) -> dict[str, int]:
    """Sizes for a check."""
    return TINY | ({"S": TINY["T"], "D": TINY["H"]} if label.endswith(CAUSAL) else {})


def setting(label: str) -> Setting:
    """What a label of the section scorings asks for."""
    score, _, variant = label.partition(" ")
    return Setting(score, **VARIANTS[variant])


def forms(label: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Forms of dhyan and of PyTorch.

    compile-sum compiles the sum of tanh terms, the one place with work to fuse: scores of products are matrix products,
    and the rest of every form is small beside its projections. eager-band gathers the keys of a window.
    """
    which = setting(label)
    if which.score == "scaled_dot":
        return ("weights", "context"), ("eager", "sdpa")
    if "v" not in shapes(which, 1, 1, 1, 1):
        return ("weights",), ("eager",)
    band = ("eager-band",) if which.radius and not which.predictive else ()
    return ("weights",), ("eager", *band, "compile-sum")


def options(which: Setting) -> dict[str, Any]:
    """Keyword arguments of dhyan.Attention and of ModelConfig."""
    chosen = {"heads": which.heads, "normalize": which.normalize, "temperature": which.temperature}
    return {**chosen, "normalized": which.normalized, "window": _window(which)}


def _window(which: Setting) -> Any:
    if which.radius is None:
        return None
    from dhyan import (
        PredictiveWindow,  # here, since the interpreter that has PyTorch may not have dhyan
        Window,  # here, since the interpreter that has PyTorch may not have dhyan
    )

    return PredictiveWindow(which.radius) if which.predictive else Window(which.radius)


def inputs(label: str, sizes: dict[str, int], seed: int) -> Arrays:
    """query (B, T, H), memory (B, S, D), lengths (B,), dcontext (B, T, D), the parameters as "attention.NAME".

    Sentences have half of S to all of it. Self-attention: x (B, T, H) in place of query and memory, and full lengths.
    """
    return dict(_inputs(label, tuple(sizes.items()), seed))


@functools.lru_cache(maxsize=1)
def _inputs(label: str, sizes: tuple[tuple[str, int], ...], seed: int) -> Arrays:
    which, rng = setting(label), np.random.default_rng(seed)
    choosing = which.predictive or which.normalize == "sparsemax"
    for _ in range(100):
        a = _draw(label, which, dict(sizes), rng)
        wide = {n: x.astype(np.float64) if x.dtype == np.float32 else x for n, x in a.items()}
        if not choosing or margin(which, wide) > CLEAR:
            return a
    raise ValueError(f"{label}: every draw has a choice that hangs on a rounding error")


def margin(which: Setting, a: Arrays) -> float:
    """How far from the nearest edge any choice is: of sparsemax's support, of a predicted window."""
    p = {name.removeprefix("attention."): x for name, x in a.items() if name.startswith("attention.")}
    nearest = np.inf
    for b, n in enumerate(a["lengths"]):  # one sentence at a time: the sums of tanh terms are large
        query, memory = a["query"][b : b + 1], a["memory"][b : b + 1, :n]
        if which.predictive:
            centres = reference_attention.predicted_centres(query, p, np.array([n]))
            nearest = min(nearest, float(np.abs(centres - np.round(centres)).min()))
        if which.normalize == "sparsemax":
            past = reference_attention.nothing_past(1, which.heads, n, query.dtype)
            scores = reference_attention.score(which, p, query, memory, past) / which.temperature
            weights = reference_attention.sparsemax(scores, np.ones(scores.shape, bool))
            threshold = np.where(weights > 0, scores - weights, -np.inf).max(-1, keepdims=True)
            nearest = min(nearest, float(np.abs(scores - threshold).min()))
    return nearest


def _draw(label: str, which: Setting, z: dict[str, int], rng: np.random.Generator) -> Arrays:
    B, T, S, H, D = (z[letter] for letter in "BTSHD")

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    query = normal(B, T, H) * np.float32(H**-0.5 if which.score == "dot" else 1)  # scores of size 1, not of size H
    if label.endswith(CAUSAL):
        return {"x": query, "lengths": np.full(B, T, np.int64), "dcontext": normal(B, T, D)}
    lengths = rng.integers((S + 1) // 2, S, B, endpoint=True)
    lengths[0], lengths[-1] = S, (S + 1) // 2
    a = {"query": query, "memory": normal(B, S, D), "lengths": lengths, "dcontext": normal(B, T, D)}
    if which.score == "oracle":
        links = rng.integers(0, lengths[:, None], (B, T))
        a["alignment"] = (np.arange(S) == links[:, :, None]).astype(np.float32)
    for name, shape in shapes(which, H, D, H, S).items():
        a[f"attention.{name}"] = (_spread(name, which, H, D) * normal(*shape)).astype(np.float32)
    return a | {name: array for name, array in constants().items() if name in a}


def _spread(name: str, which: Setting, H: int, D: int) -> float:
    """Standard deviations: terms inside tanh and scores are of size 1."""
    if name == "weight":
        return {"general": (H * D) ** -0.5, "concat": (H + D) ** -0.5, "location": H**-0.5}[which.score]
    sizes = {"query": H**-0.5, "memory": D**-0.5, "bias": 0.1, "v": 2 * H**-0.5}
    sizes |= {"window_query": H**-0.5, "window_v": H**-0.5}
    return sizes.get(name, 1.0)


def constants() -> Arrays:
    """Parameters that are one number."""
    values = {"log_sharpness": np.log(10.0), "threshold": -1.0, "g": 1.5}
    return {f"attention.{name}": np.full(1, value, np.float32) for name, value in values.items()}


def work(label: str, sizes: dict[str, int], times: int) -> tuple[float, str]:
    """(operations, unit) of a pass: elements (b, t, s, u) of a sum of tanh terms, else FLOP of all products.

    times: 1 forward, 3 with backward. Positions that are padding are counted.
    """
    which = setting(label)
    B, T, S, H, D = (sizes[letter] for letter in "BTSHD")
    own = shapes(which, H, D, H, S)
    if "v" in own:
        return float(B * T * S * H), "el"
    if which.score in ("none", "uniform", "oracle"):
        return 2.0 * (1 if times == 1 else 2) * B * T * S * D, "FLOP"  # the context, and the gradient of its memory
    keys = B * S * H * D if which.score == "general" else 0
    return 2.0 * times * (B * T * S * (H + D) + keys), "FLOP"
