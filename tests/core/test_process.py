"""Threads, forks, pools, signals: dhyan inside a process that does other things too.

What needs a process of its own (forks, signals) runs a script; the scripts share the functions of PRELUDE.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from dhyan import get_num_threads, ops, set_num_threads, show_config

PRELUDE = """
import hashlib, json, multiprocessing, os, signal, sys, threading, time
import numpy as np
from dhyan import ops

def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()

def work(seed=0):
    # A product and an attention read, both large enough to be dealt to threads, and their gradients.
    rng = np.random.default_rng(seed)
    x, w = rng.standard_normal((300, 200), np.float32), rng.standard_normal((200, 300), np.float32)
    y = ops.linear_forward(x, w)
    dx, dw, db = ops.linear_backward(y, x, w)
    q, k = rng.standard_normal((4, 30, 64), np.float32), rng.standard_normal((4, 30, 64), np.float32)
    context, weights, cache = ops.attention_forward(q, k, k, w[:64, 0].copy(), term="tanh")
    gradients = ops.attention_backward(np.ones_like(context), cache)
    return digest(y, dx, dw, db, context, weights, *gradients)
"""


def script(folder: Path, code: str, **env: str) -> list:
    """Runs PRELUDE + code; what it prints as JSON, line by line."""
    path = folder / "script.py"
    path.write_text(PRELUDE + code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=120, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture
def threads() -> Iterator[None]:
    """Two threads at least, whatever the environment says, and back again."""
    before = get_num_threads()
    set_num_threads(max(2, before))
    yield
    set_num_threads(before)


def test_a_forked_child_works_on_one_thread_and_gives_the_same_bits(tmp_path: Path) -> None:
    """Threads do not follow into a child; a region there would wait for them for ever."""
    parent, child, grandchild = script(
        tmp_path,
        """
ops.set_num_threads(4)
print(json.dumps([ops.get_num_threads(), work()]), flush=True)
def child(depth):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)  # a hang ends the child, not the test run
        print(json.dumps([ops.get_num_threads(), work()]), flush=True)
        if depth:
            child(depth - 1)
        os._exit(0)
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit("the child did not finish")
child(1)
""",
    )
    assert parent[0] == (4 if show_config()["openmp"] else 1)
    assert child[0] == grandchild[0] == 1
    assert parent[1] == child[1] == grandchild[1]


def test_a_child_forked_before_threads_were_used_may_use_them(tmp_path: Path) -> None:
    (child,) = script(
        tmp_path,
        """
ops.set_num_threads(2)
pid = os.fork()
if pid == 0:
    signal.alarm(60)
    print(json.dumps([ops.get_num_threads(), work()]), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    )
    assert child[0] == (2 if show_config()["openmp"] else 1)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_process_pools_give_the_bits_of_this_process(method: str, tmp_path: Path) -> None:
    here, pool = script(
        tmp_path,
        f"""
if __name__ == "__main__":
    ops.set_num_threads(2)
    print(json.dumps([work(seed) for seed in range(4)]), flush=True)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        print(json.dumps(pool.map_async(work, range(4)).get(90)))
""",
        PYTHONWARNINGS="ignore::DeprecationWarning",  # Python's own about a fork beside threads: it is what is tested
    )
    assert here == pool


def test_eight_python_threads_give_the_serial_bits(threads: None) -> None:
    scope: dict = {}
    exec(PRELUDE, scope)
    work = scope["work"]
    serial = [work(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(work, range(8))) == serial


def test_references_are_counted_right_beside_other_threads(tmp_path: Path) -> None:
    """A Python object that is touched without the GIL shows as a count that drifts, a wrong result or a crash."""
    drift, one_result = script(
        tmp_path,
        """
rng = np.random.default_rng(0)
dy, x, w = (rng.standard_normal(shape, np.float32) for shape in ((4, 8), (4, 8), (8, 8)))
def step():
    dx, dw, db = ops.linear_backward(dy, x, w)
    return digest(*ops.linear_backward(dy, x, w, dw=dw, db=db, add_to=dx))
def steps():
    for _ in range(1500):
        results.add(step())
def arrays():
    while not done:
        np.zeros(3, np.float32)
expected, results, done = step(), set(), False
before = sys.getrefcount(np.dtype(np.float32))
beside = threading.Thread(target=arrays)
workers = [threading.Thread(target=steps) for _ in range(4)]
for thread in (beside, *workers):
    thread.start()
for thread in workers:
    thread.join()
done = True
beside.join()
print(sys.getrefcount(np.dtype(np.float32)) - before)
print(json.dumps(results == {expected}))
""",
    )
    assert drift == 0
    assert one_result is True


# Each gives an array of indices, and a call that reads it, for long enough that another thread gets its turn in it.
INDICES = {
    "embedding_forward": """
array, table = np.ones(200_000, np.int64), np.ones((50, 16), np.float32)
call = lambda: ops.embedding_forward(table, array)
""",
    "embedding_backward": """
array, dout = np.ones(100_000, np.int64), np.ones((100_000, 16), np.float32)
call = lambda: ops.embedding_backward(dout, array, 50)
""",
    "cross_entropy_forward": """
array, r = np.ones(20_000, np.int64), np.ones((20_000, 16), np.float32)
w, b = np.ones((16, 50), np.float32), np.ones(50, np.float32)
call = lambda: np.float64(ops.cross_entropy_forward(r, w, b, array)[0])
""",
    "attention_forward": """
array, q = np.full((8, 500), 2), np.ones((8, 500, 16), np.float32)
call = lambda: ops.attention_forward(q, q, q, term="product", end=array)[0]
""",
    "recurrent_forward": """
array, x, lengths = np.ones(4000, np.int64), np.ones((50, 16), np.float32), np.full(8, 500)
weights = {n: np.ones((16, 16) if "weight" in n else 16, np.float32) for n in ops.CELL_PARAMETERS}
call = lambda: ops.recurrent_rows_forward(x, lengths, weights, cell="rnn", index=array)[0]
""",
}


@pytest.mark.parametrize("op", INDICES)
def test_indices_that_another_thread_writes_to_are_checked_as_they_are_used(op: str, tmp_path: Path) -> None:
    """A call sees them before or after, and refuses them or is right: it never reads or writes elsewhere."""
    right, refused = script(
        tmp_path,
        f"""
{INDICES[op]}
def write():
    while not done:
        array[...] = 1 << 40
        array[...] = good
good, expected, done, right, refused = array.copy(), digest(call()), False, 0, 0
thread = threading.Thread(target=write)
thread.start()
for _ in range(600):
    try:
        right += digest(call()) == expected
    except (IndexError, ValueError) as error:
        refused += "1099511627776" in str(error)
done = True
thread.join()
print(right, refused, sep="\\n")
""",
    )
    assert right + refused == 600 and refused > 0


def test_the_gil_is_released_around_a_function_alone() -> None:
    """A guard in the scope of a binding would also cover what the binding returns: only `without_gil` has one."""
    bindings = Path(__file__).parents[2] / "cpp" / "bindings"
    sources = {path.name: path.read_text(encoding="utf-8") for path in sorted(bindings.iterdir())}
    switches = re.compile(r"gil_scoped_|PyEval_\w+Thread|PyGILState_|Py_BEGIN_ALLOW_THREADS")
    assert [name for name, text in sources.items() if switches.search(text)] == ["gil.h"]
    assert sum(text.count("without_gil(") for text in sources.values()) > 20


def test_kernels_release_the_gil() -> None:
    """While one thread is inside a product that takes long, this one goes on running Python."""
    x, w = np.ones((4096, 1024), np.float32), np.ones((1024, 2048), np.float32)
    inside = threading.Event()
    span: list[float] = []

    def multiply() -> None:
        inside.set()
        start = time.perf_counter()
        ops.linear_forward(x, w)
        span[:] = [start, time.perf_counter()]

    for _ in range(20):  # other programs may keep this thread from running
        inside.clear()
        thread = threading.Thread(target=multiply)
        thread.start()
        inside.wait()
        ticks = []
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)
        thread.join()
        start, end = span
        seen = [start, *(t for t in ticks if start <= t <= end), end]
        longest_pause = max(b - a for a, b in pairwise(seen))
        if longest_pause < 0.5 * (end - start):
            return
    pytest.fail(f"no Python ran for {longest_pause:.3f} of {end - start:.3f} s inside linear_forward")


# Each call takes seconds; the signal comes when it has just begun.
LONG = {
    "linear_forward": """
x, w = np.ones((16384, 4096), np.float32), np.ones((4096, 4096), np.float32)
call = lambda: ops.linear_forward(x, w)
""",
    "linear_backward": """
x, w, dy = np.ones((8192, 4096), np.float32), np.ones((4096, 4096), np.float32), np.ones((8192, 4096), np.float32)
call = lambda: ops.linear_backward(dy, x, w)
""",
    "recurrent_forward": """
H, x, lengths = 512, np.zeros((16, 2000, 8), np.float32), np.full(16, 2000)
p = {n: np.zeros(s, np.float32) for n, s in
     zip(ops.CELL_PARAMETERS, ((8, 4 * H), (H, 4 * H), (4 * H,), (4 * H,)))}
call = lambda: ops.recurrent_forward(x, lengths, p, cell="lstm")
""",
    "attention_forward": """
q, k, w = np.ones((1, 4000, 512), np.float32), np.ones((1, 4000, 512), np.float32), np.ones(512, np.float32)
call = lambda: ops.attention_forward(q * 30, k, k, w, term="tanh")
""",
    "attention_backward": """
q, k, w = np.ones((1, 2000, 512), np.float32), np.ones((1, 4000, 512), np.float32), np.ones(512, np.float32)
context, _, cache = ops.attention_forward(q, k, k, w, term="tanh")
call = lambda: ops.attention_backward(context, cache)
""",
    "cross_entropy_forward": """
r, w, b = np.ones((20000, 512), np.float32), np.ones((512, 20000), np.float32), np.zeros(20000, np.float32)
targets = np.zeros(20000, np.int64)
call = lambda: ops.cross_entropy_forward(r, w, b, targets, keep_logits=False)
""",
}


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("op", LONG)
def test_an_interrupt_ends_a_long_kernel_within_a_fifth_of_a_second(op: str, n: int, tmp_path: Path) -> None:
    """Of processor time, since what other programs do is no concern of the kernel; each of n threads may use it.

    Also what a kernel throws inside a parallel region comes out of it as an exception: KeyboardInterrupt does.
    """
    (waited, in_kernel, again) = script(
        tmp_path,
        f"""
ops.set_num_threads({n})
expected = work()
{LONG[op]}
main_thread = time.pthread_getcpuclockid(threading.main_thread().ident)
def interrupt(begun):
    global sent
    while time.clock_gettime(main_thread) < begun + 0.03:  # the kernel has computed for as long
        time.sleep(0.001)
    sent = time.process_time()
    os.kill(os.getpid(), signal.SIGINT)
waits, caught = [], 0
for attempt in range(3):
    thread = threading.Thread(target=interrupt, args=(time.clock_gettime(main_thread),))
    try:
        thread.start()
        call()
        thread.join()
    except KeyboardInterrupt:
        waits.append(time.process_time() - sent)
        caught += 1
    if waits and min(waits) < 0.2 * {n}:
        break
print(json.dumps(min(waits, default=-1)))
print(json.dumps(caught))
print(json.dumps(work() == expected))  # and the next good call is right
""",
    )
    assert in_kernel >= 1
    assert 0 <= waited < 0.2 * n
    assert again is True


def test_a_long_kernel_beside_the_main_thread_leaves_the_signal_to_it(tmp_path: Path) -> None:
    """Python runs handlers on the main thread: a kernel on another one goes on and its result is whole."""
    (handled, result) = script(
        tmp_path,
        """
x, w = np.ones((2048, 2048), np.float32), np.ones((2048, 2048), np.float32)
out = []
thread = threading.Thread(target=lambda: out.append(ops.linear_forward(x, w)))
thread.start()
try:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
    print("false")
except KeyboardInterrupt:
    print("true")
thread.join()
print(json.dumps(bool((out[0] == 2048).all())))
""",
    )
    assert handled is True
    assert result is True


DAEMONS = {
    "tiny": """
scores = np.ones((1, 2, 3), np.float32)
call = lambda: ops.softmax_forward(scores)
""",
    "linear_backward": LONG["linear_backward"],
    "strided": """
q = np.ones((4, 64, 300), np.float32).swapaxes(1, 2)  # NumPy gives the GIL away while it copies
call = lambda: ops.attention_forward(q, q, q, term="product")
""",
    "reader": """
from dhyan import ModelConfig, Seq2Seq
model = Seq2Seq(ModelConfig(source_size=9, target_size=8, embedding=16, hidden=16, attention="coverage"))
source, lengths = np.full((4, 12), 5), np.full(4, 12)
call = lambda: model.greedy(source, lengths, 20)  # the core asks Python once a step
""",
}


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("op", DAEMONS)
def test_daemon_threads_in_an_op_do_not_disturb_the_exit(op: str, n: int, tmp_path: Path) -> None:
    """The interpreter exits under them, with the code and the output that it has without them.

    Finalisation is held up by an object that works in it, so that the threads ask for the GIL meanwhile, and so that
    the thread that finalises is seen to get it.
    """
    path = tmp_path / "script.py"
    path.write_text(
        PRELUDE
        + f"""
ops.set_num_threads({n})
{DAEMONS[op]}
class Last:
    def __del__(self, work=work, expected=work(), write=os.write, clock=time.monotonic, until=0.12):
        start, same = clock(), True
        while clock() - start < until:  # longer than a kernel goes without asking for signals
            same = same and work() == expected
        write(1, b"same" if same else b"other")
sys.modules["last"] = Last()  # dropped while the interpreter finalises
begun = [threading.Event() for _ in range({n})]
def calls(event):
    while True:
        event.set()
        call()
for event in begun:
    threading.Thread(target=calls, args=(event,), daemon=True).start()
for event in begun:
    event.wait()
""",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    # In 8 of 525 runs of "reader" with two threads Python never finalised the object, so that nothing was written;
    # other objects were finalised. Not explained: perhaps a thread that is stopped for ever still refers to it.
    assert done.stdout in ("same", "")


@pytest.mark.parametrize("n", [0, -1])
def test_set_num_threads_refuses_none(n: int) -> None:
    before = get_num_threads()
    with pytest.raises(ValueError, match=f"n is {n}, expected at least 1"):
        set_num_threads(n)
    assert get_num_threads() == before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory as Linux tells it")
def test_large_blocks_are_cut_joined_and_given_back(tmp_path: Path) -> None:
    """What one large array leaves serves smaller ones, these leave it whole again, and no more than 512 MB wait."""
    code = """
def resident(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024

def filled(megabytes):
    array = ops.empty(megabytes << 18, np.float32)
    array.fill(1)
    return array

before = resident("VmRSS")
whole = filled(200)
del whole
parts = [filled(n) for n in (40, 10, 60, 20, 5, 30, 25)]
again = resident("VmHWM")
del parts
whole = filled(200)
joined = resident("VmHWM")
del whole
many = [filled(200) for _ in range(5)]
del many
print(json.dumps([again - before, joined - before, resident("VmHWM") - before, resident("VmRSS") - before]))
"""
    [[cut, joined, most, left]] = script(tmp_path, code)
    assert 180 < cut < 215 and joined < 215
    assert most > 950 and left < 620
