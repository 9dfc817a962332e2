"""Every float32 through the kernels' exp and tanh, on every instruction set: ``python bench/exhaustive.py [STEP]``.

Takes about eight minutes an instruction set on one core; STEP > 1 visits every STEP-th bit pattern. Exit status 1
when a gate of the accuracy table is missed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from dhyan import _core, ops

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from spec.ulp import EXP_GATE, TANH_GATE, finite_floats, ulp_error


def sweep(step: int) -> tuple[float, float]:
    """Largest errors of exp and tanh in ULP."""
    worst_exp = worst_tanh = 0.0
    chunk = (1 << 24) * step
    for first in range(0, 2**32, chunk):
        x = finite_floats(first, min(first + chunk, 2**32), step)
        if not x.size:
            continue
        exact = np.exp(x.astype(np.float64))
        y = ops.exp_array(x)
        infinite = exact >= 2.0**128 * (1 - 2.0**-25)
        if not np.isinf(y[infinite]).all():
            return np.inf, np.inf
        worst_exp = max(worst_exp, ulp_error(y[~infinite], exact[~infinite]).max(initial=0))
        t = ops.tanh_array(x)
        odd = np.array_equal(ops.tanh_array(-x).view(np.uint32), (-t).view(np.uint32))
        if not odd or np.abs(t).max() > 1:
            return worst_exp, np.inf
        worst_tanh = max(worst_tanh, ulp_error(t, np.tanh(x.astype(np.float64))).max(initial=0))
    return worst_exp, worst_tanh


def main() -> int:
    step = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    failed = False
    with np.errstate(all="ignore"):
        for isa in ops.show_config()["isas"]:
            _core.set_isa(isa)
            exp, tanh = sweep(step)
            failed |= exp > EXP_GATE or tanh > TANH_GATE
            print(f"{isa:12s} exp {exp:.4f} ULP (gate {EXP_GATE})  tanh {tanh:.4f} ULP (gate {TANH_GATE})", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
