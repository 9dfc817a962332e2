"""Measuring translations of pairs: what `dhyan evaluate` prints, and what `dhyan report` shows of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhyan.metrics.failures import Output, failures
from dhyan.metrics.measures import AER, BLEU, MEASURES, FromSacreBLEU, Outcome
from dhyan.metrics.scores import by_length, check_counts
from dhyan.metrics.significance import paired_bootstrap
from dhyan.search.options import SearchOptions
from dhyan.text.config import DataConfig
from dhyan.text.pairs import Pair, check_links, read_pairs
from dhyan.text.subword import AnyVocabulary
from dhyan.text.vocabulary import normalize, tokenize
from dhyan.training.folder import load_tables
from dhyan.translate.translation import Translation
from dhyan.translate.translator import Translator, load


@dataclass(frozen=True)
class Measured:
    """One system on one test: its texts, the same as tokens with what is known of them, and the figures.

    found: the translations, [] where the texts came from elsewhere. normalization: the Unicode form the references got.
    """

    texts: list[str]
    outputs: list[Output]
    result: dict[str, Any]
    found: list[Translation] = field(default_factory=list)
    normalization: str = "nfc"


def evaluate(
    translator: Translator | str | os.PathLike[str],
    pairs: Sequence[Pair] | str | os.PathLike[str],
    *,
    columns: str | None = None,
    beam: int | None = None,
    options: SearchOptions | None = None,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
    replace_unknown: bool | Mapping[str, str] = False,
) -> dict[str, Any]:
    """Translate the sources, force the references, and compare: the object that `dhyan evaluate --json` prints.

    >>> dhyan.evaluate("model-folder", "test.tsv")["exact_match"]  # doctest: +SKIP
    0.985

    translator: a Translator, or the folder of a model. pairs: Pairs, or a TSV file, read as the folder's configuration
    says; of a Translator by the levels of its vocabularies and from the columns 1:2. columns: others, as
    `dhyan train --columns`; a Translator of two source columns needs them.

    With N pairs, d the edit distance and |r| the tokens of a reference r, exact_match = (outputs equal to r) / N and
    token_error_rate = sum d(output, r) / sum |r|. bleu, chrf and ter are sacreBLEU's, None where that is missing.

    beam, options, replace_unknown: as Translator.translate. tokenize: sacreBLEU's tokenizer; edges: first source
    lengths (words) of the ranges of by_length, None = chosen so that each holds at least 100 pairs. The references get
    the Unicode form of the model; tokens and links are words where it has pieces of them (`Translation.in_words`).
    The alignment error rate is that of the forced alignment of the references, the perplexity exp(mean negative
    log-likelihood) of the references' tokens, end symbols included, unknown ones as the unknown symbol: it compares
    models of one target vocabulary; where it is infinite, the command prints null. A model that reads by gold links
    (attention "oracle") is given those of the pairs.
    Errors: ValueError for no pairs, and for a file without columns for two source columns; TypeError for what is no
    Pair; CheckpointError for a folder that cannot be read, DataError for a file; as Translator.translate.
    """
    data = None
    if not isinstance(translator, Translator):
        data = load_tables(Path(translator))[2]
        translator = load(translator)
    if isinstance(pairs, str | os.PathLike):
        pairs = _read(translator, Path(pairs), data, columns)
    return measure(
        translator, pairs, beam=beam, options=options, tokenize=tokenize, edges=edges, replace_unknown=replace_unknown
    ).result


def _read(translator: Translator, path: Path, data: DataConfig | None, columns: str | None) -> list[Pair]:
    """The pairs of a file for this model, with their gold links where it reads by them."""
    if data is None:
        if columns is None and translator.two_columns:
            raise ValueError("evaluate: the model reads two source columns; say which, such as columns='1,3:2'")
        source, target = translator.source_vocab, translator.target_vocab
        data = DataConfig(source_level=source.level, target_level=target.level, normalization=source.normalization)
    pairs = read_pairs(path, columns=columns or data.columns, bad_lines=data.bad_lines, **data.counted)
    if translator.needs_links:
        check_links(pairs, str(path), "the model's attention 'oracle' reads by them", **data.counted)
    return pairs


def measure(
    translator: Translator,
    pairs: Sequence[Pair],
    *,
    beam: int | None = None,
    options: SearchOptions | None = None,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    replace_unknown: bool | Mapping[str, str] = False,
) -> Measured:
    """As `evaluate`, with the translations that were measured. lengths: of the sources, for by_length (in words)."""
    for number, pair in enumerate(pairs):
        if not isinstance(pair, Pair):
            raise TypeError(f"evaluate: pair {number} is a {type(pair).__name__}, expected dhyan.Pair")
    sources = [pair.source for pair in pairs]
    references = [normalize(pair.target, translator.target_vocab.normalization) for pair in pairs]
    links = [pair.links for pair in pairs] if translator.needs_links else None
    found = translator.translate(sources, beam, options=options, links=links, replace_unknown=replace_unknown)
    forced = translator.align(sources, references, links=links)
    outputs = [_output(*three) for three in zip(pairs, found, forced, strict=True)]
    texts = [f.text for f in found]
    lengths = _words(pairs) if lengths is None else lengths
    result = evaluate_report(texts, references, outputs, lengths, tokenize=tokenize, edges=edges, loss=_loss(forced))
    return Measured(texts, outputs, result, found, translator.target_vocab.normalization)


def measure_texts(
    texts: Sequence[str],
    pairs: Sequence[Pair],
    *,
    vocab: AnyVocabulary | None = None,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
) -> Measured:
    """Outputs of any system, one for each pair: without weights there is no aer, and failures go by the tokens.

    vocab: cuts outputs and references into tokens (words where it has subwords); None cuts at white space.
    Errors: ValueError for unequal counts.
    """

    def cut(text: str) -> list[str]:
        return vocab.compared(vocab.tokenize(text)) if vocab else _words_of(text)

    normalization = vocab.normalization if vocab else "nfc"
    references = [normalize(pair.target, normalization) for pair in pairs]
    outputs = [Output(cut(text), cut(reference)) for text, reference in zip(texts, references, strict=True)]
    result = evaluate_report(texts, references, outputs, _words(pairs), tokenize=tokenize, edges=edges)
    return Measured(list(texts), outputs, result, normalization=normalization)


def compare(first: Measured, second: Measured, pairs: Sequence[Pair], *, tokenize: str = "13a") -> dict[str, Any]:
    """Paired bootstrap resampling of two systems on the same pairs, see `significance.paired_bootstrap`.

    The references are in the form that the first system's got.
    """
    references = [normalize(pair.target, first.normalization) for pair in pairs]
    return paired_bootstrap(first.texts, second.texts, references, first.outputs, second.outputs, tokenize=tokenize)


def _output(pair: Pair, found: Translation, forced: Translation) -> Output:
    """What the metrics compare: the output and its weights, the reference and its links, both in words."""
    found, forced = found.in_words(), forced.in_words()
    size = len(found.source_tokens) - 1
    return Output(found.tokens, forced.tokens, found.weights, size, forced.links(), pair.links)


def _words_of(text: str) -> list[str]:
    return tokenize(text, "word")


def _words(pairs: Sequence[Pair]) -> list[int]:
    return [len(pair.source.split()) for pair in pairs]


def _loss(forced: Sequence[Translation]) -> float:
    """Mean negative log-likelihood per token, end symbols included; a score is the mean of its own sentence."""
    counts = [len(one.tokens) + 1 for one in forced]
    return -sum(one.score * count for one, count in zip(forced, counts, strict=True)) / sum(counts)


# The report of `evaluate` ---------------------------------------------------------------------------------------------


def evaluate_report(
    hypotheses: Sequence[str],
    references: Sequence[str],
    outputs: Sequence[Output],
    source_words: Sequence[int],
    *,
    tokenize: str = "13a",
    edges: Sequence[int] | None = None,
    loss: float | None = None,
) -> dict[str, Any]:
    """What ``evaluate --json`` prints: hypotheses and references as texts, outputs as tokens with their weights.

    source_words: lengths of the sources in words, for by_length. loss: mean negative log-likelihood of the references
    per token in nats, for perplexity. bleu, chrf, ter, signature and each bleu of by_length are None without sacreBLEU
    (tell the user TEXT_EXTRA_MISSING); aer is None without gold links, perplexity without a loss.
    """
    check_counts(hypotheses, references)
    check_counts(outputs, references)
    test = Outcome(hypotheses, references, outputs, tokenize, loss)
    assert isinstance(BLEU.figure, FromSacreBLEU)
    bleu = BLEU.figure.scored(test)
    scores = {m.key: m.figure(test) for m in MEASURES if m is not BLEU and isinstance(m.figure, FromSacreBLEU)}
    others = {m.key: m.figure(test) for m in MEASURES if not isinstance(m.figure, FromSacreBLEU)}
    alignment = others.pop(AER.key)
    return {
        "pairs": len(references),
        BLEU.key: bleu and bleu.score,
        **scores,
        "signature": bleu and bleu.signature,
        **others,
        "by_length": by_length(source_words, hypotheses, references, edges, tokenize),
        AER.key: alignment,
        "failures": failures(outputs),
    }
