"""Registers and spills of the CUDA kernels, from a build's log (ptxas -v); an error where a hot one spills.

    python tools/cuda_resources.py BUILD.log

Hot is every kernel of float32, float16 and bfloat16; float64 is there for checks and may spill.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Kernel:
    name: str
    architecture: str
    stack: int
    spills: int
    registers: int

    @property
    def hot(self) -> bool:
        """double, or a `d` as the first template argument where nothing makes names readable."""
        return "<double" not in self.name and not re.search(r"_(?:kernel|tile|few|gradient|parts)Id", self.name)


PATTERN = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<architecture>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def readable(names: list[str]) -> list[str]:
    """The names as C++ has them, where the binutils are there to say so."""
    tool = shutil.which("c++filt")
    if tool is None:
        return names
    text = subprocess.run([tool], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return [re.sub(r"\(anonymous namespace\)::|dhyan::cuda::|^void ", "", line) for line in text.splitlines()]


def kernels(log: str) -> list[Kernel]:
    found = [m.groupdict() for m in PATTERN.finditer(log)]
    names = readable([m["name"] for m in found])
    return [
        Kernel(name, m["architecture"], int(m["stack"]), int(m["stores"]) + int(m["loads"]), int(m["registers"]))
        for name, m in zip(names, found, strict=True)
    ]


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    all_kernels = kernels(Path(sys.argv[1]).read_text(errors="replace"))
    if not all_kernels:
        print(f"cuda_resources: {sys.argv[1]} holds no report of ptxas, expected the log of a build", file=sys.stderr)
        return 1
    for k in sorted(all_kernels, key=lambda k: (-k.registers, k.name)):
        print(f"{k.architecture:<7}{k.registers:>4} registers {k.spills:>5} bytes spilled  {k.name.split('(')[0]}")
    bad = [k for k in all_kernels if k.hot and k.spills]
    for k in bad:
        print(f"cuda_resources: {k.name} spills {k.spills} bytes on {k.architecture}, expected none", file=sys.stderr)
    print(f"{len(all_kernels)} kernels, {len(bad)} of the hot ones spill")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
