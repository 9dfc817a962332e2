"""dhyan.Attention against its specification (tests/spec/attention.py): random cases, every gradient, both precisions.

    judged(cases(0, range(400), ["additive"]))      what a run found: its failures, each with the number of its case
    judged([draw(0, 17, "additive")]).failures      one case again, as a failure names it: additive:17

Each case has ragged lengths or the same raggedness inside one of the masks below, and what no row may attend holds
garbage (NaN, infinities, 3e38) that must change no bit. Heads, windows, normalisers and temperatures are drawn too.

An error is measured in the largest value of its array, or in 1 where that is smaller.
float64: every error is at most 1e-11, a thousand times the rounding of these sizes.
float32: the promise for gradients, kept by outputs too. Over all draws of a scoring the worst error of a quantity is at
most twice the worst of the same formulas in plain float32 NumPy plus 4 eps, and so is the median: an outlier of NumPy
cannot hide a coarse kernel. Single draws are not compared, NumPy may be exact by luck; but a draw above the worst may
be one where every rounding grows (sparsemax that feeds back), and then it is allowed twice what NumPy is off by when
its scores are off by what is promised of ours.

One file, because one number names a case: masks, draws and judgement are read together.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import dhyan
import numpy as np
from spec import attention as reference
from spec.attention import CONTENT, RULES, SCORINGS, Sentences, Setting
from spec.slopes import Taped, slopes

Arrays = dict[str, np.ndarray]
EPS = float(np.finfo(np.float32).eps)
FLOAT64 = 1e-11
GARBAGE = (0.0, np.nan, np.inf, -np.inf, 3e38)


# ------------------------------------------------------------------------------------------------ masks


@dataclasses.dataclass(frozen=True)
class Frame:
    """What a pattern is drawn in: inside (B, 1, S) is True within each sentence."""

    rng: np.random.Generator
    lengths: np.ndarray
    T: int
    S: int

    @property
    def inside(self) -> np.ndarray:
        return self.s < self.lengths[:, None, None]

    @property
    def s(self) -> np.ndarray:
        return np.arange(self.S)[None, None, :]

    @property
    def t(self) -> np.ndarray:
        return np.arange(self.T)[None, :, None]

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.lengths), self.T, self.S

    def masked(self, mask: np.ndarray) -> Sentences:
        """A mask that holds the raggedness too: lengths and mask are not given together."""
        return Sentences(mask=mask & self.inside)


def random_mask(density: float) -> Callable[[Frame], Sentences]:
    return lambda f: f.masked(f.rng.random(f.shape) < density)


PATTERNS: dict[str, Callable[[Frame], Sentences]] = {
    "full": lambda f: Sentences(),
    "lengths": lambda f: Sentences(lengths=f.lengths),
    "causal": lambda f: Sentences(lengths=f.lengths, causal=True),
    "window": lambda f: Sentences(lengths=f.lengths, position=int(f.rng.integers(0, 4))),
    "dense": random_mask(0.9),
    "half": random_mask(0.5),
    "sparse": random_mask(0.1),
    "first only": lambda f: f.masked(f.s == 0),
    "last only": lambda f: f.masked(f.s == f.lengths[:, None, None] - 1),
    "single": lambda f: f.masked(f.s == f.rng.integers(0, max(f.S, 1), (*f.shape[:2], 1))),
    "checkerboard": lambda f: f.masked((f.s + f.t) % 2 == 0),
    "block": lambda f: f.masked(f.s * 3 // f.S == f.t * 3 // f.T),
    "banded": lambda f: dataclasses.replace(f.masked(np.abs(f.s - f.t) <= 2), causal=bool(f.rng.integers(2))),
    "ends": lambda f: f.masked((f.s < 2) | (f.s >= f.lengths[:, None, None] - 2)),
    "empty rows": lambda f: f.masked((f.t % 2 == f.rng.integers(2)) & (f.rng.random((f.shape[0], 1, f.S)) < 0.7)),
    "all empty": lambda f: f.masked(np.zeros((1, 1, f.S), bool)),
}


# ------------------------------------------------------------------------------------------------ cases


@dataclasses.dataclass(frozen=True)
class Case:
    """One call: the setting, its inputs as float32, and the slopes that flow into backward."""

    name: str
    key: tuple[int, int, str]  # what draw takes
    setting: Setting
    sentences: Sentences
    inputs: Arrays  # query, memory, parameters
    dcontext: np.ndarray
    dweights: np.ndarray | None  # (B, n, T, S)
    garbage: float


def pick(rng: np.random.Generator, *values: Any) -> Any:
    return values[rng.integers(len(values))]


def draw(seed: int, number: int, score: str) -> Case:
    """Case `number` of a scoring; its shape and mask belong to the number, the rest to both. Another one if fragile."""
    for attempt in range(100):
        case = _draw(seed, number, score, attempt)
        if not fragile(case):
            return case
    raise RuntimeError(f"{case.name}: no draw of a hundred is away from every choice")


def _draw(seed: int, number: int, score: str, attempt: int) -> Case:
    common = np.random.default_rng([seed, number])
    B, T, S = int(common.integers(1, 5)), pick(common, 1, 2, 3, 5, 8, 13), pick(common, 1, 2, 5, 7, 13, 16, 17, 33)
    Q, D, U = (pick(common, 1, 2, 3, 5, 8, 13, 16, 24) for _ in range(3))
    pattern = list(PATTERNS)[number % len(PATTERNS)]
    rng = np.random.default_rng([seed, number, SCORINGS.index(score), attempt])
    setting = draw_setting(rng, score, pattern)
    Q, D, U = (width * setting.heads for width in (Q, D, U))
    if score in ("dot", "scaled_dot", "cosine"):
        D = pick(rng, Q, 2 * Q)
    lengths = rng.integers(0, S + 1, B) if number % 3 else rng.integers(max(S - 2, 0), S + 1, B)
    sentences = PATTERNS[pattern](Frame(rng, lengths, T, S))
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    if score == "oracle":
        sentences = dataclasses.replace(sentences, alignment=np.abs(normal(B, T, S)))
    inputs = {"query": normal(B, T, Q), "memory": normal(B, S, D)}
    if score == "cosine" and number % 4 == 0:
        inputs["query"][0, 0] = 0  # a zero vector has no direction
    for name, shape in reference.shapes(setting, Q, D, U, S + int(rng.integers(3))).items():
        spread = shape[0] ** -0.5 if len(shape) > 1 else 1.0
        inputs["parameter " + name] = normal(*shape) * np.float32(spread)
    dweights = normal(B, setting.heads, T, S) if number % 4 else None
    name = f"{score}:{number} {pattern}, B{B} T{T} S{S} Q{Q} D{D} U{U}, {describe(setting)}"
    key = (seed, number, score)
    return Case(name, key, setting, sentences, inputs, normal(B, T, D), dweights, pick(rng, *GARBAGE))


def draw_setting(rng: np.random.Generator, score: str, pattern: str) -> Setting:
    """Plain in half of the draws of each option."""
    chosen: dict[str, Any] = {"radius": int(rng.integers(0, 4)) if pattern == "window" else None}
    if score not in RULES:
        chosen["temperature"] = pick(rng, 1.0, 1.0, 0.5, 2.5)
        chosen["normalize"] = pick(
            rng, "softmax", "softmax", "sparsemax", "softmax" if pattern == "window" else "monotonic"
        )
    if score in CONTENT:
        chosen["heads"] = pick(rng, 1, 1, 2, 4)
        if chosen["normalize"] != "monotonic" and rng.random() < 0.3:
            chosen |= {"radius": int(rng.integers(1, 4)), "predictive": True}
    if score in ("additive", "location_sensitive", "coverage"):
        chosen["normalized"] = bool(rng.random() < 0.3)
    return Setting(score, **chosen)


def describe(setting: Setting) -> str:
    fields = dataclasses.asdict(setting)
    fields.pop("score")
    return " ".join(f"{name}={value}" for name, value in fields.items())


def fragile(case: Case) -> bool:
    """True when a choice (a support, a cut) falls otherwise for inputs slightly off: rounding could turn it.

    1e-5 is about a hundred times what the rounding of float32 does to a score.
    """
    if case.setting.normalize != "sparsemax" and not case.setting.predictive:
        return False
    rng = np.random.default_rng(0)
    found = []
    for size in (0, 1e-5, 1e-5, 1e-5, 1e-5):
        moved = {n: x * (1 + size * rng.choice([-1.0, 1.0], x.shape)) for n, x in case.inputs.items()}
        found.append(specified(case.setting, case.sentences, moved).weights != 0)
    return any((other != found[0]).any() for other in found[1:])


# ------------------------------------------------------------------------------------------------ both sides


def specified(setting: Setting, sentences: Sentences, inputs: dict[str, Any]) -> reference.Read:
    parameters = {name.removeprefix("parameter "): x for name, x in inputs.items() if name.startswith("parameter ")}
    return reference.attention(setting, parameters, inputs["query"], inputs["memory"], sentences)


def expected(case: Case, dtype: type) -> tuple[Arrays, np.ndarray]:
    """Outputs and gradients by the specification in one precision, and what each row may attend."""
    inputs = {name: Taped(x.astype(dtype)) for name, x in case.inputs.items()}
    read = specified(case.setting, case.sentences, inputs)
    flowing = [(read.context, case.dcontext.astype(dtype))]
    if case.dweights is not None:
        flowing.append((read.weights, case.dweights.astype(dtype)))
    gradients = slopes(flowing, list(inputs.values()))
    outputs = {"context": bare(read.context), "weights": bare(read.weights)}
    return outputs | dict(zip(inputs, gradients, strict=True)), read.allowed


def bare(x: Any) -> np.ndarray:
    return x.real


def attention_of(setting: Setting, inputs: Arrays, units: int) -> dhyan.Attention:
    """The object, holding the parameters of the case."""
    window = None
    if setting.radius is not None:
        window = (dhyan.PredictiveWindow if setting.predictive else dhyan.Window)(setting.radius)
    query, memory = inputs["query"], inputs["memory"]
    options = {"max_source": inputs["parameter weight"].shape[1]} if setting.score == "location" else {}
    attention = dhyan.Attention(
        setting.score, query_size=query.shape[2], key_size=memory.shape[2], units=units, dtype=query.dtype.name,
        heads=setting.heads, window=window, normalize=setting.normalize, temperature=setting.temperature,
        normalized=setting.normalized, **options,
    )  # fmt: skip
    parameters = attention.parameters()
    given = {name.removeprefix("parameter ") for name in inputs if name.startswith("parameter ")}
    if set(parameters) != given:
        raise AssertionError(f"parameters are {sorted(parameters)}, specified {sorted(given)}")
    for name, x in parameters.items():
        x[...] = inputs["parameter " + name]
    return attention


def units_of(case: Case) -> int:
    """U from the parameters that have it."""
    names = ("bias", "v", "window_v")
    return next((case.inputs["parameter " + n].size for n in names if "parameter " + n in case.inputs), 1)


def computed(case: Case, dtype: type, hidden: np.ndarray | None = None) -> Arrays:
    """Outputs and gradients of dhyan. hidden (B, S): what no row may attend, overwritten with garbage."""
    inputs = {name: x.astype(dtype) for name, x in case.inputs.items()}
    attention = attention_of(case.setting, inputs, units_of(case))
    if hidden is not None:
        inputs["memory"][hidden] = case.garbage
    n, s = case.setting.heads, case.sentences
    options = {
        name: value for name, value in vars(s).items() if value is not None and name not in ("hard", "alignment")
    }
    if s.alignment is not None:
        options["alignment"] = s.alignment.astype(dtype)
    read, cache = attention.forward(inputs["query"], inputs["memory"], **options)
    dweights = case.dweights
    if dweights is not None:
        dweights = (dweights if n > 1 else dweights[:, 0]).astype(dtype)
    gradients = attention.backward(case.dcontext.astype(dtype), cache, dweights)
    weights = read.weights if n > 1 else read.weights[:, None]
    found = {"context": read.context, "weights": weights, "query": gradients.query, "memory": gradients.memory}
    return found | {"parameter " + name: x for name, x in gradients.parameters.items()}


# ------------------------------------------------------------------------------------------------ judging


@dataclasses.dataclass
class Tally:
    """What one instruction set was found to do."""

    cases: int = 0
    checks: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    # (scoring, quantity) -> error of dhyan, of NumPy, and the key of the case, for every draw
    errors: dict[tuple[str, str], list[tuple[float, float, tuple[int, int, str]]]] = dataclasses.field(
        default_factory=dict
    )
    worst: float = 0.0  # float64

    def check(self, right: bool, where: str, what: str) -> None:
        self.checks += 1
        if not right:
            self.failures.append(f"{where}: {what}")


def error(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference in units of the largest value, at least 1; infinite for NaN or a wrong shape."""
    if got.shape != want.shape:
        return float("inf")
    difference = np.abs(got.astype(np.float64) - want).max(initial=0.0)
    return float(np.nan_to_num(difference, nan=np.inf) / max(1.0, np.abs(want).max(initial=0.0)))


def judge(case: Case, tally: Tally) -> None:
    """Both precisions of one case."""
    exact, allowed = expected(case, np.float64)
    plain, _ = expected(case, np.float32)
    hidden = ~allowed.any(1)
    for dtype in (np.float32, np.float64):
        where = f"{dtype.__name__} {case.name}"
        tally.cases += 1
        try:
            clean, found = computed(case, dtype), computed(case, dtype, hidden)
        except Exception as wrong:  # a crash of one case is a failure of that case
            tally.check(False, where, f"{type(wrong).__name__}: {wrong}")
            continue
        tally.check(set(found) == set(exact), where, f"gradients of {sorted(found)}, expected {sorted(exact)}")
        for name in sorted(set(found) & set(exact)):
            got, want = found[name], exact[name]
            tally.check(got.dtype == dtype and got.shape == want.shape, where, f"{name} is {got.dtype} {got.shape}")
            tally.check(
                got.tobytes() == clean[name].tobytes(), where, f"{name} sees {case.garbage} where nothing is attended"
            )
            if dtype is np.float64:
                off = error(got, want)
                tally.worst = max(tally.worst, off if np.isfinite(off) else 0.0)
                tally.check(off <= FLOAT64, where, f"{name} is off by {off:.1e}, allowed {FLOAT64:.0e}")
            else:
                ours, numpy = error(got, want), error(plain[name], want)
                tally.check(np.isfinite(ours), where, f"{name} is not finite")
                tally.errors.setdefault((case.setting.score, name), []).append((ours, numpy, case.key))
        unseen = ~np.broadcast_to(allowed[:, None], found["weights"].shape)
        tally.check(not found["weights"][unseen].any(), where, "a masked weight is not 0")
        tally.check(not found["context"][~allowed.any(2)].any(), where, "the context of an empty row is not 0")
        tally.check(not found["query"][~allowed.any(2)].any(), where, "the gradient of an empty row's query is not 0")
        tally.check(not found["memory"][hidden].any(), where, "the gradient of unseen memory is not 0")


def judge_float32(tally: Tally) -> None:
    """Worst and median over the draws of each scoring and quantity."""
    for (score, name), draws in tally.errors.items():
        ours, numpy = (np.array([d[i] for d in draws]) for i in (0, 1))
        got, gate = float(np.median(ours)), 2 * float(np.median(numpy)) + 4 * EPS
        what = f"the median error of {name} is {got / EPS:.1f} eps, allowed {gate / EPS:.1f} eps"
        tally.check(got <= gate, f"float32 {score}, {len(draws)} draws", what)
        gate = 2 * float(numpy.max()) + 4 * EPS
        tally.check(not np.isnan(gate), score, f"{name} is not finite in NumPy")
        for got, _, key in draws:
            if got > gate and np.isfinite(got):
                case = draw(*key)
                most = max(gate, 2 * promised(case, name) + 4 * EPS)
                what = f"{name} is off by {got / EPS:.1f} eps, allowed {most / EPS:.1f} eps"
                tally.check(got <= most, f"float32 {case.name}", what)


def promised(case: Case, name: str) -> float:
    """The worst of four runs in plain float32 whose scores are off by what is promised of ours."""
    exact, _ = expected(case, np.float64)
    found = []
    for number in range(4):
        with reference.scores_at_their_gates(np.random.default_rng(number)):
            found.append(error(expected(case, np.float32)[0][name], exact[name]))
    return max(found)


def cases(seed: int, numbers: Iterable[int], scores: Iterable[str]) -> Iterator[Case]:
    """Every case of these numbers and scorings."""
    scores = list(scores)
    for number in numbers:
        for score in scores:
            yield draw(seed, number, score)


def judged(drawn: Iterable[Case]) -> Tally:
    """What the instruction set in use was found to do."""
    tally = Tally()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what cannot be seen gives no warning either
        for case in drawn:
            judge(case, tally)
    judge_float32(tally)
    return tally
