"""Attention over a padded memory, forward and backward: projection, heads, windows, normalisers, and what is fed back.

    query (B, T, Q) -> project -> score every head -> normalise -> (Gaussian) -> context (B, T, D), weights (B, n, T, S)

The whole of it is ops of the core put together: where nothing stands between score, softmax and context they are one
fused op. A scoring that feeds weights back reads row by row (T = 1); everything else reads all rows at once.
B sentences, T rows, S positions, n heads; Q, D, U widths of query, memory and keys.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dhyan import ops

from .normalizers import NORMALIZERS, Normalizer
from .scoring import KeysGradient, Parameters, Rows, split_heads, unit_vectors, unit_vectors_backward
from .setting import Setting
from .windows import Attendable, Centre, PredictiveWindow


@dataclass(frozen=True, eq=False)
class PaddedMemory:
    """values (B, S, D), keys (B, S, U) or None; lengths (B,)."""

    values: np.ndarray
    keys: np.ndarray | None
    lengths: np.ndarray

    def take(self, rows: Any) -> PaddedMemory:
        """The sentences at these indices; a slice copies nothing."""
        return PaddedMemory(self.values[rows], None if self.keys is None else self.keys[rows], self.lengths[rows])


class Feedback(NamedTuple):
    """What earlier rows leave for the next: their last weights (B, S), the sum of all (B, S), the monotonic alignment
    (B, n, S), which starts on the first position; None where not needed.
    """

    last: np.ndarray | None
    total: np.ndarray | None
    alignment: np.ndarray | None

    @classmethod
    def zeros(cls, setting: Setting, B: int, S: int, dtype: np.dtype) -> Feedback:
        """Before the first row."""
        kind = setting.scoring.feedback
        alignment = None
        if setting.normalizer.feedback:
            alignment = np.zeros((B, setting.sizes.heads, S), dtype)
            alignment[:, :, :1] = 1
        last, total = (np.zeros((B, S), dtype) if kind == which else None for which in ("last", "sum"))
        return cls(last, total, alignment)

    def after(self, weights: np.ndarray) -> Feedback:
        """The feedback after rows with these weights (B, n, T, S)."""
        newest = weights[:, :, -1]
        return Feedback(
            None if self.last is None else newest[:, 0],
            None if self.total is None else self.total + newest[:, 0],
            None if self.alignment is None else newest,
        )

    def grown(self, n: int) -> Feedback:
        """With zero rows added to n rows: gradients of sentences that had ended by the step after."""
        return Feedback(
            *(None if x is None else np.concatenate([x, np.zeros((n - len(x), *x.shape[1:]), x.dtype)]) for x in self)
        )

    def into_weights(self, dweights: np.ndarray | None, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """Backward of `after`, self being the gradient of its result: dweights (B, n, T, S) with its part added."""
        if all(x is None for x in self):
            return dweights
        dweights = np.zeros(shape, dtype) if dweights is None else dweights.copy()
        for gradient in (self.last, self.total):
            if gradient is not None:
                dweights[:, 0, -1] += gradient
        if self.alignment is not None:
            dweights[:, :, -1] += self.alignment
        return dweights

    def take(self, rows: Any) -> Feedback:
        """The rows at these indices."""
        return Feedback(*(None if x is None else x[rows] for x in self))


NO_FEEDBACK = Feedback(None, None, None)


class Sums:
    """The gradients of one backward pass as they add up, row after row."""

    def __init__(self, setting: Setting, p: Parameters, memory: PaddedMemory) -> None:
        self.gradients = {name: np.zeros_like(array) for name, array in p.items()}
        self.into = setting.scoring.gradient_targets(self.gradients, setting.sizes)
        for array in (self.into.query, self.into.w):
            if array is not None:
                array[...] = 0
        self.log_scale = 0.0
        self.values = np.zeros_like(memory.values)
        self.keys = None if memory.keys is None else np.zeros_like(memory.keys)

    def reorder(self, order: np.ndarray, B: int) -> None:
        """Back to the order of the B sentences; row i is that of sentence order[i]."""
        for name in ("values", "keys"):
            rows = getattr(self, name)
            if rows is not None:
                whole = np.zeros((B, *rows.shape[1:]), rows.dtype)
                whole[order] = rows
                setattr(self, name, whole)

    def finish(self, setting: Setting, p: Parameters, rows: Rows, keys: np.ndarray, visible: np.ndarray) -> None:
        """Through the keys into memory and parameters; rows and keys are those of `visible` (B, S)."""
        if self.keys is None:
            return
        c = KeysGradient(p, rows, keys, self.keys[visible], self.log_scale, self.gradients, setting.sizes, self.into)
        more = setting.scoring.keys_backward(c)
        if more is not None:
            self.values[visible] += more


@dataclass(frozen=True, eq=False)
class ReadCache:
    """What read_backward reads."""

    query: np.ndarray
    projected: np.ndarray | None
    may: Attendable
    heads: list[HeadCache]
    weights: np.ndarray | None
    before: Feedback
    centre: Centre | None


def read_forward(
    setting: Setting,
    p: Parameters,
    memory: PaddedMemory,
    query: np.ndarray,
    may: Attendable,
    before: Feedback,
    *,
    hard: bool = False,
    noise: np.ndarray | None = None,
    alignment: np.ndarray | None = None,
    need_weights: bool = True,
) -> tuple[np.ndarray, np.ndarray | None, Feedback, ReadCache]:
    """context (B, T, D), weights (B, n, T, S), the feedback after these rows, cache; T = 1 where weights feed back.

    hard: monotonic decoding, every row takes one position. noise (B, n, T, S) is added to the monotonic scores.
    """
    S = memory.values.shape[1]
    empty = may.empty_rows(S)
    if empty.any():  # what such a row holds must reach nothing, NaN included
        query = np.where(empty[:, :, None], query.dtype.type(0), query)
    if setting.scoring.scorer_is_rule:
        given = _rule_weights(setting, may, S, query.dtype, alignment)
        context = ops.context_forward(given, memory.values)
        cache = ReadCache(query, None, may, [], given[:, None], before, None)
        return context, given[:, None], before, cache
    assert memory.keys is not None
    n, scorer = setting.sizes.heads, setting.scorer(p)
    projected = query if scorer.query is None else ops.linear_forward(query, scorer.query)
    q = _unit(projected, n) if scorer.normalize_query else projected
    k = memory.keys
    if setting.scoring.feedback:
        k = k + setting.scoring.feedback_keys(p, _fed_back(setting, before))
    centre = None
    if isinstance(setting.window, PredictiveWindow):
        centre = Centre.of(setting.window, p, query, memory.lengths, S)
        may = centre.cut(may)
    contexts, heads = [], []
    for i in range(n):
        inputs = HeadInputs(
            setting.normalize,
            _cut(q, i, n),
            _cut(k, i, n),
            _cut(memory.values, i, n),
            None if scorer.w is None else _cut(scorer.w, i, n),
            scorer.scale,
            may,
            centre,
            threshold=p.get("threshold"),
            noise=None if noise is None else noise[:, i],
            previous=None if before.alignment is None else before.alignment[:, i],
        )
        context, head = head_forward(inputs, hard=hard, need_weights=need_weights)
        contexts.append(context)
        heads.append(head)
    rows = [head.weights for head in heads if head.weights is not None]
    weights = np.stack(rows, 1) if rows else None  # made where asked for, and where the backward pass needs them
    after = before
    if setting.needs_feedback and query.shape[1]:
        assert weights is not None
        after = before.after(weights)
    context = contexts[0] if n == 1 else np.concatenate(contexts, 2)
    return context, weights, after, ReadCache(query, projected, may, heads, weights, before, centre)


def read_backward(
    setting: Setting,
    p: Parameters,
    memory: PaddedMemory,
    dcontext: np.ndarray,
    dweights: np.ndarray | None,
    dafter: Feedback,
    cache: ReadCache,
    sums: Sums,
    rows: Any = slice(None),
) -> tuple[np.ndarray, Feedback]:
    """dquery (B, T, Q) and the gradient of the feedback before these rows; the rest is added to `sums`.

    rows: which sentences of `sums` these are.
    """
    if setting.needs_feedback and cache.query.shape[1]:
        assert cache.weights is not None
        dweights = dafter.into_weights(dweights, cache.weights.shape, cache.weights.dtype)
    if setting.scoring.scorer_is_rule:
        assert cache.weights is not None
        _, dvalues = ops.context_backward(dcontext, cache.weights[:, 0], memory.values)
        sums.values[rows] += dvalues
        return np.zeros_like(cache.query), dafter
    assert sums.keys is not None
    n, scorer = setting.sizes.heads, setting.scorer(p)
    dq = np.empty_like(cache.projected)
    dcentre = np.zeros(cache.query.shape[:2])
    dalignment = None if cache.before.alignment is None else np.empty_like(cache.before.alignment)
    dkeys = np.empty_like(sums.keys[rows])
    for i, head in enumerate(cache.heads):
        d = head_backward(head, _cut(dcontext, i, n), None if dweights is None else dweights[:, i])
        _cut(dq, i, n)[...] = d.q
        _cut(dkeys, i, n)[...] = d.k
        _cut(sums.values[rows], i, n)[...] += d.v
        dcentre += d.centre
        if d.w is not None:
            assert sums.into.w is not None
            _cut(sums.into.w, i, n)[...] += d.w
        if dalignment is not None:
            dalignment[:, i] = d.previous
            sums.gradients["threshold"] += d.threshold
        if scorer.normalize_query:
            sums.log_scale += float((head.inputs.q.astype(np.float64) * d.q).sum())
    sums.keys[rows] += dkeys
    dbefore = Feedback(None, dafter.total, dalignment)
    if setting.scoring.feedback:
        fed = setting.scoring.feedback_backward(p, _fed_back(setting, cache.before), dkeys, sums.gradients)
        if setting.scoring.feedback == "last":
            dbefore = dbefore._replace(last=fed)
        else:
            dbefore = dbefore._replace(total=fed if dafter.total is None else dafter.total + fed)
    if scorer.normalize_query:
        assert cache.projected is not None
        dq = _unit_backward(dq, cache.projected, n)
    dquery = dq
    if scorer.query is not None:
        dquery, dmatrix, _ = ops.linear_backward(dq, cache.query, scorer.query)
        assert sums.into.query is not None
        sums.into.query[...] += dmatrix
    if cache.centre is not None:
        dquery = dquery + cache.centre.backward(p, dcentre, cache.query, sums.gradients)
    return dquery, dbefore


# ---- pieces ----


def _cut(x: np.ndarray, i: int, n: int) -> np.ndarray:
    """Slice i of n of the last axis, a view."""
    width = x.shape[-1] // n
    return x[..., i * width : (i + 1) * width]


def _unit(x: np.ndarray, n: int) -> np.ndarray:
    return unit_vectors(split_heads(x, n)).reshape(x.shape)


def _unit_backward(dq: np.ndarray, plain: np.ndarray, n: int) -> np.ndarray:
    unit = unit_vectors(split_heads(plain, n))
    return unit_vectors_backward(split_heads(dq, n), unit, split_heads(plain, n)).reshape(dq.shape)


def _fed_back(setting: Setting, before: Feedback) -> np.ndarray:
    """The earlier weights (B, S) that the scoring asks for."""
    fed = before.last if setting.scoring.feedback == "last" else before.total
    assert fed is not None
    return fed


def _rule_weights(
    setting: Setting, may: Attendable, S: int, dtype: np.dtype, alignment: np.ndarray | None
) -> np.ndarray:
    allowed = may.allowed(S)
    rule = setting.scoring.scorer({}, setting.sizes).term
    if rule == "given":
        if alignment is None:
            raise ValueError(f"attention {setting.name!r} reads a given alignment (B, T, S), got none")
        return np.where(allowed, alignment, 0).astype(dtype, copy=False)
    if rule == "mean":
        counts = allowed.sum(2, keepdims=True)
        return (allowed / np.maximum(counts, 1)).astype(dtype)
    last = S - 1 - allowed[:, :, ::-1].argmax(2) if S else np.zeros(allowed.shape[:2], np.int64)
    return ((np.arange(S) == last[:, :, None]) & allowed).astype(dtype)


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """A head's slices of projected query (B, T, U), keys (B, S, U), values (B, S, D) and w (U), and what restricts it.

    The monotonic normaliser also reads `threshold`, added to the scores, `noise` (B, T, S) and `previous` (B, S), the
    alignment before row 0.
    """

    normalize: str
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None  # None: product scores
    scale: float
    may: Attendable
    centre: Centre | None = None
    threshold: np.ndarray | None = None
    noise: np.ndarray | None = None
    previous: np.ndarray | None = None

    @property
    def normalizer(self) -> Normalizer:
        """The registered normaliser."""
        return NORMALIZERS.find(self.normalize)

    @property
    def term(self) -> Any:
        """The core's name of the formula."""
        return "product" if self.w is None else "tanh"

    @property
    def where(self) -> dict[str, Any]:
        """What may be attended, as the ops take it."""
        return {"begin": self.may.begin, "end": self.may.end, "mask": self.may.mask}


@dataclass(frozen=True, eq=False)
class HeadCache:
    """What head_backward reads."""

    inputs: HeadInputs
    weights: np.ndarray | None
    fused: ops.AttentionCache | None = None
    scores: np.ndarray | None = None
    normal: np.ndarray | None = None  # weights before the Gaussian


@dataclass(frozen=True, eq=False)
class HeadGradients:
    """Gradients of the inputs; centre (B, T) and threshold are 0, previous and w None, where there is none."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    w: np.ndarray | None
    previous: np.ndarray | None = None
    threshold: float = 0.0
    centre: np.ndarray | float = 0.0


def head_forward(x: HeadInputs, *, hard: bool = False, need_weights: bool = True) -> tuple[np.ndarray, HeadCache]:
    """context (B, T, D); the weights (B, T, S) are in the cache, None where nobody needs them."""
    if x.normalize == "softmax" and x.centre is None:
        context, weights, fused = ops.attention_forward(
            x.q, x.k, x.v, x.w, term=x.term, scale=x.scale, need_weights=need_weights, **x.where
        )
        return context, HeadCache(x, weights, fused)
    scores = ops.score_forward(x.q, x.k, x.w, term=x.term, scale=x.scale)
    if x.normalizer.feedback:
        scores = scores + x.threshold
        if x.noise is not None:
            scores = scores + x.noise
        normal = x.normalizer.forward(scores, previous=x.previous, hard=hard, **x.where)
    else:
        normal = x.normalizer.forward(scores, **x.where)
    weights = normal if x.centre is None else normal * x.centre.gaussian
    return ops.context_forward(weights, x.v), HeadCache(x, weights, None, scores, normal)


def _exact_sum(x: np.ndarray) -> float:
    """The sum, rounded once; NaN or infinity where it is no finite number."""
    try:
        return math.fsum(x)
    except (OverflowError, ValueError):
        return float(x.sum())


def head_backward(cache: HeadCache, dcontext: np.ndarray, dweights: np.ndarray | None) -> HeadGradients:
    """Gradients from dcontext (B, T, D) and dweights (B, T, S) or None."""
    x = cache.inputs
    if cache.fused is not None:
        return HeadGradients(*ops.attention_backward(dcontext, cache.fused, dweights))
    assert cache.weights is not None and cache.normal is not None and cache.scores is not None
    dfinal, dv = ops.context_backward(dcontext, cache.weights, x.v)
    if dweights is not None:
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf where a mask hides the value: not looked at
            dfinal += dweights
    dcentre: np.ndarray | float = 0.0
    if x.centre is not None:
        # Where a weight is 0 nothing may be looked at: the value there may be hidden by a mask.
        seen = np.where(cache.normal > 0, dfinal, 0)
        # Added position by position: the order of NumPy's own sum depends on the padding.
        dcentre = np.cumsum(seen * cache.weights * x.centre.slope, 2)[:, :, -1:].sum(2)
        dfinal = seen * x.centre.gaussian
    dprevious, dthreshold = None, 0.0
    if x.normalizer.feedback:
        dscores, dprevious = x.normalizer.backward(dfinal, cache.scores, cache.normal, previous=x.previous, **x.where)
        # Position by position, then exactly, for the same reason.
        with np.errstate(invalid="ignore", over="ignore"):  # infinite gradients of both signs: NaN, as in dscores
            dthreshold = _exact_sum(dscores.sum((0, 1), dtype=np.float64))
    else:
        dscores = x.normalizer.backward(dfinal, cache.normal)
    dq, dk, dw = ops.score_backward(dscores, x.q, x.k, x.w, term=x.term, scale=x.scale)
    return HeadGradients(dq, dk, dv, dw, dprevious, dthreshold, dcentre)
