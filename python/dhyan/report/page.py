"""`dhyan report`: the run, its figures and the evidence cards of chosen sentences as one HTML file without network.

The same model, test and options give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dhyan.attention.windows import window_to
from dhyan.errors import DataError
from dhyan.metrics.failures import FAILURES
from dhyan.metrics.measures import AER, BLEU, EXACT_MATCH, MEASURES, TOKEN_ERROR_RATE
from dhyan.metrics.scores import TEXT_EXTRA_MISSING, exact_match
from dhyan.model.seq2seq import Seq2Seq
from dhyan.plot.card import Card, card_html, escaped, page_html, table_html
from dhyan.plot.curves import bucket_name, chart_html
from dhyan.training.folder import short_names
from dhyan.translate.unknown import UNATTENTIVE

from . import choice
from .choice import Run, Sentences

DEFINITIONS = {
    "worst, best": "by edit distance to the reference over its tokens, then by the model's own score; without "
    "references by the score alone",
    "score": "mean log-probability of the output's symbols, in nats",
    "copied source": "an output token equals the source token that it looks at most; where the model can copy, more "
    "than half of the token's probability came of copying",
    "p": "how probable a difference as large as this is between models that do not differ, by paired bootstrap "
    "resampling of the sentences (Koehn 2004)",
    AER.name: "alignment error rate (Och and Ney 2003): how far the links of the references, read from the weights, "
    "are from the gold links; 0 is best",
    "perplexity": "exp of the mean negative log-likelihood per token of the references, their end symbols included",
    "weak evaluation": f"there is no reference, or there are fewer than {choice.WEAK} pairs",
}


def check_out(out: str, inputs: Sequence[str] = ()) -> None:
    """Errors: DataError where the page cannot be written to `out`, or would replace one of the inputs."""
    path = Path(out)
    if path.is_dir():
        raise DataError(f"{out}: is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise DataError(f"{out}: the folder {path.parent} does not exist")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise DataError(f"{out}: cannot be written (no permission)")
    for name in inputs:
        if path.exists() and os.path.exists(name) and path.samefile(name):
            raise DataError(f"{out}: is the test file, expected another file to write")


def write(out: str, text: str) -> None:
    """Write a page, a file whole or not at all. Errors: OSError naming the file."""
    path, data = Path(out).resolve(), text.encode()
    whole = not path.exists() or path.is_file()  # a pipe or a device cannot be replaced
    part = path.with_name(path.name + ".part") if whole else path
    try:
        part.write_bytes(data)
        if whole:
            part.replace(path)
    except OSError as error:
        if whole:
            part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, out) from None


def report_html(
    runs: Sequence[Run],
    test: Sentences,
    *,
    beam: int,
    wanted: Sequence[str] = choice.CHOICES[:4],
    count: int = 4,
    numbers: Sequence[int] = (),
    p_values: Mapping[str, float] | None = None,
) -> tuple[str, int]:
    """The page of one model, or of two of which the second is only compared with, and its number of cards.

    wanted, count, numbers: as `evidence.choose`. p_values: of the measures' differences, `evidence.compared`.
    """
    first = runs[0]
    chosen = choice.choose(first, test, wanted, count, numbers)
    weak = f'<p class="warning" role="note">{escaped(test.weakness)}</p>' if test.weakness else ""
    title = f"{choice.names_of(runs)[0]} on {Path(test.name).name}"
    body = [
        '<main class="dhyan-page">',
        f"<h1>{escaped(title)}</h1>{weak}",
        _section("Model and data", _facts(runs, test, beam)),
        _section("Figures", _figures(runs, p_values or {})),
        _section("Curves", _curves(runs, test)),
        _section("Sentences", _cards(runs, test, chosen)),
        _section("Definitions", _definitions()),
        "</main>",
    ]
    return page_html(f"dhyan report: {title}", "\n".join(filter(None, body))), len(chosen)


def _section(name: str, content: str) -> str:
    return f"<section>\n<h2>{name}</h2>\n{content}\n</section>" if content else ""


def _facts(runs: Sequence[Run], test: Sentences, beam: int) -> str:
    lengths = test.lengths
    facts = [("test", f"{test.name}: {len(lengths)} sentences of {min(lengths)} to {max(lengths)} {test.unit}")]
    for run, role in zip(runs, ("model", "against"), strict=False):
        models = run.translator.models
        parts = [role] + ["in its ensemble"] * (len(models) - 1)
        for folder, model, part in zip(run.folders, models, parts, strict=True):
            facts.append((part, f"{folder}: {_model(model)}; beam {beam}"))
    source, target = runs[0].translator.source_vocab, runs[0].translator.target_vocab
    facts += [
        ("task", choice.task_type(source.level, target.level, runs[0].translator.two_columns)),
        ("vocabularies", f"{len(source)} source {source.level}s, {len(target)} target {target.level}s"),
        ("evidence", choice.evidence_kind(runs[0])),
    ]
    return f'<dl class="facts">{"".join(f"<dt>{escaped(a)}</dt><dd>{escaped(b)}</dd>" for a, b in facts)}</dl>'


def _model(model: Seq2Seq) -> str:
    config = model.config
    assert not isinstance(config.window, int | str)
    window = window_to(config.window)
    parts = [
        f"attention {config.attention}",
        f"{config.heads} heads" if config.heads > 1 else "",
        f"normaliser {config.normalize}" if config.normalize != "softmax" else "",
        f"window {window}" if window is not None else "",
        f"{config.layers} x {config.cell.upper()} of {config.hidden}",
        "both directions" if config.bidirectional else "",
        f"embedding {config.embedding}",
        f"{config.order} order",
        f"{sum(p.size for p in model.parameters().values()):,} parameters",
    ]
    return ", ".join(filter(None, parts))


def _figures(runs: Sequence[Run], p_values: Mapping[str, float]) -> str:
    results, names = [run.result for run in runs if run.result is not None], choice.names_of(runs)
    if not results:
        return "<p>The test has no references: nothing was measured.</p>"
    rows: list[tuple[str, ...]] = [("pairs", *(str(result["pairs"]) for result in results), "–", "")]
    for measure in MEASURES:
        values = [_value(run, measure.key) for run in runs]
        if any(value is not None for value in values):
            p = f"{p_values[measure.key]:.3f}" if measure.key in p_values else "–"
            rows.append((measure.name, *map(measure.text, values), p, measure.better))
    rows += [
        (name.replace("_", " "), *(str(result["failures"][name]) for result in results), "–", "lower")
        for name in FAILURES
    ]
    head = ["measure", *names, "p", "better"]
    if not p_values:
        head, rows = [*head[:-2], head[-1]], [(*row[:-2], row[-1]) for row in rows]
    table = table_html("On the whole test", head, rows)
    signature = results[0]["signature"]
    fine = f"sacreBLEU {signature}" if signature else TEXT_EXTRA_MISSING
    dull = [name for run, name in zip(runs, names, strict=True) if run.attention in UNATTENTIVE]
    if dull:
        fine += (
            f". {' and '.join(dull)} does not attend: its failures are counted by weights that say nothing of reading."
        )
    return f'{table}\n<p class="fine">{escaped(fine)}</p>'


def _value(run: Run, key: str) -> Any:
    """One figure of an evaluation; None where it is unknown or means nothing."""
    if run.result is None or (key == AER.key and run.attention in UNATTENTIVE):
        return None
    return run.result[key]


def _curves(runs: Sequence[Run], test: Sentences) -> str:
    figures = []
    rows = [run.result["by_length"] for run in runs if run.result and run.result[BLEU.key] is not None]
    if rows:
        names = choice.names_of(runs)
        curves = {name: [row[BLEU.key] for row in own] for name, own in zip(names, rows, strict=True)}
        places = [bucket_name(row) for row in rows[0]]
        counts = [row["pairs"] for row in rows[0]]
        held = f"{min(counts)}" if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        axis = f"source {test.unit}, {held} pairs each"
        figures.append(chart_html(f"{BLEU.name} by source length", places, curves, axis=axis, top=100))
    log, several = runs[0].log, len(runs[0].folders) > 1
    training = f"training {short_names(runs[0].folders[:1])[0]}" if several else "training"
    epochs = [str(row.get("epoch", "?"))[:12] for row in log]
    for title, keys, top in (
        (f"Loss while {training}", {"training": "train_loss", "validation": "valid_loss"}, None),
        (f"Validation while {training}", {m.name: m.key for m in (EXACT_MATCH, TOKEN_ERROR_RATE)}, 1.0),
    ):
        curves = {name: [row.get(key) for row in log] for name, key in keys.items()}
        figures.append(chart_html(title, epochs, curves, axis="epoch", top=top) if log else "")
    return f'<div class="charts">{"".join(figures)}</div>' if any(figures) else ""


def _definitions() -> str:
    named = {name.replace("_", " "): text for name, text in FAILURES.items()} | DEFINITIONS
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{escaped(text)}</dd>" for name, text in named.items())
    return f'<dl class="definitions">{items}</dl>'


# ---------------------------------------------------------------- cards


def _cards(runs: Sequence[Run], test: Sentences, chosen: dict[int, list[str]]) -> str:
    if not chosen:
        return "<p>No sentence was chosen: no output shows a failure.</p>"
    jump = "".join(f'<li><a href="#s{i + 1}">{i + 1}: {escaped(", ".join(why))}</a></li>' for i, why in chosen.items())
    cards = (card_html(_card(runs, test, i, why), identifier=f"s{i + 1}") for i, why in chosen.items())
    return f'<nav aria-label="sentences"><ul class="jump">{jump}</ul></nav>\n' + "\n".join(cards)


def _card(runs: Sequence[Run], test: Sentences, i: int, why: Sequence[str]) -> Card:
    run, pair = runs[0], test.pairs[i]
    found = run.found[i]
    output = run.outputs[i] if run.outputs else None
    texts = [("source", pair.source)]
    if output is not None:
        texts.append(("target (reference)", pair.target))
    texts.append(("output", found.text))
    names = choice.names_of(runs)
    texts += [(f"output of {name}", other.found[i].text) for name, other in zip(names[1:], runs[1:], strict=True)]
    notes = [("score", f"{found.score:.4f}"), ("alignment", choice.alignment_note(found, run.attention))]
    if output is None:
        notes.append(("failures", "not checked: there is no reference"))
    else:
        gold = "" if run.attention in UNATTENTIVE else choice.gold_note(output)
        notes += [("gold links", gold)] if gold else []
        notes += choice.failure_notes(output, found.in_words().source_tokens)
    copies = choice.copied(found)
    if copies:
        notes.append(("copied source", ", ".join(copies)))
    line = f", line {pair.line}" if pair.line not in (None, i + 1) else ""
    return Card(
        title=f"Sentence {i + 1}{line}", tokens=found.tokens, source_tokens=found.source_tokens, weights=found.weights,
        texts=texts, chips=_chips(run, test, i, why), notes=notes,
    )  # fmt: skip


def _chips(run: Run, test: Sentences, i: int, why: Sequence[str]) -> list[tuple[str, str]]:
    translator, notes = run.translator, []
    if run.outputs:
        notes = choice.failure_notes(run.outputs[i], run.found[i].in_words().source_tokens)
    chips = [("", reason) for reason in why if reason != "shows a failure"]
    chips += [("warn", name) for name, words in notes if words != "no"]
    if run.outputs and exact_match([run.outputs[i].hypothesis], [run.outputs[i].reference]):
        chips.append(("good", EXACT_MATCH.name))
    task = choice.task_type(translator.source_vocab.level, translator.target_vocab.level, translator.two_columns)
    chips += [("", f"task: {task}"), ("", f"evidence: {choice.evidence_kind(run)}")]
    if choice.copied(run.found[i]):
        chips.append(("", "evidence: copied source"))
    return [*chips, ("warn", test.weakness)] if test.weakness else chips
