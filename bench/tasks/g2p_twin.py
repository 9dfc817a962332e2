"""A whole training beside PyTorch: the same model, first weights, data order, settings and validation on both sides.

    python bench/task.py g2p_twin hin_train.tsv hin_dev.tsv hin_test.tsv --source-level char
    python bench/task.py g2p_twin train.es,train.en dev.es,dev.en test.es,test.en --bleu
Prints the error of every validation with seconds, then WER, PER (and BLEU) of greedy decoding on TEST, total seconds,
and how long each side took to the error that both reached. What dhyan does is dhyan.train; the twin below follows it
line by line in PyTorch. Only dropout masks and rounding differ. Needs torch==2.13.0 (CPU). On a machine that has other
things to do, OMP_NUM_THREADS=1 and --cpu-time: one thread each, and processor time in place of seconds.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
from dhyan import metrics
from dhyan.model.config import ModelConfig
from dhyan.text.batch import make_batches
from dhyan.text.config import DataConfig
from dhyan.text.encoded import Encoded
from dhyan.text.pairs import Pair, read_pairs
from dhyan.text.vocabulary import Vocabulary
from dhyan.training.config import TrainConfig

Clock = Callable[[], float]
Decode = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # source, lengths, limit -> ids (B, T)


@dataclasses.dataclass(frozen=True)
class Task:
    """Data as ids, and every setting, for both sides."""

    config: ModelConfig
    options: TrainConfig
    data: DataConfig
    target: Vocabulary
    train: Encoded
    valid: Encoded
    test: Encoded

    @property
    def limit(self) -> int:
        """Steps of greedy decoding, as dhyan.train has it."""
        return max(len(t) for t in self.train.target) + 10


@dataclasses.dataclass
class Curve:
    """(seconds, combined error) of every validation of one side."""

    name: str
    clock: Clock
    started: float = 0.0
    points: list[tuple[float, float]] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self.clock()

    def add(self, error: float, exact: float, epoch: int, loss: float) -> None:
        """Book one validation and print it."""
        seconds = self.clock() - self.started
        self.points.append((seconds, 0.5 * (error + 1 - exact)))
        line = f"{self.name:8s} epoch {epoch:3d}  loss {loss:.4f}  WER {100 * (1 - exact):6.2f}  PER {100 * error:6.2f}"
        print(f"{line}  {seconds:7.1f} s", flush=True)

    def reached(self, error: float) -> float | None:
        """Seconds to the first validation at or below this error."""
        return next((seconds for seconds, found in self.points if found <= error), None)


def read(path: str) -> list[Pair]:
    """A TSV file, or two line files with a comma between."""
    source, _, target = path.partition(",")
    return read_pairs(source, target or None)


def task(o: argparse.Namespace) -> Task:
    """What both sides train on."""
    data = DataConfig(source_level=o.source_level, target_level=o.target_level)
    train, valid, test = read(o.train), read(o.valid), read(o.test)
    source = Vocabulary.build((p.source for p in train), data.source_level)
    target = Vocabulary.build((p.target for p in train), data.target_level)
    sizes = {"source_size": len(source), "target_size": len(target)}
    given = {name: value for name, value in vars(o).items() if value is not None}
    config = ModelConfig(**sizes, **{n: given[n] for n in ("embedding", "hidden", "cell", "dropout") if n in given})
    options = TrainConfig(seed=o.seed, **{n: given[n] for n in ("batch", "epochs", "lr", "patience") if n in given})
    parts = (Encoded.of(pairs, source, target) for pairs in (train, valid, test))
    return Task(config, options, data, target, *parts)


def decode_all(t: Task, part: Encoded, decode: Decode) -> list[list[str]]:
    """Greedy outputs of every example, in batches of like length."""
    order = np.argsort([len(s) for s in part.source], kind="stable")
    found: list[list[str]] = [[] for _ in range(len(part))]
    for first in range(0, len(order), 128):
        indices = order[first : first + 128]
        batch = part.batch(indices)
        for i, row in zip(indices, decode(batch.source, batch.source_lengths, t.limit), strict=True):
            found[i] = t.target.tokens_of(row.tolist())
    return found


def references(t: Task, part: Encoded) -> list[list[str]]:
    """Target tokens."""
    return [t.target.tokenize(p.target) for p in part.pairs]


def train_ours(t: Task, clock: Clock) -> tuple[Curve, Decode, int]:
    """dhyan.train."""
    curve = Curve("dhyan", clock)

    def note(report: Any, model: Any) -> None:
        curve.add(report.token_error_rate, report.exact_match, report.epoch, report.valid_loss)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        model = dhyan.train(t.config, t.train.pairs, t.valid.pairs, out, options=t.options, data=t.data, on_report=note)
    return curve, lambda source, lengths, limit: model.greedy(source, lengths, max_length=limit)[0], len(curve.points)


def train_twin(t: Task, clock: Clock) -> tuple[Curve, Decode, int]:
    """The same in PyTorch."""
    import torch
    from sides.torch_seq2seq import Seq2SeqTwin
    from torch import nn

    c, o = t.config, t.options
    torch.manual_seed(o.seed)
    net = Seq2SeqTwin(c.source_size, c.target_size, c.embedding, c.hidden, c.cell, dropout=c.dropout)
    net.load(dhyan.Seq2Seq(c, seed=o.seed).parameters())
    adam = torch.optim.Adam(net.parameters(), lr=o.lr, betas=(o.beta1, o.beta2), fused=True)
    curve = Curve("PyTorch", clock)

    def tensors(batch: dhyan.Batch) -> tuple[Any, Any, Any]:
        return tuple(torch.from_numpy(a) for a in (batch.source, batch.target, batch.source_lengths))

    def decode(source: np.ndarray, lengths: np.ndarray, limit: int) -> np.ndarray:
        return net.greedy(torch.from_numpy(source), limit, torch.from_numpy(lengths)).numpy()

    @torch.no_grad()
    def validation_loss() -> float:
        total, tokens = 0.0, 0
        order = np.argsort([len(s) for s in t.valid.source], kind="stable")
        for first in range(0, len(order), 128):
            batch = t.valid.batch(order[first : first + 128])
            x, y, lengths = tensors(batch)
            total += float(net(x, y, True, lengths)) * batch.target_tokens
            tokens += batch.target_tokens
        return total / tokens

    wanted = references(t, t.valid)
    best, best_state, waited, lr, epoch = (math.inf, math.inf), copy.deepcopy(net.state_dict()), 0, o.lr, 0
    while epoch < o.epochs and waited < o.patience:
        net.train()
        for indices in make_batches(*t.train.lengths(), o.batch, seed=o.seed, epoch=epoch):
            x, y, lengths = tensors(t.train.batch(indices))
            adam.zero_grad(set_to_none=True)
            net(x, y, True, lengths, o.label_smoothing).backward()
            nn.utils.clip_grad_norm_(net.parameters(), o.clip)
            adam.param_groups[0]["lr"] = lr
            adam.step()
        epoch += 1
        net.eval()
        found = decode_all(t, t.valid, decode)
        error, exact = metrics.token_error_rate(found, wanted), metrics.exact_match(found, wanted)
        loss = validation_loss()
        curve.add(error, exact, epoch, loss)
        now = (0.5 * (error + 1 - exact), loss)
        if now < best:
            best, best_state, waited = now, copy.deepcopy(net.state_dict()), 0
        else:
            waited += 1
            if o.schedule == "plateau" and waited % max(1, o.patience // 2) == 0:
                lr *= o.lr_decay
    net.load_state_dict(best_state)
    net.eval()
    return curve, decode, epoch


def finish(t: Task, curve: Curve, decode: Decode, epochs: int, wants_bleu: bool) -> dict[str, Any]:
    """Test results of one side, printed and returned."""
    seconds = curve.clock() - curve.started
    found, wanted = decode_all(t, t.test, decode), references(t, t.test)
    result: dict[str, Any] = {
        "side": curve.name,
        "wer": 100 * (1 - metrics.exact_match(found, wanted)),
        "per": 100 * metrics.token_error_rate(found, wanted),
        "seconds": seconds, "epochs": epochs, "curve": curve.points,
    }  # fmt: skip
    line = f"{curve.name}: test WER {result['wer']:.2f} PER {result['per']:.2f}"
    if wants_bleu:
        import sacrebleu

        texts = [[" ".join(row) for row in rows] for rows in (found, wanted)]
        result["bleu"] = sacrebleu.corpus_bleu(texts[0], [texts[1]], tokenize="none", force=True).score
        line += f" BLEU {result['bleu']:.2f}"
    print(f"{line}, {epochs} epochs, {seconds:.1f} s", flush=True)
    return result


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line; a setting that is not given is dhyan's default on both sides."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    for name in ("train", "valid", "test"):
        parser.add_argument(name, help="TSV file, or SOURCE,TARGET line files")
    parser.add_argument("--side", choices=("both", "dhyan", "torch"), default="both")
    parser.add_argument("--source-level", choices=("char", "word"), default="word")
    parser.add_argument("--target-level", choices=("char", "word"), default="word")
    parser.add_argument("--cell", choices=("lstm", "gru"))
    for name in ("embedding", "hidden", "batch", "epochs", "patience"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("dropout", "lr"):
        parser.add_argument(f"--{name}", type=float)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cpu-time", action="store_true", help="count processor time instead of seconds")
    parser.add_argument("--bleu", action="store_true", help="also BLEU (sacrebleu, tokens as they are)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write results and curves")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Train both sides, one after the other, and compare."""
    o = arguments(argv)
    t = task(o)
    print(f"{t.config}\n{t.options}\n{len(t.train)} / {len(t.valid)} / {len(t.test)} pairs", flush=True)
    clock: Clock = time.process_time if o.cpu_time else time.monotonic
    results, curves = [], []
    for name, function in (("dhyan", train_ours), ("torch", train_twin)):
        if o.side in ("both", name):
            curve, decode, epochs = function(t, clock)
            results.append(finish(t, curve, decode, epochs, o.bleu))
            curves.append(curve)
    if len(curves) == 2:
        common = max(min(error for _, error in curve.points) for curve in curves)
        ours, twin = (curve.reached(common) for curve in curves)
        assert ours is not None and twin is not None
        print(
            f"validation error (mean of PER and WER) {100 * common:.2f} % reached after {ours:.1f} s by dhyan, "
            f"{twin:.1f} s by PyTorch: {twin / ours:.2f}x"
        )
    if o.json:
        settings = {"config": t.config.to_dict(), "options": t.options.to_dict()}
        o.json.write_text(json.dumps({**settings, "results": results}, indent=1) + "\n", encoding="utf-8")
    return 0
