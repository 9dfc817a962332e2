"""Checks of arrays: one wording each, and what they let through."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dhyan.checks import check_dtype, check_ids, check_lengths, check_mask, check_shape

LENGTHS, IDS = np.array([2, 0, 3]), np.array([[0, 4], [3, 1]])


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (TypeError, "op: x has type int64, expected a float32 array", lambda: check_dtype("op", "x", IDS, np.float32)),
        (TypeError, "op: x has type list, expected an int64 array", lambda: check_dtype("op", "x", [1], "int64")),
        (ValueError, "op: x has shape (2, 2), expected (2, 3)", lambda: check_shape("op", "x", IDS, (2, 3))),
        (TypeError, "op: lengths has type list, expected an int64 array", lambda: check_lengths("op", [1], 1, 3)),
        (ValueError, "op: lengths has shape (3,), expected (B=2,)", lambda: check_lengths("op", LENGTHS, 2, 3)),
        (ValueError, "op: lengths[2] is 3, expected 0 to S=2", lambda: check_lengths("op", LENGTHS, 3, 2)),
        (ValueError, "op: lengths[1] is -1, expected 0 to S=2", lambda: check_lengths("op", np.array([1, -1]), 2, 2)),
        (IndexError, "op: y[0, 1] is 4, expected 0 <= id < 4", lambda: check_ids("op", "y", IDS, 4)),
        (IndexError, "op: y[1, 0] is -3, expected 0 <= id", lambda: check_ids("op", "y", IDS * [[1], [-1]])),
        (TypeError, "op: mask has type int64, expected a bool array", lambda: check_mask("op", IDS, (1, 2, 2))),
        (
            ValueError, "op: mask has shape (2, 2), expected one that broadcasts to (B, T, S) = (1, 2, 3)",
            lambda: check_mask("op", IDS > 0, (1, 2, 3)),
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(error: type[Exception], message: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        call()


def test_what_fits_passes() -> None:
    check_dtype("op", "x", IDS, np.int64)
    check_shape("op", "x", IDS, (2, 2))
    check_lengths("op", LENGTHS, 3, 3)
    check_lengths("op", LENGTHS[:0], 0, 3)
    check_ids("op", "y", IDS, 5)
    check_ids("op", "y", IDS)
    for shape in ((2, 2), (1, 1, 1), (3, 1, 2), ()):
        check_mask("op", np.ones(shape, bool), (3, 2, 2))
