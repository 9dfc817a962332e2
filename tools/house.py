"""The house in figures: modules, floors, imports between modules, imports of private names; of a revision or the files.

    python tools/house.py                    the working tree
    python tools/house.py main HEAD          revisions of Git, a column each, to see before and after

A module's floor is the longest way down from it by imports, those inside functions included; modules that import each
other stand on one floor and are counted as a circle. The second half of the table counts every folder as one.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "python/dhyan"
Sources = dict[str, str]  # dotted name inside the package -> its text
Arrows = dict[str, set[str]]


def sources(revision: str | None) -> Sources:
    """All modules of the package; of the working tree for None."""
    if revision is None:
        paths = ROOT.glob(f"{PACKAGE}/**/*.py")
        files = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}
    else:
        command = ["git", "-C", str(ROOT), "archive", revision, PACKAGE]
        packed = subprocess.run(command, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            members = [member for member in archive.getmembers() if member.name.endswith(".py")]
            files = {m.name: text.read().decode() for m in members if (text := archive.extractfile(m)) is not None}
    return {name_of(path): text for path, text in sorted(files.items())}


def name_of(path: str) -> str:
    """text.batch for python/dhyan/text/batch.py; text for its __init__.py; "" for the package itself."""
    parts = PurePosixPath(path).relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(module: str, is_folder: bool, text: str) -> Iterable[tuple[str, str]]:
    """(module, name) of every import from this package; name is "" where a module alone is imported."""
    inside = module.split(".") if module else []
    inside = inside if is_folder else inside[:-1]
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "dhyan":
                    yield alias.name.partition(".")[2], ""
        elif isinstance(node, ast.ImportFrom):
            parts = node.module.split(".") if node.module else []
            if node.level:
                parts = [*inside[: len(inside) - node.level + 1], *parts]
            elif parts[0] == "dhyan":
                parts = parts[1:]
            else:
                continue
            for alias in node.names:
                yield ".".join(parts), alias.name


def arrows(found: Sources) -> tuple[Arrows, int]:
    """What each module imports, and how many private names it takes from others."""
    folders = {name.rpartition(".")[0] for name in found} | {""}
    graph: Arrows = {name: set() for name in found}
    private = 0
    for module, text in found.items():
        for where, name in imported(module, module in folders, text):
            inner = f"{where}.{name}".strip(".")
            target = inner if inner in found else where
            private += name.startswith("_") and not name.startswith("__") and name != "_core"
            if target in found and target != module and target:
                graph[module].add(target)
    return graph, private


def folded(graph: Arrows) -> Arrows:
    """The same with every folder as one."""
    top: Arrows = {}
    for module, targets in graph.items():
        place = module.split(".")[0]
        top.setdefault(place, set()).update(t.split(".")[0] for t in targets if t.split(".")[0] != place)
    return top


def circles(graph: Arrows) -> list[set[str]]:
    """Groups of modules that reach each other, largest first."""
    below = {module: reached(graph, module) for module in graph}
    groups: list[set[str]] = []
    for module in graph:
        group = {other for other in below[module] if module in below[other]} | {module}
        if len(group) > 1 and group not in groups:
            groups.append(group)
    return sorted(groups, key=len, reverse=True)


def reached(graph: Arrows, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def floors(graph: Arrows) -> int:
    """The longest way down, in modules; a circle is one."""
    group_of = {module: min(group) for group in circles(graph) for module in group}
    joined: Arrows = {}
    for module, targets in graph.items():
        own = group_of.get(module, module)
        joined.setdefault(own, set()).update(g for t in targets if (g := group_of.get(t, t)) != own)
    depth: dict[str, int] = {}

    def of(module: str) -> int:
        if module not in depth:
            depth[module] = 1 + max(map(of, joined[module]), default=0)
        return depth[module]

    return max(map(of, joined), default=0)


def figures(revision: str | None) -> dict[str, int]:
    found = sources(revision)
    graph, private = arrows(found)
    top = folded({module: targets for module, targets in graph.items() if module})
    return {
        "lines": sum(text.count("\n") for text in found.values()),
        "modules": len(found),
        "floors": floors(graph),
        "imports": sum(map(len, graph.values())),
        "circles": len(circles(graph)),
        "private names imported": private,
        "folders and modules beside them": len(top),
        "their floors": floors(top),
        "their imports": sum(map(len, top.values())),
        "their circles": len(circles(top)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revisions", nargs="*", help="of Git; the working tree where none is named")
    revisions = parser.parse_args().revisions
    columns = {name: figures(name) for name in revisions} if revisions else {"working tree": figures(None)}
    print(f"| {PACKAGE} | " + " | ".join(columns) + " |\n|---|" + "--:|" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(str(column[row]) for column in columns.values()) + " |")


if __name__ == "__main__":
    main()
