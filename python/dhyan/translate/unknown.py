"""Unknown words in an output, replaced by what they were read from (Luong et al. 2015; Jean et al. 2015).

Where a model writes its unknown symbol, it still says by its weights which source word it looks at. That word's entry
in a dictionary, or else the word itself, takes the symbol's place: names and numbers come through, though no vocabulary
has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dhyan.text.pairs import read_pairs
from dhyan.text.vocabulary import MARK, UNKNOWN, normalize
from dhyan.text.words import Words

UNATTENTIVE = ("none", "uniform")  # scorings that look at no word in particular


def read_dictionary(path: str | Path, normalization: str = "nfc") -> dict[str, str]:
    """Source word -> target word of a TSV file, the first line of each word; both in the Unicode form of the model.

    Errors: DataError as `read_pairs`.
    """
    words: dict[str, str] = {}
    for pair in read_pairs(path):
        words.setdefault(normalize(pair.source, normalization), normalize(pair.target, normalization))
    return words


def replaced(
    ids: Sequence[int],
    tokens: Sequence[str],
    weights: np.ndarray,
    source: Sequence[str],
    dictionary: Mapping[str, str],
    words: Words | None = None,
) -> list[str]:
    """The output's tokens, each unknown one replaced by the source token with its largest weight, or by its entry.

    ids, tokens (T), weights (T, S) of the output; source: the tokens that were read, without the end symbol, which
    nothing is copied from. words: copy the whole word that the source token is a piece of. A token that reads nothing
    stays as it is, of equal weights the first counts.
    """
    found = list(tokens)
    inside = np.asarray(weights)[:, : len(source)]
    for t, token_id in enumerate(ids):
        if token_id == UNKNOWN and inside.shape[1] and inside[t].max() > 0:
            s = int(inside[t].argmax())
            copied = source[s].replace(MARK, "") if words is None else words.texts[words.index[s]]
            found[t] = dictionary.get(copied, copied) or found[t]
    return found
