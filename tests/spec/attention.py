"""dhyan.Attention in plain NumPy: every scoring, normaliser, window and head as its formula, written for reading.

Letters: B sentences, T target rows, S source positions, Q query width, D memory width, U units, n heads. Arrays inside
carry the heads as an axis of their own: scores and weights are (B, n, T, S), and n is 1 for plain attention. Any array
may carry one more axis in front, `...` in the formulas: many perturbed copies of the parameters, as in model.py.

Every function takes real arrays of any precision, complex ones (ops.complex_step then gives exact slopes), and
those of slopes.py (which gives all slopes at once). So there is no abs and no comparison of a value that has a slope:
choices - a mask, a maximum, a support, a zero vector - look at real parts.

What no row may attend must hold finite numbers here; that it cannot be seen is for the tests of the real thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

Array = Any  # real, complex or taped
Parameters = dict[str, Array]

RULES = ("none", "uniform", "oracle")
CONTENT = ("dot", "scaled_dot", "cosine", "general", "additive", "concat")  # those that take heads
OTHERS = ("location", "location_sensitive", "coverage")
SCORINGS = (*RULES, *CONTENT, *OTHERS)
WIDTH, CHANNELS = 15, 10  # of the filters of location_sensitive


@dataclass(frozen=True)
class Setting:
    """What the constructor of dhyan.Attention fixes."""

    score: str
    heads: int = 1
    normalize: str = "softmax"
    temperature: float = 1.0
    radius: int | None = None
    predictive: bool = False  # the window is centred on a prediction, not on t
    normalized: bool = False

    @property
    def feedback(self) -> bool:
        """The weights of a row go into the scores of the next."""
        return self.score in ("location_sensitive", "coverage")


@dataclass(frozen=True)
class Sentences:
    """What a call of forward says besides query and memory. mask: any bool array that broadcasts to (B, T, S)."""

    lengths: Array | None = None
    mask: Array | None = None
    causal: bool = False
    position: int = 0
    alignment: Array | None = None
    hard: bool = False


@dataclass(frozen=True)
class Read:
    """context (B, T, D), weights (B, n, T, S), and allowed (B, T, S): what every row may attend."""

    context: Array
    weights: Array
    allowed: Array


def like(x: Array, numbers: Array) -> Array:
    """Numbers without a slope, in the precision of x."""
    return np.asarray(numbers).astype(x.real.dtype)


# ------------------------------------------------------------------------------------------------ parameters


def shapes(setting: Setting, Q: int, D: int, U: int, max_source: int = 0) -> dict[str, tuple[int, ...]]:
    """Parameter name -> shape."""
    tanh = {"query": (Q, U), "memory": (D, U), "bias": (U,), "v": (U,)} | ({"g": (1,)} if setting.normalized else {})
    table: dict[str, dict[str, tuple[int, ...]]] = {
        "cosine": {"log_sharpness": (1,)},
        "general": {"weight": (Q, D)},
        "additive": tanh,
        "concat": {"weight": (Q + D, U), "v": (U,)},
        "location": {"weight": (Q, max_source)},
        "location_sensitive": tanh | {"filters": (WIDTH, CHANNELS), "location": (CHANNELS, U)},
        "coverage": tanh | {"coverage": (U,)},
    }
    found = dict(table.get(setting.score, {}))
    if setting.predictive:
        found |= {"window_query": (Q, U), "window_v": (U,)}
    if setting.normalize == "monotonic":
        found |= {"threshold": (1,)}
    return found


# ------------------------------------------------------------------------------------------------ what a row may attend


def own_lengths(B: int, S: int, call: Sentences) -> Array:
    """(B,): a sentence's own length, S where only a mask says what may be attended."""
    return np.full(B, S) if call.lengths is None else call.lengths


def predicted_centres(query: Array, p: Parameters, length: Array) -> Array:
    """p (B, T) = length * sigmoid(window_v . tanh(q window_query))  (Luong 2015, eq. 9)."""
    hidden = np.tanh(np.einsum("...btq,...qu->...btu", query, p["window_query"]))
    return like(query, length)[:, None] * sigmoid(np.einsum("...btu,...u->...bt", hidden, p["window_v"]))


def may_attend(shape: tuple[int, int, int], setting: Setting, call: Sentences, centres: Array | None) -> Array:
    """(B, T, S) bool: lengths, mask, causal and window, joined by and."""
    B, T, S = shape
    t, s = np.arange(T)[None, :, None], np.arange(S)[None, None, :]
    length = own_lengths(B, S, call)[:, None, None]
    allowed = np.broadcast_to(s < length, shape)
    if call.mask is not None:
        allowed = allowed & call.mask
    if call.causal:
        allowed = allowed & (s <= t + length - T)
    if centres is not None:
        allowed = allowed & (np.abs(s - centres.real[..., None]) <= setting.radius)
    elif setting.radius is not None:
        allowed = allowed & (np.abs(s - np.minimum(t + call.position, length - 1)) <= setting.radius)
    return allowed


# ------------------------------------------------------------------------------------------------ scores


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))


def slices(x: Array, heads: int) -> Array:
    """(B, rows, width) -> (B, rows, n, width / n): n equal consecutive pieces."""
    return x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)


def product(q: Array, keys: Array, heads: int) -> Array:
    """(B, n, T, S): head i multiplies slice i."""
    return np.einsum("...btnw,...bsnw->...bnts", slices(q, heads), slices(keys, heads))


def length_of(x: Array) -> Array:
    """Euclidean length over the last axis; exactly 0, with slope 0, for a zero vector."""
    square = (x * x).sum(-1)
    zero = square.real <= 0
    return np.where(zero, 0, np.sqrt(np.where(zero, 1, square)))


def cosine(q: Array, keys: Array, heads: int) -> Array:
    """q.k / (|q| |k|) of every slice; zero vectors give 0  (Graves 2014)."""
    norms = np.einsum("...btn,...bsn->...bnts", length_of(slices(q, heads)), length_of(slices(keys, heads)))
    zero = norms.real == 0
    return np.where(zero, 0, product(q, keys, heads) / np.where(zero, 1, norms))


def narrow_keys(memory: Array, width: int) -> Array:
    """Memory as wide as the query: itself, or the sum of its two halves (the directions of the encoder)."""
    return memory if memory.shape[-1] == width else memory[..., :width] + memory[..., width:]


def tanh_score(q: Array, keys: Array, features: Array | None, v: Array, heads: int) -> Array:
    """v . tanh(q + k + f): projected q (B, T, U), keys (B, S, U), features (B, T, S, U); head i sums slice i of U."""
    inside = q[..., :, None, :] + keys[..., None, :, :]
    if features is not None:
        inside = inside + features
    terms = np.tanh(inside) * v[..., None, None, None, :]
    return np.einsum("...btsnw->...bnts", slices(terms, heads))


def project(x: Array, matrix: Array) -> Array:
    return np.einsum("...bri,...io->...bro", x, matrix)


def location_features(before: Array, p: Parameters) -> Array:
    """f W_f with f[s, c] = sum_j filters[j, c] before[s + j - 7], 0 outside; before (B, 1, S) -> (B, 1, S, U)."""
    S = before.shape[-1]
    margin = np.zeros((*before.shape[:-1], WIDTH // 2), before.real.dtype)
    padded = np.concatenate([margin, before, margin], axis=-1)
    shifted = np.stack([padded[..., j : j + S] for j in range(WIDTH)], axis=-1)
    return np.einsum("...btsj,...jc,...cu->...btsu", shifted, p["filters"], p["location"])


def additive(setting: Setting, p: Parameters, q: Array, memory: Array, features: Array | None) -> Array:
    """v . tanh(q W_q + m W_m + bias + features); normalized: g v / |v| for v, over all heads together."""
    v = p["g"] * p["v"] / length_of(p["v"])[..., None] if setting.normalized else p["v"]
    keys = project(memory, p["memory"]) + p["bias"][..., None, None, :]
    return tanh_score(project(q, p["query"]), keys, features, v, setting.heads)


def score(setting: Setting, p: Parameters, q: Array, memory: Array, past: Past) -> Array:
    """scores (B, n, T, S) of q (B, T, Q), before temperature and threshold. Scorings with feedback: T is 1."""
    n, Q = setting.heads, q.shape[-1]
    match setting.score:
        case "dot":
            return product(q, narrow_keys(memory, Q), n)
        case "scaled_dot":
            return product(q, narrow_keys(memory, Q), n) * (Q // n) ** -0.5
        case "cosine":
            return np.exp(p["log_sharpness"])[..., None, None, None] * cosine(q, narrow_keys(memory, Q), n)
        case "general":  # the matrix is folded into the keys: they are as wide as the query, and so are the slices
            return product(q, project(memory, p["weight"].swapaxes(-1, -2)), n)
        case "additive":
            return additive(setting, p, q, memory, None)
        case "concat":  # v . tanh([q; m] W): the first Q rows of W meet the query, the others the memory
            return tanh_score(
                project(q, p["weight"][..., :Q, :]), project(memory, p["weight"][..., Q:, :]), None, p["v"], n
            )
        case "location":
            row = project(q, p["weight"][..., : memory.shape[-2]])
            return row[..., None, :, :]
        case "location_sensitive":
            return additive(setting, p, q, memory, location_features(past.weights, p))
        case "coverage":
            return additive(setting, p, q, memory, past.total[..., None] * p["coverage"][..., None, None, None, :])
    raise ValueError(setting.score)


# ------------------------------------------------------------------------------------------------ normalisers


def softmax(scores: Array, allowed: Array) -> Array:
    """exp(score) over what is allowed, each row summing to 1."""
    highest = np.where(allowed, scores.real, -np.inf).max(-1, keepdims=True, initial=-1e30)
    e = np.where(allowed, np.exp(np.where(allowed, scores - highest, 0)), 0)
    total = e.sum(-1, keepdims=True)
    return e / np.where(total.real > 0, total, 1)


def sparsemax(scores: Array, allowed: Array) -> Array:
    """max(score - tau, 0) with tau such that the row sums to 1  (Martins and Astudillo 2016).

    In falling order z_1 >= z_2 >= ..., the support is the longest beginning with 1 + k z_k > z_1 + ... + z_k;
    tau = (sum of the support - 1) / its size.
    """
    real = np.where(allowed, scores.real, -np.inf)
    falling = -np.sort(-real, axis=-1)
    possible = np.isfinite(falling)
    finite = np.where(possible, falling, 0)
    k = np.arange(1, scores.shape[-1] + 1)
    size = (possible & (1 + k * finite > finite.cumsum(-1))).sum(-1, keepdims=True)
    smallest = np.take_along_axis(falling, np.maximum(size - 1, 0), -1) if scores.shape[-1] else falling
    support = allowed & (real >= smallest)
    inside = np.where(support, scores, 0)
    tau = (inside.sum(-1, keepdims=True) - 1) / like(scores, np.maximum(support.sum(-1, keepdims=True), 1))
    return np.where(support, scores - tau, 0)


def monotonic(scores: Array, allowed: Array, before: Array, hard: bool) -> Array:
    """Rows of expected monotonic alignments; before (B, n, S) is the row above the first  (Raffel 2017).

    A row inspects positions from where the row before stopped (r), and stops at s with probability p_s:
    weight_s = p_s r_s, r_{s+1} = (1 - p_s) r_s + before_{s+1}.
    """
    if hard:
        p = like(scores, allowed & (scores.real > 0))
    else:
        p = np.where(allowed, sigmoid(np.where(allowed, scores, 0)), 0)
    S, rows = scores.shape[-1], []
    for t in range(scores.shape[-2]):
        row, r = [], 0.0
        for s in range(S):
            r = r + before[..., s]
            row.append(p[..., t, s] * r)
            r = (1 - p[..., t, s]) * r
        before = np.stack(row, axis=-1) if S else before
        rows.append(before)
    return np.stack(rows, axis=-2) if rows else scores


def rule(setting: Setting, query: Array, allowed: Array, alignment: Array | None) -> Array:
    """Weights (B, T, S) that no score decides."""
    if setting.score == "oracle":
        assert alignment is not None
        return np.where(allowed, like(query, alignment), 0)
    if setting.score == "uniform":
        return like(query, allowed) / like(query, np.maximum(allowed.sum(-1, keepdims=True), 1))
    later = np.cumsum(allowed[..., ::-1], axis=-1)[..., ::-1] - allowed
    return like(query, allowed & (later == 0))  # none: the last position a row may attend


# ------------------------------------------------------------------------------------------------ the whole


@dataclass(frozen=True)
class Past:
    """What the rows so far leave to the next, all (B, n, S)."""

    weights: Array  # of the row before: zeros before the first
    total: Array  # the sum of all rows so far
    alignment: Array  # where monotonic alignment stopped: the row before, (1, 0, 0, ...) before the first


def nothing_past(B: int, n: int, S: int, dtype: Any) -> Past:
    zeros = np.zeros((B, n, S), dtype)
    return Past(zeros, zeros, (zeros + (np.arange(S) == 0)).astype(dtype))


def normalised(
    setting: Setting, p: Parameters, scores: Array, allowed: Array, past: Past, hard: bool, noise: Array | float = 0.0
) -> Array:
    """Weights (B, n, T, S) from scores; allowed (B, T, S) holds for every head; noise is added to monotonic scores."""
    scores, each = scores / setting.temperature, allowed[..., None, :, :]
    match setting.normalize:
        case "softmax":
            return softmax(scores, each)
        case "sparsemax":
            return sparsemax(scores, each)
    return monotonic(scores + p["threshold"][..., None, None, None] + noise, each, past.alignment, hard)


def restricted(setting: Setting, p: Parameters, query: Array, S: int, call: Sentences) -> tuple[Array, Array | float]:
    """What every row may attend (B, T, S), and what a predictive window multiplies weights with, 1 for others."""
    B, T = query.shape[-3:-1]
    if not setting.predictive:
        return may_attend((B, T, S), setting, call, None), 1.0
    centres = predicted_centres(query, p, own_lengths(B, S, call))
    off = like(query, np.arange(S)) - centres[..., None]
    bell = np.exp(off * off * (-2 / setting.radius**2))  # exp(-(s - p)^2 / (2 (radius / 2)^2))
    return may_attend((B, T, S), setting, call, centres), bell[..., None, :, :]


def weights_of(
    setting: Setting,
    p: Parameters,
    query: Array,
    memory: Array,
    allowed: Array,
    bell: Array | float,
    past: Past,
    *,
    alignment: Array | None,
    hard: bool,
    noise: Array | float = 0.0,
) -> Array:
    """Weights (B, n, T, S) of rows that all follow the same past; with feedback T is 1."""
    if setting.score in RULES:
        return rule(setting, query, allowed, alignment)[..., None, :, :] * bell
    scores = score(setting, p, query, memory, past)
    return normalised(setting, p, scores, allowed, past, hard, noise) * bell


def contexts(weights: Array, memory: Array) -> Array:
    """(B, T, D): head i weighs slice i of the memory."""
    pieces = np.einsum("...bnts,...bsnw->...btnw", weights, slices(memory, weights.shape[-3]))
    return pieces.reshape(*pieces.shape[:-2], memory.shape[-1])


def attention(
    setting: Setting,
    p: Parameters,
    query: Array,
    memory: Array,
    call: Sentences = Sentences(),
) -> Read:
    """query (B, T, Q), memory (B, S, D) -> context, weights, and what could be attended."""
    (B, T, _), S = query.shape, memory.shape[1]
    allowed, bell = restricted(setting, p, query, S, call)
    past = nothing_past(B, setting.heads, S, query.real.dtype)
    rows = []
    for now in [slice(t, t + 1) for t in range(T)] if setting.feedback and T else [slice(None)]:
        row = weights_of(
            setting, p, query[:, now], memory, allowed[:, now],
            bell if isinstance(bell, float) else bell[:, :, now], past,
            alignment=None if call.alignment is None else call.alignment[:, now], hard=call.hard,
        )  # fmt: skip
        rows.append(row)
        if setting.feedback and T:
            past = Past(row[:, :, 0], past.total + row[:, :, 0], row[:, :, 0])
    weights = np.concatenate(rows, axis=2)
    return Read(contexts(weights, memory), weights, allowed)


# ------------------------------------------------------------------------------------------------ what is promised

EPS = float(np.finfo(np.float32).eps)


@contextmanager
def scores_at_their_gates(rng: np.random.Generator) -> Iterator[None]:
    """Inside, every score is off by as much as is promised of float32, up or down at random.

    product: (4 + width/8) eps sum |q k|; tanh: 8 eps sum |v| max(1, |q + k|). What becomes of it on the way to an
    output or a gradient is what a float32 kernel that keeps its promise may be off by.
    """

    def off(size: Array) -> Array:
        return like(size, EPS * size * rng.choice([-1.0, 1.0], size.shape))

    def coarse_product(q: Array, keys: Array, heads: int) -> Array:
        width = q.shape[-1] // heads
        return exact_product(q, keys, heads) + off(
            (4 + width / 8) * exact_product(np.abs(q.real), np.abs(keys.real), heads)
        )

    def coarse_tanh(q: Array, keys: Array, features: Array | None, v: Array, heads: int) -> Array:
        inside = q.real[:, :, None] + keys.real[:, None] + (0 if features is None else features.real)
        size = np.abs(v.real) * np.maximum(1, np.abs(inside))
        size = np.einsum("btsnw->bnts", size.reshape(*size.shape[:3], heads, size.shape[3] // heads))
        return exact_tanh(q, keys, features, v, heads) + off(8 * size)

    exact_product, exact_tanh = product, tanh_score
    with mock.patch.multiple(__name__, product=coarse_product, tanh_score=coarse_tanh):
        yield
