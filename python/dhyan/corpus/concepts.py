"""Words that carry concepts, and the gold links that follow from them.

Both languages are written out from one meaning, so nobody has to guess the alignment: every word says which concept it
is the *head* of (a noun, a verb, a negation) and which concepts it *also* expresses (an auxiliary expresses tense).
"""

from __future__ import annotations

from typing import NamedTuple

Link = tuple[int, int, bool]


class Word(NamedTuple):
    """One word: its text, the concept it is the head of (None for a function word), the concepts it also expresses."""

    text: str
    head: str | None
    also: frozenset[str]

    @property
    def concepts(self) -> frozenset[str]:
        """Everything the word expresses."""
        return self.also if self.head is None else self.also | {self.head}


def content(text: str, head: str, *also: str) -> Word:
    """A word with a meaning of its own: noun, main verb, adjective, adverb, numeral, pronoun, negation, wh-word."""
    return Word(text, head, frozenset(also))


def function(text: str, *also: str) -> Word:
    """A word that only marks the concepts it is listed with: article, auxiliary, case marker, particle."""
    return Word(text, None, frozenset(also))


def link(source: list[Word], target: list[Word]) -> tuple[Link, ...]:
    """Gold links (i, j, sure), ordered by target word, then source word.

    A content word of the target has exactly one sure link: to the source word that is the head of the same concept, or,
    where there is none, to the word that also expresses it ("cannot" for "no"). Any other pair of words that share a
    concept is possible. A target word without any link is a mistake in the grammar: LookupError.
    """
    heads = {concept: i for i, word in enumerate(source) for concept in word.also}
    heads |= {word.head: i for i, word in enumerate(source) if word.head is not None}
    source_concepts = [word.concepts for word in source]
    links: list[Link] = []
    for j, word in enumerate(target):
        sure = heads[word.head] if word.head is not None else -1
        wanted = word.concepts
        row = [(i, j, i == sure) for i, have in enumerate(source_concepts) if i == sure or not wanted.isdisjoint(have)]
        if not row:
            raise LookupError(f"no source word shares a concept with {word}")
        links += row
    return tuple(links)


def phrase(text: str, key: str) -> list[Word]:
    """Words of a fixed phrase written as in the lexicon: "*word" is a head, "+word" says how, the rest belong to them.

    >>> [word.head for word in phrase("+in the *garden", "place")]
    ['place.how', None, 'place.0']
    """
    heads = 0
    named: list[tuple[str, str | None]] = []
    for item in text.split():
        if item[0] == "*":
            named.append((item[1:], f"{key}.{heads}"))
            heads += 1
        else:
            named.append((item[1:], f"{key}.how") if item[0] == "+" else (item, None))
    every = tuple(head for _, head in named if head is not None)
    heads_of_unit = [head for head in every if not head.endswith(".how")]
    return [
        function(text, *every) if head is None else content(text, head, *_others(head, heads_of_unit))
        for text, head in named
    ]


def _others(head: str, unit: list[str]) -> list[str]:
    """The other heads of an expression that is one unit: "every" and "day" in "every day"."""
    return [other for other in unit if other != head] if head in unit else []
