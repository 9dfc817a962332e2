"""Where the bench lies. Importing this makes the tests' specification (tests/spec, tests/helpers) importable."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
RESULTS = BENCH / "results"

sys.path.append(str(ROOT / "tests"))


def importing(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment in which `python -m sides.worker` and `python -m gpu.check` find the bench's modules."""
    paths = [str(BENCH), environment.get("PYTHONPATH", "")]
    return {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
