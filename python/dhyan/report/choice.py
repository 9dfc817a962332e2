"""Which sentences a report shows, and what it says of each: how they were measured, which failed and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dhyan.errors import DataError, unknown_name
from dhyan.metrics.alignment import aer
from dhyan.metrics.failures import DIFFUSE, FAILURES, UNREAD, Output, failures_of, repeats, surplus
from dhyan.metrics.measures import AER
from dhyan.metrics.scores import edit_distance, length_edges
from dhyan.model.config import ModelConfig
from dhyan.plot.card import reading_note
from dhyan.search.options import SearchOptions
from dhyan.text.pairs import Pair, scan_file
from dhyan.training.checkpoint import read_log
from dhyan.training.config import TrainConfig
from dhyan.training.folder import load_tables, short_names
from dhyan.translate.translation import Translation
from dhyan.translate.translator import Translator
from dhyan.translate.unknown import UNATTENTIVE

from .evaluation import Measured, compare, measure

WEAK = 100  # fewer pairs than this, or none with a reference, and a figure says little
CHOICES = ("failures", "worst", "longest", "best", "first")


@dataclass(frozen=True)
class Sentences:
    """The sentences of a report; without references every pair's target is empty.

    unit: of source lengths: words; characters where the model reads those, or tokens of two joined columns.
    """

    name: str
    pairs: Sequence[Pair]
    has_references: bool = True
    unit: str = "words"

    @property
    def lengths(self) -> list[int]:
        """Length of each source in units."""
        if self.unit == "words":
            return [len(pair.source.split()) for pair in self.pairs]
        return [len(pair.source if pair.source_tokens is None else pair.source_tokens) for pair in self.pairs]

    @property
    def edges(self) -> list[int]:
        """Ranges of source lengths for BLEU: of 100 pairs or more, or four of a small test of at least 40."""
        lengths = self.lengths
        return length_edges(lengths, least=min(100, max(len(lengths) // 4, 10)))

    @property
    def weakness(self) -> str:
        """Why figures on it say little; "" where they do not."""
        if not self.has_references:
            return "weak evaluation: no reference"
        return f"weak evaluation: {len(self.pairs)} pairs, fewer than {WEAK}" if len(self.pairs) < WEAK else ""


@dataclass(frozen=True)
class Run:
    """One model, or an ensemble, on one test. result, outputs: as `evaluate` has them, None and empty without
    references. log: of the first folder.
    """

    folders: Sequence[str]  # of an ensemble several
    translator: Translator
    found: list[Translation]
    outputs: list[Output] = field(default_factory=list)
    result: dict[str, Any] | None = None
    log: list[dict[str, Any]] = field(default_factory=list)
    training: Sequence[TrainConfig] = (TrainConfig(),)  # of each folder

    @property
    def attention(self) -> str:
        """The scoring the weights come of: of an ensemble the first one that attends, where any does."""
        names = [config.attention for config in self.translator.configs]
        return next((name for name in names if name not in UNATTENTIVE), names[0])


def read_sources(path: str, two_columns: bool, alone: bool, bad_lines: str, skipped: list[str]) -> list[Pair] | None:
    """The lines of a file as sources without references; None where some line has more than a source's columns.

    alone: every line is a source whatever its columns. Errors: DataError for what `scan_file` refuses, and for a blank
    or bad line, which bad_lines="skip" leaves out and lists in skipped.
    """
    lines = list(scan_file(path))
    tabs = 1 if two_columns else 0
    if not alone and any(line.text.count("\t") != tabs for line in lines if not line.problem and line.text.strip()):
        return None
    pairs = []
    for line in lines:
        problem = line.problem or ("" if line.text.strip() else "the line is blank, expected a source")
        if problem:
            message = f"{path}:{line.number}:{'' if problem[0].isdigit() else ' '}{problem}"
            if bad_lines != "skip":
                raise DataError(message)
            skipped.append(message)
        else:
            pairs.append(Pair(line.text.strip(), "", line=line.number))
    if not pairs:
        raise DataError(f"{path}: no usable line ({len(skipped)} bad lines skipped)")
    return pairs


def names_of(runs: Sequence[Run]) -> list[str]:
    """What each is called in titles and heads: its first folder, and how many decide with it."""
    short = short_names([run.folders[0] for run in runs])
    return [
        f"{name} + {len(run.folders) - 1}" if len(run.folders) > 1 else name
        for name, run in zip(short, runs, strict=True)
    ]


def run(
    folders: Sequence[str],
    translator: Translator,
    test: Sentences,
    *,
    options: SearchOptions | None = None,
    tokenize: str = "13a",
) -> Run:
    """Translate the test, and compare with its references as `dhyan evaluate` does.

    folders: what translator was loaded from. Errors: as `evaluate`.
    """
    pairs = test.pairs
    training, log = [load_tables(Path(folder))[1] for folder in folders], read_log(folders[0])
    if test.has_references:
        measured = measure(
            translator, pairs, options=options, tokenize=tokenize, lengths=test.lengths, edges=test.edges
        )
        return Run(folders, translator, measured.found, measured.outputs, measured.result, log, training)
    links = [pair.links for pair in pairs] if translator.needs_links else None
    found = translator.translate([pair.source for pair in pairs], options=options, links=links)
    return Run(folders, translator, found, log=log, training=training)


def compared(runs: Sequence[Run], test: Sentences, *, tokenize: str = "13a") -> dict[str, float]:
    """Measure -> p-value of the difference of the first two runs (`paired_bootstrap`); {} without two or references."""
    if len(runs) < 2 or any(run.result is None for run in runs):
        return {}
    form = runs[0].translator.target_vocab.normalization
    one, two = (Measured([f.text for f in run.found], run.outputs, {}, run.found, form) for run in runs[:2])
    found = compare(one, two, test.pairs, tokenize=tokenize)
    return {name: measure["p_value"] for name, measure in found["measures"].items()}


# ---------------------------------------------------------------- which sentences


def unit_of(translator: Translator) -> str:
    """In what the lengths of this model's sources are counted."""
    if translator.two_columns:
        return "tokens"
    return "characters" if translator.source_vocab.level == "char" else "words"


def check_choices(names: Sequence[str]) -> None:
    """ValueError for a name that is not one of CHOICES."""
    for name in names:
        if name not in CHOICES:
            raise unknown_name("choose", name, CHOICES)


def check_numbers(test: Sentences, numbers: Sequence[int]) -> None:
    """DataError for a sentence that the test does not have, counted from 1."""
    for number in numbers:
        if not 1 <= number <= len(test.pairs):
            raise DataError(f"{test.name}: got sentence {number}, expected one of 1 to {len(test.pairs)}")


def choose(
    run: Run, test: Sentences, wanted: Sequence[str], count: int, numbers: Sequence[int] = ()
) -> dict[int, list[str]]:
    """Index of each sentence to show -> why; at most `count` for each of the wanted, best reasons first.

    numbers: the sentences to show instead, counted from 1. Errors: as check_numbers and check_choices.
    """
    check_numbers(test, numbers)
    if numbers:
        return {number - 1: ["asked for"] for number in dict.fromkeys(numbers)}
    check_choices(wanted)
    indices = range(len(test.pairs))
    errors = [_error(run, i) for i in indices]
    ranked = {
        "failures": _failing(run, errors),
        "worst": sorted(indices, key=lambda i: (-errors[i], run.found[i].score)),
        "best": sorted(indices, key=lambda i: (errors[i], -run.found[i].score)),
        "longest": sorted(indices, key=lambda i: -len(run.found[i].source_tokens)),
        "first": list(indices),
    }
    chosen: dict[int, list[str]] = {}
    for name in wanted:
        for i in ranked[name][:count]:
            chosen.setdefault(i, []).append("shows a failure" if name == "failures" else name)
    return chosen


def _error(run: Run, i: int) -> float:
    """Edit distance per reference token; 0 without references, so that the model's own score decides."""
    if not run.outputs:
        return 0.0
    output = run.outputs[i]
    return edit_distance(output.hypothesis, output.reference) / max(len(output.reference), 1)


def _failing(run: Run, errors: Sequence[float]) -> list[int]:
    """Sentences that show a failure: the worst of each kind, then the second worst of each, and so on."""
    kinds: dict[str, list[int]] = {name: [] for name in FAILURES}
    for i in sorted(range(len(run.outputs)), key=lambda i: -errors[i]):
        for name in failures_of(run.outputs[i]):
            kinds[name].append(i)
    longest = max(map(len, kinds.values()))
    order = [kind[k] for k in range(longest) for kind in kinds.values() if k < len(kind)]
    return list(dict.fromkeys(order))


# ---------------------------------------------------------------- what can be said


def task_type(source_level: str, target_level: str, two_columns: bool) -> str:
    """What kind of task the levels of the vocabularies speak of."""
    if two_columns:
        return "inflection: characters and tags to characters"
    if source_level == "char":
        return "transliteration, character level" if target_level == "char" else "transcription: characters to symbols"
    return "words to characters" if target_level == "char" else "translation"


def evidence_kind(run: Run) -> str:
    """What the weights of this model, or of the models of an ensemble, are evidence of."""
    each = zip(run.translator.configs, run.training, strict=True)
    kinds = list(dict.fromkeys(_evidence_kind(config, training) for config, training in each))
    return f"the mean of {len(run.folders)} models: {'; '.join(kinds)}" if len(run.folders) > 1 else kinds[0]


def _evidence_kind(config: ModelConfig, training: TrainConfig) -> str:
    name = config.attention
    fixed = {
        "none": "none, the model attends to nothing",
        "uniform": "none, the weights are equal by definition",
        "oracle": "gold links, given to the model",
    }
    if name in fixed:
        return fixed[name]
    more = ", coverage" if name == "coverage" or training.coverage else ""
    return f"attention, {name}{more}{', copied source' if config.copy else ''}"


def copied(found: Translation) -> list[str]:
    """Output tokens that were copied rather than generated, where the model can copy; of others those that equal the
    source token they look at most, punctuation left out."""
    if found.copied is not None:
        return [token for token, share in zip(found.tokens, found.copied, strict=True) if share > 0.5]
    found = found.in_words()
    links = found.links()
    return [
        found.tokens[t]
        for s, t in links
        if found.tokens[t] == found.source_tokens[s] and any(c.isalnum() for c in found.tokens[t])
    ]


def alignment_note(found: Translation, attention: str = "") -> str:
    """How the output was read from the source, in a sentence or two."""
    if attention == "none":
        return "No alignment: without attention every step reads the encoder's last position."
    if attention == "uniform":
        return "No alignment: every step reads the mean of all positions."
    return reading_note(found.links(), found.tokens, found.source_tokens, found.weights)


def gold_note(output: Output) -> str:
    """How the forced alignment of the reference compares with gold links; "" without them."""
    rate = None if output.gold is None or output.forced is None else aer([output.forced], [output.gold])
    if rate is None or output.forced is None or output.gold is None:
        return ""
    possible = {link[:2] for link in output.gold}
    hits = sum(tuple(link) in possible for link in output.forced)
    return f"{hits} of {len(output.forced)} links of the reference are gold ones, {AER.name} {AER.number(rate)}"


def failure_notes(output: Output, source_tokens: Sequence[str]) -> list[tuple[str, str]]:
    """For each kind of failure "no", or where it shows."""
    shown = failures_of(output)
    return [
        (name.replace("_", " "), f"yes: {_where(name, output, source_tokens)}" if name in shown else "no")
        for name in FAILURES
    ]


def _where(name: str, output: Output, source_tokens: Sequence[str]) -> str:
    hypothesis, reference = list(output.hypothesis), list(output.reference)
    weights = output.weights
    if name == "omission":
        lacks = _quoted(reference[i] for i in surplus(reference, hypothesis))
        if weights is None:
            return f"the output lacks {lacks}"
        totals = weights[:, : output.source_size].sum(axis=0)
        unread = _quoted(source_tokens[s] for s, total in enumerate(totals) if total < UNREAD)
        return f"the output lacks {lacks}; hardly read: {unread}"
    if name == "repetition":
        return f"twice in a row: {_quoted(' '.join(run) for run in sorted(repeats(hypothesis) - repeats(reference)))}"
    if name == "wrong_alignment" and output.gold is not None and output.forced is not None:
        possible = {link[:2] for link in output.gold}
        linked = {target for _, target in possible}
        wrong = [(s, t) for s, t in output.forced if t in linked and (s, t) not in possible]
        return f"against the gold links: {_quoted(f'{reference[t]} ← {source_tokens[s]}' for s, t in wrong)}"
    wrong_tokens = surplus(hypothesis, reference)
    if weights is None:
        return f"not in the reference: {_quoted(hypothesis[t] for t in wrong_tokens)}"
    inside = weights[:, : output.source_size]
    peaks = inside.max(axis=1, initial=0.0)
    shown = [t for t in wrong_tokens if (peaks[t] < DIFFUSE) == (name == "hallucination")]
    return "not in the reference: " + _quoted(f"{hypothesis[t]} (largest weight {peaks[t]:.2f})" for t in shown)


def _quoted(words: Any) -> str:
    listed = [f"“{word}”" for word in words]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    return ", ".join(listed[:8]) + more
