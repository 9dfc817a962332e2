"""What rows hand on to each other, sums that are taken once, and pieces; whole reads are in test_attention.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import Window
from dhyan.attention.read import NO_FEEDBACK, Feedback, PaddedMemory, Sums, read_backward, read_forward
from dhyan.attention.scoring import Rows, Sizes
from dhyan.attention.setting import Setting
from dhyan.attention.windows import Attendable, ranges

B, T, S, Q, D = 3, 4, 6, 4, 4
LENGTHS = np.array([6, 0, 4])
WAYS: dict[str, dict[str, Any]] = {
    "plain": dict(name="additive"),
    "two heads": dict(name="cosine", sizes=Sizes(Q, D, 4, heads=2)),
    "window": dict(name="general", window=Window(1), normalize="sparsemax"),
    "monotonic": dict(name="dot", normalize="monotonic"),
    "last": dict(name="location_sensitive"),
    "sum": dict(name="coverage", normalize="monotonic"),
    "rule": dict(name="uniform"),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


class Case:
    """A setting with parameters, a memory, queries, and what the rows may attend."""

    def __init__(self, way: dict[str, Any]) -> None:
        rng = np.random.default_rng(0)
        self.setting = Setting(**dict(sizes=Sizes(Q, D, 4)) | way)
        self.p = {name: rng.normal(size=shape) for name, shape, _ in self.setting.parameters()}
        values = rng.normal(size=(B, S, D))
        keys = self.setting.scoring.keys(
            self.p, Rows(values.reshape(-1, D), np.tile(np.arange(S), B)), self.setting.sizes
        )
        self.memory = PaddedMemory(values, None if keys is None else keys.reshape(B, S, -1), LENGTHS)
        self.query, self.dcontext = rng.normal(size=(2, B, T, Q))
        window = self.setting.window if isinstance(self.setting.window, Window) else None
        self.may = Attendable(LENGTHS, *ranges(LENGTHS, T, S, window=window, causal=False))

    def rows(self, *cuts: int) -> tuple[list[np.ndarray], Sums]:
        """Contexts, weights and dquery of all rows, read in groups that end at these rows, and the sums."""
        edges = list(zip((0, *cuts[:-1]), cuts, strict=True))
        before = Feedback.zeros(self.setting, B, S, self.query.dtype)
        contexts, weights, caches, queries = [], [], [], []
        for first, last in edges:
            context, w, before, cache = read_forward(
                self.setting, self.p, self.memory, self.query[:, first:last], self.may.rows(first, last), before
            )
            assert w is not None
            contexts.append(context), weights.append(w), caches.append(cache)
        sums, after = Sums(self.setting, self.p, self.memory), NO_FEEDBACK
        for (first, last), cache in zip(edges[::-1], caches[::-1], strict=True):
            dcontext = self.dcontext[:, first:last]
            dquery, after = read_backward(self.setting, self.p, self.memory, dcontext, None, after, cache, sums)
            queries.append(dquery)
        return [np.concatenate(contexts, 1), np.concatenate(weights, 2), np.concatenate(queries[::-1], 1)], sums


@every_way
def test_rows_in_one_go_or_one_by_one(way: dict[str, Any]) -> None:
    """What is handed on makes up for the cut; a scoring that reads its own weights is always cut."""
    case = Case(way)
    one_by_one, sums = case.rows(*range(1, T + 1))
    for cuts in ((T,), (1, T), (2, 3, T)):
        if case.setting.scoring.feedback:
            continue
        found, other = case.rows(*cuts)
        for a, b in zip(found, one_by_one, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-14)
        for name, array in sums.gradients.items():
            np.testing.assert_allclose(other.gradients[name], array, atol=1e-13, err_msg=name)
        np.testing.assert_allclose(other.values, sums.values, atol=1e-14)
    assert (one_by_one[0][[0, 2]] != 0).any() and not any(array[1].any() for array in one_by_one)


def test_what_is_fed_back() -> None:
    """last: the row before; sum: all rows before; alignment: each head's row before, first the first position."""
    rng = np.random.default_rng(1)
    first, second = rng.random((2, B, 1, 1, S))
    last = Feedback.zeros(Case(WAYS["last"]).setting, B, S, np.dtype(float))
    total = Feedback.zeros(Case(WAYS["sum"]).setting, B, S, np.dtype(float))
    assert last.last is not None and last.total is None and last.alignment is None and not last.last.any()
    assert total.last is None and total.total is not None and total.alignment is not None
    assert total.alignment.tolist() == [[[1, 0, 0, 0, 0, 0]]] * B
    after = last.after(first).after(second)
    np.testing.assert_array_equal(after.last, second[:, 0, 0])
    both = total.after(first).after(second)
    np.testing.assert_array_equal(both.total, (first + second)[:, 0, 0])
    np.testing.assert_array_equal(both.alignment, second[:, :, 0])
    assert Feedback.zeros(Case(WAYS["plain"]).setting, B, S, np.dtype(float)) == NO_FEEDBACK


def test_rows_of_feedback() -> None:
    rng = np.random.default_rng(2)
    one = Feedback(None, rng.random((2, S)), rng.random((2, 3, S)))
    picked = one.take(np.array([1, 1, 0]))
    assert picked.last is None and picked.total is not None and one.total is not None
    np.testing.assert_array_equal(picked.total, one.total[[1, 1, 0]])
    grown = one.grown(5)
    assert grown.total is not None and grown.alignment is not None and grown.alignment.shape == (5, 3, S)
    np.testing.assert_array_equal(grown.total[:2], one.total)
    assert not grown.total[2:].any() and not grown.alignment[2:].any()


def test_gradients_of_what_is_fed_back_reach_the_last_row() -> None:
    """into_weights is the adjoint of after, and leaves its argument alone."""
    rng = np.random.default_rng(3)
    shape = (B, 1, 2, S)
    dafter, given = Feedback(*rng.random((2, B, S)), rng.random((B, 1, S))), rng.random(shape)
    kept = given.copy()
    into = dafter.into_weights(given, shape, np.dtype(float))
    assert into is not None and dafter.last is not None and dafter.total is not None and dafter.alignment is not None
    np.testing.assert_allclose(into[:, 0, 1], kept[:, 0, 1] + dafter.last + dafter.total + dafter.alignment[:, 0])
    np.testing.assert_array_equal(into[:, :, 0], kept[:, :, 0])
    np.testing.assert_array_equal(given, kept)
    assert NO_FEEDBACK.into_weights(given, shape, np.dtype(float)) is given
    assert NO_FEEDBACK.into_weights(None, shape, np.dtype(float)) is None


def test_sums_go_back_to_the_order_of_the_sentences() -> None:
    """Sentences without a step (here 1) were never ordered: their sums are zero."""
    case = Case(WAYS["plain"])
    sums = Sums(case.setting, case.p, case.memory.take(np.array([2, 0])))
    sums.values[...] = np.array([3.0, 1.0])[:, None, None]
    sums.reorder(np.array([2, 0]), B)
    assert sums.values[:, 0, 0].tolist() == [1, 0, 3] and sums.keys is not None and sums.keys.shape == (B, S, 4)


def test_sentences_of_a_memory() -> None:
    memory = Case(WAYS["plain"]).memory
    assert np.shares_memory(memory.take(slice(2)).values, memory.values)
    np.testing.assert_array_equal(memory.take(np.array([2, 2])).lengths, [4, 4])
    assert Case(WAYS["rule"]).memory.take(slice(1)).keys is None


@every_way
def test_a_row_with_nothing_to_attend_may_hold_anything(way: dict[str, Any]) -> None:
    """Sentence 1 is empty: NaN in its queries reaches nothing, forward or backward."""
    case = Case(way)
    (context, weights, dquery), sums = case.rows(*range(1, T + 1))
    case.query[1] = np.nan
    (context2, weights2, dquery2), other = case.rows(*range(1, T + 1))
    for a, b in ((context, context2), (weights, weights2), (dquery, dquery2), (sums.values, other.values)):
        np.testing.assert_array_equal(a, b)
    for name, array in sums.gradients.items():
        np.testing.assert_array_equal(other.gradients[name], array, err_msg=name)


def test_oracle_without_an_alignment() -> None:
    case = Case(dict(name="oracle"))
    with pytest.raises(ValueError, match=r"'oracle'.*alignment"):
        case.rows(T)
