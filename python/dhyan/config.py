"""Everything a training run is made of, as three small tables: [model], [train], [data]; one TOML file holds them."""

from __future__ import annotations

import dataclasses
import math
import sys
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from .errors import DataError
from .model_ops import CELLS
from .names import nearest_first, unknown_name
from .plan import NORMALIZERS, Plan
from .scoring_base import Sizes
from .subword import KINDS
from .vocab import LEVELS, NORMALIZATIONS
from .windows import AnyWindow, Window, window_from, window_to

ORDERS = ("bahdanau", "luong")
SOURCES = ("tokens", "features")
TIES = ("none", "output", "all")
OPTIMIZERS = ("adamw", "adam", "sgd")
SCHEDULES = ("plateau", "cosine", "inverse_sqrt", "constant")
PRECISIONS = ("float32", "float64", "bf16")
MOST_LAYERS = 64  # a damaged configuration must not make us list a billion parameters

Table = TypeVar("Table", bound="_Table")


def _positive(where: str, name: str, value: Any, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where}: {name} is {value!r}, expected an integer")
    if value < least:
        raise ValueError(f"{where}: {name} is {value}, expected at least {least}")


def _number(where: str, name: str, value: Any, low: float, high: float, *, open_low: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{where}: {name} is {value!r}, expected a number")
    if not math.isfinite(value) or value < low or value >= high or (open_low and value == low):
        raise ValueError(f"{where}: {name} is {value}, expected {low} {'<' if open_low else '<='} {name} < {high}")


@dataclass(frozen=True, kw_only=True)
class _Table:
    @classmethod
    def from_dict(cls: type[Table], values: dict[str, Any], where: str) -> Table:
        """The table of these values. ValueError for an unknown key, nearest names first."""
        known = [f.name for f in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = ", ".join(nearest_first(key, known)[:3])
                raise ValueError(f"{where}: unknown key {key!r}, did you mean: {near}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Field name -> value."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, kw_only=True)
class ModelConfig(_Table):
    """The shape of a Seq2Seq. source_size, target_size: vocabulary sizes V, special symbols counted (for
    source="features" the width F of the feature vectors). See `Seq2Seq` for what the names choose.

    How scores become weights: divided by `temperature`, inside `window` (a radius, Window, PredictiveWindow or
    "predictive:RADIUS"), by `normalize`; `heads` slices each on its own; normalized: additive with g v / |v| for v.
    max_source: most positions the scoring "location" knows, end symbol counted; 0: train takes the longest it sees.
    copy: words of the source may be copied where the attention looks (pointer-generator, `copying`).

    dropout and its kinds variational, recurrent_dropout, embedding_dropout: see `dropout`. residual: from the second
    layer on, what a layer reads is added to its output. layer_norm: of the sums inside the cells (Ba et al. 2016). tie:
    which embeddings share one table, see `tying`.

    Errors: ValueError for values out of range, unknown names, parts that do not fit; TypeError for wrong types.
    """

    source_size: int
    target_size: int
    embedding: int = 128
    hidden: int = 256
    layers: int = 1
    cell: str = "lstm"
    bidirectional: bool = True
    attention: str = "additive"
    order: str = "bahdanau"
    input_feeding: bool = True
    dropout: float = 0.2
    window: AnyWindow | int | str | None = None
    normalize: str = "softmax"
    heads: int = 1
    source: str = "tokens"
    temperature: float = 1.0
    normalized: bool = False
    max_source: int = 0
    variational: bool = False
    recurrent_dropout: float = 0.0
    embedding_dropout: float = 0.0
    residual: bool = False
    tie: str = "none"
    layer_norm: bool = False
    copy: bool = False

    def __post_init__(self) -> None:
        where = "ModelConfig"
        _positive(where, "source_size", self.source_size)
        _positive(where, "target_size", self.target_size, 4)
        for name in ("embedding", "hidden", "layers"):
            _positive(where, name, getattr(self, name))
        if self.layers > MOST_LAYERS:
            raise ValueError(f"{where}: layers is {self.layers}, expected at most {MOST_LAYERS}")
        for name in ("bidirectional", "input_feeding", "normalized", "variational", "residual", "layer_norm", "copy"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{where}: {name} is {getattr(self, name)!r}, expected true or false")
        for name in ("dropout", "recurrent_dropout", "embedding_dropout"):
            _number(where, name, getattr(self, name), 0, 1)
        for name, valid in (
            ("cell", CELLS), ("order", ORDERS), ("normalize", NORMALIZERS), ("source", SOURCES), ("tie", TIES),
        ):  # fmt: skip
            if getattr(self, name) not in valid:
                raise unknown_name(f"{where}: {name}", getattr(self, name), valid)
        _number(where, "temperature", self.temperature, 0, math.inf, open_low=True)
        _positive(where, "heads", self.heads)
        _positive(where, "max_source", self.max_source, 0)
        if self.copy and self.source != "tokens":
            raise ValueError(f"{where}: copy is true with source {self.source!r}, expected 'tokens': words to copy")
        if self.copy and self.attention == "none":
            raise ValueError(f"{where}: copy is true with attention 'none', expected a scoring: its weights are copied")
        try:
            object.__setattr__(self, "window", window_from(self.window))
        except (ValueError, TypeError) as error:
            raise type(error)(f"{where}: {error}") from None
        if self.residual and self.layers == 1:
            raise ValueError(
                f"{where}: residual is true with layers = 1, expected at least 2: the first layer has none"
            )
        if self.tie == "all" and (self.source != "tokens" or self.source_size != self.target_size):
            got = f"source_size {self.source_size} and target_size {self.target_size}"
            raise ValueError(
                f"{where}: tie is 'all' with source {self.source!r}, {got}, expected tokens of equal sizes"
            )
        # How long a source can be may not be known yet: train finds it, and a model asks for it.
        self._plan(max(self.max_source, 1))

    def _plan(self, max_source: int) -> Plan:
        sizes = Sizes(self.hidden, self.memory_size, self.hidden, self.heads, max_source, self.normalized)
        assert not isinstance(self.window, int | str)
        return Plan(self.attention, sizes, self.window, self.normalize, self.temperature)

    @cached_property
    def plan(self) -> Plan:
        """How the decoder reads. ValueError for the scoring "location" while max_source is 0."""
        return self._plan(self.max_source)

    @property
    def radius(self) -> int:
        """The radius of a Window, -1 without one; at most what 64 bits hold: a wider one reaches no further."""
        return min(self.window.radius, sys.maxsize) if isinstance(self.window, Window) else -1

    def to_dict(self) -> dict[str, Any]:
        """Field name -> plain value: a window is its radius or "predictive:RADIUS"."""
        assert not isinstance(self.window, int | str)
        return {**super().to_dict(), "window": window_to(self.window)}

    @property
    def memory_size(self) -> int:
        """D: the width of what the decoder reads."""
        return 2 * self.hidden if self.bidirectional else self.hidden


@dataclass(frozen=True, kw_only=True)
class TrainConfig(_Table):
    """How a model is trained. optimizer: adamw (weight_decay decoupled), adam or sgd (weight_decay an L2 penalty).
    `schedule` of lr: plateau: times lr_decay after half of `patience` validations without a lower error; cosine: to 0
    over `epochs`; inverse_sqrt; constant; all after `warmup` updates from 0, see `schedule.lr_factor`.
    updates: stop after so many (0: no limit). fine_tune: a model folder to start from, with its vocabularies.
    patience: stop after so many validations (one an epoch) without a lower error; see train.
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

    def __post_init__(self) -> None:
        where = "TrainConfig"
        for name in ("batch", "epochs", "patience"):
            _positive(where, name, getattr(self, name))
        for name in ("updates", "warmup", "seed", "sampling_ramp", "average"):
            _positive(where, name, getattr(self, name), 0)
        if self.seed >= 1 << 63:
            raise ValueError(f"{where}: seed is {self.seed}, expected less than 2**63")
        _number(where, "lr", self.lr, 0, math.inf, open_low=True)
        _number(where, "lr_decay", self.lr_decay, 0, 1, open_low=True)
        _number(where, "clip", self.clip, 0, math.inf)
        for name in ("weight_decay", "guided", "coverage"):
            _number(where, name, getattr(self, name), 0, math.inf)
        for name in ("beta1", "beta2", "momentum", "label_smoothing", "scheduled_sampling"):
            _number(where, name, getattr(self, name), 0, 1)
        for name, valid in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
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


@dataclass(frozen=True, kw_only=True)
class DataConfig(_Table):
    """How text becomes ids. levels: char, word or subword. columns: of a TSV, source and target, "1:2" or "1,2:3".
    max_length: longer sentences (tokens) are left out of training and refused in translation.
    source_vocabulary, target_vocabulary: most ids kept, 0 is all; of subwords their number, 0 chooses it by the data.
    normalization: Unicode form of every text, see `vocab.normalize`. subword_model, byte_fallback: `SubwordVocabulary`.
    """

    source_level: str = "word"
    target_level: str = "word"
    columns: str = "1:2"
    bad_lines: str = "error"
    source_vocabulary: int = 0
    target_vocabulary: int = 0
    min_count: int = 1
    max_length: int = 500
    normalization: str = "nfc"
    subword_model: str = "unigram"
    byte_fallback: bool = False

    def __post_init__(self) -> None:
        for name, valid in (
            ("source_level", LEVELS),
            ("target_level", LEVELS),
            ("bad_lines", ("error", "skip")),
            ("normalization", NORMALIZATIONS),
            ("subword_model", KINDS),
        ):
            if getattr(self, name) not in valid:
                raise unknown_name(f"DataConfig: {name}", getattr(self, name), valid)
        if not isinstance(self.byte_fallback, bool):
            raise TypeError(f"DataConfig: byte_fallback is {self.byte_fallback!r}, expected true or false")
        if not isinstance(self.columns, str):
            raise TypeError(f"DataConfig: columns is {self.columns!r}, expected a text such as 1:2")
        if self.source_level == "subword" and "," in self.columns:
            raise ValueError(
                f"DataConfig: source_level is 'subword' with columns {self.columns!r}, expected one source column: two "
                "are joined as characters and tags"
            )
        for name in ("source_vocabulary", "target_vocabulary"):
            _positive("DataConfig", name, getattr(self, name), 0)
        for name in ("min_count", "max_length"):
            _positive("DataConfig", name, getattr(self, name))

    @property
    def counted(self) -> dict[str, Any]:
        """levels and normalization, as `read_pairs` and `check_links` take them: in what gold links count."""
        return {"levels": (self.source_level, self.target_level), "normalization": self.normalization}


TABLES: dict[str, type[_Table]] = {"model": ModelConfig, "train": TrainConfig, "data": DataConfig}


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
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from None
    return parse_toml(text, str(path))


def parse_toml(text: str, name: str) -> dict[str, dict[str, Any]]:
    """read_toml of a text. Errors: DataError naming `name`; unknown tables list the nearest first."""
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
