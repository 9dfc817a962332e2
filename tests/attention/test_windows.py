"""Windows and restrictions: every row's positions counted by hand or by comparing all of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import PredictiveWindow, Window
from dhyan.attention.windows import Attendable, ranges, window_from, window_to


@pytest.mark.parametrize("kind, least", [(Window, 0), (PredictiveWindow, 1)])
def test_a_radius_is_an_integer(kind: Any, least: int) -> None:
    assert kind(least).radius == least and kind(3) == kind(3) != kind(4)
    with pytest.raises(ValueError, match=f"{kind.__name__}: radius is {least - 1}, expected at least {least}"):
        kind(least - 1)
    with pytest.raises(ValueError, match="nan"):
        kind(float("nan"))
    for wrong in (True, 1.0, "1", None):
        with pytest.raises(TypeError, match="radius"):
            kind(wrong)


def test_what_a_configuration_holds_becomes_a_window_and_back() -> None:
    for value, window in ((None, None), (2, Window(2)), ("predictive:3", PredictiveWindow(3))):
        assert window_from(value) == window and window_to(window) == value and window_from(window) is window
    assert window_from("4") == Window(4)
    for wrong in ("predictive", "predictive:", "predictive:-1", "predictive: 2", "monotonic:2", "two", "", "２"):
        with pytest.raises(ValueError, match=r"window is .*expected a radius or predictive:RADIUS"):
            window_from(wrong)
    with pytest.raises(ValueError, match="at least 1"):
        window_from("predictive:0")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("radius", [None, 0, 1, 3, 2**62])
@pytest.mark.parametrize("position", [0, 2, np.array([0, 5, 1, 9, 2**62])])
def test_ranges_are_their_definition(radius: int | None, causal: bool, position: Any) -> None:
    lengths, T, S = np.array([5, 0, 3, 1, 4]), 4, 6
    window = None if radius is None else Window(radius)
    begin, end = ranges(lengths, T, S, window=window, causal=causal, position=position)
    assert begin.dtype == end.dtype == np.int64 and begin.shape == end.shape == (5, T)
    assert (begin >= 0).all() and (begin <= end).all() and (end <= lengths[:, None]).all()
    for b, length in enumerate(lengths.tolist()):
        first = int(np.broadcast_to(position, 5)[b])
        for t in range(T):
            allowed = {
                s
                for s in range(length)
                if (not causal or s <= t + length - T)
                and (radius is None or abs(s - min(t + first, length - 1)) <= radius)
            }
            assert set(range(begin[b, t], end[b, t])) == allowed


def restrictions() -> list[tuple[Attendable, int]]:
    rng = np.random.default_rng(0)
    lengths, S = np.array([6, 0, 4]), 6
    begin, end = ranges(lengths, 4, S, window=Window(1), causal=False)
    shapes = [None, (S,), (1, S), (4, S), (3, 1, S), (3, 4, S), (1, 4, 1)]
    masks = [None if shape is None else rng.random(shape) < 0.6 for shape in shapes]
    nothing = Attendable(np.zeros(2, np.int64), np.zeros((2, 0), np.int64), np.zeros((2, 0), np.int64))
    return [*((Attendable(lengths, begin, end, mask), S) for mask in masks), (nothing, 3), (nothing, 0)]


@pytest.mark.parametrize("may, S", restrictions())
def test_a_restriction_seen_from_all_sides(may: Attendable, S: int) -> None:
    B, T = may.begin.shape
    allowed = np.zeros((B, T, S), bool)
    for b, t in np.ndindex(B, T):
        allowed[b, t, may.begin[b, t] : may.end[b, t]] = True
    if may.mask is not None:
        allowed &= may.mask
    np.testing.assert_array_equal(may.allowed(S), allowed)
    np.testing.assert_array_equal(may.visible(S), allowed.any(1))
    np.testing.assert_array_equal(may.empty_rows(S), ~allowed.any(2))
    for first, last in ((0, T), (0, T // 2), (T // 2, T)):
        np.testing.assert_array_equal(may.rows(first, last).allowed(S), allowed[:, first:last])
