"""Named arrays in one flat buffer, and the initial values that parts ask for."""

from __future__ import annotations

import numpy as np
import pytest
from dhyan.model.arrays import Arrays, constant, glorot, linear, normal, recurrent, under


def test_arrays_are_views_into_one_buffer() -> None:
    arrays = Arrays({"a": (2, 3), "b.c": (17,), "b.d": (), "e": (0, 4), "f": (16,)}, np.float32)
    assert {name: array.shape for name, array in arrays.items()} == {
        "a": (2, 3), "b.c": (17,), "b.d": (), "e": (0, 4), "f": (16,),
    }  # fmt: skip
    assert arrays.flat.ndim == 1 and arrays.flat.dtype == np.float32
    gaps = np.ones(len(arrays.flat), bool)
    for number, array in enumerate(arrays.values(), 1):
        array[...] = number
        assert array.base is not None and (array.size == 0 or np.shares_memory(array, arrays.flat))
        offset = (array.ctypes.data - arrays.flat.ctypes.data) // 4
        assert array.size == 0 or (offset % 16 == 0 and (arrays.flat[offset : offset + array.size] == number).all())
        assert gaps[offset : offset + array.size].all(), "two arrays overlap"
        gaps[offset : offset + array.size] = False
    assert not arrays.flat[gaps].any() and gaps.any()


def test_like_has_the_same_names_and_shapes_and_other_memory() -> None:
    arrays = Arrays({"a": (2, 3), "b": (5,)}, np.float64)
    other = arrays.like()
    assert list(other) == list(arrays) and other.flat.dtype == np.float64
    assert all(other[name].shape == arrays[name].shape for name in arrays)
    assert not np.shares_memory(other.flat, arrays.flat)


def test_a_group_is_what_stands_under_its_prefix() -> None:
    arrays = Arrays({"layer.1.w": (2,), "layer.10.w": (3,), "layer.1.b": (4,), "layer": (5,)}, np.float32)
    group = arrays.group("layer.1")
    assert {name: array.shape for name, array in group.items()} == {"w": (2,), "b": (4,)}
    group["w"][...] = 7
    assert (arrays["layer.1.w"] == 7).all()
    assert arrays.group("nothing") == {}


def test_arrays_beside_others() -> None:
    arrays = Arrays({"a.x": (2,), "b": (3,)}, np.float32)
    both = arrays.beside({"b": np.ones(4), "a.y": np.ones(1)})
    assert both["a.x"] is arrays["a.x"] and both["b"].shape == (4,) and both.flat is arrays.flat
    assert set(both.group("a")) == {"x", "y"} and set(arrays.group("a")) == {"x"} and arrays["b"].shape == (3,)


@pytest.mark.parametrize("initial, bound", [(glorot(30, 60), 15**-0.5), (recurrent(49), 1 / 7)])
def test_uniform_values_fill_their_range(initial: object, bound: float) -> None:
    array = np.full((300, 300), np.nan)
    assert callable(initial)
    initial(array, np.random.default_rng(0))
    assert bound * (1 - 1e-3) < np.abs(array).max() <= bound  # missed with probability e^-90
    assert abs(array.mean()) < 5 * bound / (3 * array.size) ** 0.5


def test_a_large_array_is_drawn_in_parts_of_one_stream() -> None:
    array, rng = np.empty((3, 1 << 16), np.float32), np.random.default_rng(0)
    normal(0.5)(array, rng)
    expected = np.random.default_rng(0).normal(0.0, 0.5, array.size).astype(np.float32)
    assert array.ravel().tobytes() == expected.tobytes()


def test_the_parameters_of_a_linear_layer() -> None:
    weight, bias = under("readout", linear(2, 3))
    assert weight[:2] == ("readout.weight", (2, 3)) and bias[:2] == ("readout.bias", (3,))
    array = np.ones(3)
    bias.initial(array, np.random.default_rng(0))
    assert not array.any()
    constant(2.0)(array, np.random.default_rng(0))
    assert (array == 2).all()
