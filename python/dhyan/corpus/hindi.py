"""Hindi: subject, time, place, manner, object, verb. Agreement, the oblique case and the ergative ने.

The verb agrees with its subject in gender and number; in the simple past of ergative verbs the subject takes ने and the
verb agrees with the unmarked object, or is masculine singular. Elders are spoken of in the (honorific) plural.
Negation and wh-words stand right before the verb; the auxiliary is kept under negation.
"""

from __future__ import annotations

from typing import NamedTuple

from .concepts import Word, content, function, phrase
from .lexicon import ADJECTIVES, ADVERBS, GOALS, IDIOM, IDIOM_VERBS, NOUNS, NUMERALS, PLACES, PRONOUNS, VERBS, WH
from .meaning import Clause, NounPhrase


class Agreement(NamedTuple):
    """What a verb agrees with."""

    person: int
    plural: bool
    gender: str


VOWEL_SIGNS = "ािीुूेैोौआओ"
IRREGULAR_PAST = {
    "कर": ("किया", "किए", "की", "कीं"),
    "जा": ("गया", "गए", "गई", "गईं"),
    "दे": ("दिया", "दिए", "दी", "दीं"),
    "पी": ("पिया", "पिए", "पी", "पीं"),
}
FUTURE_STEM = {"दे": "द", "पी": "पि"}
POSSESSIVES = {"my": "मेरा", "your": "तुम्हारा", "own": "अपना"}
DEMONSTRATIVES = {  # direct singular, direct plural, oblique singular, oblique plural
    "this": ("यह", "ये", "इस", "इन"),
    "that": ("वह", "वे", "उस", "उन"),
}


def plural_form(noun: str) -> str:
    """Direct plural; masculine nouns that do not end in ा keep their form."""
    word, gender = NOUNS[noun].hindi
    if gender == "m":
        return word[:-1] + "े" if word.endswith("ा") else word
    if word.endswith("ी"):
        return word[:-1] + "ियाँ"
    if word.endswith("िया"):
        return word + "ँ"
    return word + ("एँ" if word.endswith("ा") else "ें")


def oblique_form(noun: str, plural: bool) -> str:
    """The form before a postposition."""
    word, gender = NOUNS[noun].hindi
    declines = gender == "m" and word.endswith("ा") and NOUNS[noun].kind not in ("name", "elder")
    if not plural:
        return word[:-1] + "े" if declines else word
    if word.endswith(("ी", "ई")):
        return word[:-1] + ("ियों" if word.endswith("ी") else "इयों")
    if declines or word.endswith("िया"):
        return word[:-1] + "ों"
    return word + ("ओं" if word.endswith("ा") else "ों")


def decline(adjective: str, gender: str, direct_singular: bool) -> str:
    """Adjectives (and possessives) in -ा: -ा, -े, -ी; नया: नया, नए, नई. Others never change."""
    if not adjective.endswith("ा"):
        return adjective
    if adjective.endswith("या"):
        return adjective[:-2] + ("ई" if gender == "f" else "या" if direct_singular else "ए")
    return adjective[:-1] + ("ी" if gender == "f" else "ा" if direct_singular else "े")


def noun_phrase(np: NounPhrase, key: str, *, oblique: bool = False) -> list[Word]:
    """Determiner, numeral, adjective, noun. "the" and, for objects, "a" have no word of their own."""
    if np.noun in PRONOUNS:
        return [content(PRONOUNS[np.noun].hindi[0], key, "agr")]
    noun = NOUNS[np.noun]
    gender = noun.hindi[1]
    direct_singular = not oblique and not np.plural and not noun.honored
    words = []
    if np.determiner == "one":
        words.append(function("एक", key))
    elif np.determiner in DEMONSTRATIVES:
        words.append(content(DEMONSTRATIVES[np.determiner][2 * oblique + np.plural], key + ".det"))
    elif np.determiner in POSSESSIVES:
        words.append(content(decline(POSSESSIVES[np.determiner], gender, direct_singular), key + ".det"))
    if np.count:
        words.append(content(NUMERALS[np.count][0], key + ".num"))
    if np.adjective:
        words.append(content(decline(ADJECTIVES[np.adjective].hindi, gender, direct_singular), key + ".adj"))
    text = oblique_form(np.noun, np.plural) if oblique else plural_form(np.noun) if np.plural else noun.hindi[0]
    return [*words, content(text, key)]


def agreement(np: NounPhrase) -> Agreement:
    """Person, number and gender as the verb sees them."""
    if np.noun in PRONOUNS:
        pronoun = PRONOUNS[np.noun]
        return Agreement(pronoun.person, pronoun.plural, pronoun.gender)
    noun = NOUNS[np.noun]
    return Agreement(3, np.plural or noun.honored, noun.hindi[1])


def participle(base: str, to: Agreement) -> str:
    """-ा, -े, -ी by gender and number."""
    return base + ("ी" if to.gender == "f" else "े" if to.plural else "ा")


def present_be(to: Agreement, polite: bool) -> str:
    """हूँ, हो, हैं, है."""
    if to.person == 1 and not to.plural:
        return "हूँ"
    if to.person == 2 and not polite:
        return "हो"
    return "हैं" if to.plural else "है"


def past_be(to: Agreement) -> str:
    """था, थे, थी, थीं."""
    return "थीं" if to.gender == "f" and to.plural else participle("थ", to)


def future(stem: str, to: Agreement, polite: bool) -> str:
    """खाऊँगा, खाएगा, खाएँगे, खाओगे; पढ़ूँगा, पढ़ेगा, पढ़ेंगे, पढ़ोगे."""
    stem = FUTURE_STEM.get(stem, stem)
    vowel = stem[-1] in VOWEL_SIGNS
    if to.person == 1 and not to.plural:
        ending = "ऊँ" if vowel else "ूँ"
    elif to.person == 2 and not polite:
        ending = "ओ" if vowel else "ो"
    elif to.plural:
        ending = "एँ" if vowel else "ें"
    else:
        ending = "ए" if vowel else "े"
    return participle(stem + ending + "ग", to)


def past(stem: str, to: Agreement) -> str:
    """खाया, खाए, खाई, खाईं; पढ़ा, पढ़े, पढ़ी, पढ़ीं."""
    vowel = stem[-1] in VOWEL_SIGNS
    forms = IRREGULAR_PAST.get(
        stem,
        (stem + "या", stem + "ए", stem + "ई", stem + "ईं") if vowel else (stem + "ा", stem + "े", stem + "ी", stem + "ीं"),
    )
    return forms[2 * (to.gender == "f") + to.plural]


def is_ergative(clause: Clause) -> bool:
    """Whether the subject takes ने."""
    return clause.kind == "action" and clause.tense == "past" and VERBS[clause.verb].ergative


def past_agreement(clause: Clause, subject: Agreement) -> Agreement:
    """With ने the verb agrees with the bare object or preverb, else it is masculine singular."""
    if not is_ergative(clause):
        return subject
    verb = VERBS[clause.verb]
    if verb.hindi[1]:
        return Agreement(3, False, verb.hindi[1])
    if clause.object is None or verb.mark:
        return Agreement(3, False, "m")
    return agreement(clause.object)


def verb_group(clause: Clause, subject: Agreement, polite: bool) -> list[Word]:
    """Wh-word, preverb, negation, main verb, auxiliaries."""
    preverb, _, stem = VERBS[clause.verb].hindi
    verb = content(stem, "v")
    if preverb:
        verb = function(stem, "v")

    def main(text: str, *also: str) -> Word:
        return verb._replace(text=text, also=verb.also | set(also))

    before = [content(preverb, "v")] if preverb else []
    if clause.question in WH:  # कब साफ़ करोगे, but साफ़ क्यों नहीं करोगे, मीरा की मदद कब करोगे
        after_preverb = clause.negated or VERBS[clause.verb].mark == "की"
        before.insert(len(before) if after_preverb else 0, content(WH[clause.question][0], "wh", "ask"))
    negation = [content("नहीं", "neg")] if clause.negated else []
    be = function(present_be(subject, polite), "tense", "agr")
    if clause.tense == "habitual":
        return [*before, *negation, main(participle(stem + "त", subject), "tense", "agr"), be]
    if clause.tense in ("progressive", "past progressive"):
        be = be if clause.tense == "progressive" else function(past_be(subject), "tense", "agr")
        return [*before, *negation, main(stem), function(participle("रह", subject), "asp", "tense", "agr"), be]
    if clause.tense == "future":
        return [*before, *negation, main(future(stem, subject, polite), "tense", "agr")]
    if clause.tense == "past":
        return [*before, *negation, main(past(stem, past_agreement(clause, subject)), "tense", "agr")]
    modal = content(participle("चाहत" if clause.tense == "want" else "सकत", subject), "mod", "tense", "agr")
    if clause.tense == "want":
        return [*before, main(stem + "ना", "inf"), *negation, modal, be]
    return [*before, main(stem), *negation, modal, be]


def object_phrase(clause: Clause) -> list[Word]:
    """The object with its postposition, or the noun of the idiom "to eat"."""
    if clause.object is None:
        idiom = clause.verb in IDIOM_VERBS and clause.question != "what"
        return [function(IDIOM, "v")] if idiom else []
    mark = VERBS[clause.verb].mark
    words = noun_phrase(clause.object, "o", oblique=bool(mark))
    return [*words, function(mark, "o.case")] if mark else words


def adjuncts(clause: Clause) -> list[Word]:
    """Frequency, time, companion, place, manner."""
    words = []
    for key, adverb in (("freq", clause.frequency), ("time", clause.time)):
        words += phrase(ADVERBS[adverb][0], key) if adverb else []
    if clause.companion:
        words += [*noun_phrase(clause.companion, "c", oblique=True), function("के", "with"), content("साथ", "with")]
    words += phrase(PLACES[clause.place].hindi, "place") if clause.place else []
    return words + (phrase(ADVERBS[clause.manner][0], "manner") if clause.manner else [])


def action(clause: Clause, subject: NounPhrase) -> list[Word]:
    """A clause with a verb."""
    ergative = is_ergative(clause)
    if ergative and subject.noun in PRONOUNS:
        first = [content(PRONOUNS[subject.noun].hindi[1], "s", "agr")]
    else:
        first = noun_phrase(subject, "s", oblique=ergative)
        first += [function("ने", "s.case", "tense")] if ergative else []
    rest = object_phrase(clause)
    if clause.recipient:
        rest = [*noun_phrase(clause.recipient, "r", oblique=True), content("को", "r.to"), *rest]
    rest += phrase(GOALS[clause.goal].hindi, "goal") if clause.goal else []
    verb = verb_group(clause, agreement(subject), subject.noun == "you (polite)")
    if clause.question == "who":  # an asked subject stands where wh-words stand: after the object
        return [*adjuncts(clause), *rest, *first, *verb]
    return [*first, *adjuncts(clause), *rest, *verb]


def be(clause: Clause, subject: NounPhrase) -> list[Word]:
    """X is red, X is on the table, there is X on the table, I have X."""
    to = agreement(subject)
    if clause.kind == "have":
        assert clause.object is not None
        to = agreement(clause.object)
    polite = subject.noun == "you (polite)"
    text = past_be(to) if clause.tense == "past" else present_be(to, polite)
    ending = [content("नहीं", "neg")] if clause.negated else []
    ending.append(function(text, "tense", "agr", "be"))
    place = phrase(PLACES[clause.place].hindi, "place") if clause.place else []
    if clause.kind == "there":
        return [*place, *noun_phrase(subject, "s"), *ending]
    if clause.kind == "have":
        assert clause.object is not None
        if subject.noun in PRONOUNS:
            owner = [content(PRONOUNS[subject.noun].hindi[2], "s")]
        else:
            owner = [*noun_phrase(subject, "s", oblique=True), function("के", "s.case")]
        return [*owner, content("पास", "v"), *noun_phrase(clause.object, "o"), *ending]
    words = noun_phrase(subject, "s")
    words += phrase(ADVERBS[clause.time][0], "time") if clause.time else []
    words += place
    if clause.question == "where":
        words.append(content(WH["where"][0], "wh", "ask"))
    if clause.adjective:
        text = decline(ADJECTIVES[clause.adjective].hindi, to.gender, not to.plural)
        words.append(content(text, "adj"))
    return words + ending


def rain(clause: Clause) -> list[Word]:
    """बारिश हो रही है: "rain is happening"."""
    words = phrase(ADVERBS[clause.time][0], "time") if clause.time else []
    words += phrase(PLACES[clause.place].hindi, "place") if clause.place else []
    words.append(content("बारिश", "v"))
    words += [content("नहीं", "neg")] if clause.negated else []
    if clause.tense == "future":
        return [*words, function("होगी", "v", "tense", "agr")]
    be = "है" if clause.tense == "progressive" else "थी"
    return [*words, function("हो", "v"), function("रही", "asp", "tense", "agr"), function(be, "tense", "agr")]


def realize(clause: Clause) -> list[Word]:
    """The clause in Hindi."""
    if clause.kind == "rain":
        words = rain(clause)
    else:
        assert clause.subject is not None
        words = action(clause, clause.subject) if clause.kind == "action" else be(clause, clause.subject)
    if clause.question == "yes/no":
        words.insert(0, function("क्या", "ask"))
    return [*words, function("?", "ask")] if clause.question else words
