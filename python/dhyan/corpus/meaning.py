"""What a sentence means, before any language: the one input of the Hindi, English and Spanish grammars."""

from __future__ import annotations

from dataclasses import dataclass

# Tenses of action clauses; "want" and "can" are present-tense modals. Copulas know "present" and "past" only.
TENSES = ("habitual", "progressive", "past progressive", "future", "past", "want", "can")
CONJUNCTIONS = ("and", "but", "because", "when")


@dataclass(frozen=True)
class NounPhrase:
    """A noun with its determiner, numeral and adjective; pronouns and names are nouns without them.

    determiner: "" (bare: mass nouns, plurals, names), "the", "a", "one" (as "a", but Hindi says it), "this", "that",
    "my", "your", "own" (the subject's).
    """

    noun: str
    plural: bool = False
    determiner: str = ""
    count: int = 0
    adjective: str = ""


@dataclass(frozen=True)
class Clause:
    """One clause. ``kind``: "action", "be" (adjective or place), "there", "have" or "rain".

    question: "" or "yes/no", "what", "where", "when", "why", "who". A what-question has no object, a who-question
    has the subject "who". goal is where a movement leads, place where things happen: keys of GOALS and PLACES.
    """

    kind: str
    tense: str
    subject: NounPhrase | None = None
    verb: str = ""
    object: NounPhrase | None = None
    recipient: NounPhrase | None = None
    companion: NounPhrase | None = None
    goal: str = ""
    place: str = ""
    time: str = ""
    manner: str = ""
    frequency: str = ""
    adjective: str = ""
    negated: bool = False
    question: str = ""
