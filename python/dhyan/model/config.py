"""The table [model]: the shape of a Seq2Seq."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dhyan.options import Options, option

if TYPE_CHECKING:
    from dhyan.attention.setting import Setting
    from dhyan.attention.windows import AnyWindow

ORDERS = ("bahdanau", "luong")
SOURCES = ("tokens", "features")
TIES = ("none", "output", "all")
MOST_LAYERS = 64  # a damaged configuration must not make us list a billion parameters


# What stands in modules that load numpy is asked for when it is needed: the command line reads this table.
def _cells() -> tuple[str, ...]:
    from dhyan.ops.layers import CELLS

    return CELLS


def _normalizers() -> tuple[str, ...]:
    from dhyan.attention.normalizers import NORMALIZERS

    return tuple(NORMALIZERS)


def _scorings() -> str:
    from dhyan.attention.scorings import scorings

    return f"a scoring: {', '.join(scorings())}"


def radius(text: str) -> int | str:
    """A number where it is one; what other texts mean, `window_from` knows."""
    try:
        return int(text)
    except ValueError:
        return text


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

    source_size: int = option(kind=int, low=1, help="size of the source vocabulary, or width F", command=False)
    target_size: int = option(kind=int, low=4, help="size of the target vocabulary", command=False)
    source: str = option("tokens", "what is read: tokens, or feature vectors", choices=SOURCES, command=False)
    attention: str = option("additive", _scorings)
    cell: str = option("lstm", "lstm, gru or rnn", choices=_cells)
    order: str = option("bahdanau", "bahdanau or luong", choices=ORDERS)
    bidirectional: bool = option(True, "the encoder reads from both ends", command=False)
    input_feeding: bool = option(True, "the attentional state enters the next step (luong)", command=False)
    embedding: int = option(128, "width E of the embeddings", low=1)
    hidden: int = option(256, "width H of the hidden states", low=1)
    layers: int = option(1, "layers of encoder and decoder", low=1, most=MOST_LAYERS)
    layer_norm: bool = option(False, "normalise the sums inside recurrent cells")
    residual: bool = option(False, "from the second layer on, add what a layer reads to its output")
    tie: str = option(
        "none", "one table for words: none, output (target embedding and output layer), all (source too)", choices=TIES
    )
    dropout: float = option(0.2, "share of values dropped, 0 <= p < 1", high=1)
    variational: bool = option(False, "dropout by one mask a sentence")
    recurrent_dropout: float = option(0.0, "the same of recurrent states, one mask a sentence", high=1)
    embedding_dropout: float = option(0.0, "share of word types dropped, at all their places", high=1)
    window: AnyWindow | int | str | None = option(
        None, "read only this near to min(t, length - 1); predictive:RADIUS: near to a learned place",
        kind=radius, metavar="RADIUS",
    )  # fmt: skip
    normalize: str = option(
        "softmax", "how scores become weights: softmax, sparsemax or monotonic", choices=_normalizers
    )
    heads: int = option(1, "attention heads, each on its own slice of states and memory", low=1)
    temperature: float = option(1.0, "divides every score before they become weights", open_low=True)
    normalized: bool = option(False, "additive scores with g v / |v| in place of v")
    copy: bool = option(False, "may copy source words where the attention looks (pointer-generator)")
    max_source: int = option(0, "positions the scoring location knows; 0: the longest source")

    def __post_init__(self) -> None:
        from dhyan.attention.windows import window_from

        where = "ModelConfig"
        self.check(where)
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
        from dhyan.attention.scoring import Sizes
        from dhyan.attention.setting import Setting

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
        from dhyan.attention.windows import Window

        return min(self.window.radius, sys.maxsize) if isinstance(self.window, Window) else -1

    def to_dict(self) -> dict[str, Any]:
        """Field name -> plain value: a window is its radius or "predictive:RADIUS"."""
        from dhyan.attention.windows import window_to

        assert not isinstance(self.window, int | str)
        return {**super().to_dict(), "window": window_to(self.window)}

    @property
    def memory_size(self) -> int:
        """D: the width of what the decoder reads."""
        return 2 * self.hidden if self.bidirectional else self.hidden
