"""What a scoring is: its parameters, its keys, its term, and the gradient of that; the bases and the registry.

A scoring of your own is a subclass of `Scoring`, or of one of its two simple forms, `ProductScoring` and `RuleScoring`,
under the decorator `dhyan.register_scoring`. Those of this package are in `scorings`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from dhyan.registry import Registry

Parameters = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]
Initial = Callable[[np.ndarray, np.random.Generator], None]  # fills an array with its initial value

AnyScoring = TypeVar("AnyScoring", bound="Scoring")

registry: Registry[Scoring] = Registry("attention", "dhyan.scorings")


@dataclass(frozen=True)
class Sizes:
    """Widths: Q of the query, D of the memory, U of the units inside; heads; positions the location scoring knows."""

    query: int
    memory: int
    units: int
    heads: int = 1
    max_source: int = 0
    normalized: bool = False


class Rows:
    """Source positions of all sentences one after another: memory (N_s, D), and where each stands in its sentence.

    position (N_s,) int64, or a function that makes it: few scorings ask.
    """

    def __init__(self, memory: np.ndarray, position: np.ndarray | Callable[[], np.ndarray]) -> None:
        self.memory, self._position = memory, position

    @property
    def position(self) -> np.ndarray:
        """(N_s,) int64"""
        if not isinstance(self._position, np.ndarray):
            self._position = self._position()
        return self._position


@dataclass(frozen=True)
class Scorer:
    """How a query meets the keys. term: product, tanh, or a rule: last, mean, given.

    `query` (Q, U) or None: q = state; `w` (U) for the tanh term; normalize_query: q / |q|, per head.
    """

    term: str
    query: np.ndarray | None = None
    w: np.ndarray | None = None
    scale: float = 1.0
    normalize_query: bool = False


@dataclass(frozen=True)
class ScorerGradients:
    """Arrays that the gradients of the scorer's own arrays are written to."""

    query: np.ndarray | None = None
    w: np.ndarray | None = None


@dataclass(frozen=True)
class KeysGradient:
    """What keys_backward reads, and `gradients`, where it writes what is not written yet."""

    p: Parameters
    rows: Rows
    keys: np.ndarray  # (N_s, U)
    dkeys: np.ndarray  # (N_s, U)
    log_scale: float  # d loss / d log(scale)
    gradients: Parameters
    sizes: Sizes
    into: ScorerGradients = field(default_factory=ScorerGradients)
    dmemory: np.ndarray | None = None  # (N_s, D) what else flows into the memory


class Scoring:
    """Base of all scorings; the defaults are those of a scoring without parameters on the memory itself."""

    name = ""
    source = ""  # the paper
    content = False  # scores what the memory holds: windows and heads make sense
    feedback = ""  # "last" or "sum": keys depend on the weights of the row before, or on the sum of all before
    scorer_is_rule = False  # nothing is scored
    step_by_step = False  # a scoring that the core's decoder loop cannot read although it feeds nothing back

    def check(self, sizes: Sizes) -> None:
        """ValueError where the widths cannot be scored."""

    def shapes(self, sizes: Sizes) -> Shapes:
        """Parameter name -> shape."""
        return {}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """The initial value of one parameter: Glorot uniform for matrices and vectors of scores, 0 for biases."""
        if name == "bias":
            return np.zeros(shape)
        fan = shape[0] + (shape[1] if len(shape) > 1 else 1)
        bound = (6.0 / fan) ** 0.5
        return rng.uniform(-bound, bound, shape)

    def key_width(self, sizes: Sizes) -> int:
        """U as the heads cut it: the width of projected query and keys."""
        return sizes.query

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray | None:
        """Keys (N_s, U), made once per sentence; None where nothing is scored."""
        raise NotImplementedError

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        """The term with its parameters."""
        raise NotImplementedError

    def gradient_targets(self, gradients: Parameters, sizes: Sizes) -> ScorerGradients:
        """Where the gradients of the scorer's query matrix and w are written: views into `gradients`."""
        return ScorerGradients()

    def keys_backward(self, c: KeysGradient) -> np.ndarray | None:
        """dmemory (N_s, D) through the keys; the remaining parameter gradients are written.

        None: nothing flows, or it was added to c.dmemory, which spares an array and a pass over it.
        """
        return None

    def feedback_keys(self, p: Parameters, weights: np.ndarray) -> np.ndarray:
        """What earlier weights (B, S), see `feedback`, add to the keys (B, S, U)."""
        raise NotImplementedError

    def feedback_backward(
        self, p: Parameters, weights: np.ndarray, dkeys: np.ndarray, gradients: Parameters
    ) -> np.ndarray:
        """dweights (B, S) of feedback_keys; its parameters' gradients are added to `gradients`."""
        raise NotImplementedError


class RuleScoring(Scoring):
    """Weights by a rule over the range: nothing is scored, nothing flows into a query."""

    scorer_is_rule = True
    rule = ""

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> None:
        return None

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer(self.rule)


class ProductScoring(Scoring):
    """score = scale * q . k on the memory as it is.

    A bidirectional memory is twice as wide as the decoder's state; the sum of its two directions is then the key,
    which keeps these scorings free of parameters.
    """

    content = True

    def check(self, sizes: Sizes) -> None:
        if sizes.memory not in (sizes.query, 2 * sizes.query):
            raise ValueError(
                f"attention {self.name!r} compares a query of width {sizes.query} with a memory of width "
                f"{sizes.memory}, expected {sizes.query} or {2 * sizes.query} (both directions)"
            )

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        memory = rows.memory
        if sizes.memory == sizes.query:
            return memory
        return memory[:, : sizes.query] + memory[:, sizes.query :]

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("product")

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        return c.dkeys if c.sizes.memory == c.sizes.query else np.concatenate([c.dkeys, c.dkeys], 1)


def register_scoring(cls: type[AnyScoring]) -> type[AnyScoring]:
    """A decorator that makes a scoring known under its `name`: to `Attention`, `ModelConfig` and `dhyan train`.

        @dhyan.register_scoring
        class Halved(ProductScoring):
            name = "halved"

            def scorer(self, p, sizes):
                return Scorer("product", scale=0.5)

    For the command line, and wherever a model folder is loaded, the class has to be imported: install it with an entry
    point of the group "dhyan.scorings" that has the scoring's name, `halved = "my_package.my_module"`.

    Errors: TypeError for what is no subclass of Scoring; ValueError for one without a name, and for a name in use.
    """
    if not (isinstance(cls, type) and issubclass(cls, Scoring)):
        raise TypeError(f"register_scoring: got {cls!r}, expected a subclass of Scoring")
    if not cls.name or not isinstance(cls.name, str):
        raise ValueError(f"register_scoring: {cls.__qualname__}.name is {cls.name!r}, expected the scoring's name")
    registry.add(cls.name, cls())
    return cls


def inverse_norms(vectors: np.ndarray) -> np.ndarray:
    """1 / |x| (..., 1) of vectors (..., H); 0 for a zero vector."""
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(-1, keepdims=True))
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(vectors.dtype)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """x / |x| of vectors (..., H); a zero vector stays zero. In double: 1 / |x| of a subnormal float32 is too large."""
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf * 0 where a mask may hide it
        return (wide * inverse_norms(wide)).astype(vectors.dtype)


def unit_vectors_backward(dunit: np.ndarray, unit: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """dx = (dunit - unit (unit . dunit)) / |x|."""
    return (dunit - unit * (unit * dunit).sum(-1, keepdims=True)) * inverse_norms(vectors)


def split_heads(vectors: np.ndarray, heads: int) -> np.ndarray:
    """(..., H) -> (..., heads, H / heads), a view."""
    return vectors.reshape(*vectors.shape[:-1], heads, vectors.shape[-1] // heads)
