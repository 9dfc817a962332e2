"""The NumPy side: every kernel written plainly, in float64 to check by and in float32 to time.

Sentence by sentence, so that B * T * S * H never stands in memory at once: what a careful person writes in NumPy.
Attention with its parameters, and whole models, are checked at tiny sizes by the specification of the tests, with exact
slopes: those have no NumPy times.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from cases.all import BOTH, FORWARD, Arrays, Case, model_config
from cases.attention import CAUSAL, setting
from spec import attention as reference_attention
from spec import model as reference_model
from spec.attention import RULES, Sentences
from spec.slopes import Taped, slopes

Call = Callable[[], Arrays]


def softmax(scores: np.ndarray) -> np.ndarray:
    """Over the last axis; an empty row stays empty."""
    e = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
    return e / e.sum(-1, keepdims=True)


def softmax_backward(dweights: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """dscores = weights * (dweights - sum(weights * dweights))."""
    return weights * (dweights - (weights * dweights).sum(-1, keepdims=True))


def attention(a: Arrays, score: str, backward: bool) -> Arrays:
    """score + softmax + context over s < end, and the gradients of q, k, v (and w)."""
    q, k, v, w = a["q"], a["k"], a["v"], a.get("w")
    out = {"context": np.zeros((*q.shape[:2], v.shape[2]), q.dtype)}
    if backward:
        out |= {"d" + name: np.zeros_like(a[name]) for name in "qkvw" if name in a}
    for b in range(len(q)):
        n = int(a["end"][b, 0]) if "end" in a else k.shape[1]  # one end a sentence in every case here
        kb, vb = k[b, :n], v[b, :n]
        if score == "additive":
            t = np.tanh(q[b][:, None, :] + kb[None])
            weights = softmax(t @ w)
        else:
            scale = q.dtype.type(q.shape[2] ** -0.5)
            weights = softmax(q[b] @ kb.T * scale)
        out["context"][b] = weights @ vb
        if not backward:
            continue
        dcontext = a["dcontext"][b]
        out["dv"][b, :n] = weights.T @ dcontext
        dscores = softmax_backward(dcontext @ vb.T, weights)
        if score == "additive":
            out["dw"] += np.tensordot(dscores, t, 2)
            np.multiply(t, t, out=t)
            np.subtract(1, t, out=t)
            t *= dscores[:, :, None]
            out["dq"][b] = t.sum(1) * w
            out["dk"][b, :n] = t.sum(0) * w
        else:
            dscores *= scale
            out["dq"][b], out["dk"][b, :n] = dscores @ kb, dscores.T @ q[b]
    return out


def softmax_case(a: Arrays, backward: bool) -> Arrays:
    """softmax over s < end and its gradient."""
    allowed = np.arange(a["scores"].shape[2]) < a["end"][..., None]
    weights = softmax(np.where(allowed, a["scores"], -np.inf))
    out = {"weights": weights}
    return out | {"dscores": softmax_backward(a["dweights"], weights)} if backward else out


def context(a: Arrays, backward: bool) -> Arrays:
    """context = weights @ v and its gradients."""
    out = {"context": a["weights"] @ a["v"]}
    if backward:
        out["dweights"] = a["dcontext"] @ a["v"].transpose(0, 2, 1)
        out["dv"] = a["weights"].transpose(0, 2, 1) @ a["dcontext"]
    return out


def linear(a: Arrays, backward: bool) -> Arrays:
    """y = x w + b and its gradients."""
    out = {"y": a["x"] @ a["w"] + a["b"]}
    if backward:
        out |= {"dx": a["dy"] @ a["w"].T, "dw": a["x"].T @ a["dy"], "db": a["dy"].sum(0)}
    return out


def output_loss(a: Arrays, backward: bool) -> Arrays:
    """The sum of -log softmax(r w + b)[target] and its gradients."""
    rows = np.arange(len(a["r"]))
    logits = a["r"] @ a["w"] + a["b"]
    p = softmax(logits)
    out = {"loss": -np.log(p[rows, a["targets"]]).sum()[None]}
    if backward:
        p[rows, a["targets"]] -= 1
        out |= {"dr": p @ a["w"].T, "dw": a["r"].T @ p, "db": p.sum(0)}
    return out


def scored(case: Case, a: Arrays, backward: bool) -> Arrays:
    """dhyan.Attention by the tests' specification; the gradients that a["dcontext"] gives by its tape."""
    moving: dict[str, Any] = {n: x for n, x in a.items() if n not in ("lengths", "dcontext", "alignment")}
    if backward:
        moving = {name: Taped(x) for name, x in moving.items()}
    p = {name.removeprefix("attention."): x for name, x in moving.items() if name.startswith("attention.")}
    own = "x" in a  # self-attention: one array is query and memory
    query, memory = (moving["x"], moving["x"]) if own else (moving["query"], moving["memory"])
    call = Sentences(lengths=a["lengths"], causal=case.op.endswith(CAUSAL), alignment=a.get("alignment"))
    context = reference_attention.attention(setting(case.op), p, query, memory, call).context
    if not backward:
        return {"context": context}
    gradients = slopes([(context, a["dcontext"])], list(moving.values()))
    out = {f"d{name}": gradient for name, gradient in zip(moving, gradients, strict=True)}
    if case.op in RULES:
        del out["dquery"]  # nothing flows there
    return {"context": context.real, **out}


def model_check(case: Case, a: Arrays) -> Arrays:
    """Loss and all gradients (complex step), or the greedy ids, by the tests' specification; for tiny sizes."""
    config = model_config(case)
    p = {name: a[name] for name in reference_model.parameter_shapes(config)}
    if case.section == "decode":
        ids, _ = reference_model.greedy(p, config, a["source"], a["source_lengths"], case.sizes["T"])
        return {"ids": np.array(ids)}
    names = ("source", "source_lengths", "target", "target_lengths", "alignment")
    batch = SimpleNamespace(**{name: a[name] for name in names if name in a})
    slopes = reference_model.complex_step(lambda q: reference_model.loss(q, config, batch), p)
    return {"loss": np.array([reference_model.loss(p, config, batch)]), **{f"d{n}": g for n, g in slopes.items()}}


class Side:
    """The NumPy worker: forms float64 (for checking only) and float32."""

    name = "numpy"

    def facts(self) -> dict[str, str]:
        """NumPy's version and its BLAS."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return {"numpy": np.__version__, "blas": f"{blas.get('name')} {blas.get('version')}"}

    def forms(self, case: Case) -> tuple[str, ...]:
        """Only kernels and products are timed in NumPy."""
        return ("float64",) if case.modelled else ("float64", "float32")

    def prepare(self, case: Case, form: str, arrays: Arrays) -> dict[str, Call]:
        """Pass name -> call."""
        a = {n: x.astype(form) if x.dtype == np.float32 else x for n, x in arrays.items()}
        if case.modelled:
            return {"check": lambda: model_check(case, a)}
        if case.op == "gemm":
            return {FORWARD: lambda: {"y": a["a"] @ a["b"]}}
        if case.section == "scorings":
            return {FORWARD: lambda: scored(case, a, False), BOTH: lambda: scored(case, a, True)}
        functions: dict[str, Callable[[Arrays, bool], Arrays]] = {
            "additive": lambda a, backward: attention(a, "additive", backward),
            "scaled_dot": lambda a, backward: attention(a, "scaled_dot", backward),
            "softmax": softmax_case, "context": context, "linear": linear, "output_loss": output_loss,
        }  # fmt: skip
        function = functions[case.op]
        return {FORWARD: lambda: function(a, False), BOTH: lambda: function(a, True)}
