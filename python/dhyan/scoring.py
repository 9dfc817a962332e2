"""The registered scorings: how a query and the memory become attention weights.

A scoring is one class. It says which of the core's two terms it is (product: q . k, tanh: w . tanh(q + k)) or which
rule replaces them, which parameters it has, how keys are made from the memory once per sentence, and the gradient of
that. Masking, softmax, context and the decoder loop are the same for all.

To add one: subclass Scoring, set `name`, implement what differs, and decorate it with @register. Tests, gradient
checks, the benches and the README's table list it from there.

Rows: N_s source positions of all sentences one after another. H width of the query, D of the memory, U of the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import model_ops as ops
from .names import unknown_name

Parameters = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

_registry: dict[str, Scoring] = {}


@dataclass(frozen=True)
class Window:
    """Only positions |s - min(t, length - 1)| <= radius are scored (the monotonic window local-m of Luong 2015)."""

    radius: int

    def __post_init__(self) -> None:
        if isinstance(self.radius, bool) or not isinstance(self.radius, int):
            raise TypeError(f"Window: radius is {self.radius!r}, expected an integer")
        if self.radius < 0:
            raise ValueError(f"Window: radius is {self.radius}, expected at least 0")


@dataclass(frozen=True)
class Scorer:
    """What the core's decoder loop reads. term: product, tanh, or a rule: last, mean.

    `query` (H, U) or None: q = state; `w` (U) for the tanh term.
    """

    term: str
    query: np.ndarray | None = None
    w: np.ndarray | None = None
    scale: float = 1.0
    normalize_query: bool = False


@dataclass(frozen=True)
class ScorerGradients:
    """Arrays the core writes into."""

    query: np.ndarray | None = None
    w: np.ndarray | None = None


@dataclass(frozen=True)
class KeysGradient:
    """What keys_backward reads, and `gradients`, where it writes what the core did not."""

    p: Parameters
    memory: np.ndarray  # (N_s, D)
    keys: np.ndarray  # (N_s, U)
    dkeys: np.ndarray  # (N_s, U)
    log_scale: float  # d loss / d log(scale)
    gradients: Parameters
    query_size: int


class Scoring:
    """Base of all scorings; the defaults are those of a scoring without parameters on the memory itself."""

    name = ""
    source = ""  # the paper

    def check(self, query_size: int, memory_size: int) -> None:
        """ValueError where the widths cannot be scored."""

    def shapes(self, query_size: int, memory_size: int, units: int) -> Shapes:
        """Parameter name -> shape."""
        return {}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """The initial value of one parameter: Glorot uniform for matrices and vectors of scores, 0 for biases."""
        if name == "bias":
            return np.zeros(shape)
        fan = shape[0] + (shape[1] if len(shape) > 1 else 1)
        bound = (6.0 / fan) ** 0.5
        return rng.uniform(-bound, bound, shape)

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray | None:
        """Keys (N_s, U) from memory (N_s, D), made once per sentence; None where nothing is scored."""
        raise NotImplementedError

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        """The term with its parameters."""
        raise NotImplementedError

    def gradient_targets(self, gradients: Parameters, query_size: int) -> ScorerGradients:
        """Where the core writes dquery and dw: views into `gradients`."""
        return ScorerGradients()

    def keys_backward(self, c: KeysGradient) -> np.ndarray | None:
        """dmemory (N_s, D) through the keys, or None; the remaining parameter gradients are written."""
        return None


def register(cls: type[Scoring]) -> type[Scoring]:
    """Make a scoring known under its name."""
    _registry[cls.name] = cls()
    return cls


def scorings() -> list[str]:
    """The registered names."""
    return list(_registry)


def scoring(name: str) -> Scoring:
    """The scoring of that name. ValueError for an unknown one, nearest names first."""
    if name not in _registry:
        raise unknown_name("attention", name, _registry)
    return _registry[name]


class _Rule(Scoring):
    """Weights by a rule over the range: nothing is scored, nothing flows into a query."""

    rule = ""

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> None:
        return None

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer(self.rule)


@register
class NoAttention(_Rule):
    """Weight 1 on the last position of the range: the encoder-decoder without attention (Sutskever 2014, Cho 2014)."""

    name = "none"
    source = "Sutskever 2014"
    rule = "last"


@register
class Uniform(_Rule):
    """The mean over the range: attention that has learned nothing."""

    name = "uniform"
    source = "baseline"
    rule = "mean"


class _Product(Scoring):
    """score = scale * q . k on the memory as it is.

    A bidirectional memory is twice as wide as the decoder's state; the sum of its two directions is then the key,
    which keeps these scorings free of parameters.
    """

    def check(self, query_size: int, memory_size: int) -> None:
        if memory_size not in (query_size, 2 * query_size):
            raise ValueError(
                f"attention {self.name!r} compares a query of width {query_size} with a memory of width {memory_size}, "
                f"expected {query_size} or {2 * query_size} (both directions)"
            )

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray:
        if memory.shape[1] == query_size:
            return memory
        return memory[:, :query_size] + memory[:, query_size:]

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("product")

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        return c.dkeys if c.memory.shape[1] == c.query_size else np.concatenate([c.dkeys, c.dkeys], 1)


@register
class Dot(_Product):
    """score = q . k (Luong 2015)."""

    name = "dot"
    source = "Luong 2015"


@register
class ScaledDot(_Product):
    """score = q . k / sqrt(H) (Vaswani 2017)."""

    name = "scaled_dot"
    source = "Vaswani 2017"

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("product", scale=query_size**-0.5)


@register
class Cosine(_Product):
    """score = exp(log_sharpness) cos(q, k) (content addressing of Graves 2014); a zero vector scores 0."""

    name = "cosine"
    source = "Graves 2014"

    def shapes(self, query_size: int, memory_size: int, units: int) -> Shapes:
        return {"log_sharpness": (1,)}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, np.log(10.0))  # cosines lie in [-1, 1]: sharpness 1 could not focus at all

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray:
        plain = super().keys(p, memory, query_size)
        return unit_vectors(plain)

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("product", scale=float(np.exp(p["log_sharpness"][0])), normalize_query=True)

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        c.gradients["log_sharpness"][0] = c.log_scale
        inverse = inverse_norms(super().keys(c.p, c.memory, c.query_size))
        dplain = (c.dkeys - c.keys * (c.keys * c.dkeys).sum(1, keepdims=True)) * inverse
        return super().keys_backward(replace(c, dkeys=dplain))


def inverse_norms(vectors: np.ndarray) -> np.ndarray:
    """1 / |x| (..., 1) of vectors (..., H); 0 for a zero vector."""
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(-1, keepdims=True))
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0).astype(vectors.dtype)


def unit_vectors(vectors: np.ndarray) -> np.ndarray:
    """x / |x| of vectors (..., H); a zero vector stays zero. In double: 1 / |x| of a subnormal float32 is too large."""
    wide = vectors.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf * 0 where a mask may hide it
        return (wide * inverse_norms(wide)).astype(vectors.dtype)


@register
class General(Scoring):
    """score = q W k (Luong 2015): W is folded into the keys once per sentence."""

    name = "general"
    source = "Luong 2015"

    def shapes(self, query_size: int, memory_size: int, units: int) -> Shapes:
        return {"weight": (query_size, memory_size)}

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray:
        return ops.linear_forward(memory, p["weight"].T)

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("product")

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        dmemory, dweight, _ = ops.linear_backward(c.dkeys, c.memory, c.p["weight"].T)
        c.gradients["weight"][...] = dweight.T
        return dmemory


@register
class Additive(Scoring):
    """score = v . tanh(q W + m U + b) (Bahdanau 2014)."""

    name = "additive"
    source = "Bahdanau 2014"

    def shapes(self, query_size: int, memory_size: int, units: int) -> Shapes:
        return {"query": (query_size, units), "memory": (memory_size, units), "bias": (units,), "v": (units,)}

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray:
        return ops.linear_forward(memory, p["memory"], p["bias"])

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("tanh", query=p["query"], w=p["v"])

    def gradient_targets(self, gradients: Parameters, query_size: int) -> ScorerGradients:
        return ScorerGradients(query=gradients["query"], w=gradients["v"])

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        dw, db = c.gradients["memory"], c.gradients["bias"]
        dmemory, _, _ = ops.linear_backward(c.dkeys, c.memory, c.p["memory"], dw=dw, db=db)
        return dmemory


@register
class Concat(Scoring):
    """score = v . tanh([q; m] W) (Luong 2015): one matrix over both, no bias."""

    name = "concat"
    source = "Luong 2015"

    def shapes(self, query_size: int, memory_size: int, units: int) -> Shapes:
        return {"weight": (query_size + memory_size, units), "v": (units,)}

    def keys(self, p: Parameters, memory: np.ndarray, query_size: int) -> np.ndarray:
        return ops.linear_forward(memory, p["weight"][query_size:])

    def scorer(self, p: Parameters, query_size: int) -> Scorer:
        return Scorer("tanh", query=p["weight"][:query_size], w=p["v"])

    def gradient_targets(self, gradients: Parameters, query_size: int) -> ScorerGradients:
        return ScorerGradients(query=gradients["weight"][:query_size], w=gradients["v"])

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        w, dw = c.p["weight"][c.query_size :], c.gradients["weight"][c.query_size :]
        dmemory, _, _ = ops.linear_backward(c.dkeys, c.memory, w, dw=dw)
        return dmemory
