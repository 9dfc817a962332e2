"""Attention for PyTorch: one differentiable function on tensors of the CPU or of a CUDA device.

Imports PyTorch, which dhyan does not depend on. On a CUDA device it works in the order of PyTorch's current stream.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dhyan import ops

Tensor = Any


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    w: Tensor | None = None,
    *,
    term: ops.Term,
    scale: float = 1.0,
    begin: Tensor | None = None,
    end: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """context (B, T, D) = softmax(scores of q (B, T, H) and k (B, S, H)) @ v (B, S, D), differentiable in q, k, v, w.

    The arguments are those of :func:`dhyan.ops.attention_forward`: ``term="product"``, or ``"tanh"`` with w (H,);
    begin and end int64 (B, T), mask bool, broadcastable to (B, T, S), without gradients. float32 and float64, on a CUDA
    device also float16 and bfloat16. The weights (B, T, S) are kept for the backward pass, nothing of size B*T*S*H ever
    exists. The gradients have no gradients of their own. Errors are those of `ops`.

    Ranges on the device make the call wait for it, to look at their values.
    """
    return _Attention.apply(q, k, v, w, term, scale, begin, end, mask)


class _Attention(torch.autograd.Function):  # type: ignore[misc,unused-ignore]
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        w: Tensor | None,
        term: ops.Term,
        scale: float,
        begin: Tensor | None,
        end: Tensor | None,
        mask: Tensor | None,
    ) -> Tensor:
        inputs = [*map(_given, (q, k, v, w))]
        may = {"begin": _given(begin), "end": _given(end), "mask": _given(mask)}
        context, weights, _ = _in_order(
            q, lambda stream: ops.attention_forward(*inputs, term=term, scale=scale, **may, stream=stream)
        )
        ctx.save_for_backward(q, k, v, w, begin, end, mask, _tensor(weights))
        ctx.scoring = term, scale
        return _tensor(context)

    @staticmethod
    def backward(ctx: Any, dcontext: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, w, begin, end, mask, weights = map(_given, ctx.saved_tensors)
        term, scale = ctx.scoring
        cache = ops.AttentionCache(q, k, v, w, term, scale, begin, end, mask, weights)
        found = _in_order(dcontext, lambda stream: ops.attention_backward(_given(dcontext), cache, stream=stream))
        gradients = tuple(map(_tensor, found))
        if torch.is_grad_enabled():  # create_graph=True: a gradient that said it depends on nothing would be wrong
            gradients = _Once.apply(dcontext, *ctx.saved_tensors[:4], *gradients)
        return (*gradients, None, None, None, None, None)


class _Once(torch.autograd.Function):  # type: ignore[misc,unused-ignore]
    """Hands the gradients on as functions of dcontext, q, k, v, w whose own gradients are refused.

    PyTorch's once_differentiable looks at dcontext alone, which depends on nothing where the loss is a sum.
    """

    @staticmethod
    def forward(ctx: Any, *arrays: Tensor | None) -> tuple[Tensor | None, ...]:
        return arrays[5:]

    @staticmethod
    def backward(ctx: Any, *dgradients: Tensor) -> None:
        raise RuntimeError("dhyan.torch.attention: its gradients have no gradients of their own, expected one backward")


def _in_order(tensor: Tensor, call: Callable[[int | None], Any]) -> Any:
    """call(stream) in the order of PyTorch's current stream of the tensor's device.

    PyTorch keeps the device memory it has freed: where too little is left, once more with that given back.
    """
    with _Device(tensor) as stream:
        try:
            return call(stream)
        except MemoryError:
            if stream is None:
                raise
        torch.cuda.empty_cache()
        return call(stream)


class _Device:
    """The tensor's device is PyTorch's current one inside; gives the handle of its current stream."""

    def __init__(self, tensor: Tensor) -> None:
        self.device = tensor.device if isinstance(tensor, torch.Tensor) and tensor.is_cuda else None
        self.guard = torch.cuda.device(self.device) if self.device is not None else None

    def __enter__(self) -> int | None:
        if self.guard is None:
            return None
        self.guard.__enter__()
        return int(torch.cuda.current_stream(self.device).cuda_stream)

    def __exit__(self, *error: object) -> None:
        if self.guard is not None:
            self.guard.__exit__(*error)


def _given(x: Any) -> Any:
    """A tensor as the ops take it: on a device by DLPack, in CPU memory as NumPy's view of it."""
    if not isinstance(x, torch.Tensor):
        return x
    if x.is_cuda:
        return x.detach()
    if x.dtype == torch.bfloat16:  # NumPy has no such type
        raise TypeError("attention_forward: a bfloat16 tensor is in CPU memory, expected float32 or float64 there")
    return x.detach().numpy()


def _tensor(x: Any) -> Any:
    return x if x is None or isinstance(x, torch.Tensor) else torch.from_numpy(x)
