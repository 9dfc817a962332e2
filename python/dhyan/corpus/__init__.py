"""The built-in corpus: a phrase grammar of Hindi, English and Spanish with gold word alignments.

A sentence starts as a meaning (who does what, when, where) and is written out in both languages of a pair, each by its
own grammar, so agreement, case and word order are right in both and the alignment is known. Pairs: "hi-en" (Hindi to
English: the verb moves from the end to the middle) and "en-es" (English to Spanish). The source always determines the
target; several sources may share one target ("मैं खाना खा रहा हूँ" and "मैं खाना खा रही हूँ" are both "I am eating").
Questions end in a separate "?" (Spanish also begins with "¿"), statements have no full stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from random import Random
from unicodedata import normalize

from dhyan.corpus import english, hindi, spanish
from dhyan.corpus import meanings as sampling
from dhyan.corpus.concepts import Word, link
from dhyan.corpus.lexicon import JOINS
from dhyan.corpus.meaning import CONJUNCTIONS, Clause, NounPhrase
from dhyan.text.pairs import Pair

ARTICLE = ("मैं खाना खा रहा हूँ", "I am eating")
# Three sentences to watch while a Hindi-English model learns.
DEMO = (
    ARTICLE,
    ("लड़की ने बगीचे में दो मीठे केले खाए", "the girl ate two sweet bananas in the garden"),
    ("क्या तुम कल अपने दोस्त के साथ क्रिकेट खेलोगे ?", "will you play cricket with your friend tomorrow ?"),
)
BUCKETS = ((3, 8), (9, 14), (15, 20), (21, 26))
LANGUAGES = ("hi-en", "en-es")
Realize = Callable[[Clause], list[Word]]
REALIZE: dict[str, Realize] = {"hi": hindi.realize, "en": english.realize, "es": spanish.realize}
LANGUAGE_INDEX = {"hi": 0, "en": 1, "es": 2}
QUESTION_RATE = 0.35  # among sentences of one clause; longer ones are statements


def generate(
    count: int, *, languages: str = "hi-en", seed: int = 0, clauses: tuple[int, int] = (1, 1), skip: Iterable[str] = ()
) -> list[Pair]:
    """``count`` pairs with distinct sources, a function of the arguments alone; a larger count continues a smaller one.

    languages: "hi-en" or "en-es". clauses: least and most clauses a sentence, each number equally often; joined by and,
    but, because, when. skip: sources not to generate. Pair.links holds the gold alignment: (source word, target word,
    sure), exactly one sure link for each content word of the target, possible links for what else a word expresses.
    Raises ValueError for unknown languages, a negative count or an empty range, and if the grammar cannot give so many.
    """
    if count < 0:
        raise ValueError(f"generate: count is {count}, expected 0 or more")
    pairs: list[Pair] = []
    if count:
        for pair in _stream(languages, seed, clauses, skip):
            pairs.append(pair)
            if len(pairs) == count:
                break
    return pairs


def split(
    pairs: Sequence[Pair], *, test: int, valid: int, seed: int = 0, unseen: Iterable[str] = ()
) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """(train, valid, test), shuffled by seed; no source stands in two parts, nor twice in one.

    test, valid: numbers of pairs. unseen: sources to keep out of all three parts (the demo's own sentences, say).
    Raises ValueError if nothing is left to train on.
    """
    kept = {pair.source: pair for pair in pairs}
    for source in unseen:
        kept.pop(source, None)
    if min(test, valid) < 0 or test + valid >= len(kept):
        raise ValueError(f"split: test={test} and valid={valid} of {len(kept)} pairs leave nothing to train on")
    shuffled = list(kept.values())
    Random(f"split {seed}").shuffle(shuffled)
    return shuffled[test + valid :], shuffled[test : test + valid], shuffled[:test]


def bucketed(
    count: int,
    *,
    buckets: Sequence[tuple[int, int]] = BUCKETS,
    languages: str = "hi-en",
    seed: int = 1,
    clauses: tuple[int, int] = (1, 3),
    exclude: Iterable[Pair] = (),
) -> list[list[Pair]]:
    """For each (least, most) number of source words, ``count`` pairs of that length: the experiment by length.

    Drawn from the distribution of ``generate(..., clauses=clauses)``; no source of ``exclude`` (the training pairs)
    occurs, so with another seed than theirs the pairs are unseen. Raises ValueError as generate does.
    """
    found: list[list[Pair]] = [[] for _ in buckets]
    if count < 1:
        raise ValueError(f"bucketed: count is {count}, expected 1 or more")
    for pair in _stream(languages, seed, clauses, (other.source for other in exclude)):
        length = len(pair.source.split())
        for (least, most), bucket in zip(buckets, found, strict=True):
            if least <= length <= most and len(bucket) < count:
                bucket.append(pair)
        if all(len(bucket) == count for bucket in found):
            break
    return found


def to_tsv(pairs: Iterable[Pair]) -> str:
    """One line a pair: source TAB target TAB links, "i-j" sure and "i?j" possible, source-target, 0-based."""
    return "".join(f"{pair.source}\t{pair.target}\t{format_links(pair)}\n" for pair in pairs)


def format_links(pair: Pair) -> str:
    """The links of one pair: "0-0 4?1 3?1 2-2"."""
    return " ".join(f"{i}{'-' if sure else '?'}{j}" for i, j, sure in pair.links or ())


def write(clauses: Sequence[Clause], joins: Sequence[str] = (), *, languages: str = "hi-en") -> Pair:
    """The sentence that says these clauses, joined by "and", "but", "because" or "when", with its gold links."""
    source_language, target_language = languages.split("-")
    source: list[str] = []
    target: list[str] = []
    links: list[tuple[int, int, bool]] = []
    for k, clause in enumerate(clauses):
        source_words, target_words = REALIZE[source_language](clause), REALIZE[target_language](clause)
        if k:
            links.append((len(source), len(target), True))
            source.append(_conjunction(joins[k - 1], source_language, source_words[0].text))
            target.append(_conjunction(joins[k - 1], target_language, target_words[0].text))
        links += [(len(source) + i, len(target) + j, sure) for i, j, sure in link(source_words, target_words)]
        source += [word.text for word in source_words]
        target += [word.text for word in target_words]
    return Pair(normalize("NFC", " ".join(source)), normalize("NFC", " ".join(target)), tuple(links))


def _stream(languages: str, seed: int, clauses: tuple[int, int], skip: Iterable[str]) -> Iterator[Pair]:
    """Distinct pairs without end; ValueError once new ones have become too rare to find."""
    if languages not in LANGUAGES:
        raise ValueError(f"corpus: languages is {languages!r}, expected one of {', '.join(LANGUAGES)}")
    least, most = clauses
    if not 1 <= least <= most:
        raise ValueError(f"corpus: clauses is {clauses}, expected (least, most) with 1 <= least <= most")
    rng = Random(f"{languages} {seed}")
    seen = set(skip)
    misses = 0
    while misses < 100_000:
        pair = _sentence(rng, languages, rng.randint(least, most))
        if pair.source in seen:
            misses += 1
            continue
        misses = 0
        seen.add(pair.source)
        yield pair
    raise ValueError(f"corpus: the grammar gave {len(seen)} different sentences and no more, ask for fewer")


def _clear_clause(rng: Random, languages: str, ask: float, tense: str = "") -> Clause:
    """A sensible clause that the source language says without ambiguity."""
    is_clear = sampling.is_clear_hindi if languages == "hi-en" else sampling.is_clear_english
    while True:
        clause = sampling.clause(rng, ask, tense)
        if sampling.is_sensible(clause) and is_clear(clause):
            return clause


def _meanings(rng: Random, languages: str, count: int) -> tuple[list[Clause], list[str]]:
    """Clauses and the conjunctions between them; "when" joins two that were going on together."""
    if count == 1:
        return [_clear_clause(rng, languages, QUESTION_RATE)], []
    joins = [rng.choice(CONJUNCTIONS) for _ in range(count - 1)]
    clauses = []
    for k in range(count):
        together = "when" in joins[max(k - 1, 0) : k + 1]
        clause = _clear_clause(rng, languages, 0.0, "past progressive" if together else "")
        if k and joins[k - 1] == "when":  # the time of the first clause is that of both
            clause = replace(clause, time="")
        clauses.append(clause)
    return _one_speaker(clauses), joins


def _one_speaker(clauses: list[Clause]) -> list[Clause]:
    """Hindi hears the gender of "I": one sentence keeps one speaker."""
    speakers = {clause.subject.noun for clause in clauses if clause.subject is not None}
    if not {"I", "I (f)"} <= speakers:
        return clauses
    man = NounPhrase("I")
    return [replace(clause, subject=man) if clause.subject == NounPhrase("I (f)") else clause for clause in clauses]


def _sentence(rng: Random, languages: str, count: int) -> Pair:
    clauses, joins = _meanings(rng, languages, count)
    return write(clauses, joins, languages=languages)


def _conjunction(join: str, language: str, following: str) -> str:
    """The conjunction; Spanish "y" is "e" before the sound of i."""
    text = JOINS[join][LANGUAGE_INDEX[language]]
    return "e" if text == "y" and spanish.sounds_like_i(following) else text
