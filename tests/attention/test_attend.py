"""attend: every rank, score, restriction and their combinations against a plain loop; masks, edges and bad input."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Window, ops
from dhyan.attention.attend import PARAMETERLESS

STATES = np.array([[1, 0], [0.5, 0.5], [0, 1]])
QUERY = np.array([0.7, 0.3])


def one_score(q: np.ndarray, k: np.ndarray, score: str) -> float:
    product = sum(float(x) * float(y) for x, y in zip(q, k, strict=True))
    if score != "cosine":
        return product
    norms = np.sqrt(np.sum(q.astype(float) ** 2) * np.sum(k.astype(float) ** 2))
    return product / norms if norms else 0.0


def plain(
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    *,
    score: str = "dot",
    lengths: np.ndarray | None = None,
    mask: np.ndarray | None = None,
    window: Window | None = None,
    causal: bool = False,
    scale: float | None = None,
    position: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Context and weights in double precision, one number after the other, as the docstring of attend says."""
    B, T, S, H = *q.shape[:2], k.shape[1], q.shape[2]
    if scale is None:
        scale = H**-0.5 if score == "scaled_dot" else 1.0
    scale = float(scale)
    allowed = np.ones((B, T, S), bool) if mask is None else np.broadcast_to(mask, (B, T, S))
    context, weights = np.zeros((B, T, v.shape[2])), np.zeros((B, T, S))
    for b, t in itertools.product(range(B), range(T)):
        length = S if lengths is None else int(lengths[b])
        seen = [s for s in range(length) if allowed[b, t, s]]
        if causal:
            seen = [s for s in seen if s <= t + length - T]
        if window is not None:
            seen = [s for s in seen if abs(s - min(t + position, length - 1)) <= window.radius]
        if seen:
            scores = np.array([scale * one_score(q[b, t], k[b, s], score) for s in seen])
            weights[b, t, seen] = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
            context[b, t] = sum(weights[b, t, s] * v[b, s].astype(float) for s in seen)
    return context, weights


def draw(B: int, T: int, S: int, H: int = 4, D: int = 3, dtype: type = np.float64, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in ((B, T, H), (B, S, H), (B, S, D))]


def tolerance(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float = 1.0) -> float:
    """A score is promised within 4 eps of its absolute terms, the weights move by twice that, plus 4 eps of softmax
    and 4 eps of the sum; cosine rounds each factor once more, all of them below 1."""
    terms = np.einsum("bth,bsh->bts", np.abs(q), np.abs(k)).max(initial=1.0) * max(scale, 1.0)
    return float(np.finfo(q.dtype).eps * (8 * terms + 16) * np.abs(v).max(initial=1.0))


def same_bits(one: Any, other: Any) -> bool:
    return all(x.tobytes() == y.tobytes() and x.shape == y.shape for x, y in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------ values


def test_the_example_of_the_articles() -> None:
    """Scores .7 .5 .3; e^.7 : e^.5 : e^.3 over their sum; the context is their weighted sum of the states."""
    scores = ops.score_forward(QUERY[None, None], STATES[None], term="product")
    assert np.allclose(scores, [0.7, 0.5, 0.3], rtol=0, atol=1e-15)
    read = dhyan.attend(QUERY, STATES)
    assert read.weights.round(4).tolist() == [0.4018, 0.3289, 0.2693]
    assert read.context.round(4).tolist() == [0.5662, 0.4338]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("score", PARAMETERLESS)
def test_every_combination_agrees_with_the_loop(isa: str, score: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    for (T, S), limit, radius, causal, position in itertools.product(
        [(3, 5), (5, 3), (1, 4)], ["none", "lengths", "mask"], [None, 0, 1], [False, True], [0, 2]
    ):
        q, k, v = draw(2, T, S, dtype=dtype, seed=T)
        options: dict[str, Any] = dict(score=score, causal=causal, position=position)
        if limit == "lengths":
            options["lengths"] = np.array([S, S - 1])
        if limit == "mask":
            options["mask"] = rng.random((2, T, S)) < 0.6
        if radius is not None:
            options["window"] = Window(radius)
        read, (context, weights) = dhyan.attend(q, k, v, **options), plain(q, k, v, **options)
        assert read.context.dtype == read.weights.dtype == dtype
        assert ((read.weights == 0) == (weights == 0)).all(), options
        bound = tolerance(q, k, v)
        assert np.abs(read.weights - weights).max() <= bound, options
        assert np.abs(read.context - context).max() <= bound, options


@pytest.mark.parametrize("score", PARAMETERLESS)
@pytest.mark.parametrize("scale", [0.0, -1.5, 3, np.float32(0.25), np.int64(2)])
def test_a_scale_replaces_that_of_the_score(score: str, scale: float) -> None:
    q, k, v = draw(2, 3, 4)
    read, (context, weights) = dhyan.attend(q, k, v, score=score, scale=scale), plain(q, k, v, score=score, scale=scale)
    bound = tolerance(q, k, v, abs(float(scale)))
    assert np.abs(read.weights - weights).max() <= bound and np.abs(read.context - context).max() <= bound


def test_scaled_dot_is_dot_over_the_root_of_the_width() -> None:
    q, k, v = draw(2, 3, 5, H=16)
    assert same_bits(dhyan.attend(q, k, v, score="scaled_dot"), dhyan.attend(q, k, v, scale=0.25))
    assert same_bits(dhyan.attend(q, k, v, score="scaled_dot", scale=1.0), dhyan.attend(q, k, v))


@pytest.mark.parametrize("score", PARAMETERLESS)
def test_every_rank(score: str) -> None:
    q, k, v = draw(1, 3, 5)
    batch = dhyan.attend(q, k, v, score=score, lengths=np.array([4]))
    rows = dhyan.attend(q[0], k[0], v[0], score=score, lengths=np.array([4]))
    assert rows.context.shape == (3, 3) and rows.weights.shape == (3, 5)
    assert same_bits(rows, (batch.context[0], batch.weights[0]))
    assert same_bits(rows, dhyan.attend(q[0], k[0], v[0], score=score, lengths=4))
    for t in range(3):
        one = dhyan.attend(q[0, t], k[0], v[0], score=score, lengths=4)
        assert one.context.shape == (3,) and one.weights.shape == (5,)
        assert same_bits(one, (batch.context[0, t], batch.weights[0, t]))


def test_values_are_the_keys_unless_given() -> None:
    q, k, _ = draw(2, 3, 5)
    for score in PARAMETERLESS:
        assert same_bits(dhyan.attend(q, k, score=score), dhyan.attend(q, k, k, score=score))
    assert same_bits(dhyan.attend(q[0], k[0]), dhyan.attend(q[0], k[0], k[0]))


def test_causal_rows() -> None:
    """Row t sees s <= t + S - T: the last row sees everything, and T > S leaves the first T - S rows empty."""
    for T, S in [(1, 4), (4, 4), (2, 5), (5, 2)]:
        q, k, v = draw(1, T, S)
        seen = (dhyan.attend(q, k, v, causal=True).weights[0] > 0).astype(int)
        assert seen.tolist() == np.tri(T, S, S - T, int).tolist()
    q, k, v = draw(2, 3, 5)
    seen = dhyan.attend(q, k, v, causal=True, lengths=np.array([5, 2])).weights > 0
    assert seen[0].sum(1).tolist() == [3, 4, 5] and seen[1].sum(1).tolist() == [0, 1, 2]


def test_position_moves_the_window_and_nothing_else() -> None:
    q, k, v = draw(2, 6, 9)
    options: dict[str, Any] = dict(window=Window(1), lengths=np.array([9, 4]))
    whole = dhyan.attend(q, k, v, **options)
    for t in range(6):
        step = dhyan.attend(q[:, t : t + 1], k, v, position=t, **options)
        assert same_bits(step, (whole.context[:, t : t + 1], whole.weights[:, t : t + 1]))
    assert same_bits(dhyan.attend(q, k, v, position=3, causal=True), dhyan.attend(q, k, v, causal=True))


@pytest.mark.parametrize("radius", [5, 2**31, 2**62, sys.maxsize, 2**64], ids=str)
def test_a_window_wider_than_the_source_is_none(radius: int) -> None:
    q, k, v = draw(2, 3, 5)
    assert same_bits(dhyan.attend(q, k, v, window=Window(radius)), dhyan.attend(q, k, v))


@pytest.mark.parametrize("position", [5, 2**31, sys.maxsize], ids=str)
def test_a_window_stays_at_the_end_of_the_source(position: int) -> None:
    q, k, v = draw(2, 3, 5)
    read = dhyan.attend(q, k, v, window=Window(1), position=position)
    assert (read.weights > 0).sum((0, 1)).tolist() == [0, 0, 0, 6, 6]


def test_masks_broadcast_and_combine() -> None:
    q, k, v = draw(2, 3, 5)
    columns = np.array([True, False, True, True, False])
    full = np.broadcast_to(columns, (2, 3, 5)).copy()
    for mask in (columns, columns[None], full[:, :1], full[:1]):
        assert same_bits(dhyan.attend(q, k, v, mask=mask), dhyan.attend(q, k, v, mask=full))
    assert same_bits(dhyan.attend(q[0], k[0], v[0], mask=columns), dhyan.attend(q[0], k[0], v[0], mask=full[0]))
    assert same_bits(
        dhyan.attend(q[0, 0], k[0], v[0], mask=columns), [x[0, 0] for x in dhyan.attend(q, k, v, mask=full)]
    )
    rows = np.arange(3)[:, None] + 2 >= np.arange(5)
    both = dhyan.attend(q, k, v, mask=full, causal=True)
    assert same_bits(both, dhyan.attend(q, k, v, mask=full & rows))
    ahead = np.arange(5) < np.array([5, 3])[:, None, None]
    assert same_bits(dhyan.attend(q, k, v, lengths=np.array([5, 3])), dhyan.attend(q, k, v, mask=ahead))


def test_cosine_depends_on_directions_only() -> None:
    q, k, v = draw(2, 3, 5)
    read = dhyan.attend(q, k, v, score="cosine")
    assert same_bits(read, dhyan.attend(q * 8, k / 4, v, score="cosine"))  # powers of two: no rounding
    k[:, 2] = 0
    zeroed = dhyan.attend(q, k, v, score="cosine", scale=5.0)
    context, weights = plain(q, k, v, score="cosine", scale=5.0)
    assert np.abs(zeroed.weights - weights).max() <= tolerance(q, k, v, 5.0)
    assert np.abs(zeroed.context - context).max() <= tolerance(q, k, v, 5.0)
    even = dhyan.attend(np.zeros((2, 3, 4)), k, v, score="cosine").weights
    assert np.abs(even - 0.2).max() <= np.finfo(float).eps


@pytest.mark.parametrize("score", PARAMETERLESS)
@pytest.mark.parametrize("magnitude", [1e-45, 1e-40, 1e-30, 1e17])
def test_finite_inputs_give_finite_outputs(score: str, magnitude: float) -> None:
    q, k, v = (np.sign(x) * np.float32(magnitude) for x in draw(2, 3, 5, dtype=np.float32))
    read, (_, weights) = dhyan.attend(q, k, v, score=score), plain(q, k, v, score=score)
    assert np.isfinite(read.context).all() and np.isfinite(read.weights).all()
    if score == "cosine" or magnitude < 1:
        unit = np.sign(q)  # the direction alone counts, or all scores are 0
        assert np.abs(read.weights - weights).max() <= tolerance(unit, np.sign(k), np.sign(v))


# ------------------------------------------------------------------------------------------------ masks and edges


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("score", PARAMETERLESS)
def test_what_is_masked_cannot_be_seen(score: str, poison: float) -> None:
    q, k, v = draw(2, 3, 5, dtype=np.float32)
    lengths, hidden = np.array([3, 0]), np.array([True, False, True, False, True])
    kept = np.arange(5) < lengths[:, None]
    by_length = [np.where(kept[..., None], x, np.float32(poison)) for x in (k, v)]
    clean = dhyan.attend(q, k, v, score=score, lengths=lengths)
    assert same_bits(dhyan.attend(q, *by_length, score=score, lengths=lengths), clean)
    by_mask = [np.where(hidden[:, None], x, np.float32(poison)) for x in (k, v)]
    clean = dhyan.attend(q, k, v, score=score, mask=hidden)
    assert same_bits(dhyan.attend(q, *by_mask, score=score, mask=hidden), clean)
    future = [np.concatenate([x[:, :4], np.full_like(x[:, :1], poison)], 1) for x in (k, v)]
    for option in (dict(window=Window(1)), dict(causal=True)):  # of the first row, which does not see the last position
        clean = dhyan.attend(q, k, v, score=score, **option)
        first = [x[:, :1] for x in dhyan.attend(q, *future, score=score, **option)]
        assert same_bits(first, [x[:, :1] for x in clean])


def test_rows_with_nothing_to_attend_are_zero() -> None:
    q, k, v = draw(2, 3, 2)
    row = np.ones((2, 3, 2), bool)
    row[0, 1] = False
    cases = [
        (dict(lengths=np.array([0, 2])), np.s_[0]),
        (dict(mask=np.zeros(2, bool)), np.s_[:]),
        (dict(mask=row), np.s_[0, 1]),
        (dict(causal=True), np.s_[:, 0]),
        (dict(lengths=np.array([0, 2]), window=Window(1)), np.s_[0]),
        (dict(mask=np.array([False, True]), window=Window(0)), np.s_[:, 0]),
    ]
    for options, empty in cases:
        for score in PARAMETERLESS:
            read = dhyan.attend(q, k, v, score=score, **options)
            assert not read.weights[empty].any() and not read.context[empty].any(), options
            rest = np.ones((2, 3), bool)
            rest[empty] = False
            assert np.allclose(read.weights.sum(-1), rest, rtol=0, atol=1e-15), options


def test_a_nan_that_may_be_seen_stays_in_its_row() -> None:
    q, k, v = draw(2, 3, 5)
    clean = dhyan.attend(q, k, v)
    q[1, 2, 0] = np.nan
    read = dhyan.attend(q, k, v)
    assert np.isnan(read.context[1, 2]).all()
    rest = np.arange(6) != 5
    assert same_bits([x.reshape(6, -1)[rest] for x in read], [x.reshape(6, -1)[rest] for x in clean])


@pytest.mark.parametrize("score", PARAMETERLESS)
def test_empty_is_a_size(score: str) -> None:
    for B, T, S, H, D in itertools.product((0, 1, 5), repeat=5):
        q, k, v = np.ones((B, T, H)), np.ones((B, S, H)), np.ones((B, S, D))
        for options in (dict(), dict(causal=True), dict(lengths=np.full(B, S), window=Window(0))):
            read = dhyan.attend(q, k, v, score=score, **options)
            assert read.context.shape == (B, T, D) and read.weights.shape == (B, T, S)
        even = dhyan.attend(q, k, v, score=score)
        assert np.abs(even.weights * S - 1).max(initial=0) <= 1e-15
        assert np.abs(even.context - (S > 0)).max(initial=0) <= 1e-15


def test_empty_is_a_size_in_every_rank() -> None:
    for T, S, H, D in itertools.product((0, 1, 5), repeat=4):
        rows = dhyan.attend(np.ones((T, H)), np.ones((S, H)), np.ones((S, D)))
        assert rows.context.shape == (T, D) and rows.weights.shape == (T, S)
        one = dhyan.attend(np.ones(H), np.ones((S, H)), np.ones((S, D)))
        assert one.context.shape == (D,) and one.weights.shape == (S,)


@pytest.mark.parametrize("score", PARAMETERLESS)
def test_any_layout_gives_the_bits_of_a_contiguous_copy(score: str) -> None:
    q, k, v = draw(2, 3, 5)
    lengths, clean = np.array([5, 3]), dhyan.attend(q, k, v, score=score, lengths=np.array([5, 3]))
    layouts = [
        [np.asfortranarray(x) for x in (q, k, v)],
        [np.ascontiguousarray(x[..., ::-1])[..., ::-1] for x in (q, k, v)],
        [np.repeat(x, 2, axis=1)[:, ::2] for x in (q, k, v)],
    ]
    for arrays in layouts:
        assert same_bits(dhyan.attend(*arrays, score=score, lengths=lengths), clean)
    copies = [x.copy() for x in (q, k, v, lengths)]
    for x in copies:
        x.flags.writeable = False  # an input that is written to would raise
    assert same_bits(dhyan.attend(*copies[:3], score=score, lengths=copies[3]), clean)
    spread = dhyan.attend(np.broadcast_to(q[:1], (2, 3, 4)), k, v, score=score, lengths=lengths)
    assert same_bits(spread, dhyan.attend(np.concatenate([q[:1]] * 2), k, v, score=score, lengths=lengths))


class Foreign:
    """An array of another library, as DLPack shows it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_arrays_of_other_libraries() -> None:
    q, k, v = draw(2, 3, 5)
    assert same_bits(dhyan.attend(*(Foreign(x) for x in (q, k, v))), dhyan.attend(q, k, v))


# ------------------------------------------------------------------------------------------------ bad input


def refused(error: type[Exception], words: str, *arrays: Any, **options: Any) -> None:
    """One line that says so, inputs untouched, and the next good call right."""
    before = [x.tobytes() for x in arrays if isinstance(x, np.ndarray)]
    with pytest.raises(error, match=words) as caught:
        dhyan.attend(*arrays, **options)
    assert "\n" not in str(caught.value) and type(caught.value) is error
    assert [x.tobytes() for x in arrays if isinstance(x, np.ndarray)] == before
    assert dhyan.attend(QUERY, STATES).weights.round(4).tolist() == [0.4018, 0.3289, 0.2693]


BAD_TYPES = {
    "list": lambda x: x.tolist(),
    "None": lambda x: None,
    "float16": lambda x: x.astype(np.float16),
    "int64": lambda x: x.astype(np.int64),
    "bool": lambda x: x.astype(bool),
    "complex128": lambda x: x.astype(complex),
    "object": lambda x: x.astype(object),
    "text": lambda x: np.full(x.shape, "a", object),
    "structured": lambda x: np.zeros(x.shape, [("a", np.float64)]),
    "big-endian": lambda x: x.astype(">f8"),
    "float32 among float64": lambda x: x.astype(np.float32),
}


@pytest.mark.parametrize("score", PARAMETERLESS)
@pytest.mark.parametrize("kind", BAD_TYPES)
def test_wrong_types_of_arrays(kind: str, score: str) -> None:
    arrays = draw(2, 3, 5)
    for i in range(3):
        if kind == "None" and i == 2:
            continue  # values=None is the keys
        bad = [BAD_TYPES[kind](x) if j == i else x for j, x in enumerate(arrays)]
        refused(TypeError, "expected", *bad, score=score)
    if kind not in ("None", "float32 among float64"):
        refused(TypeError, "expected", *(BAD_TYPES[kind](x) for x in arrays), score=score)


@pytest.mark.parametrize(
    "options",
    [
        dict(lengths=[5, 3]),
        dict(lengths=np.array([5.0, 3.0])),
        dict(lengths=np.array([5, 3], np.int32)),
        dict(lengths=5),
        dict(mask=[True] * 5),
        dict(mask=np.ones(5)),
        dict(mask=np.ones(5, np.int64)),
        dict(window=2),
        dict(window="2"),
        dict(scale="1"),
        dict(scale=True),
        dict(scale=1j),
        dict(position=1.0),
        dict(position=True),
    ],
    ids=str,
)
def test_wrong_types_of_options(options: dict[str, Any]) -> None:
    refused(TypeError, next(iter(options)), *draw(2, 3, 5), **options)


@pytest.mark.parametrize(
    "words, options",
    [
        (r"lengths and mask", dict(lengths=np.array([5, 3]), mask=np.ones(5, bool))),
        (r"lengths\[1\] is -1", dict(lengths=np.array([5, -1]))),
        (r"lengths\[0\] is 6, expected 0 to S=5", dict(lengths=np.array([6, 3]))),
        (r"lengths has shape \(3,\)", dict(lengths=np.array([5, 3, 1]))),
        (r"lengths has shape \(1, 2\)", dict(lengths=np.array([[5, 3]]))),
        (r"mask has shape \(4,\)", dict(mask=np.ones(4, bool))),
        (r"mask has shape \(1, 2, 3, 5\)", dict(mask=np.ones((1, 2, 3, 5), bool))),
        (r"scale is nan", dict(scale=float("nan"))),
        (r"scale is -inf", dict(scale=-float("inf"))),
        (r"scale is nan", dict(scale=np.float32("nan"))),
        (r"position is -1", dict(position=-1)),
        (r"'bahdanu'", dict(score="bahdanu")),
        (r"score is None", dict(score=None)),
        (r"'additive' has parameters", dict(score="additive")),
        (r"'none' has parameters or no query", dict(score="none")),
        (r"'dott', expected one of: dot,", dict(score="dott")),
        (r"'cosin', expected one of: cosine,", dict(score="cosin")),
        (r"'Scaled-Dot', expected one of: scaled_dot,", dict(score="Scaled-Dot")),
    ],
)
def test_wrong_values(words: str, options: dict[str, Any]) -> None:
    refused(ValueError, words, *draw(2, 3, 5), **options)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 4), (1, 5, 4), (2, 5, 3)],
        [(2, 3, 4), (2, 5, 6), (2, 5, 3)],
        [(2, 3, 4), (2, 5, 4), (2, 6, 3)],
        [(2, 3, 4), (2, 5, 4), (1, 5, 3)],
        [(2, 3, 4), (5, 4), (5, 3)],
        [(2, 3, 4), (2, 5, 4), (5, 3)],
        [(3, 4), (2, 5, 4), (2, 5, 3)],
        [(3, 4), (4, 5), (4, 3)],  # transposed keys
        [(4,), (4,), (4,)],
        [(4,), (5, 4), (6, 3)],
        [(), (5, 4), (5, 3)],
        [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 3)],
    ],
    ids=str,
)
def test_shapes_that_disagree_are_shown(shapes: list[tuple[int, ...]]) -> None:
    refused(ValueError, r"query, keys and values have shapes .*expected", *(np.zeros(shape) for shape in shapes))


def test_a_window_needs_a_radius_from_0_on() -> None:
    with pytest.raises(ValueError, match="Window: radius is -1, expected at least 0"):
        Window(-1)
    for radius in (float("nan"), 1.0, True, "1", None):
        with pytest.raises((TypeError, ValueError), match="Window: radius is"):
            Window(radius)  # type: ignore[arg-type]
