"""English: subject, verb, object, companion, manner, place, time. do-support, a/an, third person -s, questions.

English is the target of Hindi and the source of Spanish.
"""

from __future__ import annotations

from .concepts import Word, content, function, phrase
from .lexicon import ADJECTIVES, ADVERBS, GOALS, NOUNS, NUMERALS, PLACES, PRONOUNS, VERBS, WH
from .meaning import Clause, NounPhrase


def is_plural(np: NounPhrase) -> bool:
    """Whether the verb is plural; "you" counts as plural, elders do not."""
    return PRONOUNS[np.noun].plural if np.noun in PRONOUNS else np.plural


def possessive(owner: NounPhrase | None) -> str:
    """my, your, his, her, our, their."""
    assert owner is not None
    if owner.noun in PRONOUNS:
        return PRONOUNS[owner.noun].possessive
    return "their" if owner.plural else "her" if NOUNS[owner.noun].sex == "f" else "his"


def noun_phrase(np: NounPhrase, key: str, owner: NounPhrase | None = None) -> list[Word]:
    """Determiner, numeral, adjective, noun. The article shares the concepts of the whole phrase."""
    if np.noun in PRONOUNS:
        return [content(PRONOUNS[np.noun].english, key, "agr", *(["ask"] if np.noun == "who" else []))]
    noun = NOUNS[np.noun].english[np.plural]
    adjective = ADJECTIVES[np.adjective].english if np.adjective else ""
    article = {"the": "the", "a": "a", "one": "a"}.get(np.determiner, "")
    if article == "a" and (adjective or noun)[0] in "aeiou":
        article = "an"
    words = []
    if article:
        words.append(function(article, key, key + ".case", key + ".adj", key + ".num"))
    elif np.determiner in ("this", "that"):
        words.append(
            content({"this": "these", "that": "those"}[np.determiner] if np.plural else np.determiner, key + ".det")
        )
    elif np.determiner:
        words.append(content(possessive(owner) if np.determiner == "own" else np.determiner, key + ".det"))
    words += [content(NUMERALS[np.count][1], key + ".num")] if np.count else []
    words += [content(adjective, key + ".adj")] if adjective else []
    return [*words, content(noun, key)]


def present_be(subject: NounPhrase) -> str:
    """am, are, is."""
    if subject.noun in ("I", "I (f)"):
        return "am"
    return "are" if is_plural(subject) else "is"


def past_be(subject: NounPhrase) -> str:
    """was, were."""
    return "were" if is_plural(subject) else "was"


def ends_in_s(subject: NounPhrase) -> bool:
    """Whether the present takes -s."""
    return subject.noun not in ("I", "I (f)") and not is_plural(subject)


def verb_group(clause: Clause, subject: NounPhrase) -> tuple[list[Word], list[Word]]:
    """The auxiliary (may be empty) and the verb with its particles; negation goes between or into the auxiliary."""
    base, third, ing, past, _ = VERBS[clause.verb].english
    third_person = ends_in_s(subject)

    def auxiliary(text: str, *also: str) -> list[Word]:
        return [function(text, "v", "tense", "agr", "ask", *also)]

    if clause.tense == "progressive":
        return auxiliary(present_be(subject), "asp"), [content(ing, "v", "asp")]
    if clause.tense == "past progressive":
        return auxiliary(past_be(subject), "asp"), [content(ing, "v", "asp")]
    if clause.tense == "future":
        return auxiliary("will"), [content(base, "v")]
    if clause.tense == "can":
        modal = content("can", "mod", "tense", "ask")
        if clause.negated:
            modal = content("cannot", "mod", "tense", "neg")
        return [modal], [content(base, "v")]
    does = auxiliary("does" if third_person else "do", "neg")
    needs_do = clause.negated or clause.question not in ("", "who")
    if clause.tense == "want":
        rest = [function("to", "inf", "v", "mod"), content(base, "v")]
        if needs_do:
            return does, [content("want", "mod"), *rest]
        return [], [content("wants" if third_person else "want", "mod", "tense", "agr"), *rest]
    if clause.tense == "habitual":
        if needs_do:
            return does, [content(base, "v")]
        return [], [content(third if third_person else base, "v", "tense", "agr")]
    if needs_do:
        return auxiliary("did", "neg"), [content(base, "v")]
    return [], [content(past, "v", "tense")]


def adjuncts(clause: Clause) -> list[Word]:
    """Companion, manner, place, time: the reverse of Hindi."""
    words = []
    if clause.companion:
        words += [content("with", "with"), *noun_phrase(clause.companion, "c", clause.subject)]
    words += phrase(ADVERBS[clause.manner][1], "manner") if clause.manner else []
    words += phrase(PLACES[clause.place].english, "place") if clause.place else []
    return words + (phrase(ADVERBS[clause.time][1], "time") if clause.time else [])


def complements(clause: Clause) -> list[Word]:
    """Object, recipient and goal."""
    words = []
    if clause.object:
        preposition = VERBS[clause.verb].english[4] if clause.verb else ""
        words += [function(preposition, "v", "o")] if preposition else []
        words += noun_phrase(clause.object, "o", clause.subject)
    if clause.recipient:
        words += [content("to", "r.to"), *noun_phrase(clause.recipient, "r", clause.subject)]
    return words + (phrase(GOALS[clause.goal].english, "goal") if clause.goal else [])


def wh_word(clause: Clause) -> list[Word]:
    """The wh-word that opens the question."""
    return [content(WH[clause.question][1], "wh", "ask")] if clause.question in WH else []


def action(clause: Clause, subject: NounPhrase) -> list[Word]:
    """A clause with a verb."""
    auxiliary, verb = verb_group(clause, subject)
    first = noun_phrase(subject, "s")
    if clause.question not in ("", "who"):
        first = [*wh_word(clause), *auxiliary, *first]
    else:
        first += auxiliary
    if clause.negated and not (auxiliary and auxiliary[0].text == "cannot"):
        first.append(content("not", "neg"))
    frequency = phrase(ADVERBS[clause.frequency][1], "freq") if clause.frequency else []
    preposition = VERBS[clause.verb].english[4]
    stranded = [function(preposition, "v", "wh")] if preposition and clause.question == "what" else []
    return [*first, *frequency, *verb, *stranded, *complements(clause), *adjuncts(clause)]


def be(clause: Clause, subject: NounPhrase) -> list[Word]:
    """X is red, X is on the table, there is X on the table."""
    text = past_be(subject) if clause.tense == "past" else present_be(subject)
    verb = [function(text, "be", "tense", "agr", "ask")]
    first = noun_phrase(subject, "s")
    place = phrase(PLACES[clause.place].english, "place") if clause.place else []
    if clause.kind == "there":
        there = [function("there", "be", "place.0", "place.how")]
        return [*verb, *there, *first, *place] if clause.question else [*there, *verb, *first, *place]
    words = [*wh_word(clause), *verb, *first] if clause.question else [*first, *verb]
    words += [content("not", "neg")] if clause.negated else []
    words += [content(ADJECTIVES[clause.adjective].english, "adj")] if clause.adjective else []
    return words + place + (phrase(ADVERBS[clause.time][1], "time") if clause.time else [])


def have(clause: Clause, subject: NounPhrase) -> list[Word]:
    """I have two books."""
    first, rest = noun_phrase(subject, "s"), complements(clause)
    third_person = ends_in_s(subject)
    if not (clause.negated or clause.question):
        return [*first, content("has" if third_person else "have", "v", "be"), *rest]
    does = [function("does" if third_person else "do", "v", "tense", "agr", "ask", "neg", "be")]
    first = does + first if clause.question else first + does
    first += [content("not", "neg")] if clause.negated else []
    return [*first, content("have", "v", "be"), *rest]


def rain(clause: Clause) -> list[Word]:
    """It is raining: "it" stands for nothing and goes with the verb."""
    it = function("it", "v", "agr")
    text = {"progressive": "is", "past progressive": "was", "future": "will"}[clause.tense]
    auxiliary = function(text, "v", "tense", "agr", "asp", "ask")
    words = [auxiliary, it] if clause.question else [it, auxiliary]
    words += [content("not", "neg")] if clause.negated else []
    words.append(content("rain", "v") if clause.tense == "future" else content("raining", "v", "asp"))
    return words + adjuncts(clause)


def realize(clause: Clause) -> list[Word]:
    """The clause in English."""
    if clause.kind == "rain":
        words = rain(clause)
    else:
        assert clause.subject is not None
        kinds = {"action": action, "have": have}
        words = kinds.get(clause.kind, be)(clause, clause.subject)
    return [*words, function("?", "ask")] if clause.question else words
