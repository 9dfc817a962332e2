"""The device side as a user meets it: the errors without a GPU and, where there is one, the ops through DLPack.

The kernels themselves are tested everywhere by test_cuda_kernels.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
import reference
from dhyan import _core, ops

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ops.show_config()
needs_device = pytest.mark.skipif(CONFIG["cuda_devices"] == 0, reason="no CUDA device, or a build without CUDA")
without_device = pytest.mark.skipif(CONFIG["cuda_devices"] > 0, reason="this machine has a CUDA device")
B, T, S, H, D = 2, 3, 7, 6, 5


class Elsewhere:
    """An array that says it is in CUDA memory."""

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, **_: object) -> object:
        raise AssertionError("asked for its memory")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def upload(x: np.ndarray, dtype: str | None = None) -> Any:
    return _core.cuda_upload(x, dtype or str(x.dtype), 0, None)


@without_device
@pytest.mark.parametrize(
    ("op", "name", "call"),
    [
        ("score_forward", "q", lambda x: ops.score_forward(x, x, term="product")),
        ("score_backward", "q", lambda x: ops.score_backward(x, x, x, term="product")),
        ("softmax_forward", "scores", lambda x: ops.softmax_forward(x)),
        ("softmax_backward", "weights", lambda x: ops.softmax_backward(x, x)),
        ("context_forward", "weights", lambda x: ops.context_forward(x, x)),
        ("context_backward", "weights", lambda x: ops.context_backward(x, x, x)),
        ("attention_forward", "q", lambda x: ops.attention_forward(x, x, x, term="product")),
        ("attend", "query", lambda x: dhyan.attend(x, x)),
    ],
)
def test_a_cuda_array_where_there_is_no_gpu(op: str, name: str, call: Any) -> None:
    """One line, which says whether the build or the driver is missing; the CPU goes on."""
    reason = "no CUDA side" if CONFIG["cuda"] is None else "no CUDA device can be used here"
    with pytest.raises(RuntimeError, match=rf"^{op}: .*{reason}") as caught:
        call(Elsewhere())
    assert "\n" not in str(caught.value)
    assert CONFIG["cuda"] is not None or f"{op}: {name} is not in CPU memory" in str(caught.value)
    assert np.isfinite(ops.score_forward(random(B, T, H), random(B, S, H), term="product")).all()


def test_a_cuda_array_among_cpu_arrays() -> None:
    error = RuntimeError if CONFIG["cuda"] is None else ValueError
    with pytest.raises(error, match=r"^attention_forward: k is not in CPU memory"):
        ops.attention_forward(random(B, T, H), Elsewhere(), random(B, S, D), term="product")  # type: ignore[arg-type]


def test_the_cpu_ignores_the_stream() -> None:
    q, k = random(B, T, H), random(B, S, H)
    np.testing.assert_array_equal(
        ops.score_forward(q, k, term="product", stream=7), ops.score_forward(q, k, term="product")
    )


def test_importing_loads_no_driver() -> None:
    code = "import dhyan.ops, dhyan.gpu_ops; print('libcuda.so' in open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on this machine")
def test_the_option_without_nvcc_says_so_in_one_line(tmp_path: Path) -> None:
    """Configuring with DHYAN_CUDA=ON where no nvcc can be found stops with one clear line."""
    tools = tmp_path / "tools"
    tools.mkdir()
    generator = "Ninja" if shutil.which("ninja") else "Unix Makefiles"
    for name in ("cmake", "ninja", "make", "c++", "cc", "g++", "gcc", "ld", "as", "ar", "ranlib", "nm", "strip"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    command = ["cmake", "-S", ROOT, "-B", tmp_path / "build", "-G", generator, "-DDHYAN_CUDA=ON"]
    command += ["-DSKBUILD_PROJECT_VERSION=0", f"-DPython_EXECUTABLE={sys.executable}"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA", "NVCC"))} | {"PATH": str(tools)}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
    if done.returncode == 0 or "needs nvcc" not in done.stderr:
        assert Path("/usr/local/cuda/bin/nvcc").exists(), done.stderr  # CMake looks there without being asked
        return
    assert "DHYAN_CUDA=ON needs nvcc (CUDA 12 or 13)" in " ".join(done.stderr.split())


# ---- where there is a device ----


@needs_device
@pytest.mark.parametrize("term", ["product", "tanh"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_the_fused_op_through_dlpack(dtype: str, term: str) -> None:
    host = [random(B, T, H), random(B, S, H), random(B, S, D), random(H), random(B, T, D, seed=1)]
    host = [x.astype(dtype) for x in host]
    q, k, v, w, dcontext = map(upload, host)
    scoring = (q, k, v, w) if term == "tanh" else (q, k, v)
    end = np.full((B, T), 5)
    context, weights, cache = ops.attention_forward(*scoring, term=term, end=end)
    gradients = ops.attention_backward(dcontext, cache)
    wide = [x.astype(np.float64) for x in host]
    allowed = reference.may_attend((B, T, S), None, end, None)
    w_wide = wide[3] if term == "tanh" else None
    want = reference.attention(*wide[:3], w_wide, term, 1.0, allowed)
    want += reference.attention_backward(wide[4], 0.0, *wide[:3], w_wide, term, 1.0, allowed)
    tolerance = {"float32": 4e-6, "float64": 1e-13, "float16": 4e-3}[dtype]
    assert weights.dtype == ("float64" if dtype == "float64" else "float32")
    for got, expected in zip((context, weights, *gradients), want, strict=True):
        if expected is None:
            assert got is None
            continue
        error = np.linalg.norm(got.download(None).astype(np.float64) - expected)
        assert error <= tolerance * (np.linalg.norm(expected) + 1)
    # once more, by the unfused ops, on the device and from its own arrays
    scores = ops.score_forward(q, k, scoring[3] if term == "tanh" else None, term=term)
    again = ops.context_forward(ops.softmax_forward(scores, end=upload(end)), v)
    np.testing.assert_allclose(again.download(None), context.download(None), rtol=4e-3, atol=4e-3)


@needs_device
def test_attend_on_the_device() -> None:
    q, k, v = random(B, T, H), random(B, S, H), random(B, S, D)
    for score in ("dot", "scaled_dot", "cosine"):
        for may in ({"lengths": np.array([7, 4])}, {"causal": True}, {"window": dhyan.Window(1)}, {}):
            want = dhyan.attend(q, k, v, score=score, **may)  # type: ignore[arg-type]
            got = dhyan.attend(upload(q), upload(k), upload(v), score=score, **may)  # type: ignore[arg-type]
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a.download(None), b, rtol=2e-5, atol=2e-6)
    one = dhyan.attend(upload(q[0, 0]), upload(k[0]))
    np.testing.assert_allclose(one.context.download(None), dhyan.attend(q[0, 0], k[0]).context, rtol=1e-5, atol=1e-6)
    assert one.weights.shape == (S,)
    lengths = upload(np.array([7, 4]))
    got = dhyan.attend(upload(q), upload(k), lengths=lengths)
    np.testing.assert_allclose(
        got.weights.download(None), dhyan.attend(q, k, lengths=np.array([7, 4])).weights, rtol=1e-5, atol=1e-6
    )


@needs_device
def test_wrong_arguments_on_the_device() -> None:
    q, k, v = map(upload, (random(B, T, H), random(B, S, H), random(B, S, D)))
    wrong = [
        ((q, upload(random(B, S, H).astype(np.float64)), v), {}, TypeError, "k has dtype float64, expected float32"),
        ((upload(np.ones((B, T, H), np.int64)), k, v), {}, TypeError, "q has dtype int64, expected float32, float64, "),
        (
            (q, upload(random(B, S, 4)), v),
            {},
            ValueError,
            r"k has shape \(2, 7, 4\), expected \(B=2, S, H=6\) to match q",
        ),
        ((q, random(B, S, H), v), {}, ValueError, "k is in CPU memory, expected a CUDA array like the first one"),
        ((q, k, [1.0]), {}, TypeError, "v is of type list, expected a CUDA array"),
        ((q, k, v), {"end": np.full((B, T), 9)}, ValueError, r"end\[0, 0\] is 9, expected begin=0 <= end <= S=7"),
        (
            (q, k, v),
            {"end": upload(np.full((B, T), 9))},
            ValueError,
            r"end\[0, 0\] is 9, expected begin=0 <= end <= S=7",
        ),
        ((q, k, v), {"mask": upload(random(B, T, S))}, TypeError, "mask has dtype float32, expected bool"),
        ((q, k, v), {"stream": "1"}, TypeError, "stream is of type str, expected an integer handle or None"),
    ]
    for arrays, options, error, text in wrong:
        with pytest.raises(error, match=rf"^attention_forward: {text}"):
            ops.attention_forward(*arrays, term="product", **options)
        ops.attention_forward(q, k, v, term="product")


@needs_device
def test_too_little_memory_is_named() -> None:
    q = upload(np.zeros((1, 1, 1), np.float32)).reshape([1, 1, 1])
    many = upload(np.zeros((1, 1 << 20, 1), np.float32))
    with pytest.raises(MemoryError, match=r"^score_forward: 4398046511104 bytes exceed the memory of CUDA device 0$"):
        ops.score_forward(many, many, term="product")
    assert ops.score_forward(q, q, term="product").shape == (1, 1, 1)


@needs_device
def test_masks_broadcast_and_strides_are_read() -> None:
    q, k, v = random(B, T, H), random(B, S, H), random(B, S, D)
    mask = np.random.default_rng(0).random((B, 1, S)) < 0.5
    want = ops.attention_forward(q, k, v, term="product", mask=mask)
    got = ops.attention_forward(upload(q), upload(k), upload(v), term="product", mask=upload(mask))
    np.testing.assert_allclose(got[1].download(None), want[1], rtol=1e-5, atol=1e-6)
    assert got[2].weights is got[1]
