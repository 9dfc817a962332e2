"""The recurrent cells that the core has: their gates, states and parameters, which encoder and decoder share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dhyan.ops.layers import CELL_GAINS, CELL_PARAMETERS, GATES
from dhyan.registry import Registry

from .arrays import Parameter, constant, glorot, recurrent


@dataclass(frozen=True)
class Cell:
    """gates: blocks of H columns of its matrices. states: 1, h; 2, h and c. forget: which gate forgets, if one does."""

    gates: int
    states: int = 1
    forget: int | None = None

    def parameters(self, input_size: int, hidden: int, *, layer_norm: bool = False) -> Iterator[Parameter]:
        """weight_ih (I, G*H), weight_hh (H, G*H), bias_ih (G*H), bias_hh (G*H); layer_norm: gain_ih, gain_hh (G*H)."""
        width = self.gates * hidden
        weight_ih, weight_hh, bias_ih, bias_hh = CELL_PARAMETERS
        yield Parameter(weight_ih, (input_size, width), glorot(input_size, hidden))  # a gate counted by itself
        yield Parameter(weight_hh, (hidden, width), recurrent(hidden))
        yield Parameter(bias_ih, (width,), self._bias)
        yield Parameter(bias_hh, (width,), constant(0.0))
        if layer_norm:
            for name in CELL_GAINS:
                yield Parameter(name, (width,), constant(1.0))

    def _bias(self, array: np.ndarray, rng: np.random.Generator) -> None:
        array[...] = 0.0
        if self.forget is not None:  # an open forget gate: gradients reach far from the first step on
            array.reshape(self.gates, -1)[self.forget] = 1.0


CELLS: Registry[Cell] = Registry("cell")
CELLS.add("rnn", Cell(GATES["rnn"]))
CELLS.add("lstm", Cell(GATES["lstm"], states=2, forget=1))
CELLS.add("gru", Cell(GATES["gru"]))
