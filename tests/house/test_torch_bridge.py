"""dhyan.torch against PyTorch's own gradients, on CPU tensors; on a GPU, examples/torch_gpu.py compares them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import dhyan.torch  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
B, T, S, H, D = 2, 4, 7, 6, 5


def inputs(term: str, dtype: Any = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(B, T, H), (B, S, H), (B, S, D), *([(H,)] if term == "tanh" else [])]
    return [torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in shapes]


def plain(arrays: list[Any], term: str, scale: float, allowed: Any) -> Any:
    """The same by PyTorch's own operations; a row with nothing to attend gives zeros."""
    q, k, v = arrays[:3]
    if term == "product":
        scores = scale * q @ k.transpose(1, 2)
    else:
        scores = scale * torch.tanh(q[:, :, None] + k[:, None]) @ arrays[3]
    weights = torch.softmax(scores.masked_fill(~allowed, -1e30), -1) * allowed
    return weights @ v


def restrictions() -> dict[str, dict[str, Any]]:
    mask = torch.rand(B, T, S, generator=torch.Generator().manual_seed(1)) < 0.6
    mask[0, 1] = False
    begin = torch.tensor([[0, 1, 2, 3]] * B)
    ranges = {"begin": begin, "end": begin + 3}
    return {"none": {}, "mask": {"mask": mask}, "ranges": ranges, "both": {"mask": mask, "end": begin + 2}}


def allowed_by(begin: Any = None, end: Any = None, mask: Any = None) -> Any:
    s = torch.arange(S)
    allowed = torch.ones(B, T, S, dtype=torch.bool)
    if begin is not None:
        allowed &= s >= begin[..., None]
    if end is not None:
        allowed &= s < end[..., None]
    return allowed if mask is None else allowed & mask


@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("name", restrictions())
def test_context_and_gradients_are_those_of_pytorch(term: str, name: str) -> None:
    may = restrictions()[name]
    arrays, again = inputs(term), inputs(term)
    context = dhyan.torch.attention(*arrays, term=term, scale=0.3, **may)
    want = plain(again, term, 0.3, allowed_by(**may))
    torch.testing.assert_close(context, want, rtol=1e-12, atol=1e-13)
    upstream = torch.randn(want.shape, generator=torch.Generator().manual_seed(2), dtype=want.dtype)
    for got, expected in zip(
        torch.autograd.grad(context, arrays, upstream), torch.autograd.grad(want, again, upstream), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("term", ["product", "tanh"])
def test_gradcheck(term: str) -> None:
    assert torch.autograd.gradcheck(lambda *a: dhyan.torch.attention(*a, term=term), inputs(term))


def test_strided_gradients_and_inputs_without_gradient() -> None:
    q, k, v = inputs("product", torch.float32)
    context = dhyan.torch.attention(q.transpose(0, 1).contiguous().transpose(0, 1), k.detach(), v, term="product")
    context.sum().backward()  # its gradient is one number, broadcast
    assert q.grad is not None and v.grad is not None and k.grad is None
    assert context.dtype == torch.float32


def test_errors_are_those_of_the_ops() -> None:
    q, k, v = inputs("product")
    with pytest.raises(ValueError, match=r"attention_forward: w is None, expected shape \(H=6,\) for term 'tanh'"):
        dhyan.torch.attention(q, k, v, term="tanh")
    with pytest.raises(TypeError, match="attention_forward: q has dtype float16, expected float32 or float64"):
        dhyan.torch.attention(q.half(), k, v, term="product")
    with pytest.raises(TypeError, match="attention_forward: a bfloat16 tensor is in CPU memory, expected float32"):
        dhyan.torch.attention(q.bfloat16(), k, v, term="product")
    context = dhyan.torch.attention(q, k, v, term="product")
    (dq,) = torch.autograd.grad((context**2).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradients of their own"):
        dq.sum().backward()


def test_the_example_learns() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "torch_gpu.py", "--quick"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "gradients agree" in done.stdout


def test_short_memory_is_asked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device what PyTorch keeps is given back first; in CPU memory the error is the answer."""
    emptied: list[bool] = []
    calls: list[Any] = []

    class Device:
        def __init__(self, tensor: Any) -> None:
            self.stream = tensor

        def __enter__(self) -> Any:
            return self.stream

        def __exit__(self, *error: object) -> None:
            pass

    def call(stream: Any) -> str:
        calls.append(stream)
        if len(calls) == 1:
            raise MemoryError("attention_forward: 9 bytes exceed the memory of CUDA device 0")
        return "done"

    monkeypatch.setattr(dhyan.torch, "_Device", Device)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(True))
    assert dhyan.torch._in_order(7, call) == "done" and calls == [7, 7] and emptied == [True]
    calls.clear()
    with pytest.raises(MemoryError, match="9 bytes exceed"):
        dhyan.torch._in_order(None, call)


@pytest.mark.parametrize("term", ["product", "tanh"])
def test_a_second_derivative_is_refused(term: str) -> None:
    """Also of a sum, whose gradient at the context depends on nothing; the first derivative stays right."""
    arrays = inputs(term)
    gradients = torch.autograd.grad(dhyan.torch.attention(*arrays, term=term).sum(), arrays, create_graph=True)
    plainly = torch.autograd.grad(dhyan.torch.attention(*arrays, term=term).sum(), arrays)
    assert all(g.requires_grad and torch.equal(g, p) for g, p in zip(gradients, plainly, strict=True))
    with pytest.raises(RuntimeError, match="no gradients of their own"):
        (gradients[0] ** 2).sum().backward()
