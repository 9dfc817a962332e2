"""Meanings drawn at random: what is sensible to say, and what each language pair can say without ambiguity.

A source sentence must determine its target, so meanings whose source would be ambiguous are refused (``is_clear``).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

from . import english
from .hindi import is_ergative, plural_form
from .lexicon import ADJECTIVES, NOUNS, PLACES, PRONOUNS, VERBS
from .meaning import Clause, NounPhrase

OF_KIND: dict[str, list[str]] = {}
for _name, _noun in NOUNS.items():
    OF_KIND.setdefault(_noun.kind, []).append(_name)
SUITED: dict[str, list[str]] = {}  # adjectives by kind of noun
for _name, _adjective in ADJECTIVES.items():
    for _kind in _adjective.of:
        SUITED.setdefault(_kind, []).append(_name)
ACTIONS = [verb for verb in VERBS if verb not in ("do", "live")]
ANIMAL_ACTIONS = [verb for verb in ACTIONS if VERBS[verb].animals]
ACTION_TENSES = {
    "habitual": 0.2,
    "progressive": 0.22,
    "past progressive": 0.1,
    "future": 0.19,
    "past": 0.18,
    "want": 0.07,
    "can": 0.06,
}
ADVERBIAL_TIMES = {
    "habitual": ("every day", "in the morning", "in the evening"),
    "progressive": ("today", "now"),
    "past progressive": ("yesterday", "today", "in the morning", "in the evening", "on Monday", "on Sunday"),
    "future": ("tomorrow", "today", "in the morning", "in the evening", "on Monday", "on Sunday"),
    "past": ("yesterday", "today", "in the morning", "in the evening", "on Monday", "on Sunday"),
    "want": ("today", "now"),
    "can": ("today", "now"),
}
OUTDOORS = ("in the garden", "in the park", "in the market", "in the village", "in Delhi")
HOME = ("at home", "in the room")
PLACES_OF = {  # where an action can happen; those not listed happen anywhere in ANYWHERE
    "swim": ("in the village", "in the park", "in Delhi"),
    "play": ("in the garden", "in the park", "at school", "in the village", "at home", "in Delhi"),
    "buy": ("in the market", "in Delhi", "in the village"),
    "cook": ("at home", "in the garden", "in the village"),
    "close": HOME,
    "clean": ("at home", "at school", "in the village"),
    "call": (*HOME, *OUTDOORS),
    "watch": ("at home", "at school", "in Delhi", "in the room", "in the village"),
}
ANYWHERE = (*OUTDOORS, *HOME, "at school", "under the tree")
INDOORS = ("opening", "room", "furniture")
SMALL_THINGS = ("fruit", "egg", "book", "text", "paper")


def pick(rng: Random, weights: dict[str, float]) -> str:
    """One key, by weight."""
    return rng.choices(list(weights), list(weights.values()))[0]


def person(rng: Random, kinds: tuple[str, ...] = ("person", "kin", "name", "elder")) -> NounPhrase:
    """Somebody: the boy, two girls, my sister, Meera."""
    noun = rng.choice(OF_KIND[rng.choice(kinds)])
    kind = NOUNS[noun].kind
    if kind == "name":
        return NounPhrase(noun)
    if kind in ("kin", "elder"):
        plural = kind == "kin" and rng.random() < 0.25
        return NounPhrase(noun, plural, rng.choice(("my", "my", "your")))
    return described(rng, noun, {"the": 0.6, "one": 0.1, "this": 0.08, "that": 0.07, "number": 0.15}, 0.07)


def described(rng: Random, noun: str, determiners: dict[str, float], adjectives: float) -> NounPhrase:
    """The noun with a determiner, a number and sometimes an adjective that suits it."""
    determiner = pick(rng, determiners)
    suited = SUITED.get(NOUNS[noun].kind)
    adjective = rng.choice(suited) if suited and rng.random() < adjectives else ""
    if determiner == "number":
        return NounPhrase(noun, True, "", rng.choice((2, 3, 4, 5)), adjective)
    plural = determiner not in ("a", "one") and (determiner == "" or rng.random() < 0.3)
    plural = plural and NOUNS[noun].kind != "place"
    return NounPhrase(noun, plural, determiner, 0, adjective)


def subject_of(rng: Random) -> NounPhrase:
    """Who acts: a pronoun half of the time."""
    if rng.random() < 0.5:
        pronouns = ("I", "I", "I", "I (f)", "you", "you", "you (polite)", "he", "he", "she", "she", "we", "they")
        return NounPhrase(rng.choice(pronouns))
    return person(rng)


def thing(rng: Random, noun: str, tense: str) -> NounPhrase:
    """An inanimate object; bare, Hindi takes things of the house as known: दरवाज़ा is the door, सेब an apple.

    Habits are about things in general: apples, two apples, my books, not one apple.
    """
    if not NOUNS[noun].english[1]:
        return NounPhrase(noun)
    kind = NOUNS[noun].kind
    if kind in INDOORS:
        return described(rng, noun, {"the": 0.6, "number": 0.1, "this": 0.15, "own": 0.15}, 0.2)
    weights = {"a": 0.45, "": 0.15, "number": 0.2, "this": 0.1, "own": 0.1}
    if tense == "habitual":
        weights = {"": 0.6, "number": 0.3, "own": 0.1}
    if kind not in ("book", "text", "song", "paper"):
        del weights["own"]
    return described(rng, noun, weights, 0.3)


def object_of(rng: Random, verb: str, tense: str) -> NounPhrase | None:
    """Something or somebody the verb can take."""
    kind = rng.choice(VERBS[verb].objects)
    if not kind:
        return None
    if VERBS[verb].mark:
        if kind == "animal":
            return described(rng, rng.choice(OF_KIND[kind]), {"the": 0.8, "this": 0.1, "that": 0.1}, 0.3)
        who = person(rng, (kind,))
        return replace(who, determiner="own") if who.determiner == "my" and rng.random() < 0.6 else who
    return thing(rng, rng.choice(OF_KIND[kind]), tense)


def question_of(rng: Random, clause: Clause) -> Clause:
    """The clause as a question that fits it."""
    kinds = ["yes/no", "yes/no", "when", "why"]
    if clause.tense not in ("future", "past", "habitual"):
        kinds.remove("when")
    if not clause.goal and clause.verb not in ("go", "come"):
        kinds.append("where")
    if clause.verb == "go" and not clause.negated:
        kinds += ["where", "where"]
    if VERBS[clause.verb].objects not in (("",), ("game",)) and not VERBS[clause.verb].mark and not clause.recipient:
        kinds += ["what", "what"]
    if not clause.negated:
        kinds += ["who", "who"]
    kind = rng.choice(kinds)
    if clause.negated and (kind != "why" or clause.tense in ("want", "can")):
        clause = replace(clause, negated=False)
    if clause.subject is not None and clause.subject.determiner == "one":  # one asks about somebody known
        clause = replace(clause, subject=replace(clause.subject, determiner="the"))
    if kind == "what":
        verb = "do" if clause.tense in ("progressive", "future", "past") and rng.random() < 0.4 else clause.verb
        clause = replace(clause, object=None, verb=verb, manner="")
    if kind == "who":
        clause = replace(clause, subject=NounPhrase("who"))
    if kind == "where":
        clause = replace(clause, place="", goal="", frequency="")
    if kind == "when":
        clause = replace(clause, time="", frequency="")
    return replace(clause, question=kind)


def action(rng: Random, tense: str = "", ask: float = 0.0) -> Clause:
    """Somebody does something."""
    tense = tense or pick(rng, ACTION_TENSES)
    if rng.random() < 0.12:
        subject = described(
            rng, rng.choice(OF_KIND["animal"]), {"the": 0.6, "one": 0.1, "this": 0.1, "number": 0.2}, 0.2
        )
        verb = rng.choice(ANIMAL_ACTIONS)
    else:
        subject, verb = subject_of(rng), rng.choice(ACTIONS)
    if tense == "habitual" and rng.random() < 0.05:
        place = rng.choice(("in the village", "in Delhi"))
        clause = Clause("action", tense, subject, "live", place=place, negated=rng.random() < 0.2)
        if rng.random() >= ask:
            return clause
        return replace(clause, negated=False, place="", question="where")
    goal = rng.choice(("school", "market", "village", "park", "Delhi", "home")) if verb == "go" else ""
    recipient = person(rng, ("person", "kin", "name")) if verb == "give" else None
    obj = object_of(rng, verb, tense)
    if verb == "drink" and subject.noun in OF_KIND["animal"]:
        obj = NounPhrase(rng.choice(("water", "milk")))
    clause = Clause("action", tense, subject, verb, obj, recipient, goal=goal)
    clause = with_adjuncts(rng, clause)
    if rng.random() < 0.18:
        clause = replace(clause, negated=True, frequency="", manner="")
    return question_of(rng, clause) if rng.random() < ask else clause


def with_adjuncts(rng: Random, clause: Clause) -> Clause:
    """Add up to two of time, place, companion, manner and frequency."""
    times = ADVERBIAL_TIMES[clause.tense]
    kinds = {"time": 0.35, "place": 0.3, "companion": 0.12, "manner": 0.1, "frequency": 0.13}
    wanted = rng.choices((0, 1, 2), (0.35, 0.4, 0.25))[0]
    for kind in dict.fromkeys(pick(rng, kinds) for _ in range(wanted)):  # a set would be ordered by the hash seed
        if kind == "time" and not clause.frequency:
            clause = replace(clause, time=rng.choice(times))
        elif kind == "place" and clause.verb not in ("go", "come"):
            clause = replace(clause, place=rng.choice(PLACES_OF.get(clause.verb, ANYWHERE)))
        elif kind == "companion" and clause.verb in ("go", "come", "play", "work", "swim", "watch", "sing", "laugh"):
            friend = rng.choice(("friend", "brother", "sister"))
            clause = replace(clause, companion=NounPhrase(friend, rng.random() < 0.2, "own"))
        elif kind == "manner" and VERBS[clause.verb].manners:
            clause = replace(clause, manner=rng.choice(VERBS[clause.verb].manners))
        elif kind == "frequency" and clause.tense == "habitual" and not clause.time:
            clause = replace(clause, frequency=rng.choice(("always", "often")))
    return clause


def quality(rng: Random, ask: float) -> Clause:
    """Somebody or something is tall, red, happy."""
    name = rng.choice(list(ADJECTIVES))
    kinds = ADJECTIVES[name].of or ("person", "kin", "name", "elder", "pronoun")
    kind = rng.choice(kinds)
    if kind == "pronoun":
        subject = NounPhrase(rng.choice(("I", "you", "he", "she", "we", "they")))
    elif kind in ("person", "kin", "name", "elder"):
        subject = replace(person(rng, (kind,)), adjective="")
        subject = replace(subject, determiner="the") if subject.determiner == "one" else subject
    else:
        subject = described(rng, rng.choice(OF_KIND[kind]), {"the": 0.6, "this": 0.25, "that": 0.15}, 0.0)
    tense = "past" if rng.random() < 0.3 else "present"
    time = "today" if ADJECTIVES[name].estar and tense == "present" and rng.random() < 0.3 else ""
    clause = Clause("be", tense, subject, adjective=name, time=time, negated=rng.random() < 0.2)
    return replace(clause, negated=False, question="yes/no") if rng.random() < ask else clause


def whereabouts(rng: Random, ask: float) -> Clause:
    """Somebody or something is somewhere."""
    tense = "past" if rng.random() < 0.3 else "present"
    if rng.random() < 0.5:
        subject = described(rng, rng.choice(OF_KIND[rng.choice(SMALL_THINGS)]), {"the": 0.8, "this": 0.2}, 0.1)
        place = rng.choice(("on the table", "in the room"))
    else:
        subject = subject_of(rng)
        subject = replace(subject, determiner="the") if subject.determiner == "one" else subject
        place = rng.choice(ANYWHERE)
    if rng.random() < ask:
        question = rng.choice(("yes/no", "where"))
        return Clause("be", tense, subject, place="" if question == "where" else place, question=question)
    return Clause("be", tense, subject, place=place, negated=rng.random() < 0.2)


def existence(rng: Random, ask: float) -> Clause:
    """There is something somewhere."""
    if rng.random() < 0.5:
        kind, place = rng.choice(SMALL_THINGS), rng.choice(("on the table", "in the room"))
    else:
        kind, place = rng.choice(("animal", "person")), rng.choice([p for p in ANYWHERE if p in PLACES])
    subject = described(rng, rng.choice(OF_KIND[kind]), {"one": 0.5, "number": 0.5}, 0.25)
    tense = "past" if rng.random() < 0.3 else "present"
    return Clause("there", tense, subject, place=place, question="yes/no" if rng.random() < ask else "")


def possession(rng: Random, ask: float) -> Clause:
    """Somebody has something."""
    noun = rng.choice(OF_KIND[rng.choice(("fruit", "book", "text", "animal", "paper", "room"))])
    owned = described(rng, noun, {"one": 0.4, "number": 0.6}, 0.25)
    return Clause("have", "present", subject_of(rng), object=owned, question="yes/no" if rng.random() < ask else "")


def weather(rng: Random, ask: float, tense: str = "") -> Clause:
    """It is raining."""
    tense = tense or rng.choice(("progressive", "past progressive", "future"))
    time = rng.choice(ADVERBIAL_TIMES[tense]) if rng.random() < 0.6 else ""
    place = rng.choice(("in Delhi", "in the village")) if rng.random() < 0.4 else ""
    clause = Clause("rain", tense, time=time, place=place, negated=rng.random() < 0.2)
    return replace(clause, negated=False, question="yes/no") if rng.random() < ask else clause


def clause(rng: Random, ask: float = 0.0, tense: str = "") -> Clause:
    """Any clause; ask is the chance of a question; a given tense leaves actions and weather."""
    if tense:
        return weather(rng, 0.0, tense) if rng.random() < 0.1 else action(rng, tense)
    kind = pick(rng, {"action": 0.8, "quality": 0.06, "where": 0.04, "there": 0.04, "have": 0.04, "rain": 0.02})
    if kind == "action":
        return action(rng, ask=ask)
    kinds = {"quality": quality, "where": whereabouts, "there": existence, "have": possession, "rain": weather}
    return kinds[kind](rng, ask)


def same_plural(np: NounPhrase | None) -> bool:
    """A Hindi plural that no numeral, ending or demonstrative tells from the singular: सेब."""
    if np is None or np.noun in PRONOUNS or not np.plural or np.count or np.determiner in ("this", "that"):
        return False
    return plural_form(np.noun) == NOUNS[np.noun].hindi[0]


def is_clear_hindi(clause: Clause) -> bool:
    """Whether the Hindi clause has one English translation."""
    subject = clause.subject
    if subject is not None and subject.noun in ("he", "she"):  # वह, उसने, उसके: only agreement tells them apart
        if is_ergative(clause) or clause.kind == "have":
            return False
        changes = clause.adjective and ADJECTIVES[clause.adjective].hindi.endswith("ा")
        if clause.kind == "be" and clause.tense == "present" and not changes:
            return False
    if subject is not None and subject.noun == "I (f)" and clause.tense == "future":
        return False  # clear, but one rare word form for every verb
    if clause.kind == "action" and VERBS[clause.verb].mark:
        return True  # the oblique tells the number
    return not same_plural(clause.object)


def is_clear_english(clause: Clause) -> bool:
    """Whether the English clause has one Spanish translation."""
    subject = clause.subject
    if subject is None:
        return True
    if clause.adjective and subject.noun == "I (f)":
        return False
    if clause.verb == "read" and clause.tense == "past" and not clause.negated and clause.question in ("", "who"):
        return english.ends_in_s(subject)  # "he read" is past, "they read" may be either
    return True


def is_sensible(clause: Clause) -> bool:
    """Refuse "I am calling me"-like clauses: nobody acts on, for or with the same person."""
    subject = clause.subject
    if subject is None:
        return True
    for other in (clause.object, clause.recipient, clause.companion):
        if other is None:
            continue
        if other.noun == subject.noun:
            return False
        # one's own mother is अपनी माँ, and "my" would then have to be "own"
        if other.determiner == "my" and subject.noun in ("I", "I (f)", "we"):
            return False
        if other.determiner == "your" and subject.noun.startswith("you"):
            return False
        if other.determiner == "own" and (
            subject.noun == "who" or NOUNS.get(subject.noun, NOUNS["boy"]).kind == "animal"
        ):
            return False
    return True
