"""The parameters of a Seq2Seq, collected from its parts in their order; and one table for several matrices of words.

One table may serve for several matrices of words (Press & Wolf 2017, Inan et al. 2017):

    tie = "output"   output.weight = target_embedding^T
    tie = "all"      and source_embedding = target_embedding, for one vocabulary of both sides

The table E (V, width) is the parameter target_embedding. Read as an embedding its rows are multiplied with
sqrt(width) (Vaswani et al. 2017, section 3.4), so that it can start as small as an output layer must. The layers know
nothing of this: they get arrays of the untied names, and their gradients are added up here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import Arrays, Parameter, normal
from .config import ModelConfig
from .copying import copy_parameters
from .decoder import decoder_parameters
from .encoder import encoder_parameters
from .loss import output_parameters


def _embeddings(config: ModelConfig) -> Iterator[Parameter]:
    """source_embedding (V_s, E) where it has a table of its own, target_embedding (V, E)."""
    c = config
    if c.source == "tokens" and c.tie != "all":
        yield Parameter("source_embedding", (c.source_size, c.embedding), normal(1.0))
    spread = 1.0 if c.tie == "none" else c.embedding**-0.5
    yield Parameter("target_embedding", (c.target_size, c.embedding), normal(spread))


def _parameters(config: ModelConfig) -> Iterator[Parameter]:
    """Every parameter of the model, from the source to the output: an initial value depends on its place in this."""
    for part in (_embeddings, encoder_parameters, decoder_parameters, output_parameters, copy_parameters):
        yield from part(config)


def parameter_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of the model."""
    return {name: shape for name, shape, _ in _parameters(config)}


def initial_parameters(config: ModelConfig, seed: int, dtype: np.dtype | str) -> Arrays:
    """Initial values, a function of (config, seed, dtype): each parameter draws from its own stream."""
    arrays = Arrays(parameter_shapes(config), dtype)
    for index, (name, _, initial) in enumerate(_parameters(config)):
        initial(arrays[name], np.random.Generator(np.random.Philox(key=[seed, index])))
    return arrays


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
