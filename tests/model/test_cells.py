"""The cells of the core: their parameters by name, shape and initial value."""

from __future__ import annotations

import numpy as np
import pytest
from dhyan import ops
from dhyan.model.cells import CELLS


def test_they_are_those_of_the_core() -> None:
    assert CELLS.names() == list(ops.CELLS) and {name: cell.gates for name, cell in CELLS.items()} == ops.GATES


@pytest.mark.parametrize("cell, gates", [("rnn", 1), ("lstm", 4), ("gru", 3)])
def test_shapes_of_a_cell(cell: str, gates: int) -> None:
    width = gates * 5
    shapes = {name: shape for name, shape, _ in CELLS.find(cell).parameters(3, 5)}
    assert shapes == {
        "weight_ih": (3, width), "weight_hh": (5, width), "bias_ih": (width,), "bias_hh": (width,),
    }  # fmt: skip


def test_gains_begin_at_one_and_the_forget_gate_open() -> None:
    for name, cell in CELLS.items():
        for parameter in cell.parameters(3, 5, layer_norm=True):
            array = np.full(parameter.shape, np.nan)
            parameter.initial(array, np.random.default_rng(0))
            if parameter.name.startswith("gain"):
                assert (array == 1).all()
            if parameter.name.startswith("bias"):
                opened = [5, 6, 7, 8, 9] if (name, parameter.name) == ("lstm", "bias_ih") else []
                assert np.flatnonzero(array).tolist() == opened
