"""Our side: the cases through dhyan's public functions, nothing else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
from cases.all import BOTH, FORWARD, Arrays, Case, model_config
from cases.attention import options, setting
from dhyan import ops
from spec import model as reference_model

from sides.numpy import Call


class Side:
    """The dhyan worker."""

    name = "dhyan"

    def facts(self) -> dict[str, Any]:
        """What `dhyan info` reports."""
        built = sorted(Path(dhyan.__file__).parent.glob("_core*.so"))
        stamp = [path.stat().st_mtime for path in built]
        return {**dhyan.show_config(), "DHYAN_ISA": os.environ.get("DHYAN_ISA"), "built": stamp}

    def forms(self, case: Case) -> tuple[str, ...]:
        """The case's own list; none for products in bfloat16 where the CPU has none."""
        return () if case.op == "bf16" and not ops.has_bf16() else case.ours

    def prepare(self, case: Case, form: str, a: Arrays) -> dict[str, Call]:
        """Pass name -> call."""
        if case.modelled:
            return model_calls(case, a)
        if case.section == "scorings":
            return _scoring_calls(case, form, a)
        if case.op in ("additive", "scaled_dot"):
            return _attention_calls(case, form, a)
        return _plain_calls(case, a)


def _attention_calls(case: Case, form: str, a: Arrays) -> dict[str, Call]:
    tanh = case.op == "additive"
    options: dict[str, Any] = {"term": "tanh"} if tanh else {"term": "product", "scale": case.sizes["H"] ** -0.5}
    if "end" in a:
        options |= {"begin": np.zeros_like(a["end"]), "end": a["end"]}
    options["need_weights"] = form == "weights"
    w = a.get("w")

    def forward() -> Arrays:
        return {"context": ops.attention_forward(a["q"], a["k"], a["v"], w, **options)[0]}

    def both() -> Arrays:
        context, _, cache = ops.attention_forward(a["q"], a["k"], a["v"], w, **options)
        dq, dk, dv, dw = ops.attention_backward(a["dcontext"], cache)
        gradients = {"dq": dq, "dk": dk, "dv": dv}
        return {"context": context, **gradients, **({"dw": dw} if tanh else {})}

    return {FORWARD: forward, BOTH: both}


def _scoring_calls(case: Case, form: str, a: Arrays) -> dict[str, Call]:
    which, z = setting(case.op), case.sizes
    read = dhyan.Attention(which.score, z["H"], z["D"], max_source=z["S"], **options(which))
    given = {name: array for name, array in a.items() if name.startswith("attention.")}
    if {f"attention.{name}" for name in read.parameters()} != set(given):
        raise ValueError(f"{case.op}: the parameters and their specification differ")
    for name, array in read.parameters().items():
        array[...] = given[f"attention.{name}"]
    own = "x" in a
    query, memory = (a["x"], a["x"]) if own else (a["query"], a["memory"])
    call: dict[str, Any] = {"causal": True} if own else {"lengths": a["lengths"], "alignment": a.get("alignment")}
    call["need_weights"] = form == "weights"

    def forward() -> Arrays:
        return {"context": read.forward(query, memory, **call)[0].context}

    def both() -> Arrays:
        (context, _), cache = read.forward(query, memory, **call)
        g = read.backward(a["dcontext"], cache)
        out = {"context": context, **{f"dattention.{name}": d for name, d in g.parameters.items()}}
        return out | ({"dx": g.query + g.memory} if own else {"dquery": g.query, "dmemory": g.memory})

    return {FORWARD: forward, BOTH: both}


def _plain_calls(case: Case, a: Arrays) -> dict[str, Call]:
    match case.op:
        case "gemm":
            return {FORWARD: lambda: {"y": ops.linear_forward(a["a"], a["b"])}}
        case "softmax":
            begin = np.zeros_like(a["end"])

            def softmax(backward: bool) -> Arrays:
                weights = ops.softmax_forward(a["scores"], begin=begin, end=a["end"])
                more = {"dscores": ops.softmax_backward(a["dweights"], weights)} if backward else {}
                return {"weights": weights, **more}

            return {FORWARD: lambda: softmax(False), BOTH: lambda: softmax(True)}
        case "context":

            def context_both() -> Arrays:
                context = ops.context_forward(a["weights"], a["v"])
                dweights, dv = ops.context_backward(a["dcontext"], a["weights"], a["v"])
                return {"context": context, "dweights": dweights, "dv": dv}

            return {FORWARD: lambda: {"context": ops.context_forward(a["weights"], a["v"])}, BOTH: context_both}
        case "linear":

            def linear_both() -> Arrays:
                y = ops.linear_forward(a["x"], a["w"], a["b"])
                dx, dw, db = ops.linear_backward(a["dy"], a["x"], a["w"])
                return {"y": y, "dx": dx, "dw": dw, "db": db}

            return {FORWARD: lambda: {"y": ops.linear_forward(a["x"], a["w"], a["b"])}, BOTH: linear_both}
        case "output_loss":

            def loss(backward: bool) -> Arrays:
                total, cache = ops.cross_entropy_forward(a["r"], a["w"], a["b"], a["targets"])
                out = {"loss": np.array([total])}
                if backward:
                    out |= dict(zip(("dr", "dw", "db"), ops.cross_entropy_backward(1.0, cache), strict=True))
                return out

            return {FORWARD: lambda: loss(False), BOTH: lambda: loss(True)}
    raise ValueError(f"no call for {case.op!r}")


def model_calls(case: Case, a: Arrays) -> dict[str, Call]:
    """Of a model with these parameters: check, and a train step or greedy decoding."""
    config = dhyan.ModelConfig(**vars(model_config(case)))
    model = dhyan.Seq2Seq(config, bf16=case.op == "bf16")
    parameters = model.parameters()
    given = set(reference_model.parameter_shapes(model_config(case)))
    if set(parameters) != given:
        raise ValueError(f"the model and its specification differ in {sorted(set(parameters) ^ given)}")
    for name, array in parameters.items():
        array[...] = a[name]
    if case.section == "decode":
        model.freeze()  # as dhyan.load does: what decoding makes of the weights is kept from call to call

        def greedy() -> Arrays:
            return {"ids": model.greedy(a["source"], a["source_lengths"], max_length=case.sizes["T"])[0]}

        return {"check": greedy, "greedy": greedy}
    batch = dhyan.Batch(a["source"], a["source_lengths"], a["target"], a["target_lengths"], a.get("alignment"))
    optimizer = dhyan.Adam(model, lr=1e-3, clip=1.0)

    def check() -> Arrays:
        # Without dropout the pass that is timed; a training pass of the monotonic normaliser draws noise.
        loss, cache = model.forward(batch, step=None if config.normalize == "monotonic" else 1)
        return {"loss": np.array([loss]), **{f"d{name}": g for name, g in model.backward(cache).items()}}

    def step() -> Arrays:
        loss, cache = model.forward(batch, step=optimizer.steps + 1)
        optimizer.step(model.backward(cache))
        return {"loss": np.array([loss])}

    return {"check": check, "step": step}
