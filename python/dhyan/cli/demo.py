"""`dhyan demo`: the articles' experiment on the built-in corpus, from nothing to pictures in under two minutes.

Two models learn Hindi to English from the same sentences: one squeezes a sentence into a single vector, the other
attends. On long sentences the first loses what the second can look up (Cho et al. 2014, Bahdanau et al. 2014).
"""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhyan import corpus, metrics, plot
from dhyan.metrics.measures import AER, BLEU, EXACT_MATCH, Measure
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.report.evaluation import evaluate
from dhyan.text.batch import pad
from dhyan.text.pairs import Pair
from dhyan.text.vocabulary import END, Vocabulary
from dhyan.training.config import TrainConfig
from dhyan.training.loop import Report, train
from dhyan.translate.translator import Translator, load


@dataclass(frozen=True)
class Recipe:
    """How much of the corpus, which model, how long. The default is what `dhyan demo` runs."""

    pairs: int = 16_000  # of one to four clauses
    short_pairs: int = 14_000  # of one or two: they cost little and show each word more often (+3 points exact match)
    valid: int = 200
    test_per_bucket: int = 150
    embedding: int = 64
    hidden: int = 128
    epochs: int = 5
    lr: float = 4e-3
    batch: int = 32

    @property
    def options(self) -> TrainConfig:
        """The rate falls to 0 over exactly these epochs, so both models end where they are best."""
        return TrainConfig(
            batch=self.batch,
            epochs=self.epochs,
            patience=self.epochs,
            lr=self.lr,
            schedule="cosine",
            warmup=50,
            label_smoothing=0.0,
        )

    def config(self, attention: str, source_size: int = 4, target_size: int = 4) -> ModelConfig:
        """The model with this attention."""
        return ModelConfig(
            source_size=source_size,
            target_size=target_size,
            embedding=self.embedding,
            hidden=self.hidden,
            cell="gru",
            attention=attention,
            dropout=0.0,
        )


def demo(out: str | Path = "dhyan-demo", recipe: Recipe | None = None) -> dict[str, dict[str, Any]]:
    """Run it, print what happens to stdout, write to `out`; returns the evaluation of each model by attention."""
    recipe = recipe or Recipe()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    training, valid, test = sentences(recipe)
    (out / "test.tsv").write_text(corpus.to_tsv(test), encoding="utf-8")
    words = [len(pair.source.split()) for pair in training]
    _say(f"dhyan demo: Hindi to English, {len(training):,} training pairs of {min(words)} to {max(words)} words,")
    _say(f"{len(test)} unseen ones to test on. For example, and never in the training data:")
    _say()
    for k, (source, target) in enumerate(corpus.DEMO, 1):
        _say(f"  {k}  {source}  =  {target}")
    _summary(recipe, training)
    results, folders = {}, {"none": out / "model-none", "additive": out / "model"}
    for attention, folder in folders.items():
        _train(recipe, attention, training, valid, folder)
        with _note(f"evaluating {folder}"):
            edges = [first for first, _ in corpus.BUCKETS]
            results[attention] = evaluate(load(folder), test, edges=edges)
    _results(results)
    _pictures(out, results, load(folders["additive"]))
    _say(f"\nDone in {time.monotonic() - started:.0f} s. Try next:")
    _say(f"  echo '{corpus.DEMO[1][0]}' | dhyan translate {out / 'model'}")
    _say(f"  dhyan evaluate {out / 'model'} {out / 'test.tsv'}")
    _say(f"  dhyan serve {out / 'model'} --against {out / 'model-none'} --examples {out / 'test.tsv'}")
    return results


def sentences(recipe: Recipe) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """(train, valid, test): training lengths are those of the test, and nothing of test or DEMO is trained on."""
    shown = [source for source, _ in corpus.DEMO]
    longest = max(most for _, most in corpus.BUCKETS)
    with _note("writing sentences"):
        pairs = corpus.generate(recipe.pairs + recipe.valid, clauses=(1, 4), seed=0, skip=shown)
        skip = [*shown, *(pair.source for pair in pairs)]
        pairs += corpus.generate(recipe.short_pairs, clauses=(1, 2), seed=2, skip=skip)
        buckets = corpus.bucketed(recipe.test_per_bucket, seed=1, exclude=pairs)
    pairs = [pair for pair in pairs if len(pair.source.split()) <= longest]
    test = [pair for bucket in buckets for pair in bucket if pair.source not in shown]
    return pairs[recipe.valid :], pairs[: recipe.valid], test


def _summary(recipe: Recipe, training: Sequence[Pair]) -> None:
    source = Vocabulary.build((pair.source for pair in training), "word")
    target = Vocabulary.build((pair.target for pair in training), "word")
    _say(f"\nThe model with attention ({len(source)} Hindi words, {len(target)} English words, GRU):\n")
    _say(textwrap.indent(Seq2Seq(recipe.config("additive", len(source), len(target))).summary(), "  "))


# ---------------------------------------------------------------- training


def _train(recipe: Recipe, attention: str, training: list[Pair], valid: list[Pair], folder: Path) -> None:
    from .progress import Progress

    name = "without attention" if attention == "none" else f"with {attention} attention"
    _say(f"\nTraining {name}:\n")
    source = Vocabulary.build((pair.source for pair in training), "word")
    target = Vocabulary.build((pair.target for pair in training), "word")
    table = _Table()
    with Progress(name) as progress:

        def report(report: Report, model: Seq2Seq) -> None:
            progress.next_epoch(report)
            table.row(report, _greedy(model, source, target))

        train(
            recipe.config(attention),
            training,
            valid,
            folder,
            options=recipe.options,
            overwrite=True,
            on_report=report,
            on_step=progress.step,
        )


def _greedy(model: Seq2Seq, source: Vocabulary, target: Vocabulary) -> list[str]:
    ids, lengths = pad([[*source.encode(text), END] for text, _ in corpus.DEMO])
    found, _ = model.greedy(ids, lengths, max_length=14)
    return [target.decode(row) for row in found.tolist()]


class _Table:
    """One row an evaluation: loss, exact match and the three sentences, wrapped inside their columns."""

    def __init__(self) -> None:
        width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100
        room = max(width - 30, 40)
        self.widths = [13, (room - 13) * 45 // 100, (room - 13) * 55 // 100]
        self._write(f"{'epoch':>5} {'loss':>7} {EXACT_MATCH.heading:>7}  ", ["1", "2", "3"])

    def row(self, report: Report, sentences: Sequence[str]) -> None:
        """Print one."""
        exact = EXACT_MATCH.text(report.exact_match, fewer=1)
        self._write(f"{report.epoch:>5} {report.valid_loss:>7.3f} {exact:>7}  ", sentences)

    def _write(self, numbers: str, sentences: Sequence[str]) -> None:
        cells = [textwrap.wrap(text, width) or [""] for text, width in zip(sentences, self.widths, strict=True)]
        for k in range(max(map(len, cells))):
            parts = [(cell[k] if k < len(cell) else "").ljust(w) for cell, w in zip(cells, self.widths, strict=True)]
            _say(((numbers if k == 0 else " " * len(numbers)) + "  ".join(parts)).rstrip())


# ---------------------------------------------------------------- results


def _results(results: dict[str, dict[str, Any]]) -> None:
    none, attentive = results["none"], results["additive"]
    _say(f"\n{'On ' + str(none['pairs']) + ' unseen sentences':<30} {'without':>10} {'with attention':>15}")

    def line(measure: Measure, a: float | None, b: float | None, more: str = "") -> None:
        shown = [measure.text(value, "-", fewer=1) for value in (a, b)]
        _say(f"{measure.name + more:<30} {shown[0]:>10} {shown[1]:>15}")

    for measure in (BLEU, EXACT_MATCH):
        line(measure, none[measure.key], attentive[measure.key])
    for a, b in zip(none["by_length"], attentive["by_length"], strict=True):
        line(BLEU, a[BLEU.key], b[BLEU.key], f", {a['from']} to {a['to']} source words")
    # Without attention nothing is aligned: all weight lies on the last position.
    line(AER, None, attentive[AER.key])
    if attentive[BLEU.key] is None:
        print(f"dhyan: {metrics.TEXT_EXTRA_MISSING}", file=sys.stderr)


def _pictures(out: Path, results: dict[str, dict[str, Any]], translator: Translator) -> None:
    article = translator.translate(corpus.ARTICLE[0])
    _say(f"\n{corpus.ARTICLE[0]}  →  {article.text}\n")
    if not article.tokens:
        return
    _say(textwrap.indent(plot.terminal_heatmap(article.weights, article.source_tokens, article.tokens), "  "))
    _say("\n  weights: · below 1/8, ░ 1/4, ▒ 1/2, ▓ 3/4, █ 1")
    curves = {
        "with attention": results["additive"]["by_length"],
        "without": results["none"]["by_length"],
    }
    has_bleu = results["additive"]["bleu"] is not None
    written = []
    for suffix in (".svg", ".png") if _has_matplotlib() else (".svg",):
        plot.save_heatmap(out / f"heatmap{suffix}", article.weights, article.source_tokens, article.tokens)
        written.append(out / f"heatmap{suffix}")
        if has_bleu:
            plot.save_bleu_by_length(out / f"bleu-by-length{suffix}", curves)
            written.append(out / f"bleu-by-length{suffix}")
    _say("\nWrote " + ", ".join(str(path) for path in [*written, out / "model", out / "model-none", out / "test.tsv"]))


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("dhyan: PNG pictures need matplotlib: pip install 'dhyan[plot]'", file=sys.stderr)
        return False
    return True


@contextmanager
def _note(what: str) -> Iterator[None]:
    """Say on stderr what is going on, and on a terminal take it away afterwards."""
    terminal = sys.stderr.isatty()
    print(f"{what} ...", end="" if terminal else "\n", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _say(line: str = "") -> None:
    print(line, flush=True)
