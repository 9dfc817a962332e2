"""The PyTorch side: every case in the spellings that are fast in PyTorch, written for this bench.

Forms: eager; compile (torch.compile of the same lines, fixed shapes); compile-sum (additive scores as an elementwise
product and a sum, which the compiler can fuse into one loop); sdpa (F.scaled_dot_product_attention); and for whole
models eager-split and compile-split (see torch_seq2seq.py). The fastest form of a case is the peer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from cases.all import BOTH, FORWARD, Arrays, Case, model_config
from cases.attention import setting
from torch import Tensor

from sides.torch_attention import TwinAttention
from sides.torch_seq2seq import Seq2SeqTwin

Tensors = dict[str, Tensor]
Call = Callable[[], Tensors]


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    return scores if mask is None else scores.masked_fill(mask, float("-inf"))


def additive(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mask: Tensor) -> Tensor:
    """softmax(w . tanh(q + k)) v."""
    scores = torch.tanh(q[:, :, None, :] + k[:, None, :, :]) @ w
    return torch.softmax(_masked(scores, mask), -1) @ v


def additive_sum(q: Tensor, k: Tensor, v: Tensor, w: Tensor, mask: Tensor) -> Tensor:
    """The same as a sum that a compiler fuses."""
    scores = (torch.tanh(q[:, :, None, :] + k[:, None, :, :]) * w).sum(-1)
    return torch.softmax(_masked(scores, mask), -1) @ v


def scaled_dot(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k / sqrt(H)) v."""
    return torch.softmax(q @ k.transpose(1, 2) * q.shape[-1] ** -0.5, -1) @ v


def sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """PyTorch's own fused op, with one head."""
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Masked softmax."""
    return torch.softmax(_masked(scores, mask), -1)


def output_loss(r: Tensor, w: Tensor, b: Tensor, targets: Tensor) -> Tensor:
    """Output layer and cross entropy; w as nn.Linear keeps it, (V, E)."""
    return F.cross_entropy(F.linear(r, w, b), targets, reduction="sum")


def _compiled(function: Any) -> Any:
    """Fresh for every case: a second shape would make PyTorch compile for any shape, which is slower."""
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


# op -> (function of each form, names of its differentiable arguments, others, output, name of its incoming gradient)
_KERNELS: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...], str, str]] = {
    "additive": (
        {"eager": additive, "compile": additive, "compile-sum": additive_sum}, ("q", "k", "v", "w"), ("mask",),
        "context", "dcontext",
    ),
    "scaled_dot": (
        {"eager": scaled_dot, "compile": scaled_dot, "sdpa": sdpa}, ("q", "k", "v"), (), "context", "dcontext",
    ),
    "softmax": ({"eager": softmax, "compile": softmax}, ("scores",), ("mask",), "weights", "dweights"),
    "context": ({"eager": torch.bmm, "compile": torch.bmm}, ("weights", "v"), (), "context", "dcontext"),
    "linear": ({"eager": F.linear}, ("x", "w", "b"), (), "y", "dy"),
    "output_loss": ({"eager": output_loss, "compile": output_loss}, ("r", "w", "b"), ("targets",), "loss", ""),
}  # fmt: skip


class Side:
    """The PyTorch worker."""

    name = "torch"

    def facts(self) -> dict[str, Any]:
        """Versions and the instruction sets of PyTorch's own kernels and of its BLAS (they can differ)."""
        return {
            "torch": torch.__version__, "threads": torch.get_num_threads(),
            "isa": torch.backends.cpu.get_cpu_capability(), "blas": _blas(),
        }  # fmt: skip

    def forms(self, case: Case) -> tuple[str, ...]:
        """The case's own list without bfloat16 where oneDNN has none, and for scorings a form to check others by."""
        peers = tuple(form for form in case.peers if torch.ops.mkldnn._is_mkldnn_bf16_supported() or "auto" not in form)
        return (*peers, "float64") if case.section == "scorings" else peers

    def prepare(self, case: Case, form: str, arrays: Arrays) -> dict[str, Call]:
        """Pass name -> call."""
        t = {name: torch.from_numpy(array) for name, array in arrays.items()}
        if form == "float64":
            t = {name: x.double() if x.is_floating_point() else x for name, x in t.items()}
        if case.modelled:
            return _model_calls(case, form, arrays, t)
        if case.section == "scorings":
            return _scoring_calls(case, form, t)
        if case.op == "gemm":
            return {FORWARD: lambda: {"y": t["a"] @ t["b"]}}
        return _kernel_calls(case, form, t)


def _kernel_calls(case: Case, form: str, t: Tensors) -> dict[str, Call]:
    functions, leaves, others, output, incoming = _KERNELS[case.op]
    function = _compiled(functions[form]) if form.startswith("compile") else functions[form]
    if "end" in t:
        t["mask"] = torch.arange(case.sizes["S"]) >= t["end"][..., None]
    flip = case.op in ("linear", "output_loss")
    if flip:
        t["w"] = t["w"].T.contiguous()
    constant = [t[name] for name in leaves]
    grown = [t[name].clone().requires_grad_() for name in leaves]
    rest = [t[name] for name in others]

    def forward() -> Tensors:
        with torch.no_grad():
            return {output: function(*constant, *rest)}

    def both() -> Tensors:
        for leaf in grown:
            leaf.grad = None
        y = function(*grown, *rest)
        y.backward(t[incoming] if incoming else None)
        gradients = {f"d{name}": leaf.grad for name, leaf in zip(leaves, grown, strict=True)}
        if flip:
            gradients["dw"] = gradients["dw"].T
        return {output: y.detach(), **gradients}

    return {FORWARD: forward, BOTH: both}


def _scoring_calls(case: Case, form: str, t: Tensors) -> dict[str, Call]:
    """query and memory, or x alone, and the parameters are differentiable."""
    read = TwinAttention(setting(case.op), form, t, _compiled)
    moving = ["x"] if "x" in t else ["query", "memory"]
    own = [name for name in t if name.startswith("attention.")]
    grown = {name: t[name].clone().requires_grad_() for name in (*moving, *own)}

    def call(a: Tensors) -> Tensor:
        return read(a[moving[0]], a[moving[-1]], {name.removeprefix("attention."): a[name] for name in own})

    def forward() -> Tensors:
        with torch.no_grad():
            return {"context": call(t)}

    def both() -> Tensors:
        for leaf in grown.values():
            leaf.grad = None
        context = call(grown)
        context.backward(t["dcontext"])
        gradients = {f"d{name}": leaf.grad for name, leaf in grown.items() if leaf.grad is not None}
        return {"context": context.detach(), **gradients}

    return {FORWARD: forward, BOTH: both}


def _model_calls(case: Case, form: str, arrays: Arrays, t: Tensors) -> dict[str, Call]:
    c = model_config(case)
    net = Seq2SeqTwin(c.source_size, c.target_size, c.embedding, c.hidden, c.cell)
    net.load(arrays)
    if case.section == "decode":
        step = _compiled(net.decode_step) if form == "compile" else None
        steps = case.sizes["T"]

        def greedy() -> Tensors:
            return {"ids": net.greedy(t["source"], steps, step=step)}

        return {"check": greedy, "greedy": greedy}
    split, autocast = form.endswith("split"), form.endswith("autocast")
    model = _compiled(net) if form.startswith("compile") else net
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)

    def backward() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = model(t["source"], t["target"], split)
        loss.backward()
        return loss.detach()

    def check() -> Tensors:
        loss = backward()
        return {"loss": loss, **{f"d{name}": torch.from_numpy(g) for name, g in net.gradients().items()}}

    def train_step() -> Tensors:
        loss = backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return {"loss": loss}

    return {"check": check, "step": train_step}


def _blas() -> str:
    """What MKL says of itself when it is asked to be verbose; it chooses its instruction set by its own rules."""
    if not torch.backends.mkl.is_available():
        return "no MKL"
    code = "import torch; torch.ones(64, 64) @ torch.ones(64, 64)"
    environment = {**os.environ, "MKL_VERBOSE": "1"}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout
    line = next((line for line in said.splitlines() if line.startswith("MKL_VERBOSE")), "")
    name = line.partition("architecture ")[2].partition(", Lnx")[0]
    return f"MKL {name or 'silent about its instruction set'}"
