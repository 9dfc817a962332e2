"""dhyan.Attention in PyTorch, every scoring in the spellings that are fast there, written for this bench.

Forms: eager, and float64 of the same lines; sdpa (F.scaled_dot_product_attention); eager-band (a window by gathering
its keys); compile-sum (the tanh terms as product and sum, which torch.compile fuses into one loop: that function is
compiled, the rest is eager).
Projections are one product each, sparsemax has the closed gradient, monotonic rows are products with a matrix, and a
scoring with feedback makes all its contexts in one product after its loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from spec.attention import WIDTH, Setting
from torch import Tensor

Tensors = dict[str, Tensor]


def tanh_scores(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """v . tanh(q + k): (B, T, U), (B, S, U) or (B, T, S, U) -> (B, T, S), or (B, n, T, S) with several heads."""
    inside = torch.tanh(q[:, :, None] + (k if k.ndim == 4 else k[:, None]))
    if heads == 1:
        return inside @ v
    # One product with the slices of v side by side in columns of their own.
    columns = torch.block_diag(*v.view(heads, -1, 1).unbind())
    return (inside @ columns).permute(0, 3, 1, 2)


def tanh_scores_sum(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """The same as a sum that a compiler fuses."""
    terms = torch.tanh(q[:, :, None] + (k if k.ndim == 4 else k[:, None])) * v
    if heads == 1:
        return terms.sum(-1)
    return terms.unflatten(-1, (heads, -1)).sum(-1).permute(0, 3, 1, 2)


def location_row(q: Tensor, k: Tensor, v: Tensor, row: Tensor, filters: Tensor, location: Tensor) -> Tensor:
    """Scores (B, S) of one row, q (B, U), after the row before (B, S)."""
    features = F.pad(row, (WIDTH // 2, WIDTH // 2)).unfold(1, WIDTH, 1) @ filters
    return torch.tanh(q[:, None] + k + features @ location) @ v


def location_row_sum(q: Tensor, k: Tensor, v: Tensor, row: Tensor, filters: Tensor, location: Tensor) -> Tensor:
    """The same, to be fused."""
    features = F.pad(row, (WIDTH // 2, WIDTH // 2)).unfold(1, WIDTH, 1) @ filters
    return (torch.tanh(q[:, None] + k + features @ location) * v).sum(-1)


def coverage_row(q: Tensor, k: Tensor, v: Tensor, total: Tensor, coverage: Tensor) -> Tensor:
    """Scores (B, S) of one row after rows with this sum (B, S)."""
    return torch.tanh(q[:, None] + k + total[:, :, None] * coverage) @ v


def coverage_row_sum(q: Tensor, k: Tensor, v: Tensor, total: Tensor, coverage: Tensor) -> Tensor:
    """The same, to be fused."""
    return (torch.tanh(q[:, None] + k + total[:, :, None] * coverage) * v).sum(-1)


class Sparsemax(torch.autograd.Function):
    """Projection on the simplex (Martins and Astudillo 2016); a score of -inf takes no part."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor) -> Tensor:
        falling = scores.sort(-1, descending=True).values
        sums = falling.cumsum(-1)
        k = torch.arange(1, scores.shape[-1] + 1, dtype=scores.dtype)
        size = (1 + k * falling > sums).sum(-1, keepdim=True)
        tau = (sums.gather(-1, size - 1) - 1) / size
        weights = (scores - tau).clamp_(min=0)
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, *dout: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        support = (weights > 0).to(weights.dtype)
        inside = dout[0] * support
        return inside - support * (inside.sum(-1, keepdim=True) / support.sum(-1, keepdim=True))


def monotonic(scores: Tensor) -> Tensor:
    """Expected alignments, row by row (Raffel 2017): row_s = p_s sum_j before_j prod_{j <= i < s} (1 - p_i).

    The products of all rows at once, as exponentials of differences: the shorter spelling with one cumulative product
    that is divided by is NaN in float32 where many scores are high.
    """
    S = scores.shape[-1]
    passed = F.pad(F.logsigmoid(-scores).cumsum(-1)[..., :-1], (1, 0))
    below = torch.ones(S, S, dtype=torch.bool).tril(-1)
    passing = torch.exp((passed[..., None, :] - passed[..., :, None]).masked_fill(below, float("-inf")))
    row = F.one_hot(torch.zeros(len(scores), 1, dtype=torch.int64), S).to(scores.dtype)  # (B, 1, S)
    rows = []
    for stop, way in zip(torch.sigmoid(scores).unsqueeze(2).unbind(1), passing.unbind(1), strict=True):
        row = stop * (row @ way)
        rows.append(row)
    return torch.cat(rows, 1)


class TwinAttention:
    """context (B, T, D) of one setting and form. compiled: what torch.compile is called by."""

    def __init__(self, setting: Setting, form: str, t: Tensors, compiled: Callable[[Any], Any]) -> None:
        self.setting, self.form = setting, form
        self.causal = "x" in t
        lengths = t["lengths"]
        T, S = t["dcontext"].shape[1], (t["x"] if self.causal else t["memory"]).shape[1]
        s, rows = torch.arange(S), torch.arange(T)
        self.lengths, self.T = lengths, T
        self.outside = (s >= lengths[:, None])[:, None]  # (B, 1, S)
        if self.causal:
            self.outside = (s > rows[:, None])[None]
        elif setting.radius is not None and not setting.predictive:
            centre = torch.minimum(rows, lengths[:, None] - 1)  # (B, T)
            self.outside = self.outside | ((s - centre[:, :, None]).abs() > setting.radius)
            self.band = centre[:, :, None] + torch.arange(-setting.radius, setting.radius + 1)
            self.band_outside = (self.band < 0) | (self.band >= lengths[:, None, None])
            self.band_rows = self.band.clamp(0, S - 1) + S * torch.arange(len(lengths))[:, None, None]
        self.alignment = t.get("alignment")
        fuse = form == "compile-sum"
        self.tanh = compiled(tanh_scores_sum) if fuse and not setting.feedback else tanh_scores
        self.row = {"location_sensitive": location_row, "coverage": coverage_row}.get(setting.score)
        if fuse and setting.feedback:
            fused: Any = location_row_sum if setting.score == "location_sensitive" else coverage_row_sum
            self.row = compiled(fused)

    def __call__(self, query: Tensor, memory: Tensor, p: Tensors) -> Tensor:
        """The read."""
        setting = self.setting
        if setting.score in ("none", "uniform", "oracle"):
            return self._rule(memory)
        q, k = self._project(query, memory, p)
        v = p.get("v")
        if setting.normalized:
            v = p["g"] * F.normalize(p["v"], dim=0)
        if setting.feedback:
            return self._feedback(q, k, v, p) @ memory
        if self.form == "sdpa":
            return self._sdpa(q, k, memory)
        if self.form == "eager-band":
            return self._band(q, k, v, memory)
        if setting.score == "location":
            scores = q @ k
        elif v is None:
            q, k = (_split(x, setting.heads) for x in (q, k))
            scores = q @ k.transpose(-1, -2)
        else:
            scores = self.tanh(q, k, v, setting.heads)
        if setting.temperature != 1:
            scores = scores / setting.temperature
        weights = self._normalise(scores, query, p)
        if setting.heads == 1:
            return weights @ memory
        return (weights @ _split(memory, setting.heads)).transpose(1, 2).flatten(2)

    def _rule(self, memory: Tensor) -> Tensor:
        """none and uniform have one context, copied to all rows."""
        B, _, D = memory.shape
        if self.setting.score == "oracle":
            assert self.alignment is not None
            return self.alignment @ memory
        if self.setting.score == "none":
            return memory[torch.arange(B), self.lengths - 1][:, None].expand(B, self.T, D).contiguous()
        weights = (~self.outside).to(memory.dtype) / self.lengths[:, None, None]
        return (weights @ memory).expand(B, self.T, D).contiguous()

    def _project(self, query: Tensor, memory: Tensor, p: Tensors) -> tuple[Tensor, Tensor]:
        Q = query.shape[-1]
        match self.setting.score:
            case "dot" | "scaled_dot":
                keys = memory if memory.shape[-1] == Q else memory[..., :Q] + memory[..., Q:]
                scaled = self.setting.score == "scaled_dot" and self.form != "sdpa"
                return query * (Q // self.setting.heads) ** -0.5 if scaled else query, keys
            case "cosine":
                keys = memory[..., :Q] + memory[..., Q:]
                return F.normalize(query, dim=-1) * p["log_sharpness"].exp(), F.normalize(keys, dim=-1)
            case "general":
                return query, F.linear(memory, p["weight"])
            case "concat":
                return query @ p["weight"][:Q], memory @ p["weight"][Q:]
            case "location":
                return query, p["weight"]  # one key a position, the same for every sentence
        return query @ p["query"], F.linear(memory, p["memory"].T, p["bias"])

    def _normalise(self, scores: Tensor, query: Tensor, p: Tensors) -> Tensor:
        setting = self.setting
        outside = self.outside if scores.ndim == 3 else self.outside[:, None]
        if setting.predictive:
            logit = torch.tanh(query @ p["window_query"]) @ p["window_v"]
            centre = self.lengths[:, None] * torch.sigmoid(logit)
            away = torch.arange(scores.shape[-1]) - centre[:, :, None]
            weights = torch.softmax(_masked(scores, outside | (away.detach().abs() > setting.radius)), -1)
            return weights * torch.exp(away.square() * (-2 / setting.radius**2))
        if setting.normalize == "monotonic":
            return monotonic(_masked(scores + p["threshold"], outside, -1e4))
        scores = _masked(scores, outside)
        return Sparsemax.apply(scores) if setting.normalize == "sparsemax" else torch.softmax(scores, -1)

    def _feedback(self, q: Tensor, k: Tensor, v: Tensor | None, p: Tensors) -> Tensor:
        """weights (B, T, S), row after row."""
        assert self.row is not None
        location = self.setting.score == "location_sensitive"
        more = (p["filters"], p["location"]) if location else (p["coverage"],)
        fed, outside = torch.zeros(k.shape[:2], dtype=k.dtype), self.outside[:, 0]
        rows = []
        for now in q.unbind(1):
            row = torch.softmax(_masked(self.row(now, k, v, fed, *more), outside), -1)
            fed = row if location else fed + row
            rows.append(row)
        return torch.stack(rows, 1)

    def _sdpa(self, q: Tensor, k: Tensor, memory: Tensor) -> Tensor:
        q, k, values = (_split(x, self.setting.heads) for x in (q, k, memory))
        if q.ndim == 3:
            q, k, values = q[:, None], k[:, None], values[:, None]
        if self.causal:
            out = F.scaled_dot_product_attention(q, k, values, is_causal=True)
        else:
            out = F.scaled_dot_product_attention(q, k, values, attn_mask=~self.outside[:, None])
        return out.transpose(1, 2).flatten(2)

    def _band(self, q: Tensor, k: Tensor, v: Tensor | None, memory: Tensor) -> Tensor:
        """Only the window is scored and read: 2 radius + 1 positions a row, gathered."""
        assert v is not None
        near = F.embedding(self.band_rows, k.flatten(0, 1))  # (B, T, 2 radius + 1, U)
        weights = torch.softmax(_masked(tanh_scores(q, near, v, 1), self.band_outside), -1)
        full = torch.zeros(*weights.shape[:2], k.shape[1])
        inside = torch.where(self.band_outside, 0, weights)
        return full.scatter_add(2, self.band.clamp(0, k.shape[1] - 1), inside) @ memory


def _masked(scores: Tensor, outside: Tensor, value: float = float("-inf")) -> Tensor:
    return scores.masked_fill(outside, value)


def _split(x: Tensor, heads: int) -> Tensor:
    """(B, rows, width) -> (B, n, rows, width / n); one head: as it is."""
    return x if heads == 1 else x.unflatten(-1, (heads, -1)).transpose(1, 2)
