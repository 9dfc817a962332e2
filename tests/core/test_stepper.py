"""Decoding has several forms of one computation, chosen by cost alone: every form must give the same bits."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from dhyan import ModelConfig, NumericError, Seq2Seq, ops
from dhyan.search.beam import Hypothesis, beam_search

SENTENCES = 12  # more than are decoded on weights that are not packed


def model_of(V: int = 3000, E: int = 128, **changes: object) -> Seq2Seq:
    """Large enough an output layer that one sentence's arg-max goes through the screen; seldom an end symbol."""
    settings = {"cell": "gru", "source_size": 30, "target_size": V, "embedding": E, "hidden": 24, "dropout": 0.0}
    model = Seq2Seq(ModelConfig(**settings | changes), seed=5)
    model.parameters()["output.weight"][...] *= 3
    return model


def sources() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.integers(4, 30, (SENTENCES, 7)), rng.integers(2, 8, SENTENCES)


def same_one_by_one(model: Seq2Seq, steps: int = 25) -> None:
    """Each sentence alone (weights in place, screen) gives what it gives in a batch: weights packed, all logits
    or, where the CPU multiplies in bfloat16, a screen of its own. Five sentences have all logits, on weights in place.
    """
    source, lengths = sources()
    ids, weights = model.greedy(source, lengths, steps)
    assert SENTENCES * steps >= 256, "fewer do not earn back the screen of a batch"
    five, read = model.greedy(source[:5], lengths[:5], steps)
    n, S = five.shape[1], read.shape[2]
    assert np.array_equal(five, ids[:5, :n]) and not ids[:5, n:].any()
    assert read.tobytes() == weights[:5, :n, :S].tobytes()
    for i in range(SENTENCES):
        alone, read = model.greedy(source[i : i + 1], lengths[i : i + 1], steps)
        n = alone.shape[1]
        assert np.array_equal(alone[0], ids[i, :n]) and not ids[i, n:].any()
        assert read[0, :, : lengths[i]].tobytes() == weights[i, :n, : lengths[i]].tobytes()


@pytest.mark.parametrize("M", [1, 2, 3, 4, 5, 8, 31, 32])
@pytest.mark.parametrize("K, N", [(1, 1), (7, 37), (512, 40), (700, 64), (1025, 530)])
def test_few_rows_give_the_bits_of_many(isa: str, M: int, K: int, N: int) -> None:
    rng = np.random.default_rng(K)
    for dtype in (np.float32, np.float64):
        x, w, b = (rng.standard_normal(shape).astype(dtype) for shape in ((100, K), (K, N), (N,)))
        assert ops.linear_forward(x[:M], w, b).tobytes() == ops.linear_forward(x, w, b)[:M].tobytes()
        assert ops.linear_forward(x[:M], w).tobytes() == ops.linear_forward(x, w)[:M].tobytes()


@pytest.mark.parametrize("V, E", [(3000, 128), (1001, 301)])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_screen_finds_the_arg_max(isa: str, cell: str, V: int, E: int) -> None:
    same_one_by_one(model_of(V, E, cell=cell))


def test_the_screen_takes_the_lower_of_equals(isa: str) -> None:
    model = model_of()
    w, b = model.parameters()["output.weight"], model.parameters()["output.bias"]
    w[:, 1::2] = w[:, ::2]
    b[1::2] = b[::2]
    same_one_by_one(model)
    assert (model.greedy(*(a[:1] for a in sources()), 15)[0] % 2 == 0).all()


def test_the_screen_keeps_what_rounding_hides(isa: str) -> None:
    """Neighbours that are one number in bfloat16 or a byte; which of them is larger, the whole numbers say."""
    model = model_of()
    w, b = model.parameters()["output.weight"], model.parameters()["output.bias"]
    signs = np.random.default_rng(1).choice([-1, 1], w.shape[1] // 2)
    w[:, 1::2] = w[:, ::2] * (1 + 2e-6 * signs).astype(np.float32)
    b[...] = 0
    same_one_by_one(model)
    assert {int(i) % 2 for i in model.greedy(*sources(), 25)[0].ravel()} == {0, 1}


@pytest.mark.parametrize("case", ["all equal", "huge", "tiny", "nan", "inf", "a huge bias"])
def test_the_screen_gives_way_where_it_cannot_tell(isa: str, case: str) -> None:
    model = model_of()
    w, b = model.parameters()["output.weight"], model.parameters()["output.bias"]
    match case:
        case "all equal":
            w[...] = 0.25
        case "huge":
            w[...] *= np.float32(1e30)
        case "tiny":
            w[...] *= np.float32(1e-40)
        case "nan":
            w[3, 17] = np.nan
        case "inf":
            w[3, 17] = np.inf
        case _:
            b[40], b[41] = 1e9, -1e9
    if case in ("nan", "inf"):  # and there is nothing to tell
        for rows in (slice(0, 1), slice(None)):
            with pytest.raises(NumericError, match="greedy: the model gave NaN at step"):
                model.greedy(*(a[rows] for a in sources()), 6)
    else:
        same_one_by_one(model)


def test_a_frozen_model_gives_the_same_and_cannot_be_written_to(isa: str) -> None:
    source, lengths = sources()
    loose, frozen = model_of(order="luong"), model_of(order="luong")
    frozen.freeze()
    for _ in range(2):  # the second call finds what the first one kept
        for first in (0, 3, 5):
            part = slice(first, first + 1)
            a, b = loose.greedy(source[part], lengths[part]), frozen.greedy(source[part], lengths[part])
            assert a[0].tobytes() == b[0].tobytes() and a[1].tobytes() == b[1].tobytes()
        a, b = loose.greedy(source, lengths), frozen.greedy(source, lengths)
        assert a[0].tobytes() == b[0].tobytes() and a[1].tobytes() == b[1].tobytes()
        one, other = (beam_search(m, source[:2], lengths[:2], beam=3, max_length=8) for m in (loose, frozen))
        assert [(h.ids, h.score) for s in one for h in s] == [(h.ids, h.score) for s in other for h in s]
    for array in (frozen.flat, *frozen.parameters().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    copy = pickle.loads(pickle.dumps(frozen))
    copy.parameters()["output.bias"][7] = 100
    assert (copy.greedy(source[:1], lengths[:1], 3)[0] == 7).all()


@pytest.mark.parametrize("weights, most", [("bfloat16", 2**-8), ("int8", 1 / 127)])
@pytest.mark.parametrize("cell, order", [("gru", "bahdanau"), ("lstm", "luong")])
def test_rounded_weights_take_fewer_bytes_and_give_the_same_bits(
    isa: str, cell: str, order: str, weights: str, most: float
) -> None:
    source, lengths = sources()
    exact, rounded, halved = (model_of(1001, 37, cell=cell, order=order, layers=2) for _ in range(3))
    exact.parameters()["output.weight"][:, 5] = rounded.parameters()["output.weight"][:, 5] = 0
    halved.parameters()["output.weight"][:, 5] = 0  # a column without a scale
    halved.freeze(weights)
    for name, array in rounded.parameters().items():  # the same weights, but nobody told the decoder
        array[...] = halved.parameters()[name]
        drift = np.abs(array - exact.parameters()[name]).max(initial=0.0) / np.abs(array).max(initial=1e-30)
        touched = array.ndim == 2 and not (weights == "int8" and name.endswith("_embedding"))
        assert drift <= (most if touched else 0) and (drift > 0) == touched
    same_one_by_one(halved)
    for i in (0, 5):
        part = slice(i, i + 1)
        a, b = rounded.greedy(source[part], lengths[part]), halved.greedy(source[part], lengths[part])
        assert a[0].tobytes() == b[0].tobytes() and a[1].tobytes() == b[1].tobytes()
    one, other = (beam_search(m, source[:2], lengths[:2], beam=3, max_length=8) for m in (rounded, halved))
    assert [(h.ids, h.score) for s in one for h in s] == [(h.ids, h.score) for s in other for h in s]


def test_freeze_refuses_in_one_line() -> None:
    model = model_of()
    with pytest.raises(ValueError, match=r"weights is 'int4', expected one of: int8, bfloat16"):
        model.freeze("int4")
    with pytest.raises(ValueError, match="the model is float64, expected float32"):
        Seq2Seq(model.config, dtype="float64").freeze("bfloat16")
    model.freeze()
    model.freeze()
    with pytest.raises(ValueError, match="the model is frozen"):
        model.freeze("bfloat16")


@pytest.mark.parametrize("rows", [1, 4, 40])
@pytest.mark.parametrize("k", [1, 5, 2000])
def test_the_largest_log_probabilities(isa: str, rows: int, k: int) -> None:
    model = model_of(101, 8)
    w, b = model.parameters()["output.weight"], model.parameters()["output.bias"]
    w[:, 60:] = w[:, :41]  # ties
    b[60:] = b[:41]
    source, lengths = (a[:3] for a in sources())
    state = model.start(source, lengths).select(np.arange(rows) % 3)
    tokens, sentence = np.arange(rows) + 3, np.arange(rows) % 3
    every, weights, after = model.advance(state, tokens, sentence)
    values, ids, same_weights, same = model.advance_top(state, tokens, sentence, k)
    order = np.lexsort((np.broadcast_to(np.arange(101), every.shape), -every), axis=1)[:, : min(k, 101)]
    assert np.array_equal(ids, order)
    assert values.tobytes() == np.take_along_axis(every, order, 1).tobytes()
    assert weights.tobytes() == same_weights.tobytes() and after.h.tobytes() == same.h.tobytes()


def test_the_largest_show_a_nan_wherever_it_is() -> None:
    for bad in (np.nan, np.inf):
        model = model_of(101, 8)
        model.parameters()["output.bias"][90] = bad
        source, lengths = (a[:1] for a in sources())
        values = model.advance_top(model.start(source, lengths), np.array([1]), np.array([0]), 2)[0]
        assert np.isnan(values).all()


class Stepwise:
    """A model that search has to lead step by step."""

    def __init__(self, model: Seq2Seq) -> None:
        self.start, self.advance, self.advance_top = model.start, model.advance, model.advance_top


def same_searches(model: Seq2Seq, rows: slice = slice(None), **options: Any) -> list[list[Hypothesis]]:
    source, lengths = (a[rows] for a in sources())
    in_core, outside = (beam_search(m, source, lengths, **options) for m in (model, Stepwise(model)))
    for one, other in zip(in_core, outside, strict=True):
        assert [(h.ids, h.score, h.finished) for h in one] == [(h.ids, h.score, h.finished) for h in other]
        for a, b in zip(one, other, strict=True):
            assert a.weights.tobytes() == b.weights.tobytes() and a.weights.dtype == b.weights.dtype
            assert a.weights.shape == b.weights.shape and a.weights.base is None
    return in_core


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("choices", [
    dict(cell="gru"), dict(cell="lstm", layers=2), dict(cell="lstm", order="luong"), dict(cell="rnn", attention="none"),
    dict(cell="gru", order="luong", input_feeding=False, attention="dot", window=2),
], ids=str)  # fmt: skip
def test_beam_search_in_the_core_is_that_of_python(isa: str, choices: dict[str, Any], dtype: str) -> None:
    """The same decisions to the bit: few sentences and many, all widths, early ends and none."""
    model = Seq2Seq(model_of(40, 8, **choices).config, seed=5, dtype=dtype)
    model.parameters()["output.weight"][...] *= 9
    ends = 0
    for bias in (-3, 0, 2):
        model.parameters()["output.bias"][2] = bias
        for beam, nbest, penalty in ((1, 1, 1.0), (3, 2, 0.0), (4, 4, 0.6), (50, 50, 1.0)):
            options = dict(beam=beam, nbest=nbest, length_penalty=penalty, max_length=9)
            found = same_searches(model, **options)
            ends += sum(h.finished for own in found for h in own)
            for i in (0, 7):
                alone = same_searches(model, slice(i, i + 1), **options)[0]
                assert [(h.ids, h.score) for h in alone] == [(h.ids, h.score) for h in found[i]]
    assert ends
    same_searches(model, beam=3, limits=np.arange(1, 13))
    same_searches(model, beam=3, nbest=3, length_form="gnmt")


def test_beam_search_in_the_core_of_a_large_vocabulary() -> None:
    model = model_of()
    for rows in (slice(0, 1), slice(None)):
        for tied in (False, True):
            w, b = model.parameters()["output.weight"], model.parameters()["output.bias"]
            if tied:  # the lower id, then the earlier hypothesis
                w[:, 1::2] = w[:, ::2]
                b[1::2] = b[::2]
            same_searches(model, rows, beam=4, nbest=4, max_length=15)
    model.freeze("bfloat16")
    same_searches(model, slice(0, 2), beam=5, max_length=15)


def test_beam_search_in_the_core_shows_nan_with_its_step() -> None:
    model = model_of(101, 8)
    source, lengths = sources()
    first = model.greedy(source[:1], lengths[:1], 3)[0][0]
    model.parameters()["target_embedding"][first[1]] = np.nan  # read at the third step
    for one in (model, Stepwise(model)):
        with pytest.raises(NumericError, match="beam_search: the model gave NaN at step 3"):
            beam_search(one, source[:1], lengths[:1], beam=1)
