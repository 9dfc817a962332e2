"""The registered scorings: how a query and the memory become attention weights.

A scoring is one class. It says which of the core's two terms it is (product: q . k, tanh: w . tanh(q + k)) or which
rule replaces them, which parameters it has, how keys are made from the memory once per sentence, and the gradient of
that. Masking, softmax, context and the decoder loop are the same for all.

To add one: subclass Scoring, set `name`, implement what differs, and decorate it with @register_scoring. Tests,
gradient checks, the benches and the table of docs/attention.md list it from there.

Rows: N_s source positions of all sentences one after another. Q width of the query, D of the memory, U of the keys.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dhyan import ops

from .scoring import (
    KeysGradient,
    Parameters,
    ProductScoring,
    Rows,
    RuleScoring,
    Scorer,
    ScorerGradients,
    Scoring,
    Shapes,
    Sizes,
    register_scoring,
    registry,
    split_heads,
    unit_vectors,
    unit_vectors_backward,
)


@register_scoring
class NoAttention(RuleScoring):
    """Weight 1 on the last position of the range: the encoder-decoder without attention (Sutskever 2014, Cho 2014)."""

    name = "none"
    source = "Sutskever 2014"
    rule = "last"


@register_scoring
class Uniform(RuleScoring):
    """The mean over the range: attention that has learned nothing."""

    name = "uniform"
    source = "baseline"
    rule = "mean"


@register_scoring
class Oracle(RuleScoring):
    """The weights are given: gold links, equal weight per linked source. What attention could do at best."""

    name = "oracle"
    source = "upper bound"
    rule = "given"


@register_scoring
class Dot(ProductScoring):
    """score = q . k (Luong 2015)."""

    name = "dot"
    source = "Luong 2015"


@register_scoring
class ScaledDot(ProductScoring):
    """score = q . k / sqrt(H), H the width of a head (Vaswani 2017)."""

    name = "scaled_dot"
    source = "Vaswani 2017"

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("product", scale=(sizes.query // sizes.heads) ** -0.5)


@register_scoring
class General(Scoring):
    """score = q W k (Luong 2015): W is folded into the keys once per sentence."""

    name = "general"
    source = "Luong 2015"
    content = True

    def shapes(self, sizes: Sizes) -> Shapes:
        return {"weight": (sizes.query, sizes.memory)}

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        return ops.linear_forward(rows.memory, p["weight"].T)

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("product")

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        dmemory, dweight, _ = ops.linear_backward(c.dkeys, c.rows.memory, c.p["weight"].T)
        c.gradients["weight"][...] = dweight.T
        return dmemory


@register_scoring
class Additive(Scoring):
    """score = v . tanh(q W + m U + b) (Bahdanau 2014); normalized: g v / |v| in place of v (Raffel 2017)."""

    name = "additive"
    source = "Bahdanau 2014"
    content = True

    def shapes(self, sizes: Sizes) -> Shapes:
        U = sizes.units
        shapes: Shapes = {"query": (sizes.query, U), "memory": (sizes.memory, U), "bias": (U,), "v": (U,)}
        return {**shapes, "g": (1,)} if sizes.normalized else shapes

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        # |v| of the plain form is near 1 at first; g takes its place.
        return np.ones(shape) if name == "g" else super().initial(name, shape, rng)

    def key_width(self, sizes: Sizes) -> int:
        return sizes.units

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        return ops.linear_forward(rows.memory, p["memory"], p["bias"])

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        v = unit_vectors(p["v"]) * p["g"] if sizes.normalized else p["v"]
        return Scorer("tanh", query=p["query"], w=v)

    def gradient_targets(self, gradients: Parameters, sizes: Sizes) -> ScorerGradients:
        w = np.empty_like(gradients["v"]) if sizes.normalized else gradients["v"]
        return ScorerGradients(query=gradients["query"], w=w)

    def keys_backward(self, c: KeysGradient) -> np.ndarray | None:
        dw, db = c.gradients["memory"], c.gradients["bias"]
        if c.sizes.normalized:
            assert c.into.w is not None
            unit = unit_vectors(c.p["v"])
            c.gradients["g"][0] = (unit * c.into.w).sum()
            c.gradients["v"][...] = unit_vectors_backward(c.into.w * c.p["g"], unit, c.p["v"])
        dmemory, _, _ = ops.linear_backward(c.dkeys, c.rows.memory, c.p["memory"], dw=dw, db=db, add_to=c.dmemory)
        return None if c.dmemory is not None else dmemory


@register_scoring
class Concat(Scoring):
    """score = v . tanh([q; m] W) (Luong 2015): one matrix over both, no bias."""

    name = "concat"
    source = "Luong 2015"
    content = True

    def shapes(self, sizes: Sizes) -> Shapes:
        return {"weight": (sizes.query + sizes.memory, sizes.units), "v": (sizes.units,)}

    def key_width(self, sizes: Sizes) -> int:
        return sizes.units

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        return ops.linear_forward(rows.memory, p["weight"][sizes.query :])

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("tanh", query=p["weight"][: sizes.query], w=p["v"])

    def gradient_targets(self, gradients: Parameters, sizes: Sizes) -> ScorerGradients:
        return ScorerGradients(query=gradients["weight"][: sizes.query], w=gradients["v"])

    def keys_backward(self, c: KeysGradient) -> np.ndarray | None:
        w, dw = c.p["weight"][c.sizes.query :], c.gradients["weight"][c.sizes.query :]
        dmemory, _, _ = ops.linear_backward(c.dkeys, c.rows.memory, w, dw=dw, add_to=c.dmemory)
        return None if c.dmemory is not None else dmemory


@register_scoring
class Cosine(ProductScoring):
    """score = exp(log_sharpness) cos(q, k) (content addressing of Graves 2014); a zero vector scores 0."""

    name = "cosine"
    source = "Graves 2014"

    def shapes(self, sizes: Sizes) -> Shapes:
        return {"log_sharpness": (1,)}

    def initial(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        return np.full(shape, np.log(10.0))  # cosines lie in [-1, 1]: sharpness 1 could not focus at all

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        plain = super().keys(p, rows, sizes)
        return unit_vectors(split_heads(plain, sizes.heads)).reshape(plain.shape)

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("product", scale=float(np.exp(p["log_sharpness"][0])), normalize_query=True)

    def keys_backward(self, c: KeysGradient) -> np.ndarray:
        c.gradients["log_sharpness"][0] = c.log_scale
        plain = super().keys(c.p, c.rows, c.sizes)
        dkeys, keys, vectors = (split_heads(x, c.sizes.heads) for x in (c.dkeys, c.keys, plain))
        dplain = unit_vectors_backward(dkeys, keys, vectors).reshape(plain.shape)
        return super().keys_backward(replace(c, dkeys=dplain))


@register_scoring
class Location(Scoring):
    """score[s] = (q W)[s]: the query alone says where to look (Luong 2015), up to position max_source.

    That is the product of the query with column s of W, so a column of W is the key of its position.
    """

    name = "location"
    source = "Luong 2015"

    def check(self, sizes: Sizes) -> None:
        if sizes.max_source < 1:
            raise ValueError(
                f"attention 'location': max_source is {sizes.max_source}, expected the longest source, at least 1"
            )

    def shapes(self, sizes: Sizes) -> Shapes:
        return {"weight": (sizes.query, sizes.max_source)}

    def keys(self, p: Parameters, rows: Rows, sizes: Sizes) -> np.ndarray:
        longest = int(rows.position.max(initial=-1)) + 1
        if longest > sizes.max_source:
            raise ValueError(
                f"attention 'location': a source has {longest} positions, expected at most "
                f"max_source = {sizes.max_source}"
            )
        return ops.embedding_forward(np.ascontiguousarray(p["weight"].T), rows.position)

    def scorer(self, p: Parameters, sizes: Sizes) -> Scorer:
        return Scorer("product")

    def keys_backward(self, c: KeysGradient) -> None:
        c.gradients["weight"][...] = ops.embedding_backward(c.dkeys, c.rows.position, c.sizes.max_source).T
        return None


@register_scoring
class LocationSensitive(Additive):
    """score = v . tanh(q W + m U + b + f F), f = filters * the weights of the row before (Chorowski 2015).

    The convolution is centred and 0 outside the sentence; at the first row there are no weights yet, f = 0.
    """

    name = "location_sensitive"
    source = "Chorowski 2015"
    content = False
    feedback = "last"
    width = 15
    channels = 10

    def shapes(self, sizes: Sizes) -> Shapes:
        more: Shapes = {"filters": (self.width, self.channels), "location": (self.channels, sizes.units)}
        return {**super().shapes(sizes), **more}

    def feedback_keys(self, p: Parameters, weights: np.ndarray) -> np.ndarray:
        features = ops.linear_forward(self._patches(weights), p["filters"])
        return ops.linear_forward(features, p["location"]).reshape(*weights.shape, p["location"].shape[1])

    def feedback_backward(
        self, p: Parameters, weights: np.ndarray, dkeys: np.ndarray, gradients: Parameters
    ) -> np.ndarray:
        patches = self._patches(weights)
        features = ops.linear_forward(patches, p["filters"])
        rows = dkeys.reshape(len(patches), dkeys.shape[2])
        dfeatures, dlocation, _ = ops.linear_backward(rows, features, p["location"])
        dpatches, dfilters, _ = ops.linear_backward(dfeatures, patches, p["filters"])
        gradients["location"] += dlocation
        gradients["filters"] += dfilters
        B, S = weights.shape
        spread = np.zeros((B, S + self.width - 1), weights.dtype)
        by_offset = dpatches.reshape(B, S, self.width)
        for j in range(self.width):
            spread[:, j : j + S] += by_offset[:, :, j]
        return spread[:, self.width // 2 : self.width // 2 + S]

    def _patches(self, weights: np.ndarray) -> np.ndarray:
        """(B * S, width): the weights around every position."""
        half = self.width // 2
        padded = np.pad(weights, ((0, 0), (half, half + 1)))  # one more: no view is wider than its array
        around = np.lib.stride_tricks.sliding_window_view(padded, self.width, axis=1)
        return around[:, :-1].reshape(-1, self.width)


@register_scoring
class Coverage(Additive):
    """score = v . tanh(q W + m U + b + c_s w_c), c = the sum of the weights of all rows before (See 2017, eq. 11)."""

    name = "coverage"
    source = "See 2017"
    content = False
    feedback = "sum"

    def shapes(self, sizes: Sizes) -> Shapes:
        return {**super().shapes(sizes), "coverage": (sizes.units,)}

    def feedback_keys(self, p: Parameters, weights: np.ndarray) -> np.ndarray:
        keys = ops.linear_forward(weights.reshape(-1, 1), p["coverage"][None])
        return keys.reshape(*weights.shape, len(p["coverage"]))

    def feedback_backward(
        self, p: Parameters, weights: np.ndarray, dkeys: np.ndarray, gradients: Parameters
    ) -> np.ndarray:
        rows = weights.reshape(-1, 1)
        dkeys = dkeys.reshape(len(rows), dkeys.shape[2])
        dweights, dcoverage, _ = ops.linear_backward(dkeys, rows, p["coverage"][None])
        gradients["coverage"] += dcoverage[0]
        return dweights.reshape(weights.shape)


def scorings() -> list[str]:
    """The registered names, those of installed packages among them (entry points of the group "dhyan.scorings")."""
    return registry.names()


def scoring(name: str) -> Scoring:
    """The scoring of that name. ValueError for an unknown one, nearest names first."""
    return registry.find(name)
