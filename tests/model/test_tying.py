"""One table for the matrices of words: what the layers read, what the gradient is, one vocabulary for both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Batch, DataConfig, DataError, ModelConfig, Seq2Seq, TrainConfig
from dhyan.model.parameters import tied_gradients, untied
from dhyan.text.pairs import Pair

SIZES = dict(source_size=6, target_size=6, embedding=4, hidden=3, cell="gru", dropout=0.0)


def config(tie: str, **changes: Any) -> ModelConfig:
    return ModelConfig(**(SIZES | {"tie": tie} | changes))


def twin(model: Seq2Seq) -> Seq2Seq:
    """The untied model that computes the same."""
    made = Seq2Seq(config("none"), seed=9, dtype="float64")
    table = model.parameters()["target_embedding"]
    for name, array in made.parameters().items():
        if name.endswith("embedding") and (name == "target_embedding" or model.config.tie == "all"):
            array[...] = 2 * table  # sqrt(4)
        elif name == "output.weight":
            array[...] = table.T
        else:
            array[...] = model.parameters()[name]
    return made


def batch() -> Batch:
    rng = np.random.default_rng(0)
    return Batch(
        rng.integers(0, 6, (3, 5)), np.array([5, 2, 4]), rng.integers(0, 6, (3, 6)), np.array([6, 3, 4])
    )  # fmt: skip


@pytest.mark.parametrize("tie", ["output", "all"])
def test_a_tied_model_is_an_untied_one_with_equal_matrices(tie: str) -> None:
    model, given = Seq2Seq(config(tie), seed=3, dtype="float64"), batch()
    other = twin(model)
    (loss, cache), (same, other_cache) = model.forward(given), other.forward(given)
    assert loss == same
    mine, theirs = model.backward(cache), other.backward(other_cache)
    assert set(theirs) - set(mine) == {"output.weight"} | ({"source_embedding"} if tie == "all" else set())
    total = 2 * theirs["target_embedding"] + theirs["output.weight"].T
    total += 2 * theirs["source_embedding"] if tie == "all" else 0
    np.testing.assert_allclose(mine["target_embedding"], total, atol=1e-15)
    for name in set(mine) - {"target_embedding"}:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
    source = given.source, given.source_lengths
    for one, two in zip(model.greedy(*source), other.greedy(*source), strict=True):
        np.testing.assert_array_equal(one, two)
    for one, two in zip(model.force(given), other.force(given), strict=True):
        np.testing.assert_array_equal(one, two)
    np.testing.assert_array_equal(model.backward(cache).flat, mine.flat)


@pytest.mark.parametrize("tie", ["output", "all"])
def test_freezing_changes_no_result(tie: str) -> None:
    model, given = Seq2Seq(config(tie), seed=3), batch()
    source = given.source, given.source_lengths
    before, forced = model.greedy(*source), model.force(given)
    model.freeze()
    for one, two in zip((*before, *forced), (*model.greedy(*source), *model.force(given)), strict=True):
        np.testing.assert_array_equal(one, two)


def test_nothing_is_copied_where_nothing_is_tied() -> None:
    c = config("none")
    p = Seq2Seq(c)._parameters
    assert untied(c, p) is p and tied_gradients(c, p, p) is p


@pytest.mark.parametrize("tie", ["output", "all"])
def test_a_fresh_model_begins_at_a_guess(tie: str) -> None:
    """The table starts as small as an output layer must: the loss is near log V."""
    c = ModelConfig(source_size=400, target_size=400, embedding=64, hidden=32, tie=tie)
    rng = np.random.default_rng(0)
    given = Batch(rng.integers(4, 400, (4, 6)), np.full(4, 6), rng.integers(4, 400, (4, 6)), np.full(4, 6))
    assert 0.7 * np.log(400) < Seq2Seq(c).forward(given)[0] < 1.4 * np.log(400)


# ------------------------------------------------------------------------------------------------ one vocabulary


def test_training_shares_one_vocabulary(tmp_path: Path) -> None:
    pairs = [Pair("a b c", "c d"), Pair("b a", "d d a"), Pair("c", "e")]
    options = TrainConfig(batch=2, epochs=1)
    dhyan.train(config("all"), pairs, pairs, tmp_path / "m", options=options)
    loaded = dhyan.load(tmp_path / "m")
    assert loaded.source_vocab == loaded.target_vocab and set(loaded.source_vocab.tokens[4:]) == set("abcde")
    assert loaded.model.config.tie == "all" and loaded.translate("a b", beam=2).score < 0
    data = DataConfig(source_level="char")
    with pytest.raises(DataError, match=r"tie 'all' needs one vocabulary.*'char' and target_level 'word'"):
        dhyan.train(config("all"), pairs, pairs, tmp_path / "n", options=options, data=data)
