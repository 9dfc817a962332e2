"""dhyan.Attention against tests/spec/attention.py: values, gradients, accuracy, edges, bits, bad input.

One file because every test runs over the same list of settings: scoring x heads x window x normaliser. The random
shapes and masks are in test_conformance.py; here the shape is one that a person can print.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import PredictiveWindow, Window, ops
from dhyan.errors import nearest_first
from spec import attention as reference_attention
from spec import ops as reference
from spec.attention import CONTENT, RULES, SCORINGS, Sentences, Setting

EPS = 2.0**-23
B, T, S, Q, D, U = 2, 3, 5, 4, 8, 8
LENGTHS = np.array([5, 2])


def settings() -> Iterator[Setting]:
    """Every scoring alone, then every option with it: not all pairs of options, but all with heads."""
    for score in SCORINGS:
        yield Setting(score)
        yield Setting(score, radius=1)
        if score in RULES:
            continue
        for heads in (1, 2, 4) if score in CONTENT else (1,):
            if heads > 1:
                yield Setting(score, heads)
                yield Setting(score, heads, radius=2)
            yield Setting(score, heads, "sparsemax", temperature=0.7)
            yield Setting(score, heads, "monotonic", temperature=1.5)
            if score in CONTENT:
                yield Setting(score, heads, radius=1, predictive=True, temperature=2.5)
                yield Setting(score, heads, "sparsemax", radius=2, predictive=True)
            if score in ("additive", "location_sensitive", "coverage"):
                yield Setting(score, heads, normalized=True)


def name_of(setting: Setting) -> str:
    window = "" if setting.radius is None else f" {'predictive' if setting.predictive else 'window'} {setting.radius}"
    heads = "" if setting.heads == 1 else f" {setting.heads} heads"
    normalized = " normalized" if setting.normalized else ""
    return f"{setting.score}{heads} {setting.normalize}{window}{normalized}"


SETTINGS = list(settings())
FEW = [s for s in SETTINGS if s.heads < 4 and s.temperature != 2.5]  # for what does not depend on every number
every_setting = pytest.mark.parametrize("setting", SETTINGS, ids=name_of)
some_settings = pytest.mark.parametrize("setting", FEW, ids=name_of)


def restrictions() -> dict[str, Sentences]:
    """What a call may say; some rows and one whole sentence have nothing to attend."""
    rng = np.random.default_rng(1)
    mask = rng.random((B, T, S)) < 0.6
    mask[0, 1] = False
    mask[:, :, 2] = False
    return {
        "nothing": Sentences(),
        "lengths": Sentences(lengths=LENGTHS),
        "an empty sentence": Sentences(lengths=np.array([0, 4]), position=2),
        "causal": Sentences(lengths=LENGTHS, causal=True),
        "mask": Sentences(mask=mask),
        "a mask for all rows": Sentences(mask=mask[:, 2:], causal=True),
    }


RESTRICTIONS = restrictions()


@dataclass(frozen=True)
class Case:
    """A setting with numbers: what goes in, in float64, and the slopes that flow back."""

    setting: Setting
    sentences: Sentences
    query: np.ndarray
    memory: np.ndarray
    parameters: dict[str, np.ndarray]
    dcontext: np.ndarray
    dweights: np.ndarray

    @property
    def inputs(self) -> list[np.ndarray]:
        return [self.query, self.memory, *self.parameters.values()]

    def read(self, *inputs: np.ndarray) -> reference_attention.Read:
        query, memory, *rest = inputs or self.inputs
        parameters = dict(zip(self.parameters, rest, strict=True))
        return reference_attention.attention(self.setting, parameters, query, memory, self.sentences)

    def loss(self, *inputs: np.ndarray) -> Any:
        read = self.read(*inputs)
        return (read.context * self.dcontext).sum() + (read.weights * self.dweights).sum()


def make(setting: Setting, sentences: Sentences = RESTRICTIONS["lengths"], seed: int = 0, dtype: Any = float) -> Case:
    rng = np.random.default_rng(seed)
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    query, memory = normal(B, T, Q), normal(B, S, D)
    shapes = reference_attention.shapes(setting, Q, D, U, S + 1)
    parameters = {n: normal(*shape) * dtype(shape[0] ** -0.5 if len(shape) > 1 else 1) for n, shape in shapes.items()}
    dcontext, dweights = normal(B, T, D), normal(B, setting.heads, T, S)
    if setting.score == "oracle":
        sentences = replace(sentences, alignment=np.abs(normal(B, T, S)))
    return Case(setting, sentences, query, memory, parameters, dcontext, dweights)


def attention_of(setting: Setting, dtype: Any = np.float64, **more: Any) -> dhyan.Attention:
    window: Any = None
    if setting.radius is not None:
        window = PredictiveWindow(setting.radius) if setting.predictive else Window(setting.radius)
    options: dict[str, Any] = dict(max_source=S + 1) if setting.score == "location" else {}
    options |= dict(heads=setting.heads, window=window, normalize=setting.normalize, temperature=setting.temperature)
    options |= dict(normalized=setting.normalized, dtype=np.dtype(dtype).name) | more
    return dhyan.Attention(setting.score, Q, D, U, **options)


def loaded(case: Case) -> dhyan.Attention:
    """The object that holds the case's parameters."""
    attention = attention_of(case.setting, case.query.dtype)
    for name, x in attention.parameters().items():
        x[...] = case.parameters[name]
    return attention


def options_of(sentences: Sentences) -> dict[str, Any]:
    return {name: value for name, value in vars(sentences).items() if value is not None}


def forward(case: Case, attention: dhyan.Attention | None = None) -> tuple[Any, Any]:
    return (attention or loaded(case)).forward(case.query, case.memory, **options_of(case.sentences))


def squeezed(weights: np.ndarray) -> np.ndarray:
    """(B, n, T, S) as dhyan has it: without n where it is 1."""
    return weights[:, 0] if weights.shape[1] == 1 else weights


def everything(case: Case, attention: dhyan.Attention | None = None) -> dict[str, np.ndarray]:
    """Outputs and gradients by name."""
    attention = attention or loaded(case)
    read, cache = forward(case, attention)
    gradients = attention.backward(case.dcontext, cache, squeezed(case.dweights))
    found = {"context": read.context, "weights": read.weights, "query": gradients.query, "memory": gradients.memory}
    return found | {"parameter " + name: x for name, x in gradients.parameters.items()}


def assert_same_bits(got: dict[str, np.ndarray], want: dict[str, np.ndarray], where: str = "") -> None:
    assert set(got) == set(want)
    for name, x in want.items():
        assert got[name].shape == x.shape and got[name].tobytes() == x.tobytes(), (name, where)


# ------------------------------------------------------------------------------------------------ by hand


def test_the_example_of_the_article() -> None:
    states, query = np.array([[[1, 0], [0.5, 0.5], [0, 1]]]), np.array([[[0.7, 0.3]]])
    read, _ = dhyan.Attention("dot", query_size=2, key_size=2, dtype="float64").forward(query, states)
    np.testing.assert_allclose(read.weights, [[[0.4018, 0.3289, 0.2693]]], atol=5e-5)
    np.testing.assert_allclose(read.context, [[[0.5662, 0.4338]]], atol=5e-5)


HAND = {  # scores of one row over three positions -> weights
    ("softmax", (0.0, np.log(2.0), 0.0)): (0.25, 0.5, 0.25),
    ("sparsemax", (1.0, 0.5, -1.0)): (0.75, 0.25, 0.0),
    ("sparsemax", (3.0, 0.5, -1.0)): (1.0, 0.0, 0.0),
    ("sparsemax", (0.2, 0.2, 0.2)): (1 / 3, 1 / 3, 1 / 3),
    ("monotonic", (0.0, 0.0, 0.0)): (0.5, 0.25, 0.125),
    ("monotonic", (-np.log(3.0), np.log(3.0), 50.0)): (0.25, 0.5625, 0.1875),
}


@pytest.mark.parametrize("normalize, scores", HAND)
def test_weights_by_hand(isa: str, normalize: str, scores: tuple[float, ...]) -> None:
    """q = 1, so that the scores are the memory; of the reference too."""
    attention = dhyan.Attention("dot", query_size=1, key_size=1, dtype="float64", normalize=normalize)
    p = attention.parameters()
    if normalize == "monotonic":
        p["threshold"][...] = 0
    query, memory = np.ones((1, 1, 1)), np.array(scores).reshape(1, 3, 1)
    want = [[HAND[normalize, scores]]]
    np.testing.assert_allclose(attention.forward(query, memory)[0].weights, want, rtol=0, atol=1e-15)
    read = reference_attention.attention(Setting("dot", normalize=normalize), p, query, memory)
    np.testing.assert_allclose(read.weights[:, 0], want, rtol=0, atol=1e-15)


def test_monotonic_rows_move_on_by_hand(isa: str) -> None:
    """Two rows that stop with probability 1/2 everywhere: the second starts where the first stopped."""
    attention = dhyan.Attention("dot", query_size=1, key_size=1, dtype="float64", normalize="monotonic")
    attention.parameters()["threshold"][...] = 0
    query, memory = np.ones((1, 2, 1)), np.zeros((1, 3, 1))
    first, second = attention.forward(query, memory)[0].weights[0]
    np.testing.assert_allclose(first, [1 / 2, 1 / 4, 1 / 8], rtol=1e-15)
    np.testing.assert_allclose(second, [1 / 4, 1 / 4, 3 / 16], rtol=1e-15)


def test_rules_by_hand(isa: str) -> None:
    query, memory = np.zeros((1, 2, 1)), np.array([[[1.0], [2.0], [4.0]]])
    mask = np.array([[[True, True, False], [True, False, True]]])
    for score, rows in {"none": [[0, 1, 0], [0, 0, 1]], "uniform": [[0.5, 0.5, 0], [0.5, 0, 0.5]]}.items():
        read, _ = dhyan.Attention(score, 1, 1, dtype="float64").forward(query, memory, mask=mask)
        assert read.weights[0].tolist() == rows
        assert read.context[0].tolist() == [[np.dot(row, memory[0, :, 0])] for row in rows]
    alignment = np.array([[[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]])
    read, _ = dhyan.Attention("oracle", 1, 1, dtype="float64").forward(query, memory, mask=mask, alignment=alignment)
    assert read.weights[0].tolist() == [[0.5, 0.25, 0], [0, 0, 0]]
    assert read.context[0].tolist() == [[1.0], [0.0]]


# ------------------------------------------------------------------------------------------------ values and gradients


@functools.cache
def by_complex_step(setting: Setting, where: str) -> tuple[Case, dict[str, np.ndarray]]:
    """A case and its exact outputs and gradients; the same for every instruction set."""
    case = make(setting, RESTRICTIONS[where], seed=2)
    read = case.read()
    names = ["query", "memory", *("parameter " + name for name in case.parameters)]
    steps = [reference.complex_step(case.loss, case.inputs, i) for i in range(len(names))]
    return case, {"context": read.context, "weights": squeezed(read.weights), **dict(zip(names, steps, strict=True))}


@every_setting
def test_values_and_gradients_by_complex_step(isa: str, setting: Setting) -> None:
    number = SETTINGS.index(setting)
    for where in (list(RESTRICTIONS)[number % 6], list(RESTRICTIONS)[(number + 3) % 6]):  # every setting meets two
        case, want = by_complex_step(setting, where)
        got = everything(case)
        assert set(got) == set(want), where
        for name, x in got.items():
            assert x.dtype == np.float64 and x.flags.c_contiguous, name
            np.testing.assert_allclose(x, want[name], rtol=1e-6, atol=1e-9, err_msg=f"{name}, {where}")
        for name in ("context", "weights"):
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-13, err_msg=f"{name}, {where}")


@some_settings
def test_without_dweights_is_with_zeros(setting: Setting) -> None:
    case = make(setting)
    attention = loaded(case)
    _, cache = forward(case, attention)
    one = attention.backward(case.dcontext, cache)
    other = attention.backward(case.dcontext, cache, dweights=np.zeros_like(squeezed(case.dweights)))
    np.testing.assert_equal(one._asdict(), other._asdict())


@every_setting
def test_float32_is_as_accurate_as_promised(isa: str, setting: Setting) -> None:
    """Context and weights, worst of the draws: no further off than 4 eps of the largest value and twice the error of
    float32 NumPy, or what the promised gates of the scores come to, where that is more (tanh: 8 eps a term).
    """
    ours, allowed = np.zeros(2), np.zeros(2)
    for case, exact, slack in float32_draws(setting):
        read, _ = forward(case)
        assert read.context.dtype == read.weights.dtype == np.float32
        ours = np.maximum(ours, errors((read.context, read.weights), exact))
        allowed = np.maximum(allowed, slack)
    assert (ours <= allowed + 4 * EPS).all(), (ours / EPS, allowed / EPS)


Pair = tuple[np.ndarray, np.ndarray]


def errors(got: Pair, exact: Pair) -> np.ndarray:
    """Of context and weights, in the largest value of each, at least 1."""
    return np.array([np.abs(x - e).max() / max(1.0, np.abs(e).max()) for x, e in zip(got, exact, strict=True)])


@functools.cache
def float32_draws(setting: Setting) -> list[tuple[Case, Pair, np.ndarray]]:
    """Twelve float32 cases, their context and weights in float64, and the error each may have."""
    found: list[tuple[Case, Pair, np.ndarray]] = []
    for seed in itertools.count(10):
        case = make(setting, seed=seed, dtype=np.float32)
        exact, plain = of(widened(case).read()), of(case.read())
        coarse = [of(with_scores_at_their_gates(case, k)) for k in range(4)]
        if any(((x[1] > 0) != (exact[1] > 0)).any() for x in (plain, *coarse)):
            continue  # a support that rounding may change: another draw
        slack = np.max([2 * errors(plain, exact), *(errors(x, exact) for x in coarse)], axis=0)
        found.append((case, exact, slack))
        if len(found) == 12:
            return found
    raise AssertionError("seeds end")


def of(read: reference_attention.Read) -> Pair:
    return read.context, squeezed(read.weights)


def widened(case: Case) -> Case:
    parameters = {name: x.astype(float) for name, x in case.parameters.items()}
    return replace(case, query=case.query.astype(float), memory=case.memory.astype(float), parameters=parameters)


def with_scores_at_their_gates(case: Case, seed: int) -> reference_attention.Read:
    """The reference in float64, every score off by as much as is promised, up or down at random."""
    with reference_attention.scores_at_their_gates(np.random.default_rng(seed)):
        return widened(case).read()


@pytest.mark.parametrize("score", ["dot", "scaled_dot", "general", "additive", "concat"])
def test_weights_within_the_promises_of_score_and_softmax(isa: str, score: str) -> None:
    """Projections by unit matrices are exact; then a weight is off by the softmax's 4 eps and its scores' gates.

    Score gates: product (4 + H/8) eps sum |q k|; tanh 8 eps sum |v| max(1, |q + k|). A softmax turns an error e of all
    its scores into a relative one of at most 2 e.
    """
    rng = np.random.default_rng(3)
    n, length = 24, 40
    eye, nothing = np.eye(n, dtype=np.float32), np.zeros(n, np.float32)
    v = rng.normal(size=n).astype(np.float32)
    given = {
        "general": {"weight": eye},
        "additive": {"query": eye, "memory": eye, "bias": nothing, "v": v},
        "concat": {"weight": np.concatenate([eye, eye]), "v": v},
    }.get(score, {})
    attention = dhyan.Attention(score, n, n)
    for name, x in attention.parameters().items():
        x[...] = given[name]
    scale = n**-0.5 if score == "scaled_dot" else 1.0
    for _ in range(8):
        query, memory = (rng.normal(size=(1, rows, n)).astype(np.float32) for rows in (9, length))
        q, k = query.astype(float)[:, :, None], memory.astype(float)[:, None]
        if score in ("additive", "concat"):
            scores = (np.tanh(q + k) * v).sum(-1)
            gate = 8 * EPS * (np.abs(v) * np.maximum(1, np.abs(q + k))).sum(-1)
        else:
            scores = scale * (q * k).sum(-1)
            gate = scale * (4 + n / 8) * EPS * np.abs(q * k).sum(-1)
        exact = reference.softmax(scores, np.ones(scores.shape, bool))
        error = np.abs(attention.forward(query, memory)[0].weights - exact)
        assert (error <= exact * (4 * EPS + 2 * gate.max(-1, keepdims=True))).all()


# ------------------------------------------------------------------------------------------------ parameters


@every_setting
def test_parameters_have_the_specified_names_and_shapes(setting: Setting) -> None:
    want = reference_attention.shapes(setting, Q, D, U, S + 1)
    attention = attention_of(setting, np.float32)
    assert {name: x.shape for name, x in attention.parameters().items()} == want
    assert all(x.dtype == np.float32 and np.isfinite(x).all() for x in attention.parameters().values())
    case = make(setting, dtype=np.float32)
    gradients = attention.backward(case.dcontext, forward(case, attention)[1])
    assert list(gradients.parameters) == list(attention.parameters())
    assert {name: x.shape for name, x in gradients.parameters.items()} == want
    assert all(x.dtype == np.float32 for x in gradients.parameters.values())


def test_parameters_are_views() -> None:
    case = make(Setting("additive"))
    attention = loaded(case)
    before = forward(case, attention)[0].weights
    attention.parameters()["v"][...] = 0
    after = forward(case, attention)[0].weights
    assert np.abs(after[0] - 1 / S).max() <= 1e-15 and np.abs(before[0] - 1 / S).max() > 1e-3


def test_initial_parameters_are_a_function_of_the_seed() -> None:
    def bits(**options: Any) -> list[bytes]:
        return [x.tobytes() for x in dhyan.Attention("additive", Q, D, U, **options).parameters().values()]

    assert bits(seed=3) == bits(seed=3) and bits(seed=0) == bits()
    assert bits(seed=3) != bits(seed=4)


def test_initial_values_that_have_a_meaning() -> None:
    assert abs(attention_of(Setting("cosine")).parameters()["log_sharpness"][0] - np.log(10)) <= 1e-15
    assert attention_of(Setting("dot", normalize="monotonic")).parameters()["threshold"].tolist() == [-1.0]
    assert attention_of(Setting("additive", normalized=True)).parameters()["g"].tolist() == [1.0]  # near |v|


def test_units_are_the_query_size_unless_given() -> None:
    attention = dhyan.Attention("additive", query_size=Q, key_size=D)
    assert attention.parameters()["v"].shape == (Q,) and attention.parameters()["v"].dtype == np.float32


def test_a_window_may_be_plain_text() -> None:
    """An integer is the radius of a Window; the text is that of a configuration file."""
    case = make(Setting("dot"))
    for plain, window in {2: Window(2), "2": Window(2), "predictive:2": PredictiveWindow(2)}.items():
        one, other = (dhyan.Attention("dot", Q, D, dtype="float64", window=w) for w in (plain, window))
        assert list(one.parameters()) == list(other.parameters())
        assert forward(case, one)[0].weights.tobytes() == forward(case, other)[0].weights.tobytes()


def test_the_registered_names() -> None:
    names = "none uniform oracle dot scaled_dot general additive concat cosine location location_sensitive coverage"
    assert dhyan.scorings() == names.split() and set(SCORINGS) == set(names.split())


# ------------------------------------------------------------------------------------------------ masks and edges


@some_settings
def test_what_is_masked_cannot_be_seen(isa: str, setting: Setting) -> None:
    """In the memory, the alignment and dweights; the whole source of an empty sentence included."""
    poisons = itertools.cycle((np.nan, np.inf, 3e38, -np.inf))
    for where in ("lengths", "mask", "causal", "an empty sentence", "a mask for all rows"):
        case = make(setting, RESTRICTIONS[where], dtype=np.float32)
        clean = everything(case)
        hidden = ~case.read().allowed.any(1)
        assert hidden.any() and not clean["memory"][hidden].any()
        for poison in (next(poisons), next(poisons), next(poisons)):
            seen = everything(poisoned(case, hidden, poison))
            assert_same_bits(seen, clean, f"{where}, {poison}")
        assert all(np.isfinite(x).all() for x in clean.values())


def poisoned(case: Case, hidden: np.ndarray, poison: float) -> Case:
    """hidden (B, S). An alignment is refused when it is not finite, so it holds something large there."""
    memory, dweights, sentences = case.memory.copy(), case.dweights.copy(), case.sentences
    memory[hidden] = poison
    dweights[np.broadcast_to(hidden[:, None, None], dweights.shape)] = poison
    if sentences.alignment is not None:
        alignment = np.where(hidden[:, None], np.float32(3e38), sentences.alignment)
        sentences = replace(sentences, alignment=alignment)
    return replace(case, memory=memory, dweights=dweights, sentences=sentences)


@some_settings
def test_the_query_of_an_empty_row_cannot_be_seen(setting: Setting) -> None:
    for where in ("an empty sentence", "causal", "mask"):
        case = make(setting, RESTRICTIONS[where])
        any_window = replace(case, setting=replace(setting, radius=None, predictive=False))
        empty = ~any_window.read().allowed.any(2)
        assert empty.any()
        query = np.where(empty[:, :, None], np.nan, case.query)
        assert_same_bits(everything(replace(case, query=query)), everything(case), where)


@pytest.mark.parametrize("setting", [s for s in FEW if s.normalize != "monotonic" and not s.feedback], ids=name_of)
def test_a_nan_that_is_seen_stays_in_its_row(setting: Setting) -> None:
    case = make(setting)
    clean = forward(case)[0]
    case.query[0, 1, 2] = np.nan
    seen = forward(case)[0]
    rows = np.arange(B * T) != 1
    assert setting.score in RULES or np.isnan(seen.context[0, 1]).any()  # of the head that has it
    for x, y in ((seen.context, clean.context), (seen.weights, clean.weights)):
        x, y = (np.moveaxis(a, -2, 1).reshape(B * T, -1)[rows] for a in (x, y))
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("magnitude", [1e-45, 1e-30, 1e-10, 1e10, 1e17])
@some_settings
def test_finite_inputs_give_finite_outputs(setting: Setting, magnitude: float) -> None:
    """Gradients while they and their partial products fit float32: 1 / |q| of a cosine does not at 1e-45."""
    case = make(setting, dtype=np.float32)
    case.query[...], case.memory[...] = (np.sign(x) * np.float32(magnitude) for x in (case.query, case.memory))
    attention = loaded(case)
    read, cache = forward(case, attention)
    assert np.isfinite(read.context).all() and np.isfinite(read.weights).all()
    if magnitude <= 1e10 and (setting.score != "cosine" or magnitude > 1e-38):
        gradients = attention.backward(case.dcontext, cache, squeezed(case.dweights))
        for x in (gradients.query, gradients.memory, *gradients.parameters.values()):
            assert np.isfinite(x).all()


@some_settings
def test_rows_with_nothing_to_attend_are_zero(isa: str, setting: Setting) -> None:
    for where in ("an empty sentence", "causal", "mask"):
        case = make(setting, RESTRICTIONS[where])
        allowed = case.read().allowed
        found = everything(case)
        weights = found["weights"].reshape(B, -1, T, S)
        empty = ~allowed.any(2)
        assert empty.any(), where
        assert not weights[np.broadcast_to(~allowed[:, None], weights.shape)].any(), where
        assert not found["context"][empty].any() and not found["query"][empty].any(), where
        assert all(np.isfinite(x).all() for x in found.values())
    nothing = everything(make(setting, Sentences(mask=np.zeros((1, 1, 1), bool))))
    assert not any(x.any() for x in nothing.values())


def test_row_sums() -> None:
    """1 for softmax and sparsemax; at most 1, and at most the row before, for monotonic."""
    for score, heads in itertools.product(CONTENT, (1, 2)):
        for normalize in ("softmax", "sparsemax"):
            sums = forward(make(Setting(score, heads, normalize)))[0].weights.sum(-1)
            assert np.abs(sums - 1).max() <= 1e-15 * S
        sums = forward(make(Setting(score, heads, "monotonic")))[0].weights.sum(-1)
        assert (sums <= 1 + 1e-15).all() and (np.diff(sums, axis=-1) <= 1e-15).all()


@pytest.mark.parametrize("score", [s for s in SCORINGS if s not in RULES])
def test_hard_monotonic_alignment(isa: str, score: str) -> None:
    """Rows are one-hot until the end of the source is passed, zero after; they never move back."""
    stopped = set()
    for seed in range(20):
        case = make(Setting(score, normalize="monotonic"), replace(RESTRICTIONS["lengths"], hard=True), seed=seed)
        weights = forward(case)[0].weights
        np.testing.assert_array_equal(weights, case.read().weights[:, 0])
        assert set(np.unique(weights)) <= {0.0, 1.0} and set(np.unique(weights.sum(-1))) <= {0.0, 1.0}
        for rows in weights:
            at = [int(row.argmax()) if row.any() else S for row in rows]
            assert at == sorted(at)
            stopped |= set(at)
    assert len(stopped) > 2


@pytest.mark.parametrize("score", ["dot", "additive", "location", "uniform"])
def test_one_row_a_call_with_its_position(isa: str, score: str) -> None:
    case = make(Setting(score, radius=1))
    whole = forward(case)[0]
    for t in range(T):
        step = replace(case, query=case.query[:, t : t + 1], sentences=replace(case.sentences, position=t))
        read = forward(step)[0]
        assert read.context.tobytes() == whole.context[:, t : t + 1].tobytes()
        assert read.weights.tobytes() == whole.weights[:, t : t + 1].tobytes()


EMPTY = [Setting(score) for score in SCORINGS] + [
    Setting("dot", 2, "sparsemax"),
    Setting("additive", 2, "monotonic"),
    Setting("coverage", normalize="monotonic"),
    Setting("general", radius=1, predictive=True),
    Setting("uniform", radius=0),
]


@pytest.mark.parametrize("setting", EMPTY, ids=name_of)
def test_empty_is_a_size(setting: Setting) -> None:
    attention = attention_of(setting)
    for b, t, s in itertools.product((0, 1, 5), repeat=3):
        query, memory = np.ones((b, t, Q)), np.ones((b, s, D))
        options = dict(alignment=np.ones((b, t, s))) if setting.score == "oracle" else {}
        for lengths in (None, np.full(b, s)):
            read, cache = attention.forward(query, memory, lengths=lengths, **options)
            heads = () if setting.heads == 1 else (setting.heads,)
            assert read.context.shape == (b, t, D) and read.weights.shape == (b, *heads, t, s)
            gradients = attention.backward(np.ones((b, t, D)), cache, np.ones_like(read.weights))
            assert gradients.query.shape == query.shape and gradients.memory.shape == memory.shape
            for x in (read.context, read.weights, gradients.query, gradients.memory, *gradients.parameters.values()):
                assert np.isfinite(x).all()


# ------------------------------------------------------------------------------------------------ bits and caches


BITS = [Setting(score) for score in SCORINGS] + [
    Setting("scaled_dot", 2, "sparsemax"),
    Setting("cosine", 2),
    Setting("additive", 2, "monotonic"),
    Setting("concat", 4, radius=2),
    Setting("general", 2, radius=2, predictive=True),
    Setting("additive", normalized=True),
    Setting("coverage", normalize="monotonic"),
    Setting("location_sensitive", normalize="sparsemax"),
]
bits_settings = pytest.mark.parametrize("setting", BITS, ids=name_of)


def larger(setting: Setting, dtype: Any, sizes: tuple[int, int, int], seed: int = 5) -> Case:
    """As make, with more sentences, rows and positions."""
    rng = np.random.default_rng(seed)
    b, t, s = sizes
    normal = lambda *shape: rng.normal(size=shape).astype(dtype)  # noqa: E731
    sentences = Sentences(lengths=rng.integers(1, s + 1, b))
    if setting.score == "oracle":
        sentences = replace(sentences, alignment=np.abs(normal(b, t, s)))
    shapes = reference_attention.shapes(setting, Q, D, U, S + 1)
    parameters = {name: normal(*shape) for name, shape in shapes.items()}
    query, memory, dcontext = normal(b, t, Q), normal(b, s, D), normal(b, t, D)
    return Case(setting, sentences, query, memory, parameters, dcontext, normal(b, setting.heads, t, s))


@bits_settings
def test_same_bits_for_any_number_of_threads(threads: None, setting: Setting) -> None:
    case = larger(setting, np.float32, (17, 9, S + 1))
    ops.set_num_threads(1)
    want = everything(case)
    for n in (2, 3, 4, 7, 8, 16, 1):
        ops.set_num_threads(n)
        assert_same_bits(everything(case), want, f"{n} threads")


PER_SENTENCE = ("context", "weights", "query", "memory")


@bits_settings
def test_a_sentence_does_not_depend_on_its_batch(isa: str, setting: Setting) -> None:
    for dtype in (np.float32, np.float64):
        case = larger(setting, dtype, (6, 4, S))
        together = everything(case)
        for b in range(6):
            one = slice(b, b + 1)
            given = case.sentences.alignment
            sentences = replace(
                case.sentences, lengths=case.sentences.lengths[one], alignment=None if given is None else given[one]
            )
            alone = everything(
                replace(
                    case,
                    sentences=sentences,
                    query=case.query[one],
                    memory=case.memory[one],
                    dcontext=case.dcontext[one],
                    dweights=case.dweights[one],
                )
            )
            assert_same_bits({n: alone[n] for n in PER_SENTENCE}, {n: together[n][one] for n in PER_SENTENCE})


@bits_settings
def test_a_sentence_does_not_depend_on_its_padding(isa: str, setting: Setting) -> None:
    """Parameter gradients neither: positions that add nothing leave a sum alone."""
    for dtype in (np.float32, np.float64):
        case = larger(setting, dtype, (5, 4, S))
        plain = everything(case)
        given = case.sentences.alignment

        def pad(x: np.ndarray, axis: int, value: float = np.nan) -> np.ndarray:
            shape = list(x.shape)
            shape[axis] = 1  # max_source allows one more position
            return np.concatenate([x, np.full(shape, value, x.dtype)], axis)

        sentences = replace(case.sentences, alignment=None if given is None else pad(given, 2, 7.0))
        wide = replace(case, memory=pad(case.memory, 1), dweights=pad(case.dweights, 3), sentences=sentences)
        padded = everything(wide)
        assert not padded["weights"][..., S:].any() and not padded["memory"][:, S:].any()
        cut = padded | {"weights": padded["weights"][..., :S], "memory": padded["memory"][:, :S]}
        assert_same_bits(cut, plain)


@bits_settings
def test_a_cache_may_be_used_again(setting: Setting) -> None:
    case = make(setting)
    attention = loaded(case)
    _, cache = forward(case, attention)
    dweights = squeezed(case.dweights)
    first = attention.backward(case.dcontext, cache, dweights)
    kept = [x.copy() for x in (first.query, first.memory, *first.parameters.values())]
    attention.backward(case.dcontext * 3, cache)  # something else in between, by another call of forward too
    forward(replace(case, query=case.query + 1), attention)
    second = attention.backward(case.dcontext, cache, dweights)
    for results in (first, second):  # the second is not added to the first, and is not written over it
        for x, want in zip((results.query, results.memory, *results.parameters.values()), kept, strict=True):
            assert x.tobytes() == want.tobytes()


@bits_settings
def test_weights_need_not_be_kept(setting: Setting) -> None:
    case = make(setting)
    attention, want = loaded(case), everything(case)
    read, cache = attention.forward(case.query, case.memory, need_weights=False, **options_of(case.sentences))
    gradients = attention.backward(case.dcontext, cache, squeezed(case.dweights))
    assert read.context.tobytes() == want["context"].tobytes()
    found = {"query": gradients.query, "memory": gradients.memory}
    found |= {"parameter " + name: x for name, x in gradients.parameters.items()}
    assert_same_bits(found, {name: x for name, x in want.items() if name not in ("context", "weights")})


@bits_settings
def test_any_layout_gives_the_bits_of_a_contiguous_copy(setting: Setting) -> None:
    case = make(setting)
    want = everything(case)
    layouts: list[Callable[[np.ndarray], np.ndarray]] = [
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    ]
    for layout in layouts:
        moved = {name: layout(getattr(case, name)) for name in ("query", "memory", "dcontext", "dweights")}
        assert_same_bits(everything(replace(case, **moved)), want)
    for x in (case.query, case.memory, case.dcontext, case.dweights):
        x.flags.writeable = False  # an input that is written to would raise
    assert_same_bits(everything(case), want)


# ------------------------------------------------------------------------------------------------ bad input


def raises(error: type[Exception] | tuple[type[Exception], ...], words: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["bahdanu", "addative", "Dot", "", "locationsensitive"])
def test_unknown_scorings_list_the_nearest_first(name: str) -> None:
    names = ", ".join(nearest_first(name, dhyan.scorings()))
    raises(ValueError, f"{name!r}, expected one of: {names}$", lambda: dhyan.Attention(name, Q, D))


def test_unknown_normalisers_list_the_nearest_first() -> None:
    make = lambda name: lambda: dhyan.Attention("dot", Q, Q, normalize=name)  # noqa: E731
    raises(ValueError, "'sparsmax', expected one of: sparsemax, ", make("sparsmax"))
    raises(ValueError, "'monotone', expected one of: monotonic, ", make("monotone"))


BAD_CONSTRUCTION: list[tuple[type[Exception], str, str, dict[str, Any]]] = [
    (ValueError, "heads is 3", "dot", dict(heads=3)),
    (ValueError, "heads is 2", "additive", dict(heads=2, units=5)),
    (ValueError, "heads is 2", "general", dict(heads=2, key_size=5)),
    (ValueError, "heads is 0", "dot", dict(heads=0)),
    (ValueError, "heads is -1", "dot", dict(heads=-1)),
    (TypeError, "heads is", "dot", dict(heads=2.0)),
    (TypeError, "heads is", "dot", dict(heads=True)),
    *((ValueError, "heads is 2", score, dict(heads=2)) for score in SCORINGS if score not in CONTENT),
    (ValueError, "monotonic", "dot", dict(normalize="monotonic", window=Window(1))),
    (ValueError, "monotonic", "dot", dict(normalize="monotonic", window=PredictiveWindow(1))),
    (ValueError, "monotonic", "dot", dict(normalize="monotonic", window=0)),
    (TypeError, "radius|window", "dot", dict(window=2.5)),
    (ValueError, "window", "dot", dict(window="wide")),
    *(
        (ValueError, "window", score, dict(window=PredictiveWindow(1), max_source=S))
        for score in SCORINGS
        if score not in CONTENT
    ),
    (ValueError, "temperature is 0", "dot", dict(temperature=0)),
    (ValueError, "temperature is -1", "dot", dict(temperature=-1.0)),
    (ValueError, "temperature is nan", "dot", dict(temperature=float("nan"))),
    (ValueError, "temperature is inf", "dot", dict(temperature=float("inf"))),
    (TypeError, "temperature is", "dot", dict(temperature="1")),
    (TypeError, "temperature is", "dot", dict(temperature=True)),
    (ValueError, "key_size|width", "dot", dict(key_size=Q + 1)),
    (ValueError, "query_size is 0", "dot", dict(query_size=0)),
    (ValueError, "key_size is 0", "general", dict(key_size=0)),
    (ValueError, "units is 0", "additive", dict(units=0)),
    (TypeError, "query_size", "dot", dict(query_size=4.0)),
    (TypeError, "seed", "additive", dict(seed="0")),
    (ValueError, "seed is -1", "additive", dict(seed=-1)),
    (ValueError, "max_source", "location", dict()),
    (ValueError, "max_source", "location", dict(max_source=0)),
    (TypeError, "max_source", "location", dict(max_source=3.0)),
    (ValueError, "normalized", "dot", dict(normalized=True)),
    (ValueError, "normalized", "concat", dict(normalized=True)),
    (ValueError, "normalize is 'sparsemax'", "uniform", dict(normalize="sparsemax")),
]


@pytest.mark.parametrize("error, words, score, options", BAD_CONSTRUCTION, ids=str)
def test_what_cannot_be_constructed(error: type[Exception], words: str, score: str, options: dict[str, Any]) -> None:
    given = dict(query_size=Q, key_size=D) | (dict(max_source=S) if score == "location" and "heads" in options else {})
    raises(error, words, lambda: dhyan.Attention(score, **(given | options)))


@pytest.mark.parametrize("dtype", ["float16", "int64", "complex128", "floaty", None])
def test_wrong_dtypes_of_parameters(dtype: Any) -> None:
    raises(TypeError, "dtype|data type", lambda: dhyan.Attention("additive", Q, D, dtype=dtype))


@pytest.mark.parametrize("kind", [Window, PredictiveWindow])
def test_windows_need_a_radius(kind: Any) -> None:
    raises(ValueError, "radius is nan", lambda: kind(float("nan")))
    raises(ValueError, "radius is -1", lambda: kind(-1))
    for radius in (1.0, True, "1", None):
        raises(TypeError, "radius is", lambda radius=radius: kind(radius))
    if kind is PredictiveWindow:  # its bell has no width at 0
        raises(ValueError, "radius is 0, expected", lambda: kind(0))
    assert kind(1).radius == 1


WRONG_ARRAYS: dict[str, Callable[[np.ndarray], Any]] = {
    "list": lambda x: x.tolist(),
    "None": lambda x: None,
    "float16": lambda x: x.astype(np.float16),
    "float32 among float64": lambda x: x.astype(np.float32),
    "int64": lambda x: x.astype(np.int64),
    "bool": lambda x: x.astype(bool),
    "complex128": lambda x: x.astype(complex),
    "object": lambda x: x.astype(object),
    "big-endian": lambda x: x.astype(">f8"),
}


@pytest.mark.parametrize("score", SCORINGS)
@pytest.mark.parametrize("kind", WRONG_ARRAYS)
def test_wrong_types_of_arrays(kind: str, score: str) -> None:
    case, bad = make(Setting(score)), WRONG_ARRAYS[kind]
    attention, options = loaded(case), options_of(case.sentences)
    want, cache = forward(case, attention)
    raises(TypeError, "expected", lambda: attention.forward(bad(case.query), case.memory, **options))
    raises(TypeError, "expected", lambda: attention.forward(case.query, bad(case.memory), **options))
    raises(TypeError, "expected", lambda: attention.backward(bad(case.dcontext), cache))
    if kind != "None":
        raises(TypeError, "expected", lambda: attention.backward(case.dcontext, cache, bad(case.dweights[:, 0])))
        if score == "oracle":
            options = {**options, "alignment": bad(options["alignment"])}
            raises(TypeError, "alignment", lambda: attention.forward(case.query, case.memory, **options))
    assert forward(case, attention)[0].context.tobytes() == want.context.tobytes()


BAD_CALLS: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "lengths and mask", dict(lengths=LENGTHS, mask=np.ones(S, bool))),
    (ValueError, "alignment", dict(alignment=np.ones((B, T, S)))),
    (ValueError, r"lengths\[1\] is -1", dict(lengths=np.array([5, -1]))),
    (ValueError, r"lengths\[0\] is 6, expected 0 to S=", dict(lengths=np.array([6, 3]))),
    (ValueError, r"lengths has shape \(3,\)", dict(lengths=np.array([5, 3, 1]))),
    (TypeError, "lengths", dict(lengths=[5, 3])),
    (TypeError, "lengths", dict(lengths=np.array([5.0, 3.0]))),
    (TypeError, "lengths", dict(lengths=np.array([5, 3], np.int32))),
    (ValueError, r"mask has shape \(4,\)", dict(mask=np.ones(4, bool))),
    (TypeError, "mask", dict(mask=[True] * S)),
    (TypeError, "mask", dict(mask=np.ones(S))),
    (TypeError, "mask", dict(mask=np.ones(S, np.int64))),
    (TypeError, "position", dict(position=1.0)),
    (TypeError, "position", dict(position=True)),
    (ValueError, "position is -1", dict(position=-1)),
    (ValueError, r"query .*\(3, 4\)", dict(query=np.ones((T, Q)))),
    (ValueError, r"query .*\(2, 3, 5\)", dict(query=np.ones((B, T, Q + 1)))),
    (ValueError, r"memory .*\(2, 5, 7\)", dict(memory=np.ones((B, S, D - 1)))),
    (ValueError, r"\(3, 5, 8\)", dict(memory=np.ones((B + 1, S, D)))),
    (ValueError, r"\(5, 8\)", dict(memory=np.ones((S, D)))),
]


@pytest.mark.parametrize("score", ["uniform", "additive", "coverage"])
@pytest.mark.parametrize("error, words, options", BAD_CALLS, ids=str)
def test_what_forward_refuses(error: type[Exception], words: str, options: dict[str, Any], score: str) -> None:
    attention = attention_of(Setting(score))
    given = dict(query=np.ones((B, T, Q)), memory=np.ones((B, S, D))) | options
    raises(error, words, lambda: attention.forward(given.pop("query"), given.pop("memory"), **given))


def test_oracle_needs_its_alignment() -> None:
    attention = attention_of(Setting("oracle"))
    query, memory = np.ones((B, T, Q)), np.ones((B, S, D))
    raises(ValueError, "alignment", lambda: attention.forward(query, memory))
    for shape in ((B, T, S + 1), (B, S, T), (T, S)):
        raises(ValueError, "alignment", lambda shape=shape: attention.forward(query, memory, alignment=np.ones(shape)))


def test_location_has_a_longest_source() -> None:
    attention = dhyan.Attention("location", Q, D, max_source=S, dtype="float64")
    query = np.ones((1, T, Q))
    assert attention.forward(query, np.ones((1, S, D)))[0].weights.shape == (1, T, S)
    raises(ValueError, "max_source", lambda: attention.forward(query, np.ones((1, S + 1, D))))


def test_hard_alignment_is_monotonic_and_has_no_gradient() -> None:
    query, memory = np.ones((B, T, Q)), np.ones((B, S, D))
    for normalize in ("softmax", "sparsemax"):
        attention = attention_of(Setting("dot", normalize=normalize))
        raises(ValueError, "hard", lambda attention=attention: attention.forward(query, memory, hard=True))
    attention = attention_of(Setting("dot", normalize="monotonic"))
    _, cache = attention.forward(query, memory, hard=True)
    raises(ValueError, "hard", lambda: attention.backward(np.ones((B, T, D)), cache))


def test_what_backward_refuses() -> None:
    case = make(Setting("additive", 2))
    attention = loaded(case)
    _, cache = forward(case, attention)
    backward = attention.backward
    raises(ValueError, "dcontext", lambda: backward(case.dcontext[:, :2], cache))
    raises(ValueError, "dcontext", lambda: backward(case.dcontext[0], cache))
    raises(ValueError, "dweights", lambda: backward(case.dcontext, cache, case.dweights[:, 0]))
    raises(ValueError, "dweights", lambda: backward(case.dcontext, cache, case.dweights[..., :2]))
    raises(TypeError, "cache", lambda: backward(case.dcontext, None))
    raises(TypeError, "cache", lambda: backward(case.dcontext, (1, 2)))
    of_the_op = ops.attention_forward(*[np.ones((1, 1, 1))] * 3, term="product")[2]
    raises(TypeError, "cache", lambda: backward(case.dcontext, of_the_op))


def test_the_cache_of_another_configuration_is_refused() -> None:
    case = make(Setting("additive"))
    _, cache = forward(case)
    others = [
        attention_of(Setting("coverage")),
        attention_of(Setting("additive", 2)),
        attention_of(Setting("additive", normalize="sparsemax")),
        attention_of(Setting("additive", temperature=2.0)),
        attention_of(Setting("additive", radius=1)),
        attention_of(Setting("additive"), np.float32),
        dhyan.Attention("additive", Q, D, U + 1, dtype="float64"),
    ]
    for other in others:
        dcontext = case.dcontext.astype(other.parameters()["v"].dtype)
        raises(ValueError, "cache", lambda other=other, dcontext=dcontext: other.backward(dcontext, cache))
