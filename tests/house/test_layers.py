"""The layering of CONTRIBUTING.md: Python modules import from their left only, C++ files include from below only."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "dhyan"
CPP = ROOT / "cpp"
KERNELS = CPP / "src" / "kernels"


@cache
def python_order() -> list[str]:
    """The modules of the ```layers block of CONTRIBUTING.md, left to right and line after line."""
    block = re.search(r"```layers\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block[1].split()


def imports(path: Path) -> set[str]:
    """Modules of this package that a file imports anywhere, inside functions included; "corpus.words" counts as is."""
    inside = path.relative_to(PACKAGE).parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix("dhyan.") for a in node.names if a.name.startswith("dhyan.")}
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".") if node.module else []
            if node.level:
                parts = [*inside[: len(inside) - node.level + 1], *parts]
            elif parts[0] == "dhyan":
                parts = parts[1:]
            else:
                continue
            name = ".".join(parts)
            found |= {name} if is_module(name) else {f"{name}.{a.name}".lstrip(".") for a in node.names}
            # `from .package import module` reads a module too
            found |= {f"{name}.{a.name}" for a in node.names if name and is_module(f"{name}.{a.name}")}
    return found


def is_module(name: str) -> bool:
    where = PACKAGE.joinpath(*name.split(".")) if name else PACKAGE
    return bool(name) and (name == "_core" or where.is_dir() or where.with_suffix(".py").exists())


def unit(module: str) -> str:
    """What the layers block calls a module: its folder, or its own name beside them."""
    return module.split(".")[0]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FACES = {"__main__", "torch"}  # for whom the house is built: they may import anything
MODULES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


def test_the_order_lists_every_folder_once() -> None:
    assert sorted(python_order()) == sorted({unit(module_of(p)) for p in MODULES} - FACES)


def test_at_most_ten_files_stand_beside_the_folders() -> None:
    assert len([p for p in PACKAGE.iterdir() if p.is_file() and p.suffix in {".py", ".pyi", ".typed"}]) <= 10


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_to_the_left(path: Path) -> None:
    place = {name: i for i, name in enumerate(python_order())}
    here = unit(module_of(path))
    if here in FACES:
        return
    others = {unit(name) for name in imports(path)} - {here, "_core"}
    wrong = {name for name in others if place.get(name, len(place)) > place[here]}
    assert not wrong, f"{here} imports {sorted(wrong)}, which CONTRIBUTING.md lists to its right or not at all"


def test_only_the_ops_import_the_core() -> None:
    assert {unit(module_of(p)) for p in MODULES if "_core" in imports(p)} == {"ops"}


@cache
def own_names(path: Path) -> set[str]:
    """Names that a file defines or assigns, attributes among them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return own | {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_private_name_crosses_a_file(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    private = {name for name in used if name.startswith("_") and not name.startswith("__")} - own_names(path)
    assert not private & set().union(*map(own_names, MODULES)), path


def test_the_package_imports_nothing_of_itself_before_it_is_asked() -> None:
    """`import dhyan` is lazy: at the top level only the standard library, and names for type checkers."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        assert not (isinstance(node, ast.ImportFrom) and node.level), ast.unparse(node)


@pytest.mark.parametrize("package", [p.parent for p in PACKAGE.rglob("*/__init__.py")], ids=lambda p: p.name)
def test_a_sub_package_has_no_cycle(package: Path) -> None:
    prefix = f"{package.name}."
    graph = {
        path.stem: {name.removeprefix(prefix) for name in imports(path) if name.startswith(prefix)} - {path.stem}
        for path in package.glob("*.py")
    }
    tuple(TopologicalSorter(graph).static_order())  # CycleError names the cycle


# C++: folder by folder, what may be included with quotes. Kernels know nothing of threads, containers or Python.

# Left to right; "cuda" stands beside "kernels": the device's own.
FOLDERS = ["kernels", "runtime", "dense", "attention", "recurrent", "decoder"]
TABLES = {"kernels/attention_table.h", "kernels/dense_table.h"}
SOURCES = sorted(p for p in CPP.rglob("*") if p.suffix in {".h", ".cpp"} and "cuda" not in p.relative_to(CPP).parts)


def includes(path: Path, brackets: str = '""') -> list[str]:
    opening, closing = brackets
    return re.findall(rf"^\s*#\s*include\s*{opening}([^{closing}]+){closing}", path.read_text(), re.MULTILINE)


def allowed(path: Path) -> re.Pattern[str]:
    public, table = r"dhyan/\w+\.h", "|".join(re.escape(t) for t in sorted(TABLES))
    where = path.relative_to(CPP)
    if KERNELS in path.parents:
        return re.compile(r"kernels/\w+\.h|dhyan/term\.h")  # the one public header without containers
    if where.parts[0] == "include":
        return re.compile(public)
    if where.parts[0] == "bindings":
        return re.compile(rf"{public}|\w+\.h|runtime/(threads|isa|memory)\.h|attention/inputs\.h")
    folders = FOLDERS[1 : FOLDERS.index(where.parts[1]) + 1]
    device = "|cuda/backend\\.h" if where.parts[1] == "attention" else ""
    return re.compile(rf"{public}|{table}|({'|'.join(folders)})/\w+\.h{device}")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(CPP)))
def test_includes_run_downwards(path: Path) -> None:
    wrong = [name for name in includes(path) if not allowed(path).fullmatch(name)]
    assert not wrong, f"{path.relative_to(ROOT)} includes {wrong}, which is not below it"


def test_headers_have_no_cycle() -> None:
    graph = {}
    for path in SOURCES:
        name = str(path.relative_to(CPP)).removeprefix("include/").removeprefix("src/").removeprefix("bindings/")
        graph[name] = set(includes(path)) - {name}
    tuple(TopologicalSorter(graph).static_order())


def test_kernels_use_no_threads_containers_or_exceptions() -> None:
    banned = {"vector", "string", "map", "memory", "stdexcept", "exception", "iostream", "thread", "mutex", "omp.h"}
    for path in KERNELS.iterdir():
        assert not banned & set(includes(path, "<>")), path.name
        text = re.sub(r"//.*", "", path.read_text())
        assert not re.search(r"\bthrow\b|\bnew\b|\bmalloc\b|#\s*pragma\s+omp\s+parallel", text), path.name


def test_one_door_to_threads_and_one_to_arrays() -> None:
    libraries = {"thread", "omp.h", "pthread.h", "future", "condition_variable"}
    assert {p.name for p in SOURCES if libraries & set(includes(p, "<>"))} == {
        "threads.cpp", "team_pool.cpp", "team_openmp.cpp",
    }  # fmt: skip
    teams = [p.name for p in SOURCES if re.search(r"pragma\s+omp\s+(parallel|task|for)", p.read_text())]
    assert teams == ["team_openmp.cpp"]
    python = {p for p in SOURCES if any(i.startswith("pybind11/") or i == "Python.h" for i in includes(p, "<>"))}
    assert {p.parent.name for p in python} == {"bindings"}
    assert {p.name for p in python if "pybind11/numpy.h" in includes(p, "<>")} == {"arrays.h"}


def test_every_kernel_header_keeps_its_names_to_itself() -> None:
    """Internal linkage, or the linker merges one instruction set's copy of a function into another's."""
    for path in KERNELS.glob("*.h"):
        if f"kernels/{path.name}" not in TABLES:
            assert re.search(r"^namespace \{$", path.read_text(), re.MULTILINE), path.name


def test_lines_of_cpp_are_within_120_columns() -> None:
    """As .clang-format says; `clang-format -i --lines=N:N FILE` breaks line N."""
    files = [p for p in CPP.rglob("*") if p.suffix in {".h", ".cpp", ".cu", ".cuh"}]
    lines = ((p, n, line) for p in files for n, line in enumerate(p.read_text(encoding="utf-8").split("\n"), 1))
    assert not [f"{p.relative_to(ROOT)}:{n}" for p, n, line in lines if len(line) > 120]
