"""The table [train], and the three tables of a training run as one TOML file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dhyan.errors import DataError, check_integer, check_number, nearest_first, unknown_name
from dhyan.model.config import ModelConfig
from dhyan.options import Options
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

    batch: int = 64
    epochs: int = 60
    updates: int = 0
    lr: float = 2e-3
    lr_decay: float = 0.3
    schedule: str = "plateau"
    warmup: int = 0
    patience: int = 12
    clip: float = 1.0
    beta1: float = 0.9
    beta2: float = 0.998
    weight_decay: float = 0.0
    label_smoothing: float = 0.1
    seed: int = 1
    precision: str = "float32"
    guided: float = 0.0
    coverage: float = 0.0
    optimizer: str = "adamw"
    momentum: float = 0.9
    fine_tune: str = ""
    scheduled_sampling: float = 0.0
    sampling_ramp: int = 0
    average: int = 0
    select: str = "error"
    validate_every: int = 0
    time: float = 0.0

    def __post_init__(self) -> None:
        where = "TrainConfig"
        for name in ("batch", "epochs", "patience"):
            check_integer(where, name, getattr(self, name))
        for name in ("updates", "warmup", "seed", "sampling_ramp", "average", "validate_every"):
            check_integer(where, name, getattr(self, name), 0)
        if self.seed >= 1 << 63:
            raise ValueError(f"{where}: seed is {self.seed}, expected less than 2**63")
        check_number(where, "lr", self.lr, 0, math.inf, open_low=True)
        check_number(where, "lr_decay", self.lr_decay, 0, 1, open_low=True)
        check_number(where, "clip", self.clip, 0, math.inf)
        for name in ("weight_decay", "guided", "coverage", "time"):
            check_number(where, name, getattr(self, name), 0, math.inf)
        for name in ("beta1", "beta2", "momentum", "label_smoothing", "scheduled_sampling"):
            check_number(where, name, getattr(self, name), 0, 1)
        for name, valid in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("select", SELECTIONS),
        ):
            if getattr(self, name) not in valid:
                raise unknown_name(f"{where}: {name}", getattr(self, name), valid)
        if not isinstance(self.fine_tune, str):
            raise TypeError(f"{where}: fine_tune is {self.fine_tune!r}, expected the name of a model folder")
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
