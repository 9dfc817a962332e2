"""The device's arrays of other libraries, for bench/gpu.py: PyTorch, CuPy and JAX, each where it is installed.

    python -m gpu.libraries        # one JSON record a line; exit code 1 where something is wrong

Results are of the library that the inputs are of, lie where DLPack says and are right, also in a stream of the
library's own; the gradients of `dhyan.torch` are PyTorch's; wrong calls are refused by name, and the next one is right.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

B, T, S, H = 3, 20, 33, 40


def problem(seed: int = 0) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """q, k, v, w in float32; context and weights of the additive score in float64."""
    from spec import ops as reference

    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(n, np.float32) for n in ((B, T, H), (B, S, H), (B, S, H), (H,))]
    q, k, v, w = (x.astype(np.float64) for x in arrays)
    weights = reference.softmax(reference.score(q, k, w, "tanh", 1.0), np.ones((B, T, S), bool))
    return arrays, weights @ v, weights


def near(got: Any, want: np.ndarray, tolerance: float = 1e-5) -> None:
    error = np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)
    assert error <= tolerance, f"relative error {error:.1e}, expected at most {tolerance:.0e}"


def refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    """The call is refused with this error and words of this text in one line."""
    try:
        call()
    except error as caught:
        assert text in str(caught) and "\n" not in str(caught), f"{caught}, expected {text}"
    else:
        raise AssertionError(f"not refused, expected {error.__name__}: {text}")


def with_torch() -> str:
    import dhyan.torch
    import torch
    from dhyan import _core, ops

    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} sees no GPU"
    host, want, _ = problem()
    q, k, v, w = (torch.from_numpy(x).cuda() for x in host)
    how: dict[str, Any] = {"term": "tanh"}
    context, weights, _ = ops.attention_forward(q, k, v, w, **how)
    assert isinstance(context, torch.Tensor) and context.is_cuda and weights.shape == (B, T, S)
    near(context.cpu().numpy(), want)
    there = torch.from_dlpack(_core.cuda_import(q, None, "import", "q"))
    assert there.data_ptr() == q.data_ptr(), "an array was copied on its way in"
    side = torch.cuda.Stream()
    for stream in (side.cuda_stream, None):  # what PyTorch's stream is still making is waited for, in any other too
        with torch.cuda.stream(side):
            late = torch.zeros_like(q)
            torch.cuda._sleep(50_000_000)
            late += q
            context = ops.attention_forward(late, k, v, w, **how, stream=stream)[0]
            near(context.cpu().numpy(), want)
    strided = ops.attention_forward(q.transpose(0, 1).contiguous().transpose(0, 1), k, v, w, **how)[0]
    near(strided.cpu().numpy(), want)
    gradients_of_torch(dhyan.torch.attention, torch, host)
    other = k.double()
    calls: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: ops.attention_forward(q, k.cpu(), v, w, **how), ValueError, "k is in CPU memory"),
        (lambda: ops.attention_forward(q, other, v, w, **how), TypeError, "k has dtype float64, expected float32"),
        (lambda: ops.attention_forward(q.int(), k, v, w, **how), TypeError, "q has dtype int32"),
        (lambda: ops.attention_forward(q[..., :-1], k, v, w, **how), ValueError, "k has shape (3, 33, 40)"),
        (lambda: ops.score_forward(torch.zeros(1, 1 << 20, 1, device="cuda"), torch.zeros(1, 1 << 20, 1, device="cuda"),
                                   term="product"), MemoryError, "exceed the memory of CUDA device 0"),
    ]  # fmt: skip
    for call, error, text in calls:
        refused(call, error, text)
        near(ops.attention_forward(q, k, v, w, **how)[0].cpu().numpy(), want)
    near(ops.attention_forward(*host, **how)[0], want)  # and on the CPU
    return f"PyTorch {torch.__version__}: right, zero-copy, in its streams; wrong calls refused"


def gradients_of_torch(attention: Any, torch: Any, host: list[np.ndarray]) -> None:
    """dhyan.torch's gradients and PyTorch's own, and a few steps of training with either."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        found = []
        for ours in (True, False):
            leaves = [torch.tensor(x, device="cuda", dtype=dtype).requires_grad_() for x in host]
            optimizer = torch.optim.SGD(leaves, lr=1.0)
            for _ in range(5):
                q, k, v, w = leaves
                scores = (torch.tanh(q[:, :, None] + k[:, None]) * w).sum(-1)
                context = attention(q, k, v, w, term="tanh") if ours else torch.softmax(scores, -1) @ v
                optimizer.zero_grad()
                ((context - 1) ** 2).mean().backward()
                optimizer.step()
            found.append([x.grad.double().cpu().numpy() for x in leaves] + [leaves[0].detach().double().cpu().numpy()])
        for got, expected in zip(*found, strict=True):
            near(got, expected, tolerance)


def with_graphs() -> str:
    """A captured call gives at replay what the inputs are by then."""
    import torch
    from dhyan import ops

    if not torch.cuda.is_available():
        return "PyTorch sees no GPU"
    host, want, _ = problem(3)
    q, *others = (torch.from_numpy(x).cuda() for x in host)
    held = torch.zeros_like(q)
    ops.attention_forward(held, *others, term="tanh")  # what the first call sets up is not for a graph
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        context = ops.attention_forward(held, *others, term="tanh", need_weights=False, stream=stream)[0]
    held.copy_(q)
    graph.replay()
    near(context.cpu().numpy(), want)
    return "a captured call is right at replay"


def with_cupy() -> str:
    import cupy
    from dhyan import ops

    host, want, _ = problem(1)
    arrays = [cupy.asarray(x) for x in host]
    context = ops.attention_forward(*arrays, term="tanh")[0]
    assert isinstance(context, cupy.ndarray)
    near(cupy.asnumpy(context), want)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        context = ops.attention_forward(*arrays, term="tanh", stream=stream.ptr)[0]
        near(cupy.asnumpy(context), want)
    del context
    return f"CuPy {cupy.__version__}: right, also in a stream of its own"


def with_jax() -> str:
    import jax
    from dhyan import ops

    try:
        device = jax.devices("gpu")[0]
    except RuntimeError:
        return f"JAX {jax.__version__} sees no GPU"
    host, want, _ = problem(2)
    arrays = [jax.device_put(x, device) for x in host]
    context, weights, cache = ops.attention_forward(*arrays, term="tanh")
    assert isinstance(context, jax.Array) and isinstance(weights, jax.Array)
    near(context, want)
    assert all(isinstance(x, jax.Array) for x in ops.attention_backward(context, cache))
    return f"JAX {jax.__version__}: right"


def main() -> int:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # or JAX takes most of the memory at once
    wrong = 0
    for name, run in (("torch", with_torch), ("torch graphs", with_graphs), ("cupy", with_cupy), ("jax", with_jax)):
        try:
            importlib.import_module(name.split()[0])
        except ImportError:
            print(json.dumps({"kind": "library", "name": name, "text": "not installed"}), flush=True)
            continue
        try:
            record = {"kind": "library", "name": name, "text": run()}
        except Exception as error:
            text = (str(error).splitlines() or [""])[0]
            record = {"kind": "wrong", "text": f"arrays of {name}: {type(error).__name__}: {text}"}
            wrong += 1
        print(json.dumps(record), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
