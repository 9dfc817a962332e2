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
from dhyan import _core, ops
from spec import ops as reference

ROOT = Path(__file__).resolve().parents[2]
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


class Foreign:
    """An array of another library, without its arithmetic: what DLPack asks of it, in front of memory of ours."""

    def __init__(self, array: Any, device: tuple[int, int] = (2, 0)) -> None:
        self.array, self.device, self.streams = array, device, []  # type: ignore[var-annotated]

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, stream: int | None = None) -> object:  # as before version 1: no max_version
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed + sum(shape)).normal(size=shape).astype(np.float32)


def upload(x: np.ndarray, dtype: str | None = None) -> Any:
    return _core.cuda_upload(x, dtype or str(x.dtype), 0, None)


def emulated() -> bool:
    """Is the device of this build the CPU (DHYAN_CUDA=EMULATED), which can be told to fail?"""
    if CONFIG["cuda_devices"] == 0:
        return False
    code = "from dhyan import ops; print(ops.show_config()['cuda_devices'])"
    environment = os.environ | {"DHYAN_EMULATE_NO_DRIVER": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip() == "0"


needs_emulation = pytest.mark.skipif(not emulated(), reason="not a build whose CUDA side is emulated")


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
    code = "import dhyan.ops, dhyan.ops.devices; print('libcuda.so' in open('/proc/self/maps').read())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake on this machine")
def test_the_option_without_nvcc_says_so_in_one_line(tmp_path: Path) -> None:
    """Configuring with DHYAN_CUDA=ON stops with one clear line; CMake is told that it has found no nvcc."""
    generator = "Ninja" if shutil.which("ninja") else "Unix Makefiles"
    command = ["cmake", "-S", str(ROOT), "-B", str(tmp_path / "build"), "-G", generator, "-DDHYAN_CUDA=ON"]
    command += ["-DSKBUILD_PROJECT_VERSION=0", f"-DPython_EXECUTABLE={sys.executable}"]
    if shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").exists():
        command.append("-DCMAKE_CUDA_COMPILER=NOTFOUND")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CUDA", "NVCC"))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode != 0
    text = "DHYAN_CUDA=ON needs nvcc (CUDA 12 or 13) on PATH or in CUDACXX, and none was found"
    assert text in " ".join(done.stderr.split()), done.stderr


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
    want = dhyan.attend(q, k, lengths=np.array([7, 4]))
    for stream in (None, 2):  # the legacy default stream, this thread's own
        got = dhyan.attend(upload(q), upload(k), lengths=lengths, stream=stream)
        np.testing.assert_allclose(got.weights.download(stream), want.weights, rtol=1e-5, atol=1e-6)


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
        ((q, k, v), {"stream": -1}, ValueError, "stream is -1, expected the handle of a stream, 0 or more"),
        ((q, Foreign(k, (2, 1)), v), {}, ValueError, "k is on CUDA device 1, expected device 0 like the first array"),
        ((q, Foreign(k, (10, 0)), v), {}, ValueError, "k is in memory of DLPack device type 10, expected a CUDA array"),
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


@needs_device
def test_arrays_of_another_library_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """No copy on the way in or out, the caller's stream is passed on, and the results are of the library of q."""
    import types

    library = types.ModuleType("library_of_arrays")
    made: list[Any] = []

    def from_dlpack(x: Any) -> Any:
        made.append(Theirs(x))
        return made[-1]

    class Theirs(Foreign):
        pass

    class Mine(Theirs):  # a subclass, defined somewhere else
        pass

    Theirs.__module__, Mine.__module__ = "library_of_arrays.core", "tests"
    library.from_dlpack = from_dlpack  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "library_of_arrays", library)
    q, k, v = random(B, T, H), random(B, S, H), random(B, S, D)
    for device in ((2, 0), (13, 0)):  # managed memory is a device's too
        arrays = [Mine(upload(q), device), Theirs(upload(k), device), Theirs(upload(v), device)]
        context, weights, cache = ops.attention_forward(*arrays, term="product", stream=2)  # type: ignore[arg-type]
        assert [type(x) for x in (context, weights)] == [Theirs, Theirs]
        assert [a.streams[-1] for a in arrays] == [2, 2, 2]
        want = ops.attention_forward(q, k, v, term="product")
        np.testing.assert_allclose(_core.cuda_import(context, 2, "t", "x").download(2), want[0], rtol=1e-5, atol=1e-6)
        gradients = ops.attention_backward(Theirs(upload(want[0])), cache, stream=2)  # type: ignore[arg-type]
        assert [type(x) for x in gradients] == [Theirs, Theirs, Theirs, type(None)]
    _core.cuda_trim(0)
    used = _core.cuda_pool_use(0, True)[0]
    there = _core.cuda_import(arrays[0], None, "test", "x")
    now, highest = _core.cuda_pool_use(0, False)
    assert now == used >= highest  # nothing was taken in between
    np.testing.assert_array_equal(there.download(None), q)


@needs_device
def test_an_array_that_its_library_does_not_give_is_named() -> None:
    class Kept(Foreign):
        def __dlpack__(self, **_: Any) -> object:
            raise BufferError("it requires gradients")

    q = upload(random(B, T, H))
    text = r"^score_forward: k was not given by its library \(BufferError: it requires gradients\)$"
    with pytest.raises(RuntimeError, match=text) as caught:
        ops.score_forward(q, Kept(q), term="product")
    assert isinstance(caught.value.__cause__, BufferError)


@needs_device
def test_memory_does_not_depend_on_the_width() -> None:
    """What a forward call takes beyond its result is the same for keys of width 8 and 64; all of it is given back."""
    taken = []
    for width in (8, 64):
        q, k, v, w = map(upload, (random(4, 20, width), random(4, 30, width), random(4, 30, D), random(width)))
        _core.cuda_trim(0)  # waits: what was given back before has been
        before, _ = _core.cuda_pool_use(0, True)
        ops.attention_forward(q, k, v, w, term="tanh", need_weights=False)
        taken.append(_core.cuda_pool_use(0, False)[1] - before)
        _core.cuda_trim(0)
        assert _core.cuda_pool_use(0, False)[0] == before
    assert 4 * 20 * 30 * 4 <= taken[0] == taken[1]


@needs_emulation
def test_without_a_driver_the_cpu_goes_on() -> None:
    code = """
import numpy as np
from dhyan import _core, ops
q = np.ones((1, 2, 3), np.float32)
try:
    _core.cuda_upload(q, "float32", 0, None)
except RuntimeError as error:
    print(error)
print(ops.score_forward(q, q, term="product")[0, 0, 0], ops.show_config()["cuda_devices"])
"""
    environment = os.environ | {"DHYAN_EMULATE_NO_DRIVER": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines() == [
        "cuda_upload: no CUDA device can be used here (cudaErrorInsufficientDriver: an emulated error)",
        "3.0 0",
    ]


@needs_emulation
def test_cpu_memory_is_refused_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph would read it again after it has gone; ranges on the device are captured."""
    q, k, v = map(upload, (random(B, T, H), random(B, S, H), random(B, S, D)))
    end = np.full((B, T), 5)
    on_device = upload(end)
    monkeypatch.setenv("DHYAN_EMULATE_CAPTURE", "1")
    with pytest.raises(RuntimeError, match=r"^attention_forward: an array is in CPU memory while the stream is being"):
        ops.attention_forward(q, k, v, term="product", end=end)
    context, _, _ = ops.attention_forward(q, k, v, term="product", end=on_device)  # type: ignore[arg-type]
    monkeypatch.delenv("DHYAN_EMULATE_CAPTURE")
    want, _, _ = ops.attention_forward(q, k, v, term="product", end=end)
    np.testing.assert_array_equal(context.download(None), want.download(None))  # type: ignore[attr-defined]
