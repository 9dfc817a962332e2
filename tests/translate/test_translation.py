"""A translation as words where the model has pieces of them; what else it shows is tested with the translator."""

import numpy as np
from dhyan.text.words import Words
from dhyan.translate.translation import SOURCE_END, Translation

WEIGHTS = np.array([[0.5, 0.3, 0.1, 0.1], [0.2, 0.2, 0.5, 0.1], [0.0, 0.3, 0.3, 0.4]], np.float32)


def test_tokens_that_are_words_are_left_alone():
    made = Translation("x y z", ["x", "y", "z"], ["a", "b", "c", SOURCE_END], -0.5, WEIGHTS)
    assert made.in_words() is made
    assert made.to_dict()["weights"][0] == [0.5, 0.3, 0.1, 0.1]


def test_pieces_become_words():
    other = Translation(
        "x", ["▁x"], ["▁a", "b", "▁c", SOURCE_END], -0.7, WEIGHTS[:1], (), Words(("ab", "c"), (0, 0, 1))
    )
    made = Translation(
        "x yz", ["▁x", "▁y", "z"], ["▁a", "b", "▁c", SOURCE_END], -0.5, WEIGHTS, (other,),
        Words(("ab", "c"), (0, 0, 1)), Words(("x", "yz"), (0, 1, 1)),
    )  # fmt: skip
    words = made.in_words()
    assert (words.text, words.tokens, words.source_tokens) == ("x yz", ["x", "yz"], ["ab", "c", SOURCE_END])
    assert np.allclose(words.weights, [[0.8, 0.1, 0.1], [0.35, 0.4, 0.25]], atol=1e-7)
    assert made.links() == [(0, 0), (2, 1)] and words.links() == [(0, 0), (1, 1)]
    assert words.score == made.score and words.in_words() is words
    assert words.others[0].tokens == ["▁x"] and words.others[0].source_tokens == ["ab", "c", SOURCE_END]
