"""Any registered scoring with its parameters on arrays, without a model: `Attention`, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dhyan.checks import check_dtype, check_mask, check_shape

from .attend import Read, checked_lengths
from .read import NO_FEEDBACK, Feedback, PaddedMemory, ReadCache, Sums, read_backward, read_forward
from .scoring import Parameters, Rows, Sizes
from .setting import Setting
from .windows import AnyWindow, Attendable, Centre, PredictiveWindow, Window, ranges, window_from


class Gradients(NamedTuple):
    """What Attention.backward gives: query (B, T, Q), memory (B, S, D), and one array a parameter."""

    query: np.ndarray
    memory: np.ndarray
    parameters: Parameters


@dataclass(frozen=True, eq=False)
class AttentionCache:
    """What Attention.backward reads; it may be used again and gives the same bits."""

    setting: Setting
    parameters: Parameters
    memory: PaddedMemory
    rows: Rows
    keys: np.ndarray | None  # of `rows`
    visible: np.ndarray  # (B, S)
    steps: list[ReadCache]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]  # of context and weights
    hard: bool


class Attention:
    """One registered scoring with its parameters (`scorings()` lists the names): score, normalise, read.

        scores[t, s] = score(query[t], memory[s]) / temperature       the scoring's formula and paper: its docstring
        weights      = normalize(scores over what row t may attend)   softmax, sparsemax (Martins & Astudillo 2016) or
                                                                      monotonic (Raffel 2017)
        context[t]   = sum_s weights[t, s] memory[s]

    query_size Q, key_size D (of the memory), units U inside (None: Q). heads n > 1 (content scorings): projected query
    and keys, v, and the memory are cut into n slices; every head normalises and reads on its own. window: Window or
    PredictiveWindow. max_source: for location. normalized: additive with g v / |v| for v. monotonic adds a parameter
    `threshold` to the scores. Parameters are a function of (scoring, sizes, seed, dtype).

    Errors: ValueError for unknown names (nearest first), widths and values that do not fit; TypeError for types.
    """

    def __init__(
        self,
        score: str,
        query_size: int,
        key_size: int,
        units: int | None = None,
        *,
        seed: int = 0,
        dtype: str = "float32",
        heads: int = 1,
        window: AnyWindow | int | str | None = None,
        normalize: str = "softmax",
        temperature: float = 1.0,
        max_source: int | None = None,
        normalized: bool = False,
    ) -> None:
        units = query_size if units is None else units
        most = 0 if max_source is None else max_source
        for name, value, least in (
            ("query_size", query_size, 1),
            ("key_size", key_size, 1),
            ("units", units, 1),
            ("heads", heads, 1),
            ("max_source", most, 0),
        ):
            if isinstance(value, bool) or not isinstance(value, int | np.integer):
                raise TypeError(f"Attention: {name} is {value!r}, expected an integer")
            if value < least:
                raise ValueError(f"Attention: {name} is {value}, expected at least {least}")
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise TypeError(f"Attention: seed is {seed!r}, expected an integer")
        if not 0 <= seed < 1 << 63:
            raise ValueError(f"Attention: seed is {seed}, expected 0 to 2**63 - 1")
        self.dtype = np.dtype(dtype)  # None would be float64
        if dtype is None or self.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise TypeError(f"Attention: dtype is {dtype}, expected float32 or float64")
        sizes = Sizes(query_size, key_size, units, heads, most, normalized)
        self.setting = Setting(score, sizes, window_from(window), normalize, temperature)
        self._parameters: Parameters = {}
        for index, (name, shape, initial) in enumerate(self.setting.parameters()):
            self._parameters[name] = np.empty(shape, self.dtype)
            initial(self._parameters[name], np.random.Generator(np.random.Philox(key=[seed, index])))

    def parameters(self) -> Parameters:
        """Name -> array; writing to the arrays changes the scoring."""
        return dict(self._parameters)

    def forward(
        self,
        query: np.ndarray,
        memory: np.ndarray,
        *,
        lengths: np.ndarray | None = None,
        mask: np.ndarray | None = None,
        causal: bool = False,
        position: int = 0,
        alignment: np.ndarray | None = None,
        hard: bool = False,
        need_weights: bool = True,
    ) -> tuple[Read, AttentionCache]:
        """Read(context (B, T, D), weights (B, T, S), or (B, n, T, S) with several heads), and the cache.

        query (B, T, Q), memory (B, S, D). lengths (B,) int64, or mask bool, broadcastable to (B, T, S), True = may be
        attended; causal and windows as in :func:`attend`; they combine by and. A row with nothing to attend gives zero
        weights, context and gradients; what no row may attend is never seen, NaN included. alignment (B, T, S): the
        oracle's weights. hard: the monotonic alignment of decoding (one position a row, no gradient); scorings that
        feed weights back, and monotonic, start a new alignment with row 0. need_weights=False keeps nothing of
        (B, T, S) where the fused op can do without; weights is then None.
        """
        setting, where = self.setting, "Attention.forward"
        self._check(query, "query", setting.sizes.query, "Q")
        self._check(memory, "memory", setting.sizes.memory, "D")
        if len(query) != len(memory):
            raise ValueError(f"{where}: memory has shape {memory.shape}, expected (B={len(query)}, S, D)")
        (B, T, _), S = query.shape, memory.shape[1]
        length = checked_lengths(where, B, S, lengths, mask, position)
        if mask is not None:
            check_mask(where, mask, (B, T, S))
        self._check_alignment(alignment, (B, T, S))
        if hard and setting.normalize != "monotonic":
            raise ValueError(f"{where}: hard is True with normalize {setting.normalize!r}, expected 'monotonic'")
        window = setting.window if isinstance(setting.window, Window) else None
        may = Attendable(length, *ranges(length, T, S, window=window, causal=causal, position=position), mask)
        p = self._parameters
        visible = may.visible(S)
        if isinstance(setting.window, PredictiveWindow):  # what lies outside every predicted window is not seen either
            visible = Centre.of(setting.window, p, query, length, S).cut(may).visible(S)
        rows = Rows(memory[visible], np.nonzero(visible)[1])
        keys = setting.scoring.keys(p, rows, setting.sizes)
        padded = None
        if keys is not None:
            padded = np.zeros((B, S, keys.shape[1]), self.dtype)
            padded[visible] = keys
        prepared = PaddedMemory(memory, padded, length)
        contexts, weights, steps = [], [], []
        feedback = Feedback.zeros(setting, B, S, self.dtype)
        keep = need_weights or setting.needs_feedback
        for first, last in _row_groups(setting, T):
            part = None if alignment is None else alignment[:, first:last]
            context, w, feedback, step = read_forward(
                setting,
                p,
                prepared,
                query[:, first:last],
                may.rows(first, last),
                feedback,
                hard=hard,
                alignment=part,
                need_weights=keep,
            )
            contexts.append(context)
            weights.append(w)
            steps.append(step)
        context = contexts[0] if len(contexts) == 1 else np.concatenate(contexts, 1)
        shapes = (context.shape, (B, setting.sizes.heads, T, S))
        cache = AttentionCache(setting, p, prepared, rows, keys, visible, steps, shapes, hard)
        if not keep:
            return Read(context, None), cache
        kept = [w for w in weights if w is not None]
        joined = kept[0] if len(kept) == 1 else np.concatenate(kept, 2)
        return Read(context, joined[:, 0] if setting.sizes.heads == 1 else joined), cache

    def backward(self, dcontext: np.ndarray, cache: AttentionCache, dweights: np.ndarray | None = None) -> Gradients:
        """Gradients from dcontext (B, T, D) and, where given, dweights (of the weights' shape).

        dweights is what a loss on the weights says (guided alignment, coverage). Gradients are new arrays, the same
        names as parameters(). ValueError for a cache of another configuration, or of a hard alignment.
        """
        where = "Attention.backward"
        if not isinstance(cache, AttentionCache):
            raise TypeError(f"{where}: cache is of type {type(cache).__name__}, expected that of forward")
        if cache.setting != self.setting or cache.memory.values.dtype != self.dtype:
            raise ValueError(f"{where}: the cache comes from an attention of another configuration")
        if cache.hard:
            raise ValueError(f"{where}: the cache is of a hard alignment, which has no gradient")
        setting, p, (context_shape, weights_shape) = self.setting, cache.parameters, cache.shapes
        _check_gradient(where, "dcontext", dcontext, context_shape, self.dtype)
        if dweights is not None:
            shape = weights_shape if setting.sizes.heads > 1 else (weights_shape[0], *weights_shape[2:])
            _check_gradient(where, "dweights", dweights, shape, self.dtype)
            dweights = dweights.reshape(weights_shape)
        sums = Sums(setting, p, cache.memory)
        dafter = NO_FEEDBACK
        groups = _row_groups(setting, context_shape[1])
        dquery = []
        for (first, last), step in zip(reversed(groups), reversed(cache.steps), strict=True):
            part = None if dweights is None else dweights[:, :, first:last]
            d, dafter = read_backward(setting, p, cache.memory, dcontext[:, first:last], part, dafter, step, sums)
            dquery.append(d)
        if cache.keys is not None:
            sums.finish(setting, p, cache.rows, cache.keys, cache.visible)
        whole = dquery[0] if len(dquery) == 1 else np.concatenate(dquery[::-1], 1)
        return Gradients(whole, sums.values, sums.gradients)

    def _check(self, x: Any, name: str, width: int, letter: str) -> None:
        check_dtype("Attention.forward", name, x, self.dtype)
        if x.ndim != 3 or x.shape[2] != width:
            axes = f"(B, {'T' if name == 'query' else 'S'}, {letter}={width})"
            raise ValueError(f"Attention.forward: {name} has shape {x.shape}, expected {axes}")

    def _check_alignment(self, alignment: Any, shape: tuple[int, ...]) -> None:
        where = "Attention.forward"
        if (self.setting.name == "oracle") != (alignment is not None):
            got, expected = ("none", "one") if alignment is None else ("one", "none")
            raise ValueError(
                f"{where}: scoring {self.setting.name!r} got {got} alignment (B, T, S), expected {expected}"
            )
        if alignment is not None:
            _check_gradient(where, "alignment", alignment, shape, self.dtype)
            if not np.isfinite(alignment).all():
                raise ValueError(f"{where}: alignment holds NaN or infinity, expected weights")


def _row_groups(setting: Setting, T: int) -> list[tuple[int, int]]:
    """Rows that are read in one go: all of them, or one after the other where the scores depend on earlier weights."""
    return [(t, t + 1) for t in range(T)] if setting.scoring.feedback and T else [(0, T)]


def _check_gradient(where: str, name: str, x: Any, shape: tuple[int, ...], dtype: np.dtype) -> None:
    check_dtype(where, name, x, dtype)
    check_shape(where, name, x, shape)
