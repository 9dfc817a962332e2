"""One table for several matrices of words (Press & Wolf 2017, Inan et al. 2017).

    tie = "output"   output.weight = target_embedding^T
    tie = "all"      and source_embedding = target_embedding, for one vocabulary of both sides

The table E (V, width) is the parameter target_embedding. Read as an embedding its rows are multiplied with
sqrt(width) (Vaswani et al. 2017, section 3.4), so that it can start as small as an output layer must.

The layers know nothing of this: they get arrays of the untied names, and their gradients are added up here.
"""

from __future__ import annotations

import numpy as np

from .config import ModelConfig
from .parameters import Arrays


def _names(config: ModelConfig) -> tuple[str, ...]:
    return ("target_embedding", "source_embedding") if config.tie == "all" else ("target_embedding",)


def untied(config: ModelConfig, p: Arrays) -> Arrays:
    """What the layers read: p itself, or its arrays beside copies made of the table."""
    if config.tie == "none":
        return p
    table = p["target_embedding"]
    rows = table * table.dtype.type(config.embedding**0.5)
    return p.beside({**dict.fromkeys(_names(config), rows), "output.weight": np.ascontiguousarray(table.T)})


def tied_gradients(config: ModelConfig, written: Arrays, p: Arrays) -> Arrays:
    """The gradients of p from those of the untied names, which are p's own where nothing is tied.

    That of the table is the sum over its uses.
    """
    if config.tie == "none":
        return written
    gradients = p.like()
    for name, array in gradients.items():
        array[...] = written[name]
    total = gradients["target_embedding"]
    for name in _names(config)[1:]:
        total += written[name]
    total *= total.dtype.type(config.embedding**0.5)
    total += written["output.weight"].T
    return gradients
