"""The package as a guest in somebody's process: what importing it does (nothing), what it says about itself."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import dhyan
import numpy as np
import pytest
from dhyan import _core
from dhyan.attention.scoring import registry

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The code in a fresh interpreter with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=60,
    )


def result(code: str, **env: str) -> object:
    done = run(code, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_version_is_that_of_pyproject() -> None:
    assert dhyan.__version__ == PROJECT["version"]
    assert dhyan.show_config()["version"] == PROJECT["version"]


def test_show_config_has_these_keys() -> None:
    config = dhyan.show_config()
    assert list(config) == ["version", "isa", "isas", "threads", "openmp", "threading", "cuda", "cuda_devices"]
    assert config["isa"] in config["isas"]
    assert config["isas"][0] == "base"
    assert config["threads"] == dhyan.get_num_threads() >= 1
    assert config["threading"] in ("pool", "openmp", "none")
    assert config["openmp"] is (config["threading"] != "none")
    assert config["cuda"] is not None or config["cuda_devices"] == 0  # devices are counted by a CUDA build only


@pytest.mark.skipif(not _core.show_config()["openmp"], reason="this build has no threads")
def test_the_number_of_threads_comes_from_the_environment_or_the_machine() -> None:
    code = "import json, dhyan; print(json.dumps(dhyan.get_num_threads()))"
    assert result(code, OMP_NUM_THREADS="3") == 3
    assert result(code, OMP_NUM_THREADS="") == len(os.sched_getaffinity(0))


def test_every_public_name_is_there() -> None:
    for name in dhyan.__all__:
        assert getattr(dhyan, name) is not None
    assert set(dhyan.__all__) <= set(dir(dhyan))
    with pytest.raises(AttributeError, match="no attribute 'atend'"):
        dhyan.atend  # noqa: B018


def test_type_checkers_see_every_public_name() -> None:
    """The names under TYPE_CHECKING are those that __getattr__ serves."""
    tree = ast.parse(Path(str(dhyan.__file__)).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    names = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert names == set(dhyan.__all__)
    assert (Path(str(dhyan.__file__)).parent / "py.typed").exists()


def test_the_stubs_name_the_arguments_of_the_core() -> None:
    """stubtest compares names and classes; what a binding calls its arguments stands in its docstring only."""
    tree = ast.parse((ROOT / "python" / "dhyan" / "_core.pyi").read_text(encoding="utf-8"))
    stubs: dict[str, list[str]] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            stubs[node.name] = [a.arg for a in node.args.args]
        elif isinstance(node, ast.ClassDef):
            for method in node.body:
                documented = isinstance(method, ast.FunctionDef) and not method.decorator_list
                if documented and method.args.vararg is None:
                    arguments = [*method.args.args, *method.args.kwonlyargs]
                    stubs[f"{node.name}.{method.name}"] = [a.arg for a in arguments]
    for name, named in stubs.items():
        target: object = _core
        for part in name.split("."):
            target = getattr(target, part)
        first_line = str(target.__doc__).splitlines()[0]
        signature = re.fullmatch(rf"{name.split('.')[-1]}\((.*)\) -> .*", first_line)
        assert signature is not None, first_line
        assert re.findall(r"(?:^|, )(\w+): ", signature[1]) == named, name


def test_the_scoring_of_contributing_works_as_printed() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    before = dict(registry)
    try:
        exec(example, {"__name__": "damped"})
        assert "damped" in dhyan.scorings()
        config = dhyan.ModelConfig(source_size=9, target_size=8, embedding=4, hidden=6, attention="damped", dropout=0.0)
        model = dhyan.Seq2Seq(config, seed=0)
        source, target = np.full((2, 5), 4), np.array([[1, 4, 5, 2], [1, 4, 2, 0]])
        loss, cache = model.forward(dhyan.Batch(source, np.array([5, 3]), target, np.array([4, 3])))
        gradients = model.backward(cache)
        assert np.isfinite(loss) and set(gradients) == set(model.parameters())
    finally:
        registry.clear()
        registry.update(before)


# Importing changes nothing

STATE = """
import gc, json, locale, os, random, signal, sys, threading, warnings
def state():
    return {
        "locale": locale.setlocale(locale.LC_ALL),
        "signals": [repr(signal.getsignal(s)) for s in signal.valid_signals()],
        "filters": repr(warnings.filters),
        "environment": dict(os.environ),
        "threads": threading.active_count(),
        "random": random.getstate(),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "hooks": [repr(h) for h in (sys.excepthook, sys.displayhook, sys.unraisablehook)],
        "encoding": [sys.stdout.encoding, sys.stdout.errors, sys.stderr.encoding],
        "gc": [gc.isenabled(), gc.get_threshold()],
        "folder": os.getcwd(),
    }
"""
FLOATS = """
import ctypes, numpy as np
libm = ctypes.CDLL(None)
def floats():
    tiny, one = np.float32(1e-40), np.float32(1)
    return [libm.fegetround(), np.geterr(), float(tiny * one), float(np.float32(1e-38) * np.float32(0.01))]
"""


def test_importing_changes_nothing() -> None:
    bridges = {"__main__", "torch"}  # what PyTorch changes is not ours to answer for either
    package = Path(str(dhyan.__file__)).parent
    files = [p.relative_to(package) for p in package.rglob("*.py") if p.stem not in bridges | {"__init__"}]
    modules = [".".join(("dhyan", *file.with_suffix("").parts)) for file in files]
    extras = "import numpy, safetensors.numpy, rich.console"  # what these change is not ours to answer for
    code = f"""{extras}\n{STATE}{FLOATS}
before, floats_before = state(), floats()
import importlib
for name in {modules!r}:
    importlib.import_module(name)
after, floats_after = state(), floats()
print(json.dumps([k for k in before if before[k] != after[k]] + [floats_before != floats_after]))
"""
    assert result(code) == [False]


def test_kernels_leave_the_floating_point_mode_alone() -> None:
    code = f"""import json\n{FLOATS}
before = floats()
from dhyan import ops
x = np.full((64, 64), 1e-30, np.float32)
ops.linear_forward(x, x)
ops.set_num_threads(2)
ops.linear_forward(np.ones((600, 600), np.float32), np.ones((600, 600), np.float32))
print(json.dumps(before == floats()))
"""
    assert result(code) is True


def test_the_library_opens_no_door_to_the_network_and_loads_nothing_heavy() -> None:
    """All public names at once, beside NumPy, which is the only large thing a model needs."""
    code = """
import json, sys, numpy
before = set(sys.modules)
import dhyan
for name in dhyan.__all__:
    getattr(dhyan, name)
print(json.dumps(sorted({name.split(".")[0] for name in set(sys.modules) - before} | {"dhyan"})))
"""
    loaded = set(result(code))  # type: ignore[call-overload]
    network = {"socket", "ssl", "http", "urllib3", "requests", "asyncio", "ftplib", "smtplib", "xmlrpc"}
    heavy = {"torch", "jax", "matplotlib", "scipy", "pandas", "rich", "sacrebleu", "sentencepiece", "rapidfuzz"}
    assert not loaded & (network | heavy)


def test_importing_the_package_alone_loads_nothing_of_it() -> None:
    code = "import sys, json, dhyan; print(json.dumps([m for m in sys.modules if m.startswith(('dhyan.', 'numpy'))]))"
    assert result(code) == []


@pytest.mark.parametrize("command", [["-m", "dhyan", "--version"], ["-m", "dhyan", "--help"]])
def test_asking_for_the_version_does_not_wait_for_numpy(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {line.rsplit("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "dhyan" in loaded
    assert not loaded & {"numpy", "dhyan._core", "rich", "matplotlib"}
    assert done.stdout.strip()
    if command[-1] == "--version":
        assert done.stdout.split()[-1] == PROJECT["version"]


def test_the_command_is_installed() -> None:
    assert PROJECT["scripts"] == {"dhyan": "dhyan.cli:main"}
    done = subprocess.run([sys.executable, "-m", "dhyan", "info"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert PROJECT["version"] in done.stdout


# Instruction sets

PRODUCT = """
import json, numpy as np, dhyan
from dhyan import ops
x = np.random.default_rng(0).standard_normal((7, 40))
y = ops.linear_forward(x, x.T.copy())
print(json.dumps([dhyan.show_config()["isa"], bool(np.allclose(y, x @ x.T, rtol=1e-12, atol=1e-12))]))
"""


@pytest.mark.parametrize("isa", _core.show_config()["isas"])
def test_dhyan_isa_forces_an_instruction_set(isa: str) -> None:
    assert result(PRODUCT, DHYAN_ISA=isa) == [isa, True]


def test_without_dhyan_isa_the_last_one_runs() -> None:
    assert result(PRODUCT, DHYAN_ISA="") == [_core.show_config()["isas"][-1], True]


def test_an_unknown_isa_is_an_error_on_first_use() -> None:
    code = """
import numpy as np, dhyan
from dhyan import ops
print("imported")
for use in (lambda: ops.linear_forward(np.ones((2, 3)), np.ones((3, 2))), dhyan.show_config):
    try:
        use()
    except ValueError as error:
        print(error)
"""
    done = run(code, DHYAN_ISA="avx9000")
    assert done.returncode == 0, done.stderr
    expected = f"DHYAN_ISA is 'avx9000', this CPU and build have: {', '.join(_core.show_config()['isas'])}"
    assert done.stdout.splitlines() == ["imported", expected, expected]
