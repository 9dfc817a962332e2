"""Links and weights between words and the pieces they were cut into."""

import numpy as np
import pytest
from dhyan.metrics.alignment import links_from_weights
from dhyan.text.words import Words, expand_links, word_weights

SOURCE = Words(("ab", "c", "def"), (0, 0, 1, 2, 2, 2))
TARGET = Words(("x", "yz"), (0, 1, 1))


def test_a_linked_pair_of_words_links_all_their_pieces():
    links = ((0, 1, True), (1, 0, False))
    assert expand_links(links, SOURCE, TARGET) == (
        (0, 1, True), (0, 2, True), (1, 1, True), (1, 2, True), (2, 0, False)
    )  # fmt: skip
    assert expand_links(links, None, TARGET) == ((0, 1, True), (0, 2, True), (1, 0, False))
    assert expand_links(links, SOURCE, None) == ((0, 1, True), (1, 1, True), (2, 0, False))
    assert expand_links(links, None, None) is links
    assert expand_links(((3, 0, True), (0, 2, True)), SOURCE, TARGET) == ()  # words that are not there


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_weights_of_words_are_means_over_target_and_sums_over_source_pieces(dtype):
    weights = np.random.default_rng(0).random((3, 7)).astype(dtype)
    weights /= weights.sum(axis=1, keepdims=True)  # the last column is the end symbol's
    got = word_weights(weights, SOURCE, TARGET)
    assert got.dtype == dtype and got.shape == (2, 4)
    for j in range(2):
        rows = [t for t in range(3) if TARGET.index[t] == j]
        for i in range(4):
            columns = [s for s in range(6) if SOURCE.index[s] == i] if i < 3 else [6]
            expected = np.mean([sum(float(weights[t, s]) for s in columns) for t in rows])
            assert got[j, i] == pytest.approx(expected, rel=4 * float(np.finfo(dtype).eps))
    assert got.sum(axis=1) == pytest.approx([1, 1], rel=1e-6)


def test_words_of_one_piece_keep_their_weights_and_links():
    weights = np.random.default_rng(1).random((2, 4)).astype(np.float32)
    alone = Words(("a", "b", "c"), (0, 1, 2)), Words(("x", "y"), (0, 1))
    assert (word_weights(weights, *alone) == weights).all()
    assert word_weights(weights, None, None) is not None and (word_weights(weights, None, None) == weights).all()
    assert links_from_weights(word_weights(weights, *alone), 3, 2) == links_from_weights(weights, 3, 2)


def test_no_pieces_at_all():
    none = Words((), ())
    assert word_weights(np.zeros((0, 1), np.float32), none, none).shape == (0, 1)
    assert expand_links(((0, 0, True),), none, none) == ()
