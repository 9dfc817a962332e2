"""Plans: which combinations there are, what they add to a scoring, and who reads for them."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from dhyan import PredictiveWindow, Window, scorings
from dhyan.attention.normalizers import NORMALIZERS
from dhyan.attention.scoring import Sizes
from dhyan.attention.scorings import scoring
from dhyan.attention.setting import Setting

CONTENT = ["dot", "scaled_dot", "cosine", "general", "additive", "concat"]
RULES = ["none", "uniform", "oracle"]


def setting_of(name: str, sizes: dict[str, Any] | None = None, **options: Any) -> Setting:
    return Setting(name, Sizes(**dict(query=4, memory=8, units=6, max_source=9) | (sizes or {})), **options)


def test_every_combination_is_either_made_or_refused_with_a_reason() -> None:
    made = 0
    for name, heads, window, normalize, normalized in itertools.product(
        scorings(), (1, 2), (None, Window(1), PredictiveWindow(1)), NORMALIZERS, (False, True)
    ):
        predictive = isinstance(window, PredictiveWindow)
        wrong = (
            ((heads > 1 or predictive) and name not in CONTENT)
            or (normalized and name not in ("additive", "location_sensitive", "coverage"))
            or (window is not None and normalize == "monotonic")
            or (normalize != "softmax" and name in RULES)
        )
        sizes, options = dict(heads=heads, normalized=normalized), dict(window=window, normalize=normalize)
        if wrong:
            with pytest.raises(ValueError, match=f"^attention '{name}'.*expected ") as caught:
                setting_of(name, sizes, **options)
            assert "\n" not in str(caught.value)
            continue
        setting, made = setting_of(name, sizes, **options), made + 1
        feedback = {"location_sensitive": "last", "coverage": "sum"}.get(name, "")
        assert setting.scoring.feedback == feedback
        assert setting.needs_feedback == (feedback != "" or normalize == "monotonic")
        assert setting.step_by_step == (setting.needs_feedback or heads > 1 or predictive)
        more = {"window_query": (4, 6), "window_v": (6,)} if predictive else {}
        more |= {"threshold": (1,)} if normalize == "monotonic" else {}
        assert {n: shape for n, shape, _ in setting.parameters()} == scoring(name).shapes(setting.sizes) | more
    assert made > 100


@pytest.mark.parametrize("name, sizes, words", [
    ("dot", dict(query=5), "query of width 5 with a memory of width 8, expected 5 or 10"),
    ("additive", dict(units=5, heads=2), "heads is 2, expected a divisor of 5, the width of the query and keys"),
    ("additive", dict(memory=9, heads=2), "heads is 2, expected a divisor of 9, the width of the memory"),
    ("dot", dict(heads=3), "heads is 3, expected a divisor of 4"),
    ("location", dict(max_source=0), "max_source is 0"),
])  # fmt: skip
def test_widths_that_do_not_fit(name: str, sizes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        setting_of(name, sizes)


@pytest.mark.parametrize("temperature, error", [
    (0.0, ValueError), (-1.0, ValueError), (float("inf"), ValueError), (float("nan"), ValueError),
    (True, TypeError), ("1", TypeError), (None, TypeError),
])  # fmt: skip
def test_a_temperature_is_a_finite_number_above_zero(temperature: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="temperature"):
        setting_of("dot", temperature=temperature)


def test_unknown_names_list_the_nearest_first() -> None:
    with pytest.raises(ValueError, match=r"'coverag'.*: coverage"):
        setting_of("coverag")
    with pytest.raises(ValueError, match=r"'sparse'.*: sparsemax"):
        setting_of("dot", normalize="sparse")


def test_a_temperature_divides_the_scale() -> None:
    p = {"log_sharpness": np.array([np.log(3.0)])}
    for name, scale in (("dot", 1.0), ("scaled_dot", 0.5), ("cosine", 3.0)):
        assert setting_of(name, temperature=4.0).scorer(p).scale == pytest.approx(scale / 4)
    assert setting_of("scaled_dot", dict(heads=4)).scorer({}).scale == 1.0  # of the width of a head


def test_the_threshold_begins_below_zero() -> None:
    rng = np.random.default_rng(0)
    setting = setting_of("additive", normalize="monotonic")
    arrays = {}
    for name, shape, initial in setting.parameters():
        initial(arrays.setdefault(name, np.full(shape, np.nan)), rng)
    assert arrays["threshold"].tolist() == [-1.0]
    assert not arrays["bias"].any() and arrays["v"].any()
