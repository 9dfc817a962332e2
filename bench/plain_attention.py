"""dhyan.Attention in plain NumPy, forward and backward, sentence by sentence: what a careful person writes.

In float64 the reference of the section "scorings" at its real sizes, in float32 its NumPy column. It is itself compared
with the specification (tests/spec/attention.py) and its exact slopes by tests/bench/test_run.py, at tiny sizes.
Of one sentence: T rows, n positions, Q query width, D memory width, U units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from spec.attention import RULES, WIDTH, Setting

Array = np.ndarray
Arrays = dict[str, np.ndarray]


def attention(setting: Setting, a: Arrays, causal: bool, backward: bool) -> Arrays:
    """context (B, T, D), and with `backward` the gradients that a["dcontext"] gives; names as in attentions.inputs."""
    p = parameters(a)
    own = "x" in a  # self-attention: one array is query and memory
    query, memory = (a["x"], a["x"]) if own else (a["query"], a["memory"])
    out = {"context": np.zeros((*query.shape[:2], memory.shape[2]), query.dtype)}
    d = {name: np.zeros_like(x) for name, x in p.items()}
    dquery, dmemory = np.zeros_like(query), np.zeros_like(memory)
    for b, n in enumerate(a["lengths"]):
        alignment = a["alignment"][b, :, :n] if "alignment" in a else None
        one = Sentence(setting, p, query[b], memory[b, :n], causal, alignment)
        out["context"][b] = one.forward()
        if backward:
            dquery[b], dmemory[b, :n] = one.backward(a["dcontext"][b], d)
    if backward:
        moving = {"dx": dquery + dmemory} if own else {"dquery": dquery, "dmemory": dmemory}
        if setting.score in RULES:
            del moving["dquery"]  # nothing flows there
        out |= moving | {f"dattention.{name}": x for name, x in d.items()}
    return out


def parameters(a: Arrays) -> Arrays:
    """Those of the attention, by their own names."""
    return {name.removeprefix("attention."): x for name, x in a.items() if name.startswith("attention.")}


def margin(setting: Setting, a: Arrays) -> float:
    """How far from the nearest edge any choice is: of sparsemax's support, of a predicted window."""
    nearest, p = np.inf, parameters(a)
    for b, n in enumerate(a["lengths"]):
        one = Sentence(setting, p, a["query"][b], a["memory"][b, :n], False, None)
        one.forward()
        if one.centre is not None:
            nearest = min(nearest, float(np.abs(one.centre.p - np.round(one.centre.p)).min()))
        if setting.normalize == "sparsemax":
            (step,) = one.steps
            tau = np.where(step.normal > 0, step.scores - step.normal, -np.inf).max(-1, keepdims=True)
            nearest = min(nearest, float(np.abs(step.scores - tau).min()))
    return nearest


@dataclass
class Step:
    """Rows that are read in one go; the first axis of scores and weights is that of the heads."""

    rows: slice
    inside: Array | None  # tanh(q + k) (rows, n, U)
    scores: Array
    normal: Array  # weights before the Gaussian
    weights: Array
    fed: Array  # what the scoring looks back on, (n,)
    alignment: Array  # monotonic: the row above, (heads, n)


class Sentence:
    """One sentence: `forward`, then `backward`."""

    def __init__(
        self, setting: Setting, p: Arrays, query: Array, memory: Array, causal: bool, alignment: Array | None
    ) -> None:
        self.setting, self.p, self.query, self.memory, self.given = setting, p, query, memory, alignment
        self.T, self.n, self.Q = len(query), len(memory), query.shape[1]
        self.centre = Centre(setting, p, query, self.n) if setting.predictive else None
        self.allowed = self._allowed(causal)
        self.steps: list[Step] = []

    def _allowed(self, causal: bool) -> Array:
        t, s = np.arange(self.T)[:, None], np.arange(self.n)
        allowed = np.ones((self.T, self.n), bool)
        if causal:
            allowed &= s <= t + self.n - self.T
        if self.centre is not None:
            allowed &= np.abs(self.centre.away) <= self.setting.radius
        elif self.setting.radius is not None:
            allowed &= np.abs(s - np.minimum(t, self.n - 1)) <= self.setting.radius
        return allowed

    def forward(self) -> Array:
        """context (T, D)."""
        if self.setting.score in RULES:
            self.weights = self._rule()
            return self.weights @ self.memory
        self.q, self.k = self._project()
        self.v = self._vector()
        heads, n = self.setting.heads, self.n
        row, total = np.zeros(n, self.q.dtype), np.zeros(n, self.q.dtype)
        above = np.zeros((heads, n), self.q.dtype)
        above[:, :1] = 1
        groups = [slice(t, t + 1) for t in range(self.T)] if self.setting.feedback else [slice(0, self.T)]
        for rows in groups:
            fed = row if self.setting.score == "location_sensitive" else total
            inside, scores = self._scores(rows, fed)
            normal = self._normalise(scores, self.allowed[rows], above)
            weights = normal if self.centre is None else normal * self.centre.bell[rows]
            self.steps.append(Step(rows, inside, scores, normal, weights, fed, above))
            row, above = weights[0, -1], weights[:, -1]
            total = total + row
        weights = np.concatenate([step.weights for step in self.steps], 1)
        values = _cut(self.memory, heads)
        return np.concatenate([weights[i] @ values[i] for i in range(heads)], 1)

    def backward(self, dcontext: Array, d: Arrays) -> tuple[Array, Array]:
        """dquery (T, Q) and dmemory (n, D); the parameters' gradients are added to d."""
        if self.setting.score in RULES:
            return np.zeros_like(self.query), self.weights.T @ dcontext
        heads = self.setting.heads
        dmemory, dq, dk = np.zeros_like(self.memory), np.zeros_like(self.q), np.zeros_like(self.k)
        dv = None if self.v is None else np.zeros_like(self.v)
        dcentre = np.zeros(self.T, self.q.dtype)
        dfed = np.zeros(self.n, self.q.dtype)
        values, dvalues = _cut(self.memory, heads), _cut(dmemory, heads)
        for step in reversed(self.steps):
            dout = _cut(dcontext[step.rows], heads)
            dweights = np.stack([dout[i] @ values[i].T for i in range(heads)])
            for i in range(heads):
                dvalues[i] += step.weights[i].T @ dout[i]
            dweights[0, -1] += dfed
            if self.centre is not None:
                dcentre[step.rows] = (dweights * step.weights * self.centre.slope[step.rows]).sum((0, 2))
                dweights = dweights * self.centre.bell[step.rows]
            dscores = self._normalise_backward(dweights, step, d)
            dfed = self._scores_backward(dscores, step, dq, dk, dv, dfed, d)
        if dv is not None:
            self._vector_backward(dv, d)
        dquery = self._project_backward(dq, dk, dmemory, d)
        if self.centre is not None:
            dquery += self.centre.backward(dcentre, d)
        return dquery, dmemory

    def _rule(self) -> Array:
        if self.setting.score == "oracle":
            assert self.given is not None
            return self.given
        if self.setting.score == "uniform":
            return (self.allowed / self.allowed.sum(1, keepdims=True)).astype(self.query.dtype)
        weights = np.zeros((self.T, self.n), self.query.dtype)
        weights[:, -1] = 1
        return weights

    # ---- query and keys ----

    def _project(self) -> tuple[Array, Array]:
        p, q, m, Q = self.p, self.query, self.memory, self.Q
        match self.setting.score:
            case "dot" | "scaled_dot":
                return q, self._narrow()
            case "cosine":
                self.plain = self._narrow()
                return _unit(q, self.setting.heads), _unit(self.plain, self.setting.heads)
            case "general":
                return q, m @ p["weight"].T
            case "concat":
                return q @ p["weight"][:Q], m @ p["weight"][Q:]
            case "location":
                return q, p["weight"][:, : self.n].T
        return q @ p["query"], m @ p["memory"] + p["bias"]

    def _narrow(self) -> Array:
        m, Q = self.memory, self.Q
        return m if m.shape[1] == Q else m[:, :Q] + m[:, Q:]

    def _project_backward(self, dq: Array, dk: Array, dmemory: Array, d: Arrays) -> Array:
        p, q, m, Q, heads = self.p, self.query, self.memory, self.Q, self.setting.heads
        match self.setting.score:
            case "dot" | "scaled_dot" | "cosine":
                if self.setting.score == "cosine":
                    d["log_sharpness"] += (dq * self.q).sum()
                    dq, dk = _unit_backward(dq, q, heads), _unit_backward(dk, self.plain, heads)
                for i in range(m.shape[1] // Q):
                    dmemory[:, i * Q : (i + 1) * Q] += dk
                return dq
            case "general":
                d["weight"] += dk.T @ m
                dmemory += dk @ p["weight"]
                return dq
            case "concat":
                d["weight"][:Q] += q.T @ dq
                d["weight"][Q:] += m.T @ dk
                dmemory += dk @ p["weight"][Q:].T
                return dq @ p["weight"][:Q].T
            case "location":
                d["weight"][:, : self.n] += dk.T
                return dq
        d["query"] += q.T @ dq
        d["memory"] += m.T @ dk
        d["bias"] += dk.sum(0)
        dmemory += dk @ p["memory"].T
        return dq @ p["query"].T

    def _vector(self) -> Array | None:
        v = self.p.get("v")
        return v if v is None or not self.setting.normalized else self.p["g"] * v / np.sqrt((v * v).sum())

    def _vector_backward(self, dv: Array, d: Arrays) -> None:
        if not self.setting.normalized:
            d["v"] += dv
            return
        v, norm = self.p["v"], np.sqrt((self.p["v"] ** 2).sum())
        unit, along = v / norm, (dv * v).sum() / norm
        d["g"] += along
        d["v"] += self.p["g"] / norm * (dv - unit * along)

    # ---- scores ----

    @property
    def _scale(self) -> Any:
        scale = 1 / self.setting.temperature
        if self.setting.score == "scaled_dot":
            scale *= (self.Q // self.setting.heads) ** -0.5
        return np.exp(self.p["log_sharpness"][0]) * scale if self.setting.score == "cosine" else scale

    def _scores(self, rows: slice, fed: Array) -> tuple[Array | None, Array]:
        heads = self.setting.heads
        if self.v is None:
            pairs = zip(_cut(self.q[rows], heads), _cut(self.k, heads), strict=True)
            return None, np.stack([q @ k.T for q, k in pairs]) * self._scale
        k = self.k + self._fed_keys(fed) if self.setting.feedback else self.k
        inside = self.q[rows][:, None] + k
        np.tanh(inside, out=inside)
        t, v = _cut(inside, heads), _cut(self.v, heads)
        return inside, np.stack([t[i] @ v[i] for i in range(heads)]) * self._scale

    def _scores_backward(
        self, dscores: Array, step: Step, dq: Array, dk: Array, dv: Array | None, dfed: Array, d: Arrays
    ) -> Array:
        """Adds to dq, dk, dv; returns the gradient of what the rows before left behind."""
        heads, dscores = self.setting.heads, dscores * self._scale
        dqs = _cut(dq[step.rows], heads)
        if step.inside is None:
            q, k, dks = _cut(self.q[step.rows], heads), _cut(self.k, heads), _cut(dk, heads)
            for i in range(heads):
                dqs[i][...] = dscores[i] @ k[i]
                dks[i] += dscores[i].T @ q[i]
            return dfed
        assert dv is not None and self.v is not None
        t, dvs, v = _cut(step.inside, heads), _cut(dv, heads), _cut(self.v, heads)
        dstep = np.empty_like(self.k)
        for i, into in enumerate(_cut(dstep, heads)):
            dvs[i] += np.tensordot(dscores[i], t[i], 2)
            steep = t[i] * t[i]
            np.subtract(1, steep, out=steep)
            steep *= dscores[i][:, :, None]
            dqs[i][...] = steep.sum(1) * v[i]
            into[...] = steep.sum(0) * v[i]
        dk += dstep
        if not self.setting.feedback:
            return np.zeros_like(dfed)
        back = self._fed_keys_backward(step.fed, dstep, d)
        return back if self.setting.score == "location_sensitive" else dfed + back

    def _fed_keys(self, fed: Array) -> Array:
        if self.setting.score == "coverage":
            return fed[:, None] * self.p["coverage"]
        return _patches(fed) @ self.p["filters"] @ self.p["location"]

    def _fed_keys_backward(self, fed: Array, dkeys: Array, d: Arrays) -> Array:
        p = self.p
        if self.setting.score == "coverage":
            d["coverage"] += fed @ dkeys
            return dkeys @ p["coverage"]
        patches = _patches(fed)
        dfeatures = dkeys @ p["location"].T
        d["location"] += (patches @ p["filters"]).T @ dkeys
        d["filters"] += patches.T @ dfeatures
        dpatches, spread = dfeatures @ p["filters"].T, np.zeros(len(fed) + WIDTH - 1, fed.dtype)
        for j in range(WIDTH):
            spread[j : j + len(fed)] += dpatches[:, j]
        return spread[WIDTH // 2 : WIDTH // 2 + len(fed)]

    # ---- normalisers, over (heads, rows, n) ----

    def _normalise(self, scores: Array, allowed: Array, above: Array) -> Array:
        if self.setting.normalize == "monotonic":
            return self._monotonic(scores, above)
        scores = np.where(allowed, scores, -np.inf)
        if self.setting.normalize == "sparsemax":
            falling = -np.sort(-scores, axis=-1)
            sums, k = falling.cumsum(-1), np.arange(1, self.n + 1, dtype=scores.dtype)
            size = (1 + k * falling > sums).sum(-1, keepdims=True)
            tau = (np.take_along_axis(sums, size - 1, -1) - 1) / size.astype(scores.dtype)
            return np.maximum(scores - tau, 0)
        e = np.exp(scores - scores.max(-1, keepdims=True))
        return e / e.sum(-1, keepdims=True)

    def _stop(self, scores: Array) -> tuple[Array, Array]:
        """p, and pass[..., j, s], the probability to come from j to s without a stop: no division that underflows."""
        p = 1 / (1 + np.exp(-(scores + self.p["threshold"])))
        n = self.n
        factors = np.where(np.tri(n, k=-1, dtype=bool).T, (1 - p)[..., None, :-1][..., [0, *range(n - 1)]], 1)
        return p, np.where(np.tri(n, dtype=bool).T, factors.cumprod(-1), 0)

    def _monotonic(self, scores: Array, above: Array) -> Array:
        p, passing = self._stop(scores)
        weights = np.empty_like(p)
        for t in range(p.shape[1]):
            above = p[:, t] * (above[:, None] @ passing[:, t])[:, 0]
            weights[:, t] = above
        return weights

    def _normalise_backward(self, dweights: Array, step: Step, d: Arrays) -> Array:
        w = step.normal
        if self.setting.normalize == "sparsemax":
            support = w > 0
            mean = np.where(support, dweights, 0).sum(-1, keepdims=True) / support.sum(-1, keepdims=True)
            return np.where(support, dweights - mean.astype(w.dtype), 0)
        if self.setting.normalize == "softmax":
            return w * (dweights - (w * dweights).sum(-1, keepdims=True))
        p, passing = self._stop(step.scores)
        dscores, dabove = np.empty_like(p), np.zeros_like(p[:, 0])
        for t in reversed(range(p.shape[1])):
            dw = dweights[:, t] + dabove
            reached = w[:, t] / p[:, t]
            dabove = (passing[:, t] @ (p[:, t] * dw)[:, :, None])[:, :, 0]
            after = np.concatenate([dabove[:, 1:], np.zeros_like(dabove[:, :1])], -1)
            dscores[:, t] = reached * (dw - after) * p[:, t] * (1 - p[:, t])
        d["threshold"] += dscores.sum()
        return dscores


class Centre:
    """The predicted centre p (T,) of Luong 2015 and the Gaussian around it."""

    def __init__(self, setting: Setting, p: Arrays, query: Array, n: int) -> None:
        assert setting.radius is not None
        self.parameters, self.query, self.n = p, query, n
        self.hidden = np.tanh(query @ p["window_query"])
        self.share = 1 / (1 + np.exp(-(self.hidden @ p["window_v"])))
        self.p = n * self.share
        self.away = np.arange(n, dtype=query.dtype) - self.p[:, None]
        variance = setting.radius**2 / 4
        self.bell, self.slope = np.exp(-(self.away**2) / (2 * variance)), self.away / variance

    def backward(self, dp: Array, d: Arrays) -> Array:
        """dquery (T, Q); adds to the gradients of window_query and window_v."""
        dlogit = dp * self.n * self.share * (1 - self.share)
        d["window_v"] += dlogit @ self.hidden
        dhidden = dlogit[:, None] * self.parameters["window_v"] * (1 - self.hidden**2)
        d["window_query"] += self.query.T @ dhidden
        return dhidden @ self.parameters["window_query"].T


def _cut(x: Array, heads: int) -> list[Array]:
    """Equal slices of the last axis, views."""
    return np.split(x, heads, axis=-1)


def _unit(x: Array, heads: int) -> Array:
    return np.concatenate([y / np.sqrt((y * y).sum(-1, keepdims=True)) for y in _cut(x, heads)], -1)


def _unit_backward(dunit: Array, x: Array, heads: int) -> Array:
    pieces = []
    for d, y in zip(_cut(dunit, heads), _cut(x, heads), strict=True):
        norm = np.sqrt((y * y).sum(-1, keepdims=True))
        unit = y / norm
        pieces.append((d - unit * (unit * d).sum(-1, keepdims=True)) / norm)
    return np.concatenate(pieces, -1)


def _patches(weights: Array) -> Array:
    """(n, width): the weights around every position."""
    padded = np.pad(weights, WIDTH // 2)
    return np.lib.stride_tricks.sliding_window_view(padded, WIDTH)
