"""Spanish: gender and number, ser and estar, al, personal "a", "le", ¿ ... ?, and pronouns only where they are needed.

"yo", "tú" and "nosotros" are never written; "él", "ella" and "ellos" are, for the ending does not tell them apart.
"""

from __future__ import annotations

from . import conjugation
from .concepts import Word, content, function, phrase
from .lexicon import ADJECTIVES, ADVERBS, GOALS, NOUNS, NUMERALS, PLACES, PRONOUNS, VERBS, WH
from .meaning import Clause, NounPhrase

ARTICLES = {"the": ("el", "la", "los", "las"), "a": ("un", "una", "unos", "unas"), "one": ("un", "una", "unos", "unas")}
DEMONSTRATIVES = {"this": ("este", "esta", "estos", "estas"), "that": ("ese", "esa", "esos", "esas")}
# "going" and "coming" are the plain present and imperfect: voy, iba.
SIMPLE_PROGRESSIVE = ("go", "come")


def gender(np: NounPhrase) -> str:
    """Gender of the phrase; names have that of their bearer."""
    return PRONOUNS[np.noun].gender if np.noun in PRONOUNS else NOUNS[np.noun].spanish[2]


def person(np: NounPhrase) -> int:
    """Index of the verb form: yo, tú, él, nosotros, ellos."""
    if np.noun in PRONOUNS:
        return {"I": 0, "I (f)": 0, "you": 1, "you (polite)": 1, "we": 3, "they": 4}.get(np.noun, 2)
    return 4 if np.plural else 2


def agree(adjective: str, feminine: bool, plural: bool) -> str:
    """rojo, roja, rojos, rojas; grande, grandes."""
    if feminine and adjective.endswith("o"):
        adjective = adjective[:-1] + "a"
    return adjective + ("s" if plural else "")


def possessive(determiner: str, owner: NounPhrase | None, plural: bool) -> str:
    """mi, tu, su, nuestro."""
    index = person(owner) if determiner == "own" and owner is not None else {"my": 0, "your": 1}[determiner]
    return ("mi", "tu", "su", "nuestr", "su")[index] + ("s" if plural and index != 3 else "")


def determiner(np: NounPhrase, key: str, owner: NounPhrase | None) -> list[Word]:
    """Article, demonstrative or possessive, agreeing with the noun."""
    feminine = gender(np) == "f"
    index = feminine + 2 * np.plural
    if np.determiner in ARTICLES:
        return [function(ARTICLES[np.determiner][index], key, key + ".det", key + ".case", key + ".adj")]
    if np.determiner in DEMONSTRATIVES:
        return [content(DEMONSTRATIVES[np.determiner][index], key + ".det")]
    if np.determiner:
        text = possessive(np.determiner, owner, np.plural)
        return [content(agree("nuestro", feminine, np.plural) if text.startswith("nuestr") else text, key + ".det")]
    return []


def noun_phrase(np: NounPhrase, key: str, owner: NounPhrase | None = None) -> list[Word]:
    """Determiner, numeral, noun, adjective."""
    if np.noun in PRONOUNS:
        text = PRONOUNS[np.noun].spanish
        return [content(text, key, *(["ask"] if np.noun == "who" else []))] if text else []
    words = determiner(np, key, owner)
    words += [content(NUMERALS[np.count][2], key + ".num")] if np.count else []
    words.append(content(NOUNS[np.noun].spanish[np.plural], key))
    if np.adjective:
        text = agree(ADJECTIVES[np.adjective].spanish, gender(np) == "f", np.plural)
        words.append(content(text, key + ".adj"))
    return words


def with_preposition(preposition: Word, words: list[Word]) -> list[Word]:
    """Put the preposition first; a + el is al."""
    if preposition.text == "a" and words[0].text == "el":
        return [preposition._replace(text="al", also=preposition.also | words[0].also), *words[1:]]
    return [preposition, *words]


def verb_group(clause: Clause, subject: NounPhrase) -> list[Word]:
    """ "no" and the verb, with its auxiliary; the future is "voy a comer", and "le" or "les" announces a recipient."""
    infinitive = VERBS[clause.verb].spanish[0]
    index = person(subject)
    words = [content("no", "neg")] if clause.negated else []
    if clause.recipient:
        words.append(function("les" if clause.recipient.plural else "le", "r", "r.to", "r.det"))
    progressive = clause.tense in ("progressive", "past progressive")
    if clause.tense in ("want", "can"):
        modal = conjugation.present("querer" if clause.tense == "want" else "poder", index)
        return [*words, content(modal, "mod", "agr", "tense"), content(infinitive, "v", "inf")]
    if progressive and clause.verb not in SIMPLE_PROGRESSIVE:
        form = conjugation.present if clause.tense == "progressive" else conjugation.imperfect
        be = function(form("estar", index), "v", "tense", "agr", "asp")
        return [*words, be, content(conjugation.gerund(infinitive), "v", "asp")]
    if clause.tense == "future":
        will = function(conjugation.present("ir", index), "v", "tense", "agr")
        return [*words, will, function("a", "tense", "v"), content(infinitive, "v")]
    forms = {
        "past": conjugation.preterite,
        "past progressive": conjugation.imperfect,
    }
    return [
        *words,
        content(forms.get(clause.tense, conjugation.present)(infinitive, index), "v", "tense", "agr", "asp"),
    ]


def complements(clause: Clause) -> list[Word]:
    """Object, recipient and goal."""
    words = []
    if clause.object:
        words += noun_phrase(clause.object, "o", clause.subject)
        if clause.verb:
            verb = VERBS[clause.verb]
            if verb.spanish[1] and clause.object.noun not in PRONOUNS:
                if NOUNS[clause.object.noun].kind == "game":  # jugar al fútbol: games take the article
                    words = [function("el", "o"), *words]
                words = with_preposition(function("a", "v", "o", "o.det"), words)
    if clause.recipient:
        words += with_preposition(content("a", "r.to"), noun_phrase(clause.recipient, "r", clause.subject))
    return words + (phrase(GOALS[clause.goal].spanish, "goal") if clause.goal else [])


def adjuncts(clause: Clause) -> list[Word]:
    """Companion, manner, place, time."""
    words = []
    if clause.companion:
        words += [content("con", "with"), *noun_phrase(clause.companion, "c", clause.subject)]
    words += phrase(ADVERBS[clause.manner][2], "manner") if clause.manner else []
    words += phrase(PLACES[clause.place].spanish, "place") if clause.place else []
    return words + (phrase(ADVERBS[clause.time][2], "time") if clause.time else [])


def wh_word(clause: Clause) -> list[Word]:
    """qué, dónde, cuándo, por qué."""
    if clause.question not in WH:
        return []
    word = content(WH[clause.question][2], "wh", "ask")
    return [function("por", "wh"), word] if clause.question == "why" else [word]


def action(clause: Clause, subject: NounPhrase) -> list[Word]:
    """A clause with a verb; wh-questions put the subject after it."""
    first = noun_phrase(subject, "s")
    frequency = phrase(ADVERBS[clause.frequency][2], "freq") if clause.frequency else []
    verb = frequency + verb_group(clause, subject)
    start = [*wh_word(clause), *verb, *first] if clause.question in WH else [*first, *verb]
    return [*start, *complements(clause), *adjuncts(clause)]


def be(clause: Clause, subject: NounPhrase) -> list[Word]:
    """ser for what a thing is, estar for how or where it is, hay for what there is."""
    first = noun_phrase(subject, "s")
    place = phrase(PLACES[clause.place].spanish, "place") if clause.place else []
    if clause.kind == "there":
        return [function("había" if clause.tense == "past" else "hay", "be", "tense"), *first, *place]
    estar = not clause.adjective or ADJECTIVES[clause.adjective].estar
    form = conjugation.imperfect if clause.tense == "past" else conjugation.present
    verb = function(form("estar" if estar else "ser", person(subject)), "be", "tense", "agr")
    words = [content("no", "neg")] if clause.negated else []
    words.append(verb)
    words = [*wh_word(clause), *words, *first] if clause.question in WH else [*first, *words]
    if clause.adjective:
        plural = person(subject) > 2
        words.append(content(agree(ADJECTIVES[clause.adjective].spanish, gender(subject) == "f", plural), "adj"))
    return words + place + (phrase(ADVERBS[clause.time][2], "time") if clause.time else [])


def have(clause: Clause, subject: NounPhrase) -> list[Word]:
    """tener."""
    verb = content(conjugation.present("tener", person(subject)), "v", "tense", "agr")
    negation = [content("no", "neg")] if clause.negated else []
    return [*noun_phrase(subject, "s"), *negation, verb, *complements(clause)]


def rain(clause: Clause) -> list[Word]:
    """está lloviendo: no subject."""
    words = [content("no", "neg")] if clause.negated else []
    if clause.tense == "future":
        words += [function("va", "v", "tense", "agr"), function("a", "tense", "v"), content("llover", "v")]
    else:
        be = "está" if clause.tense == "progressive" else "estaba"
        words += [function(be, "v", "tense", "agr", "asp"), content("lloviendo", "v", "asp")]
    return words + adjuncts(clause)


def realize(clause: Clause) -> list[Word]:
    """The clause in Spanish."""
    if clause.kind == "rain":
        words = rain(clause)
    else:
        assert clause.subject is not None
        kinds = {"action": action, "have": have}
        words = kinds.get(clause.kind, be)(clause, clause.subject)
    return [function("¿", "ask"), *words, function("?", "ask")] if clause.question else words


def sounds_like_i(word: str) -> bool:
    """Whether "y" becomes "e" before the word: iba, hijo; not hielo."""
    return word.startswith(("i", "í", "hi", "hí")) and not word.startswith(("hie", "hia"))
