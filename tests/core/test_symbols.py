"""What the linker may merge and what the extension shows.

An inline function compiled for AVX-512 and for the baseline is one symbol to the linker: it keeps either copy, and the
baseline path then dies of an illegal instruction on an older machine. So kernel units must have no such symbol.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("attention_table", "dense_table")
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
NM = shutil.which("nm")

pytestmark = pytest.mark.skipif(NM is None, reason="nm of the binutils is not on this machine")


def symbols(path: Path, *options: str) -> list[tuple[str, str]]:
    """(kind, name) of every defined symbol; kinds as in nm(1): upper case is global, u v w are merged by the linker."""
    out = subprocess.run([str(NM), "-P", "--defined-only", *options, path], capture_output=True, text=True, check=True)
    return [(line.split()[1], line.split()[0]) for line in out.stdout.splitlines() if line]


def variants() -> dict[str, list[str]]:
    levels = {"base": []}
    if platform.machine() in {"x86_64", "AMD64"}:
        levels |= {"v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4", "-mprefer-vector-width=512"]}
    return levels


# Compiling takes long; one source has the same functions in every variant, so these two show nearly all.
QUICK = [("attention_table", "base"), ("dense_table", list(variants())[-1])]


@cache
def cmake_flags() -> list[str]:
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.search(r"set\(DHYAN_KERNEL_FLAGS ([^)]*)\)", text)
    assert found is not None
    return found[1].split()


def vector_bytes(variant: str) -> str:
    text = (ROOT / "CMakeLists.txt").read_text()
    found = re.search(rf"set\(DHYAN_VECTOR_BYTES_{variant} (\d+)\)", text)
    assert found is not None
    return found[1]


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@pytest.mark.parametrize(
    ("unit", "variant"),
    [
        pytest.param(unit, variant, marks=[pytest.mark.slow] if (unit, variant) not in QUICK else [])
        for unit in UNITS
        for variant in variants()
    ],
)
def test_a_kernel_unit_shows_its_table_and_nothing_to_merge(unit: str, variant: str, tmp_path: Path) -> None:
    """At -O1 more functions stay out of line than in a release build: what is not merged here is not merged there."""
    flags = [f for f in cmake_flags() if not f.startswith("-O")]
    command = [str(COMPILER), "-std=c++17", "-O1", "-fPIC", *flags, *variants()[variant]]
    command += [f"-DDHYAN_VARIANT={variant}", f"-DDHYAN_VECTOR_BYTES={vector_bytes(variant)}", "-Wno-psabi"]
    command += [f"-I{ROOT}/cpp/include", f"-I{ROOT}/cpp/src", "-c", f"{ROOT}/cpp/src/kernels/{unit}.cpp"]
    compiled = tmp_path / f"{unit}.o"
    subprocess.run([*command, "-o", str(compiled)], check=True)
    shown = [(kind, name) for kind, name in symbols(compiled) if kind.isupper() or kind in "uvw"]
    assert len(shown) == 1 and shown[0][0] == "T", shown
    assert f"{unit}_{variant}" in shown[0][1]


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler on this machine")
@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="bfloat16 products are for x86-64")
def test_the_unit_of_bfloat16_products_shows_its_table_alone(tmp_path: Path) -> None:
    flags = [f for f in cmake_flags() if not f.startswith("-O")]
    command = [str(COMPILER), "-std=c++17", "-O1", "-fPIC", *flags, *variants()["v4"], "-mavx512bf16", "-Wno-psabi"]
    command += ["-DDHYAN_VECTOR_BYTES=64", f"-I{ROOT}/cpp/include", f"-I{ROOT}/cpp/src", "-c"]
    compiled = tmp_path / "bf16.o"
    subprocess.run([*command, f"{ROOT}/cpp/src/kernels/bf16_table.cpp", "-o", str(compiled)], check=True)
    shown = [name for kind, name in symbols(compiled) if kind.isupper() or kind in "uvw"]
    assert len(shown) == 1 and "bf16_table_v4" in shown[0], shown


def test_the_extension_exports_its_entry_only() -> None:
    spec = importlib.util.find_spec("dhyan._core")
    assert spec is not None and spec.origin is not None
    shown = [name for kind, name in symbols(Path(spec.origin), "-D") if kind != "A"]
    assert shown == ["PyInit__core"]
