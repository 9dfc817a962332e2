"""The table [train], and the three tables of a training run as one TOML file."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhyan.errors import DataError, nearest_first
from dhyan.model.config import ModelConfig
from dhyan.options import Options, option
from dhyan.text.config import DataConfig

OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("plateau", "cosine", "inverse_sqrt", "constant")
PRECISIONS = ("float32", "float64", "bf16")
SELECTIONS = ("error", "loss", "bleu", "chrf", "exact")
MAX_CONFIG = 1 << 16  # bytes of a configuration file, which has some 80 keys
_MAX_LINE = 1 << 14  # characters: the parser's time grows with the square of the parts of a dotted key


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Options):
    """How a model is trained. optimizer: adamw (weight_decay decoupled), adam or sgd (weight_decay an L2 penalty).
    `schedule` of lr: plateau: times lr_decay after half of `patience` validations without a lower error; cosine: to 0
    over `epochs`; inverse_sqrt; constant; all after `warmup` updates from 0, see `schedule.lr_factor`.
    updates: stop after so many (0: no limit). fine_tune: a model folder to start from, with its vocabularies.
    patience: stop after so many validations (one an epoch, and see validate_every) without a lower error; see train.
    select: which validation is the best: the one of the least error (half of the token error rate, at most 1, and half
    of the share of outputs that are not exact) or loss, of the highest bleu, chrf or share of exact outputs.
    validate_every: validate and save after every so many updates too, not only at the ends of epochs (0: off).
    time: stop after so many minutes (0: no limit).
    guided, coverage: weights of the losses of the same names (`alignment_loss`), added to that of the tokens.
    scheduled_sampling: the share of target tokens read as the model would write them (`scheduled`), reached after
    `sampling_ramp` updates.
    average: what is validated, and kept where it is better, is the mean of the weights at the ends of the last so many
    epochs (`recent`; 0 and 1: the weights themselves); training goes on from the weights themselves.
    precision: of the parameters; bf16 keeps them in float32 and rounds the factors of the training passes' matrix
    products to bfloat16, where the CPU has AVX512-BF16; elsewhere it is float32.
    """

    batch: int = option(64, "sentences per update", low=1)
    epochs: int = option(60, "most passes over the training data", low=1)
    updates: int = option(0, "most updates; 0 is no limit")
    optimizer: str = option("adamw", "adamw, adam or sgd", choices=OPTIMIZERS)
    lr: float = option(2e-3, "learning rate", open_low=True)
    lr_decay: float = option(0.3, "what the plateau schedule multiplies it with", high=1, open_low=True)
    schedule: str = option(
        "plateau", "of the learning rate: plateau, cosine, inverse_sqrt or constant", choices=SCHEDULES
    )
    warmup: int = option(0, "updates until the learning rate is reached")
    clip: float = option(1.0, "global gradient norm; 0 is no limit")
    beta1: float = option(0.9, "decay of Adam's mean of gradients", high=1)
    beta2: float = option(0.998, "decay of Adam's mean of their squares", high=1)
    momentum: float = option(0.9, "of sgd", high=1)
    weight_decay: float = option(0.0, "decoupled from the gradient (adamw), or an L2 penalty (adam, sgd)")
    patience: int = option(12, "stop after so many validations without a better one", low=1)
    average: int = option(0, "validate and keep the mean of the weights after the last N epochs; 0: off")
    select: str = option(
        "error", "what the best model is chosen by: error, loss, bleu, chrf or exact", choices=SELECTIONS
    )
    validate_every: int = option(0, "validate and save after every N updates too; 0: off")
    time: float = option(0.0, "stop after so many minutes; 0 is no limit")
    label_smoothing: float = option(0.1, "share of probability spread over the vocabulary", high=1)
    scheduled_sampling: float = option(0.0, "share of target tokens read as the model writes them", high=1)
    sampling_ramp: int = option(0, "updates until that share is reached")
    guided: float = option(0.0, "weight of the loss towards the gold links of the third column")
    coverage: float = option(0.0, "weight of the loss against reading a position twice")
    fine_tune: str = option(
        "", "a model folder to start from: its weights, vocabularies and [model]",
        flag="--from", metavar="DIR", expected="the name of a model folder",
    )  # fmt: skip
    precision: str = option(
        "float32", "float32, float64, or bf16: products in bfloat16 where the CPU can", choices=PRECISIONS
    )
    seed: int = option(1, "of weights, batches and dropout", bits=63)

    def __post_init__(self) -> None:
        where = "TrainConfig"
        self.check(where)
        if self.fine_tune != self.fine_tune.encode(errors="replace").decode():
            raise ValueError(f"{where}: fine_tune is {self.fine_tune!r}, expected one in UTF-8: config.toml keeps it")

    @property
    def dtype(self) -> str:
        """That of the parameters."""
        return "float32" if self.precision == "bf16" else self.precision


TABLES: dict[str, type[Options]] = {"model": ModelConfig, "train": TrainConfig, "data": DataConfig}


def to_toml(tables: dict[str, dict[str, Any]]) -> str:
    """Tables of plain values as TOML; a value of None is left out."""
    lines = []
    for title, values in tables.items():
        lines.append(f"[{title}]")
        lines += [f"{key} = {_toml_value(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    return "\n".join(lines)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(int(value))
    if isinstance(value, float):
        return repr(float(value))  # np.float64 is a float, and its repr no TOML
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 32 or ord(c) == 127 else "\\" + c if c in '\\"' else c for c in str(value)
    )
    return f'"{escaped}"'


def read_toml(path: str | Path) -> dict[str, dict[str, Any]]:
    """The tables of a configuration file; keys are checked by the tables themselves. Errors: DataError."""
    try:
        with open(path, "rb") as file:  # a pipe too
            text = file.read(MAX_CONFIG + 1).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str) -> dict[str, dict[str, Any]]:
    """read_toml of a text. Errors: DataError naming `name`; unknown tables list the nearest first."""
    if len(text.encode()) > MAX_CONFIG:
        raise DataError(f"{name}: is larger than the limit of {MAX_CONFIG} bytes")
    for number, line in enumerate(text.split("\n"), 1):
        if len(line) > _MAX_LINE:
            raise DataError(f"{name}:{number}: the line has {len(line)} characters, expected at most {_MAX_LINE}")
    try:
        tables = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DataError(f"{name}: {error}") from None
    for title, values in tables.items():
        if title not in TABLES:
            near = ", ".join(nearest_first(title, TABLES))
            raise DataError(f"{name}: unknown table [{title}], expected one of: {near}")
        if not isinstance(values, dict):
            raise DataError(f"{name}: {title} is a value, expected a table [{title}]")
    return tables
