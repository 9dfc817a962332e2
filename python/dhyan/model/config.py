"""The table [model]: the shape of a Seq2Seq."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dhyan.attention.normalizers import NORMALIZERS
from dhyan.attention.scoring import Sizes
from dhyan.attention.setting import Setting
from dhyan.attention.windows import AnyWindow, Window, window_from, window_to
from dhyan.errors import check_integer, check_number, unknown_name
from dhyan.ops.layers import CELLS
from dhyan.options import Options

ORDERS = ("bahdanau", "luong")
SOURCES = ("tokens", "features")
TIES = ("none", "output", "all")
MOST_LAYERS = 64  # a damaged configuration must not make us list a billion parameters


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Options):
    """The shape of a Seq2Seq. source_size, target_size: vocabulary sizes V, special symbols counted (for
    source="features" the width F of the feature vectors). See `Seq2Seq` for what the names choose.

    How scores become weights: divided by `temperature`, inside `window` (a radius, Window, PredictiveWindow or
    "predictive:RADIUS"), by `normalize`; `heads` slices each on its own; normalized: additive with g v / |v| for v.
    max_source: most positions the scoring "location" knows, end symbol counted; 0: train takes the longest it sees.
    copy: words of the source may be copied where the attention looks (pointer-generator, `copying`).

    dropout and its kinds variational, recurrent_dropout, embedding_dropout: see `dropout`. residual: from the second
    layer on, what a layer reads is added to its output. layer_norm: of the sums inside the cells (Ba et al. 2016). tie:
    which embeddings share one table, see `parameters`.

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
        check_integer(where, "source_size", self.source_size)
        check_integer(where, "target_size", self.target_size, 4)
        for name in ("embedding", "hidden", "layers"):
            check_integer(where, name, getattr(self, name))
        if self.layers > MOST_LAYERS:
            raise ValueError(f"{where}: layers is {self.layers}, expected at most {MOST_LAYERS}")
        for name in ("bidirectional", "input_feeding", "normalized", "variational", "residual", "layer_norm", "copy"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"{where}: {name} is {getattr(self, name)!r}, expected true or false")
        for name in ("dropout", "recurrent_dropout", "embedding_dropout"):
            check_number(where, name, getattr(self, name), 0, 1)
        for name, valid in (
            ("cell", CELLS), ("order", ORDERS), ("normalize", tuple(NORMALIZERS)), ("source", SOURCES), ("tie", TIES),
        ):  # fmt: skip
            if getattr(self, name) not in valid:
                raise unknown_name(f"{where}: {name}", getattr(self, name), valid)
        check_number(where, "temperature", self.temperature, 0, math.inf, open_low=True)
        check_integer(where, "heads", self.heads)
        check_integer(where, "max_source", self.max_source, 0)
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
        self._setting(max(self.max_source, 1))

    def _setting(self, max_source: int) -> Setting:
        sizes = Sizes(self.hidden, self.memory_size, self.hidden, self.heads, max_source, self.normalized)
        assert not isinstance(self.window, int | str)
        return Setting(self.attention, sizes, self.window, self.normalize, self.temperature)

    @cached_property
    def setting(self) -> Setting:
        """How the decoder reads. ValueError for the scoring "location" while max_source is 0."""
        return self._setting(self.max_source)

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
