"""JSON that every reader takes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from dhyan.strict_json import dumps


def test_what_is_not_finite_is_null() -> None:
    value = {"a": math.inf, "b": [1.5, -math.inf, {"c": (math.nan, "ह\n", None, True)}], "d": np.float64("inf"), "e": 3}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = dumps(value)
    assert "\n" not in line and "ह" in line
    assert json.loads(line, parse_constant=refuse) == {
        "a": None, "b": [1.5, None, {"c": [None, "ह\n", None, True]}], "d": None, "e": 3,
    }  # fmt: skip


@pytest.mark.parametrize("value", [0.1, 1e300, 5e-324, "x", [], {}, None, False])
def test_the_rest_is_as_it_was(value: object) -> None:
    assert json.loads(dumps(value)) == value
