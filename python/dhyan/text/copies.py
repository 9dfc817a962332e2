"""The words of a source as target ids, for models that copy.

Words that the target vocabulary lacks get ids of their own in their sentence, V, V + 1, ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .subword import AnyVocabulary
from .vocabulary import BEGIN, END, PAD, UNKNOWN

# ---------------------------------------------------------------- text


def copies_of(tokens: Sequence[str], target: AnyVocabulary) -> tuple[list[int], list[str]]:
    """(ids, own): source tokens as target ids, and the words that only this sentence has.

    own[i], which the target vocabulary lacks, has the id len(target) + i; they stand in the order they first come.
    """
    ids, own = target.encode(tokens), dict[str, int]()
    for s, token in enumerate(tokens):
        if ids[s] == UNKNOWN:
            ids[s] = own.setdefault(token, len(target) + len(own))
    return ids, list(own)


def extended_ids(tokens: Sequence[str], target: AnyVocabulary, own: Sequence[str]) -> list[int]:
    """Target tokens as ids, those of `own` as in copies_of, others that the vocabulary lacks as unknown."""
    known = {token: len(target) + i for i, token in enumerate(own)}
    ids = target.encode(tokens)
    return [known.get(token, i) if i == UNKNOWN else i for token, i in zip(tokens, ids, strict=True)]


def token_of(i: int, target: AnyVocabulary, own: Sequence[str]) -> str:
    """The token of one id."""
    return target.tokens[i] if i < len(target) else own[i - len(target)]


def extended_tokens(ids: Iterable[int], target: AnyVocabulary, own: Sequence[str]) -> list[str]:
    """Tokens of ids up to the first end symbol, own ones among them; padding and begin symbols are left out."""
    found = []
    for i in ids:
        if i == END:
            break
        if i not in (PAD, BEGIN):
            found.append(token_of(i, target, own))
    return found
