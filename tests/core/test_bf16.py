"""Products in bfloat16 with float sums: what they compute, what they leave alone, and training with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from dhyan import _core, ops
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.text.batch import Batch
from dhyan.text.pairs import Pair
from dhyan.training.config import TrainConfig
from dhyan.training.loop import train

EPS = 2.0**-23
HERE = ops.has_bf16()
needs_bf16 = pytest.mark.skipif(not HERE, reason="this CPU has no AVX512-BF16")
SIZES = [1, 2, 5, 7, 13, 40, 100]
TINY = dict(source_size=9, target_size=8, embedding=5, hidden=7, dropout=0.0)


def rounded(x: np.ndarray) -> np.ndarray:
    """The nearest bfloat16 numbers, ties to even, as float64."""
    bits = x.astype(np.float32).view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000
    return nearest.astype(np.uint32).view(np.float32).astype(np.float64)


def tiny_batch(sentences: int = 4) -> Batch:
    rng = np.random.default_rng(3)
    lengths, target_lengths = rng.integers(1, 7, sentences), rng.integers(2, 6, sentences)
    return Batch(rng.integers(4, 9, (sentences, 6)), lengths, rng.integers(4, 8, (sentences, 5)), target_lengths)


@needs_bf16
@pytest.mark.parametrize("K", [*SIZES, 511, 513, 1030])
def test_a_product_is_that_of_the_rounded_factors(K: int) -> None:
    rng = np.random.default_rng(K)
    for M, N in [(1, 1), (5, 33), (13, 64), (40, 7), (100, 100)]:
        x, w = rng.standard_normal((M, K)).astype(np.float32), rng.standard_normal((K, N)).astype(np.float32)
        b, dy = rng.standard_normal(N).astype(np.float32), rng.standard_normal((M, N)).astype(np.float32)
        with ops.products(True):
            y = ops.linear_forward(x, w, b)
            dx, dw, db = ops.linear_backward(dy, x, w)
        for got, a, c, start in ((y, x, w, b), (dx, dy, w.T, 0), (dw, x.T, dy, 0)):
            # a chain of K roundings of sums no larger than the sum of the terms' sizes
            bound = (K + M + N) * EPS * (np.abs(rounded(a)) @ np.abs(rounded(c)) + np.abs(start))
            assert (np.abs(got - (rounded(a) @ rounded(c) + start)) <= bound).all()
        np.testing.assert_array_equal(db, ops.linear_backward(dy, x, w)[2])  # a sum is no product


@needs_bf16
def test_a_row_depends_on_no_other_and_not_on_the_threads(threads: None) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((200, 130)).astype(np.float32), rng.standard_normal((130, 90)).astype(np.float32)
    with ops.products(True):
        whole = ops.linear_forward(x, w)
        for first, last in ((0, 1), (7, 40), (199, 200), (3, 100)):
            np.testing.assert_array_equal(ops.linear_forward(x[first:last], w), whole[first:last])
        for n in (1, 2, 3, 7):
            ops.set_num_threads(n)
            np.testing.assert_array_equal(ops.linear_forward(x, w), whole)


@needs_bf16
def test_nan_and_infinity_stay_in_their_row() -> None:
    x, w = np.ones((5, 4), np.float32), np.ones((4, 3), np.float32)
    # the last: rounding the bits of this NaN as if it were a number would carry it into a zero
    x[1, 2], x[3, 0] = np.inf, np.array([0xFFFFFFFF], np.uint32).view(np.float32)[0]
    with ops.products(True):
        y = ops.linear_forward(x, w)
    assert np.isposinf(y[1]).all() and np.isnan(y[3]).all()
    np.testing.assert_array_equal(y[[0, 2, 4]], 4)


@needs_bf16
def test_products_are_put_back() -> None:
    x, w = np.full((40, 1), 1 + 2**-20, np.float32), np.ones((1, 3), np.float32)
    with pytest.raises(ZeroDivisionError), ops.products(True):
        assert ops.linear_forward(x, w)[0, 0] == 1
        raise ZeroDivisionError
    assert ops.linear_forward(x, w)[0, 0] == x[0, 0]
    with ops.products(True):
        assert ops.linear_forward(x.astype(np.float64), w.astype(np.float64))[0, 0] == x[0, 0]  # float64 as ever


@needs_bf16
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
@pytest.mark.parametrize("order", ["bahdanau", "luong"])
def test_gradients_are_those_of_float32_within_the_rounding(cell: str, order: str) -> None:
    config = ModelConfig(**TINY, cell=cell, order=order, layers=2)
    batch = tiny_batch()
    exact, coarse = Seq2Seq(config), Seq2Seq(config, bf16=True)
    loss, cache = coarse.forward(batch, step=1)
    want_loss, want_cache = exact.forward(batch, step=1)
    assert loss != want_loss  # it did round
    assert abs(loss - want_loss) < 0.02 * want_loss
    got, want = coarse.backward(cache).flat, exact.backward(want_cache).flat
    # 2^-9 a factor, and each gradient passes some ten products
    assert np.linalg.norm(got - want) < 20 * 2**-9 * np.linalg.norm(want)
    again = coarse.backward(cache).flat
    np.testing.assert_array_equal(got, again)


@needs_bf16
def test_what_is_no_training_pass_is_float32() -> None:
    config, batch = ModelConfig(**TINY), tiny_batch()
    exact, coarse = Seq2Seq(config), Seq2Seq(config, bf16=True)
    assert coarse.forward(batch)[0] == exact.forward(batch)[0]
    for got, want in zip(
        coarse.greedy(batch.source, batch.source_lengths), exact.greedy(batch.source, batch.source_lengths), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@needs_bf16
def test_a_sentence_does_not_depend_on_the_batch() -> None:
    """Few sentences too: products of few rows read unpacked weights in float32, and must not here."""
    model = Seq2Seq(ModelConfig(**TINY), bf16=True)
    whole = tiny_batch(40)
    one = Batch(whole.source[:1], whole.source_lengths[:1], whole.target[:1], whole.target_lengths[:1])
    readouts = []
    for batch in (whole, one):
        _, cache = model.forward(batch, step=1)
        readouts.append(cache.output.readout[: whole.target_lengths[0] - 1])
    np.testing.assert_array_equal(*readouts)


PAIRS = [Pair(" ".join("abcd"[i % 4 :]), " ".join("wxyz"[i % 4 :])) for i in range(24)]
CONFIG = ModelConfig(source_size=4, target_size=4, embedding=8, hidden=8)
OPTIONS = TrainConfig(batch=8, epochs=2, precision="bf16")


@needs_bf16
def test_training_in_bf16(tmp_path: Path) -> None:
    first = train(CONFIG, PAIRS, PAIRS, tmp_path / "a", options=OPTIONS)
    again = train(CONFIG, PAIRS, PAIRS, tmp_path / "b", options=OPTIONS)
    full = train(CONFIG, PAIRS, PAIRS, tmp_path / "c", options=dataclasses.replace(OPTIONS, precision="float32"))
    assert first.bf16 and first.dtype == np.float32
    np.testing.assert_array_equal(first.flat, again.flat)
    assert (first.flat != full.flat).any()
    assert np.abs(first.flat - full.flat).max() < 0.02  # six updates of 2e-3, hardly one in another direction


def test_without_the_instruction_it_says_so_and_trains_in_float32(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = ops.show_config()["isa"]
    _core.set_isa("base")
    try:
        with pytest.raises(ValueError, match=r"Seq2Seq: bf16 needs .* AVX512-BF16, got .* a CPU with base"):
            Seq2Seq(ModelConfig(**TINY), bf16=True)
        with pytest.raises(ValueError, match="no products in bfloat16"), ops.products(True):
            pass
        got = train(CONFIG, PAIRS, PAIRS, tmp_path / "a", options=OPTIONS)
        said = capsys.readouterr().err
        want = train(CONFIG, PAIRS, PAIRS, tmp_path / "b", options=dataclasses.replace(OPTIONS, precision="float32"))
    finally:
        _core.set_isa(before)
    assert said.count("\n") == 1 and "precision bf16 needs AVX512-BF16" in said and "in use: base" in said
    np.testing.assert_array_equal(got.flat, want.flat)


def test_float64_has_no_bf16() -> None:
    with pytest.raises(ValueError, match="needs dtype float32"):
        Seq2Seq(ModelConfig(**TINY), dtype="float64", bf16=True)
