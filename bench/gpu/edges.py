"""What bench/gpu.py asks of products on a device beyond their error: which bits, and what becomes of NaN and infinity.

The emulation of the tests (tests/cuda/test_cuda_tensor.py) asks the same of the kernels' sources. Here the hardware
answers: whether a product depends on where in a tile it stands, how sums overflow, what small numbers are worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

LARGEST = {
    "float32": 3.4028234663852886e38,
    "float64": 1.7976931348623157e308,
    "float16": 65504.0,
    "bfloat16": 3.3895313892515355e38,
}
Array = Any


def wrong(ops: Any, device: Any) -> Iterator[str]:
    """What does not hold, in words. device: gpu_check.Device."""
    for check in (places, masked, infinite, small):
        try:
            text = check(ops, device)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
        if text:
            yield f"{check.__name__} {device.dtype}: {text}"


def scores(ops: Any, device: Any, q: Array, k: Array) -> Array:
    return device.get(ops.score_forward(device.put(q), device.put(k), term="product"))


def places(ops: Any, device: Any) -> str:
    """A score has the same bits in every tile and at every place in it."""
    rng = np.random.default_rng(0)
    q, k = (device.rounded(rng.normal(size=(1, n, 200))) for n in (200, 150))
    whole = scores(ops, device, q, k)
    for T, S in ((20, 20), (37, 70), (64, 64), (130, 30)):
        for t, s in ((0, 0), (200 - T, 150 - S)):
            if not np.array_equal(
                scores(ops, device, q[:, t : t + T], k[:, s : s + S]), whole[:, t : t + T, s : s + S]
            ):
                return f"the bits of scores differ between {T} x {S} of them and 200 x 150"
    return ""


def masked(ops: Any, device: Any) -> str:
    """NaN, infinity and the largest number in masked keys and values change no bit of outputs and gradients."""
    rng = np.random.default_rng(1)
    for T in (1, 10, 40):
        q, k, v, dcontext = (rng.normal(size=(1, n, 40)) for n in (T, 70, 70, T))
        mask = np.ones((1, T, 70), bool)
        mask[:, :, [0, 15, 16, 69]] = False
        given = device.core.cuda_upload(mask, "bool", 0, None)

        def run(k: Array, v: Array, q: Array = q, dcontext: Array = dcontext, given: Any = given) -> list[Array]:
            arrays = map(device.put, (q, k, v))
            context, weights, cache = ops.attention_forward(*arrays, term="product", mask=given)
            gradients = ops.attention_backward(device.put(dcontext), cache)[:3]
            return [device.get(x) for x in (context, weights, *gradients)]

        before = run(k, v)
        for poison in (np.nan, np.inf, LARGEST[device.dtype]):
            k[:, [0, 15, 16, 69]], v[:, [0, 15, 16, 69]] = poison, poison
            if not all(np.array_equal(a, b) for a, b in zip(before, run(k, v), strict=True)):
                return f"{poison} in masked keys and values is seen (T = {T})"
    return ""


def infinite(ops: Any, device: Any) -> str:
    """Infinities and overflow as in plain arithmetic, in their own elements."""
    most = LARGEST[device.dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        for T in (1, 20):
            q, k = np.ones((1, T, 4)), np.zeros((1, 20, 4))
            q[:, :, 1] = most
            k[0, :5, 1] = [1, -1, 2, -2, 0]
            k[0, 5, 0], k[0, 6, :2], k[0, 7, 3] = np.inf, [np.inf, -np.inf], np.nan
            want = (q @ k.swapaxes(1, 2)).astype(device.wide)
            if not np.array_equal(scores(ops, device, q, k), want, equal_nan=True):
                return f"scores of infinities and of the largest number are not those of plain arithmetic (T = {T})"
    return ""


def small(ops: Any, device: Any) -> str:
    """Factors of every size; nothing is lost but what bfloat16 cannot hold."""
    rng = np.random.default_rng(2)
    eps, least = (2.0**-52, 2.0**-1000) if device.dtype == "float64" else (2.0**-23, 2.0**-126)
    for size in (1e-45, 1e-38, 1e-30, 1e-7, 1.0):
        q, k = device.rounded(size * rng.normal(size=(1, 40, 50))), device.rounded(rng.normal(size=(1, 37, 50)))
        error = np.abs(scores(ops, device, q, k) - q @ k.swapaxes(1, 2))
        if np.any(
            error > 6 * eps * (np.abs(q) @ np.abs(k).swapaxes(1, 2)) + least * np.abs(k).sum(-1)[:, None] + 1e-44
        ):
            return f"scores of queries of about {size:g} are off by {error.max():.1e}"
    return ""
