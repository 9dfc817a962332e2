"""exp and tanh as the kernels compute them: a strided sweep of all floats; the slow tests visit every one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from dhyan import ops
from helpers.cuda_emulator import COMPILER, ROOT
from spec.ulp import EXP_GATE, TANH_GATE, finite_floats, ulp_error

PARTS = 16  # of the bit patterns


@pytest.fixture(scope="module")
def floats() -> np.ndarray:
    return finite_floats(0, 2**32, 4099)


def check_exp(x: np.ndarray) -> None:
    with np.errstate(over="ignore", under="ignore"):
        exact = np.exp(x.astype(np.float64))
    y = ops.exp_array(x)
    infinite = exact >= 2.0**128 * (1 - 2.0**-25)
    assert np.isinf(y[infinite]).all()
    assert ulp_error(y[~infinite], exact[~infinite]).max(initial=0) <= EXP_GATE


def check_tanh(x: np.ndarray) -> None:
    y = ops.tanh_array(x)
    assert ulp_error(y, np.tanh(x.astype(np.float64))).max() <= TANH_GATE
    np.testing.assert_array_equal(ops.tanh_array(-x).view(np.uint32), (-y).view(np.uint32))
    assert np.abs(y).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_every_float(isa: str, part: int) -> None:
    """All four billion, once a release: eight minutes an instruction set on one core."""
    size = 1 << 24
    for first in range(part * 2**32 // PARTS, (part + 1) * 2**32 // PARTS, size):
        x = finite_floats(first, first + size, 1)
        if x.size:
            check_exp(x)
            check_tanh(x)


def test_exp_is_within_one_ulp_of_every_float(isa: str, floats: np.ndarray) -> None:
    check_exp(floats)


def test_no_operation_is_undefined(tmp_path: Path) -> None:
    """The scalar functions, compiled so that undefined behaviour ends the program."""
    source = tmp_path / "elementary.cpp"
    source.write_text(
        """
#include <cstring>
#include "kernels/elementary.h"
template <class T, class Word>
T all(int step) {
  T sum = 0;
  for (int i = 0; i < 1 << 16; i += step) {  // the upper half of the bits: every sign and exponent, NaN and infinity
    const Word bits = Word(i) << (8 * sizeof(T) - 16);
    T x;
    std::memcpy(&x, &bits, sizeof x);
    sum += dhyan::vexp<T>(x) + dhyan::vtanh<T>(x) + dhyan::vsigmoid<T>(x) + dhyan::vexp_normal<T>(x);
  }
  return sum;
}
int main(int count, char**) {
  volatile double sum = all<float, std::uint32_t>(count) + all<double, std::uint64_t>(count);
  return sum == 1;
}
""",
        encoding="utf-8",
    )
    program = tmp_path / "elementary"
    checked = ["-fsanitize=undefined,float-cast-overflow", "-fsanitize-undefined-trap-on-error"]
    include = ROOT / "cpp" / "src"
    subprocess.run([str(COMPILER), "-std=c++17", "-O1", *checked, f"-I{include}", source, "-o", program], check=True)
    subprocess.run([program], check=True)


def test_exp_reaches_down_to_the_smallest_subnormal(isa: str) -> None:
    x = np.linspace(-104, -87, 200_001, dtype=np.float32)
    exact = np.exp(x.astype(np.float64))
    y = ops.exp_array(x)
    assert ulp_error(y, exact).max() <= EXP_GATE
    assert (y[exact > 2.0**-149] > 0).all()


def test_exp_of_special_values(isa: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 3e38, -3e38, 88.72283, 88.72284], np.float32)
    np.testing.assert_array_equal(
        ops.exp_array(x)[[0, 1, 2, 3, 4, 5, 6, 8]], [np.inf, 0, np.nan, 1, 1, np.inf, 0, np.inf]
    )
    assert np.isfinite(ops.exp_array(x)[7])
    d = np.array([np.inf, -np.inf, np.nan, 0.0, 709.78, 709.79, -745.13, -745.14])
    y = ops.exp_array(d)
    np.testing.assert_array_equal(y[[0, 1, 2, 3, 5, 7]], [np.inf, 0, np.nan, 1, np.inf, 0])
    assert np.isfinite(y[4]) and y[6] == 5e-324


def test_tanh_is_within_its_gate_odd_and_never_above_one(isa: str, floats: np.ndarray) -> None:
    check_tanh(floats)
    assert np.abs(ops.tanh_array(floats)).max() == 1


def test_tanh_of_special_values(isa: str) -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-45, -3e38])
    for dtype in (np.float32, np.float64):
        y = ops.tanh_array(x.astype(dtype))
        np.testing.assert_array_equal(y, np.array([1, -1, np.nan, 0, -0.0, 1e-45, -1]).astype(dtype))
        assert np.signbit(y[4]) and not np.signbit(y[3])


@pytest.mark.parametrize(("name", "gate"), [("exp", EXP_GATE), ("tanh", TANH_GATE)])
def test_float64_keeps_the_same_gates(isa: str, name: str, gate: float) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-740, 709, 50_000), rng.normal(0, 1, 50_000), rng.normal(0, 1e-3, 20_000)])
    exact = getattr(np, name)(x.astype(np.longdouble))
    unit = np.exp2(np.floor(np.log2(np.maximum(np.abs(exact), np.longdouble(2) ** -1022))) - 52)
    error = np.abs(getattr(ops, f"{name}_array")(x) - exact) / unit
    assert error.max() <= gate


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_element_has_the_same_bits_wherever_it_stands(isa: str, dtype: type) -> None:
    x = np.random.default_rng(1).normal(0, 5, 77).astype(dtype)
    for f in (ops.exp_array, ops.tanh_array):
        alone = np.concatenate([f(x[i : i + 1]) for i in range(x.size)])
        np.testing.assert_array_equal(f(x), alone)
        np.testing.assert_array_equal(f(x[3:]), alone[3:])
