"""What the decoder's bindings take: named arrays, and an error for a name or a word that they do not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan.ops import decoder

E, H, D, U = 3, 4, 5, 4


def f(*shape: int) -> np.ndarray:
    return np.full(shape, 0.1, np.float32)


def cell(**arrays: np.ndarray | None) -> decoder.CellArrays:
    given: dict[str, Any] = {
        "weight_ih": f(E + D, H), "weight_hh": f(H, H), "bias_ih": f(H), "bias_hh": f(H), **arrays,
    }  # fmt: skip
    return decoder.CellArrays(**{name: array for name, array in given.items() if array is not None})


def parameters(**arguments: Any) -> decoder.DecoderParameters:
    given = {
        "cell": "rnn", "order": "bahdanau", "cells": [cell()], "readout": f(E + H + D, E), "readout_bias": f(E),
        "term": "tanh", "query": f(H, U), "w": f(U),
    }  # fmt: skip
    return decoder.DecoderParameters(**{**given, **arguments})


def memory(**arrays: Any) -> decoder.Memory:
    given: dict[str, Any] = {"values": f(2, D), "keys": f(2, U), "lengths": np.array([2]), "alignment": None}
    return decoder.Memory(**{**given, **arrays})


def forward(
    parameters: decoder.DecoderParameters, memory: decoder.Memory, masks: decoder.DecoderMasks | None = None
) -> np.ndarray:
    masks = decoder.DecoderMasks() if masks is None else masks
    return decoder.decoder_forward(parameters, memory, f(3, E), None, np.array([3]), f(1, 1, H), None, masks, None)[0]


def test_what_is_named_is_taken() -> None:
    readout = forward(parameters(), memory())
    assert readout.shape == (3, E) and np.isfinite(readout).all()
    masked = forward(parameters(), memory(), decoder.DecoderMasks(state=np.zeros((1, 1, H), np.float32)))
    assert not np.array_equal(masked, readout)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: parameters(normalise_query=True),
        lambda: parameters(cells=[(f(E + D, H), f(H, H), f(H), f(H))]),
        lambda: decoder.DecoderParameters(cell="rnn"),  # type: ignore[call-arg]
        lambda: cell(weight_hx=f(H, H)),
        lambda: cell(bias_hh=None),
        lambda: memory(length=np.array([2])),
        lambda: decoder.Memory(f(2, D), f(2, U), np.array([2]), None),  # type: ignore[misc]
        lambda: decoder.DecoderMasks(states=f(1, 1, H)),  # type: ignore[call-arg]
        lambda: decoder.DecoderGradients(cell=[cell()]),  # type: ignore[call-arg]
        lambda: forward({"cell": "rnn"}, memory()),  # type: ignore[arg-type]
        lambda: forward(parameters(), (f(2, U), f(2, D), np.array([2]), None)),  # type: ignore[arg-type]
    ],
)
def test_a_name_that_is_not_known_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"incompatible (function|constructor) arguments"):
        wrong()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"term": "tan"}, "DecoderParameters: term is 'tan', expected 'product', 'tanh', 'last', 'mean', 'given' or"),
        ({"order": "Luong"}, "DecoderParameters: order is 'Luong', expected 'bahdanau' or 'luong'"),
        ({"cell": "lstn"}, "cell is 'lstn'"),
    ],
)
def test_a_word_that_is_not_known_is_a_value_error(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parameters(**arguments)


def test_arrays_are_named_by_the_call_that_reads_them() -> None:
    with pytest.raises(TypeError, match="decoder_forward: weight_hh has dtype float64, expected float32"):
        forward(parameters(cells=[cell(weight_hh=np.ones((H, H)))]), memory())
    with pytest.raises(ValueError, match="decoder_forward: memory lengths holds a negative length"):
        forward(parameters(), memory(lengths=np.array([-1])))
    with pytest.raises(TypeError, match="decoder_forward: memory lengths is None, expected an array"):
        forward(parameters(), memory(lengths=None))


def test_a_cell_says_what_it_holds() -> None:
    weights = f(E + D, H)
    plain, normalised = cell(weight_ih=weights), cell(gain_ih=f(H), gain_hh=f(H))
    assert plain.weight_ih is weights and plain.gain_ih is None and normalised.gain_hh is not None
