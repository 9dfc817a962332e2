"""The training loop: batches by length, validation every epoch or so many updates, best weights, exact resume.

A run is a function of (data, config, seed, instruction set): all that is random is a function of (seed, epoch) or
(seed, step), and one step either happens whole or not at all. So a run that was stopped and resumed ends in the same
bits as one that never stopped.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dhyan import metrics
from dhyan.errors import CheckpointError, DataError, NumericError
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.ops.machine import has_bf16, show_config
from dhyan.text.batch import make_batches
from dhyan.text.config import DataConfig
from dhyan.text.encoded import Encoded, Examples, name_of, pairs_of, short_enough, vocabularies
from dhyan.text.pairs import Pair
from dhyan.text.subword import AnyVocabulary

from . import checkpoint
from .averaging import RecentWeights
from .config import TrainConfig
from .data import check_gold, positions_of
from .fine_tuning import Start, start_from
from .folder import BEST, check_free, check_resumable, load_training, restore, save_training, start_folder
from .interrupt import Stopped, Stopper
from .optimizer import SGD, Adam, AdamW, Optimizer
from .schedule import lr_factor, sampling_rate
from .state import Progress, fingerprint


@dataclass(frozen=True)
class Report:
    """One validation: what log.jsonl holds and what `on_report` is called with."""

    epoch: int
    step: int
    train_loss: float
    valid_loss: float
    token_error_rate: float
    exact_match: float
    lr: float
    seconds: float
    tokens_per_second: float
    best: bool

    @property
    def error(self) -> float:
        """The mean of token error rate and 1 - exact match.

        The token error rate counts no more than 1: beyond it a model that writes too much would be worse than one that
        writes nothing.
        """
        return 0.5 * (min(self.token_error_rate, 1.0) + 1 - self.exact_match)


def _lower(score: metrics.Score | None) -> float:
    if score is None:
        raise ImportError("select by bleu and chrf needs sacrebleu: pip install 'dhyan[text]'")
    return -score.score


# Name -> what makes a validation better where it is lower, of its report, outputs and references.
SELECT: dict[str, Callable[[Report, list[str], list[str]], float]] = {
    "error": lambda report, *_: report.error,
    "loss": lambda report, *_: report.valid_loss,
    "bleu": lambda _, outputs, references: _lower(metrics.bleu(outputs, references)),
    "chrf": lambda _, outputs, references: _lower(metrics.chrf(outputs, references)),
    "exact": lambda report, *_: 1 - report.exact_match,
}


def train(
    config: ModelConfig,
    train: Examples,
    valid: Examples,
    out: str | Path = "model-folder",
    *,
    options: TrainConfig | None = None,
    data: DataConfig | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_report: Callable[[Report, Seq2Seq], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Seq2Seq:
    """Train config's model on `train`, keep the best one on `valid` in the folder `out`, and return it.

    train, valid: Pairs, or the path of a TSV file. The vocabularies are built from `train`, and config's source_size
    and target_size are set from them, one of both sides for tie="all"; pairs longer than data.max_length are left out
    of both. options.select says what is better; among equals a lower loss is. It is measured on greedy decoding, in
    words where the target is subwords. resume: go on with the run of the folder; overwrite: replace its model.
    options.average: what is measured and kept is the mean of the weights after the last epochs.
    on_report(report, the model measured) follows every validation, on_step(step, batches, loss) every update. Ctrl-C
    and SIGTERM save the state between two updates and raise Stopped.

    Gold links (`Pair.links`, the third column) are read where options.guided > 0, from at least one training pair, and
    by the scoring "oracle", from every pair of both. The scoring "location" with max_source = 0 takes the longest
    source of both, end symbol counted. options.fine_tune: start from the best weights of that folder and keep its
    vocabularies; what the model's parameters depend on must be as there.

    Errors: DataError for unusable text, and for a folder that holds a model where neither resume nor overwrite is
    given; CheckpointError for a folder that cannot be resumed, NumericError naming the
    step when loss or gradient is not finite (nothing of it is saved), ValueError for a folder another trainer holds.
    """
    options, data = options or TrainConfig(), data or DataConfig()
    for name, got, expected in (("config", config, ModelConfig), ("options", options, TrainConfig),
                                ("data", data, DataConfig)):  # fmt: skip
        if not isinstance(got, expected):
            raise TypeError(f"train: {name} is of type {type(got).__name__}, expected {expected.__name__}")
    train_pairs, valid_pairs = pairs_of(train, data, "training"), pairs_of(valid, data, "validation")
    start = None
    if options.fine_tune:
        start = start_from(options.fine_tune, config, data, Path(out) if resume else None)
        config, source_vocabulary, target_vocabulary = start.config, start.source_vocabulary, start.target_vocabulary
    else:
        source_vocabulary, target_vocabulary = vocabularies(train_pairs, data, shared=config.tie == "all")
    made = source_vocabulary, target_vocabulary
    train_pairs = short_enough(train_pairs, data, made)
    valid_pairs = short_enough(valid_pairs, data, made, "validation")
    check_gold(
        config, options, data, [(name_of(train, "training"), train_pairs), (name_of(valid, "validation"), valid_pairs)]
    )
    config = dataclasses.replace(
        config,
        source_size=len(source_vocabulary),
        target_size=len(target_vocabulary),
        max_source=positions_of(config, source_vocabulary, [*train_pairs, *valid_pairs]),
    )
    if not (resume or overwrite):
        check_free(Path(out))
    with checkpoint.FolderLock(out) as lock:
        return _Run(
            config, options, data, Path(out), source_vocabulary, target_vocabulary, train_pairs, valid_pairs, resume,
            start, lock,
        ).learn(on_report, on_step)  # fmt: skip


class _Run:
    """One call of train."""

    def __init__(
        self,
        config: ModelConfig,
        options: TrainConfig,
        data: DataConfig,
        out: Path,
        source_vocabulary: AnyVocabulary,
        target_vocabulary: AnyVocabulary,
        train_pairs: Sequence[Pair],
        valid_pairs: Sequence[Pair],
        resume: bool,
        start: Start | None,
        lock: checkpoint.FolderLock,
    ) -> None:
        self.config, self.options, self.out, self.lock = config, options, out, lock
        self.target_vocabulary = target_vocabulary
        oracle = config.attention == "oracle"
        vocabularies = source_vocabulary, target_vocabulary
        self.train = Encoded.of(train_pairs, *vocabularies, links=oracle or options.guided > 0, copy=config.copy)
        self.valid = Encoded.of(valid_pairs, *vocabularies, links=oracle, copy=config.copy)
        self.references = [target_vocabulary.compared(target_vocabulary.tokenize(p.target)) for p in valid_pairs]
        if not any(self.references):
            raise DataError("every target of the validation data is empty, expected some token to measure errors by")
        if options.select in ("bleu", "chrf"):
            _lower(metrics.chrf(["a"], ["a"]))  # a missing sacrebleu is told of now, not after an epoch
        bf16, self.recent = _bf16(options), RecentWeights(options.average)
        # What learns, and what is measured and kept: a model of its own where that is a mean, so that an interrupt
        # at any moment finds the weights to go on with in their place.
        self.model = Seq2Seq(config, seed=options.seed, dtype=options.dtype, bf16=bf16)
        self.measured = Seq2Seq(config, dtype=options.dtype, bf16=bf16) if self.recent else self.model
        self.optimizer = _optimizer(self.model, options)
        run = {
            "training data": fingerprint(self.train),
            "validation data": fingerprint(self.valid, [p.target for p in valid_pairs]),
            "isa": str(show_config()["isa"]),
        }
        self.progress = Progress(lr=options.lr, run=run)
        tables = {"model": config.to_dict(), "train": options.to_dict(), "data": data.to_dict()}
        if resume:
            self.progress = check_resumable(out, tables, source_vocabulary, target_vocabulary, self.progress)
            past = self.recent.past(self.progress.epoch, self.model.flat)
            load_training(out, self.model, self.optimizer, self.progress, past)
            start_folder(out, tables, source_vocabulary, target_vocabulary)  # the options of this call are kept
            self._complete_log()
        else:
            if start is not None:
                start.write_weights(self.model)
            start_folder(out, tables, source_vocabulary, target_vocabulary)

    def _complete_log(self) -> None:
        """Add the line of the last validation that a kill between the state and the log has left out."""
        report, log = self.progress.report, checkpoint.read_log(self.out)
        if report and [report.get("step")] != [line.get("step") for line in log[-1:]]:
            checkpoint.append_log(self.out, report)

    def learn(
        self,
        on_report: Callable[[Report, Seq2Seq], None] | None,
        on_step: Callable[[int, int, float], None] | None,
    ) -> Seq2Seq:
        """Epochs until patience, updates, time or epochs run out; leaves the best weights in the model."""
        p, o = self.progress, self.options
        lengths = self.train.lengths()
        self.begun, self.deadline = p.step, time.monotonic() + 60 * o.time if o.time else math.inf
        with Stopper() as stopper:
            try:
                while p.epoch < o.epochs and p.waited < o.patience and not self._exhausted():
                    batches = make_batches(*lengths, o.batch, seed=o.seed, epoch=p.epoch)
                    if p.batch > len(batches):
                        raise CheckpointError(
                            f"{self.out}: cannot resume, {p.batch} batches of epoch {p.epoch + 1} are done, which now "
                            f"has {len(batches)}: other training data, or another batch size"
                        )
                    started = time.monotonic()
                    while p.batch < len(batches) and not self._is_due() and not self._exhausted():
                        loss = self._update(batches[p.batch], len(batches), stopper)
                        if on_step:
                            on_step(p.batch, len(batches), loss)
                    p.seconds += time.monotonic() - started
                    report, error = self._validate(len(batches))
                    with stopper.hold():
                        self._settle(report, error, whole_epoch=p.batch == len(batches))
                    if on_report:
                        on_report(report, self.measured)
            except Stopped as stopped:
                self._save()
                how = f"saved after step {p.step}; continue with --resume --out {self.out}"
                raise Stopped(stopped.signal, how) from None
        restore(self.out, BEST, self.model.parameters())
        return self.model

    def _exhausted(self) -> bool:
        step = self.progress.step
        late = step > self.begun and time.monotonic() >= self.deadline  # one update is made in any case
        return late or 0 < self.options.updates <= step

    def _is_due(self) -> bool:
        """Whether validate_every asks for a validation at this step, which was not made yet."""
        p, every = self.progress, self.options.validate_every
        return every > 0 and p.step > p.validated and p.step % every == 0

    def _update(self, indices: np.ndarray, batches: int, stopper: Stopper) -> float:
        """One step. It may be interrupted anywhere but in the update of weights, moments and progress itself."""
        p, o = self.progress, self.options
        batch = self.train.batch(indices)
        loss, cache = self.model.forward(
            batch, step=p.step + 1, smoothing=o.label_smoothing, guided=o.guided, coverage=o.coverage,
            scheduled_sampling=sampling_rate(o, p.step + 1),
        )  # fmt: skip
        if not math.isfinite(loss):
            raise NumericError(f"the training loss is {loss} at step {p.step + 1}; the step was not made")
        gradients = self.model.backward(cache)
        with stopper.hold():
            self.optimizer.lr = p.lr * lr_factor(o, p.step + 1, batches)
            self.optimizer.step(gradients)
            p.step, p.batch = p.step + 1, p.batch + 1
            p.loss_sum += loss * batch.target_tokens
            p.tokens += batch.target_tokens
        return loss

    def _validate(self, batches: int) -> tuple[Report, float]:
        """Loss and greedy decoding on the validation set, in batches of like length; and what the best is chosen by."""
        p, model = self.progress, self.measured
        if self.recent:
            self.recent.mean(self.model.flat, out=model.flat)
        loss_sum, tokens = 0.0, 0
        hypotheses: list[list[str]] = [[] for _ in range(len(self.valid))]
        texts = [""] * len(self.valid)
        limit = max((len(t) for t in self.train.target), default=0) + 10
        order = np.argsort([len(s) for s in self.valid.source], kind="stable")
        for first in range(0, len(order), 128):
            indices = order[first : first + 128]
            batch = self.valid.batch(indices)
            loss, _ = model.forward(batch)
            loss_sum, tokens = loss_sum + loss * batch.target_tokens, tokens + batch.target_tokens
            ids, _ = model.greedy(
                batch.source, batch.source_lengths, limit, alignment=batch.alignment, copies=batch.copies
            )
            for i, row in zip(indices, ids, strict=True):
                written = self.valid.written(i, row.tolist(), self.target_vocabulary)
                hypotheses[i], texts[i] = self.target_vocabulary.compared(written), self.target_vocabulary.join(written)
        loss = loss_sum / max(tokens, 1)
        if not math.isfinite(loss):
            raise NumericError(f"the validation loss is {loss} after step {p.step}; this state was not saved")
        error = metrics.token_error_rate(hypotheses, self.references)
        exact = metrics.exact_match(hypotheses, self.references)
        report = Report(
            epoch=p.epoch + 1,
            step=p.step,
            train_loss=p.loss_sum / max(p.tokens, 1),
            valid_loss=loss,
            token_error_rate=error,
            exact_match=exact,
            lr=p.lr * lr_factor(self.options, p.step, batches),
            seconds=p.seconds,
            tokens_per_second=p.tokens / p.seconds if p.seconds else 0.0,
            best=False,
        )
        measure = SELECT[self.options.select](report, texts, [pair.target for pair in self.valid.pairs])
        best = (measure, loss) < (p.best_error, p.best_loss)
        return dataclasses.replace(report, best=best), measure

    def _settle(self, report: Report, error: float, *, whole_epoch: bool) -> None:
        """Book the validation, save, and move to the next epoch.

        A limit of updates or time may end an epoch early: its validation chooses a model, but leaves no trace in the
        progress, so that a resumed run is one that never stopped.
        """
        p, o = self.progress, self.options
        counts = whole_epoch or self._is_due()
        if whole_epoch:
            p.epoch, p.batch, p.loss_sum, p.tokens, p.seconds = p.epoch + 1, 0, 0.0, 0, 0.0
            self.recent.keep(p.epoch, self.model.flat)
        if counts:
            p.validated = p.step
            # A lower loss at the same error makes a better model, but does not buy more patience: where the error has
            # come to rest (at 0, say), a loss that still creeps would keep a run going for nothing.
            p.waited = 0 if error < p.best_error else p.waited + 1
            if report.best:
                p.best_error, p.best_loss = error, report.valid_loss
            if p.waited and o.schedule == "plateau" and p.waited % max(1, o.patience // 2) == 0:
                p.lr *= o.lr_decay
        line = dataclasses.asdict(report)
        p.report = line | {"seconds": None, "tokens_per_second": None}  # the same bytes from every run
        self._save(self.measured if report.best else None)
        checkpoint.append_log(self.out, line)

    def _save(self, best: Seq2Seq | None = None) -> None:
        self.lock.check()
        past = self.recent.past(self.progress.epoch, self.model.flat)
        save_training(self.out, self.model, self.optimizer, self.progress, past, best)


def _optimizer(model: Seq2Seq, o: TrainConfig) -> Optimizer:
    if o.optimizer == "sgd":
        return SGD(model, o.lr, momentum=o.momentum, weight_decay=o.weight_decay, clip=o.clip)
    kind = Adam if o.optimizer == "adam" else AdamW
    return kind(model, o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay, clip=o.clip)


def _bf16(o: TrainConfig) -> bool:
    """Whether products are made in bfloat16: where that is asked for and the CPU can; otherwise one line says so."""
    if o.precision != "bf16":
        return False
    if not has_bf16():
        have = show_config()
        isas = ", ".join(have["isas"])
        print(
            f"precision bf16 needs AVX512-BF16, this CPU has {isas} (in use: {have['isa']}): training in float32",
            file=sys.stderr,
        )
    return has_bf16()
