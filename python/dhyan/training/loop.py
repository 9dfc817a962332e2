"""The training loop: batches by length, validation every epoch, best and last checkpoints, exact resume.

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
from typing import Any

import numpy as np

from dhyan import metrics
from dhyan.errors import CheckpointError, NumericError
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.ops.machine import has_bf16, show_config
from dhyan.text.batch import make_batches
from dhyan.text.config import DataConfig
from dhyan.text.encoded import Encoded, Examples, name_of, pairs_of, short_enough, vocabularies
from dhyan.text.pairs import Pair
from dhyan.text.subword import AnyVocabulary

from . import checkpoint
from .averaging import RecentWeights, load_recent
from .config import TrainConfig
from .data import check_gold, positions_of
from .fine_tuning import Start, start_from
from .folder import load_training, save_best, save_last, start_folder
from .interrupt import Stopped, Stopper
from .optimizer import SGD, Adam, AdamW, Optimizer
from .schedule import lr_factor, sampling_rate


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
        """What chooses the model: the mean of token error rate and 1 - exact match."""
        return 0.5 * (self.token_error_rate + 1 - self.exact_match)


@dataclass
class Progress:
    """Where a run stands; together with weights and moments all there is to resume from."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch already learned from
    step: int = 0
    lr: float = 0.0
    best_error: float = math.inf
    best_loss: float = math.inf
    waited: int = 0  # validations since the error last fell
    loss_sum: float = 0.0  # of this epoch, over its tokens
    tokens: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value."""
        return dataclasses.asdict(self)


def train(
    config: ModelConfig,
    train: Examples,
    valid: Examples,
    out: str | Path = "model-folder",
    *,
    options: TrainConfig | None = None,
    data: DataConfig | None = None,
    resume: bool = False,
    on_report: Callable[[Report, Seq2Seq], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> Seq2Seq:
    """Train config's model on `train`, keep the best one on `valid` in the folder `out`, and return it.

    train, valid: Pairs, or the path of a TSV file. The vocabularies are built from `train`, and config's source_size
    and target_size are set from them, one of both sides for tie="all"; pairs longer than data.max_length are left out
    of both. Better means a lower error, the mean of token error rate (of words, where the target is subwords) and
    1 - exact match of greedy decoding, then a lower loss. options.average: what is measured and kept is the mean of the
    weights after the last epochs. on_report(report, the model measured) follows every validation,
    on_step(step, batches, loss) every update. Ctrl-C and SIGTERM save the state between two updates and raise Stopped.

    Gold links (`Pair.links`, the third column) are read where options.guided > 0, from at least one training pair, and
    by the scoring "oracle", from every pair of both. The scoring "location" with max_source = 0 takes the longest
    source of both, end symbol counted. options.fine_tune: start from the best weights of that folder and keep its
    vocabularies; what the model's parameters depend on must be as there.

    Errors: DataError for unusable text, CheckpointError for a folder that cannot be resumed, NumericError naming the
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
    with checkpoint.FolderLock(out):
        return _Run(
            config, options, data, Path(out), source_vocabulary, target_vocabulary, train_pairs, valid_pairs, resume,
            start,
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
    ) -> None:
        self.config, self.options, self.out = config, options, out
        self.target_vocabulary = target_vocabulary
        oracle = config.attention == "oracle"
        vocabularies = source_vocabulary, target_vocabulary
        self.train = Encoded.of(train_pairs, *vocabularies, links=oracle or options.guided > 0, copy=config.copy)
        self.valid = Encoded.of(valid_pairs, *vocabularies, links=oracle, copy=config.copy)
        self.references = [target_vocabulary.compared(target_vocabulary.tokenize(p.target)) for p in valid_pairs]
        bf16, self.recent = _bf16(options), RecentWeights(options.average)
        # What learns, and what is measured and kept: a model of its own where that is a mean, so that an interrupt
        # at any moment finds the weights to go on with in their place.
        self.model = Seq2Seq(config, seed=options.seed, dtype=options.dtype, bf16=bf16)
        self.measured = Seq2Seq(config, dtype=options.dtype, bf16=bf16) if self.recent else self.model
        self.optimizer = _optimizer(self.model, options)
        self.progress = Progress(lr=options.lr)
        tables = {"model": config.to_dict(), "train": options.to_dict(), "data": data.to_dict()}
        if resume:
            values = load_training(out, tables, source_vocabulary, target_vocabulary, self.model, self.optimizer)
            try:
                self.progress = Progress(**values)
            except TypeError as error:
                raise CheckpointError(f"{out / 'state.json'}: {error}") from None
            load_recent(out, self.recent, self.progress.epoch, self.model.flat)
        else:
            if start is not None:
                start.write_weights(self.model)
            start_folder(out, tables, source_vocabulary, target_vocabulary)

    def learn(
        self,
        on_report: Callable[[Report, Seq2Seq], None] | None,
        on_step: Callable[[int, int, float], None] | None,
    ) -> Seq2Seq:
        """Epochs until patience, updates or epochs run out; leaves the best weights in the model."""
        p, o = self.progress, self.options
        lengths = self.train.lengths()
        with Stopper() as stopper:
            try:
                while p.epoch < o.epochs and p.waited < o.patience and not self._exhausted():
                    batches = make_batches(*lengths, o.batch, seed=o.seed, epoch=p.epoch)
                    started = time.monotonic()
                    while p.batch < len(batches) and not self._exhausted():
                        loss = self._update(batches[p.batch], len(batches), stopper)
                        if on_step:
                            on_step(p.batch, len(batches), loss)
                    p.seconds += time.monotonic() - started
                    report = self._validate()
                    with stopper.hold():
                        self._settle(report, whole_epoch=p.batch == len(batches))
                    if on_report:
                        on_report(report, self.measured)
            except Stopped as stopped:
                self._save_last()
                how = f"saved after step {p.step}; continue with --resume --out {self.out}"
                raise Stopped(stopped.signal, how) from None
        best = checkpoint.tensors_from_bytes(
            checkpoint.load_file(self.out, "model.safetensors"),
            {name: (array.shape, array.dtype) for name, array in self.model.parameters().items()},
        )
        for name, array in self.model.parameters().items():
            array[...] = best[name]
        return self.model

    def _exhausted(self) -> bool:
        return 0 < self.options.updates <= self.progress.step

    def _update(self, indices: np.ndarray, batches: int, stopper: Stopper) -> float:
        """One step. It may be interrupted anywhere but in the update of weights, moments and progress itself."""
        p, o = self.progress, self.options
        batch = self.train.batch(indices)
        loss, cache = self.model.forward(
            batch, step=p.step + 1, smoothing=o.label_smoothing, guided=o.guided, coverage=o.coverage,
            sampling=sampling_rate(o, p.step + 1),
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

    def _validate(self) -> Report:
        """Loss and greedy decoding on the validation set, in batches of like length."""
        p, model = self.progress, self.measured
        if self.recent:
            self.recent.mean(self.model.flat, out=model.flat)
        loss_sum, tokens = 0.0, 0
        hypotheses: list[list[str]] = [[] for _ in range(len(self.valid))]
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
                hypotheses[i] = self.target_vocabulary.compared(written)
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
            lr=p.lr,
            seconds=p.seconds,
            tokens_per_second=p.tokens / p.seconds if p.seconds else 0.0,
            best=False,
        )
        return dataclasses.replace(report, best=(report.error, loss) < (p.best_error, p.best_loss))

    def _settle(self, report: Report, *, whole_epoch: bool) -> None:
        """Book the validation, save, and move to the next epoch.

        A limit of updates may end an epoch early: its validation chooses a model, but leaves no trace in the progress,
        so that a resumed run is one that never stopped.
        """
        p, o = self.progress, self.options
        if report.best:
            save_best(self.out, self.measured)
        if whole_epoch:
            p.epoch, p.batch, p.loss_sum, p.tokens, p.seconds = p.epoch + 1, 0, 0.0, 0, 0.0
            self.recent.keep(p.epoch, self.model.flat)
            # A lower loss at the same error makes a better model, but does not buy more patience: where the error has
            # come to rest (at 0, say), a loss that still creeps would keep a run going for nothing.
            p.waited = 0 if report.error < p.best_error else p.waited + 1
            if report.best:
                p.best_error, p.best_loss = report.error, report.valid_loss
            if p.waited and o.schedule == "plateau" and p.waited % max(1, o.patience // 2) == 0:
                p.lr *= o.lr_decay
        self._save_last()
        checkpoint.append_log(self.out, dataclasses.asdict(report))

    def _save_last(self) -> None:
        save_last(self.out, self.model, self.optimizer, self.progress.to_dict(), self.recent.newest())


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
