"""Words and the pieces they were cut into.

People count words: gold links, and the links a model prints, name words whatever the model reads. A model of subwords
has weights between pieces. Links go from words to pieces, so that a model can learn from them: a linked pair of words
links each piece of the one to each piece of the other. Weights go back from pieces to words, so that they can be
compared: what a word was read from is the mean over its pieces, and what it reads of a word the sum over that word's,

    words[j, i] = mean over pieces t of target word j of (sum over pieces s of source word i of weights[t, s])

so that a row still sums to what it summed to, and words of one piece keep their weights. Arg-max links of these are
those of a model of words (`metrics.links_from_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pairs import Links


@dataclass(frozen=True)
class Words:
    """The words of a token sequence: token i is a piece of the word texts[index[i]]; index ascends by 0 or 1."""

    texts: tuple[str, ...]
    index: tuple[int, ...]


def expand_links(links: Links, source: Words | None, target: Words | None) -> Links:
    """Links of words as links of their pieces, every piece of one word with every piece of the other; sorted.

    None: the tokens of that side are what the links count. Links to words that are not there are left out.
    """
    sources, targets = _pieces(source), _pieces(target)
    if sources is None and targets is None:
        return links
    return tuple(
        sorted(
            (s, t, sure)
            for i, j, sure in links
            for s in ((i,) if sources is None else sources.get(i, ()))
            for t in ((j,) if targets is None else targets.get(j, ()))
        )
    )


def word_weights(weights: np.ndarray, source: Words | None, target: Words | None) -> np.ndarray:
    """Weights (T, S) between pieces as weights between words, by the formula above; sums run in float64.

    S may count positions after the last source piece, such as the end symbol's: each stays a column of its own.
    """
    result = np.asarray(weights)
    dtype = result.dtype
    if source is not None:
        more = result.shape[1] - len(source.index)
        columns = np.array([*source.index, *range(len(source.texts), len(source.texts) + more)], dtype=np.int64)
        summed = np.zeros((len(source.texts) + more, len(result)))
        np.add.at(summed, columns, result.T)
        result = summed.T
    if target is not None:
        index = np.array(target.index, dtype=np.int64)
        summed = np.zeros((len(target.texts), result.shape[1]))
        np.add.at(summed, index, result.astype(np.float64))
        result = summed / np.maximum(np.bincount(index, minlength=len(target.texts)), 1)[:, None]
    return result.astype(dtype, copy=False)


def _pieces(words: Words | None) -> dict[int, list[int]] | None:
    """Of each word the positions of its pieces."""
    if words is None:
        return None
    pieces: dict[int, list[int]] = {}
    for position, word in enumerate(words.index):
        pieces.setdefault(word, []).append(position)
    return pieces
