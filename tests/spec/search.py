"""What a search may return, for reading: every output of a tiny vocabulary, which are allowed, and their score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from dhyan import SearchOptions

from spec import model as reference

Output = tuple[float, list[int], np.ndarray]  # score, ids without the end symbol, weights (T, S) of those


def contains(ids: Sequence[int], phrase: Sequence[int]) -> bool:
    """The phrase stands somewhere in ids, its tokens next to each other."""
    n = len(phrase)
    return any(list(ids[i : i + n]) == list(phrase) for i in range(len(ids) - n + 1))


def allowed(
    ids: list[int], options: SearchOptions, prefix: Sequence[int] = (), phrases: Sequence[Sequence[int]] = ()
) -> bool:
    """The output (without its end symbol) obeys every rule. What the prefix says is exempt from the bans."""
    n, own = options.no_repeat_ngram, range(len(prefix), len(ids))
    grams = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)] if n else []
    return (
        len(ids) >= options.min_length
        and ids[: len(prefix)] == list(prefix)
        and all(contains(ids, phrase) for phrase in phrases)
        and not (options.no_unknown and any(ids[t] == 3 for t in own))
        and not any(grams[i] in grams[:i] and i + n - 1 >= len(prefix) for i in range(len(grams)))
    )


def score(total: float, weights: np.ndarray, options: SearchOptions) -> float:
    """Of an output with summed log-probability `total`; weights (n, S) of all its n symbols, the end symbol's too."""
    n = len(weights)
    length = n if options.length_form == "power" else (5 + n) / 6
    covered = np.clip(weights.sum(0), 1e-6, 1)
    return total / length**options.length_penalty + options.coverage_penalty * np.log(covered).sum()


def exhaustive(
    model: Any,
    source: np.ndarray,
    options: SearchOptions,
    most: int,
    prefix: Sequence[int] = (),
    phrases: Sequence[Sequence[int]] = (),
) -> list[Output]:
    """Every allowed output of one sentence in at most `most` steps, best first."""
    p, config, lengths = model.parameters(), model.config, np.array([source.shape[1]])
    found = []
    for ids, total in reference.exhaustive(p, config, source, lengths, most):
        if allowed(ids[:-1], options, prefix, phrases):
            _, weights = reference.force(p, config, source, lengths, np.array([[1, *ids]]), hard=True)
            found.append((score(total, weights[0, : len(ids)], options), ids[:-1], weights[0, : len(ids) - 1]))
    return sorted(found, key=lambda output: -output[0])
