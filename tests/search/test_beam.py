"""Greedy and beam search: what they return is what the formulas say, row for row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import Batch, ModelConfig, NumericError, Seq2Seq
from dhyan.search.beam import MOST_WHOLE, Hypothesis, beam_search
from dhyan.search.constraints import Constraints
from dhyan.text.vocabulary import END
from spec import model as reference

LENGTHS = np.array([4, 1, 3, 6])
ORDERS = [("bahdanau", True), ("luong", False), ("luong", True)]
CASES = [(cell, *order) for cell in ("rnn", "lstm", "gru") for order in ORDERS]
# Attention that the core's loop does not read by itself; every cell and order is among them.
STEP_BY_STEP: dict[str, dict[str, Any]] = {
    "two heads": dict(heads=2, cell="lstm", order="luong"),
    "predictive": dict(attention="general", window="predictive:2", order="luong", input_feeding=False),
    "monotonic": dict(normalize="monotonic", cell="rnn"),
    "monotonic, two heads": dict(attention="dot", normalize="monotonic", heads=2, order="luong", layers=2),
    "location_sensitive": dict(attention="location_sensitive", normalize="sparsemax", cell="lstm"),
    "coverage": dict(attention="coverage", window=3, cell="rnn", order="luong"),
    "coverage, monotonic": dict(attention="coverage", normalize="monotonic", normalized=True, temperature=0.5),
}
step_by_step = pytest.mark.parametrize("choices", STEP_BY_STEP.values(), ids=STEP_BY_STEP)


def model_of(
    cell: str = "gru", order: str = "bahdanau", input_feeding: bool = True, *, target_size: int = 9, **changes: Any
) -> Seq2Seq:
    """A random model; the scale makes its outputs differ between sentences and end at different lengths."""
    config = ModelConfig(
        source_size=8, target_size=target_size, embedding=5, hidden=6, dropout=0.0, cell=cell, order=order,
        input_feeding=input_feeding, **changes,
    )  # fmt: skip
    model = Seq2Seq(config, dtype="float64")
    for name, array in model.parameters().items():
        array[...] = reference.random_parameters(config, np.random.default_rng(3), 1.0)[name]
    return model


def sources(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 8, (len(LENGTHS), LENGTHS.max()))


def forced(model: Seq2Seq, source: np.ndarray, length: int, hypothesis: Hypothesis) -> tuple[np.ndarray, np.ndarray]:
    """Teacher-forced log-probabilities and weights of a hypothesis, its end symbol included if it wrote one."""
    ids = [1, *hypothesis.ids, *([2] if hypothesis.finished else [])]
    batch = Batch(source[None, :length], np.array([length]), np.array([ids]), np.array([len(ids)]))
    log_p, weights = model.force(batch)
    return log_p[0], weights[0]


# ------------------------------------------------------------------------------------------------ greedy


@pytest.mark.parametrize("choices", [{}, *STEP_BY_STEP.values()], ids=["in the core", *STEP_BY_STEP])
def test_the_row_of_the_end_symbol_is_kept_where_it_was_written(choices: dict[str, Any]) -> None:
    model, source = model_of(**choices), sources()
    model.parameters()["output.bias"][END] += 2  # outputs end early, though not all
    seen = set()
    for limit in (2, 12):
        hypotheses = beam_search(model, source, LENGTHS, beam=3, nbest=2, max_length=limit)
        for b, h in ((b, h) for b, own in enumerate(hypotheses) for h in own):
            seen.add(h.finished)
            assert h.finished == (h.end_weights is not None)
            if h.end_weights is not None:
                _, weights = forced(model, source[b], LENGTHS[b], h)
                np.testing.assert_allclose(h.end_weights, weights[-1], atol=1e-12)
    assert True in seen


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell, order, input_feeding", CASES)
def test_greedy_is_the_reference(isa: str, cell: str, order: str, input_feeding: bool, layers: int) -> None:
    model, source = model_of(cell, order, input_feeding, layers=layers), sources()
    ids, weights = model.greedy(source, LENGTHS, max_length=12)
    expected, rows = reference.greedy(model.parameters(), model.config, source, LENGTHS, 12)
    assert ids.dtype == np.int64 and ids.shape[1] == max(map(len, expected)) and weights.shape == (*ids.shape, 6)
    for i, sentence in enumerate(expected):
        n = len(sentence)
        assert ids[i].tolist() == sentence + [0] * (ids.shape[1] - n)
        np.testing.assert_allclose(weights[i, :n], rows[i], atol=1e-12)
        assert not weights[i, n:].any()


@pytest.mark.parametrize(
    "choices",
    [
        *STEP_BY_STEP.values(),
        dict(attention="dot", normalize="sparsemax"),
        dict(attention="location", max_source=6, cell="lstm"),
        dict(normalized=True, temperature=0.3, order="luong"),
    ],
)
def test_greedy_of_variants_is_the_reference(choices: dict[str, Any]) -> None:
    model, source = model_of(**choices), sources()
    lengths = LENGTHS.copy()
    lengths[1] = 0
    ids, weights = model.greedy(source, lengths, max_length=12)
    expected, rows = reference.greedy(model.parameters(), model.config, source, lengths, 12)
    for i, sentence in enumerate(expected):
        n = len(sentence)
        assert ids[i].tolist() == sentence + [0] * (ids.shape[1] - n)
        np.testing.assert_allclose(weights[i, :n], rows[i], atol=1e-12)
        assert not weights[i, n:].any()


def test_greedy_of_the_oracle_reads_what_it_is_given() -> None:
    """Beyond the last row of the alignment nothing is read."""
    model, source = model_of(attention="oracle"), sources()
    alignment = np.random.default_rng(0).random((4, 3, 6)) * (np.arange(6) < LENGTHS[:, None, None])
    ids, weights = model.greedy(source, LENGTHS, 8, alignment)
    expected, rows = reference.greedy(model.parameters(), model.config, source, LENGTHS, 8, alignment)
    assert ids.shape[1] > 3
    for i, sentence in enumerate(expected):
        assert ids[i, : len(sentence)].tolist() == sentence
        np.testing.assert_array_equal(weights[i, : len(sentence)], rows[i])
    for i, (h,) in enumerate(beam_search(model, source, LENGTHS, beam=1, max_length=8, alignment=alignment)):
        assert ids[i, : len(h.ids)].tolist() == h.ids
        np.testing.assert_array_equal(h.weights, weights[i, : len(h.ids), : LENGTHS[i]])


@step_by_step
def test_greedy_takes_the_best_of_the_forced_rows(choices: dict[str, Any]) -> None:
    """Forcing what greedy wrote gives its weights, bit for bit, and no other word would have been likelier."""
    model, source = model_of(**choices), sources()
    ids, weights = model.greedy(source, LENGTHS, max_length=8)
    for i, row in enumerate(ids):
        n = int((row == 2).argmax()) + 1 if (row == 2).any() else len(row)
        forms = np.repeat([[1, *row[:n]]], 9, 0)  # the last word: any of the nine
        chosen, forms[:, -1] = row[n - 1], np.arange(9)
        batch = Batch(np.repeat(source[i : i + 1], 9, 0), np.full(9, LENGTHS[i]), forms, np.full(9, n + 1))
        log_p, rows = model.force(batch)
        assert log_p[:, -1].argmax() == chosen
        np.testing.assert_array_equal(rows, np.broadcast_to(weights[i, :n], rows.shape))


@step_by_step
def test_steps_carry_what_attention_feeds_back(choices: dict[str, Any]) -> None:
    """Rows may be chosen, repeated and mixed between any two steps: each goes on as it would have alone."""
    model, source = model_of(**choices), sources()
    words, rows = np.array([[3, 4, 5, 6], [4, 5, 6, 7], [5, 3, 3, 8]]), [0, 3, 0, 2, 3]
    state, sentence, told = model.start(source, LENGTHS), np.arange(4), np.arange(4)
    for t in range(3):
        log_p, weights, state = model.advance(state, words[t][told], sentence)
        for i, b in enumerate(sentence):
            target = np.array([[1, *words[1:, told[i]], 1][: t + 1]])
            target[0, 0] = words[0, told[i]]
            batch = Batch(source[b : b + 1], LENGTHS[b : b + 1], np.append(target, [[4]], 1), np.array([t + 2]))
            forced_p, forced_rows = model.force(batch)
            assert forced_p[0, t] == log_p[i, 4]
            np.testing.assert_array_equal(forced_rows[0, t], weights[i])
        if t == 0:
            state, sentence, told = state.select(np.array(rows)), sentence[rows], told[rows]


@step_by_step
def test_a_search_under_way_keeps_the_attention_it_began_with(choices: dict[str, Any]) -> None:
    model, source = model_of(**choices), sources()
    state, tokens, all_rows = model.start(source, LENGTHS), np.full(4, 1), np.arange(4)
    *_, after = model.advance(state, tokens, all_rows)
    expected = model.advance(after, tokens, all_rows)[:2]
    for name, array in model.parameters().items():
        if name.startswith("attention."):
            array += 1
    for a, b in zip(model.advance(after, tokens, all_rows)[:2], expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_greedy_rows_sum_to_one_over_the_sentence() -> None:
    ids, weights = model_of().greedy(sources(), LENGTHS, max_length=12)
    written = np.cumsum(ids == 2, axis=1) - (ids == 2) == 0
    np.testing.assert_allclose(weights.sum(-1), written, atol=1e-15)
    assert not weights[np.broadcast_to((np.arange(6) >= LENGTHS[:, None])[:, None], weights.shape)].any()


def test_greedy_stops_at_max_length() -> None:
    model = model_of()
    model.parameters()["output.bias"][2] = -1e3  # never ends
    for most in (1, 4):
        ids, weights = model.greedy(sources(), LENGTHS, max_length=most)
        assert ids.shape == (4, most) and weights.shape == (4, most, 6) and (ids != 2).all()
    for bad in (0, -1):
        with pytest.raises(ValueError, match="max_length"):
            model.greedy(sources(), LENGTHS, max_length=bad)


def test_greedy_takes_the_lower_id_of_equals() -> None:
    model = model_of()
    model.parameters()["output.weight"][...] = 0
    model.parameters()["output.bias"][...] = [0, 0, -1, 0, 3, 3, 0, 3, 0]
    assert (model.greedy(sources(), LENGTHS, max_length=2)[0] == 4).all()


# ------------------------------------------------------------------------------------------------ beam search


@pytest.mark.parametrize("choices", [STEP_BY_STEP["coverage, monotonic"], STEP_BY_STEP["location_sensitive"]])
def test_a_wide_beam_of_what_feeds_back_is_exhaustive_search(choices: dict[str, Any]) -> None:
    model, one, length = model_of(target_size=5, **choices), sources()[:1, :4], LENGTHS[:1]
    every = reference.exhaustive(model.parameters(), model.config, one, length, 4)
    expected = sorted(((total / len(ids), ids[:-1]) for ids, total in every), key=lambda pair: -pair[0])
    (found,) = beam_search(model, one, length, nbest=len(expected), beam=400, max_length=4)
    assert [h.ids for h in found] == [ids for _, ids in expected]
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-12)


@pytest.mark.parametrize("penalty", [0.0, 1.0, 0.6])
@pytest.mark.parametrize("cell, order, input_feeding", CASES)
def test_a_wide_beam_is_exhaustive_search(cell: str, order: str, input_feeding: bool, penalty: float) -> None:
    """5 tokens, up to 4 of them: a beam that never has to drop anything returns every output in order of score."""
    model, source = model_of(cell, order, input_feeding, target_size=5), sources()
    most = 4
    for i in (0, 1):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        every = reference.exhaustive(model.parameters(), model.config, one, length, most)
        expected = sorted(((total / len(ids) ** penalty, ids[:-1]) for ids, total in every), key=lambda pair: -pair[0])
        options = {"beam": 400, "max_length": most, "length_penalty": penalty}
        (found,) = beam_search(model, one, length, nbest=len(expected), **options)
        assert all(h.finished for h in found)
        assert [h.ids for h in found] == [ids for _, ids in expected]
        np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-12)
        (first,) = beam_search(model, one, length, nbest=3, **options)  # stops early, and may not miss anything
        assert [h.ids for h in first] == [ids for _, ids in expected[:3]]


@pytest.mark.parametrize("choices", [
    *(dict(cell=c, order=o, input_feeding=i, attention=a) for a in ("additive", "dot", "none") for c, o, i in CASES),
    *STEP_BY_STEP.values(),
])  # fmt: skip
def test_weights_are_those_of_the_returned_hypothesis(choices: dict[str, Any]) -> None:
    """Row t of a hypothesis is the row that teacher forcing it reads at t: the same bits."""
    model, source = model_of(**choices), sources()
    results = beam_search(model, source, LENGTHS, beam=6, nbest=6, max_length=8)
    assert len(results) == 4
    for row, length, found in zip(source, LENGTHS, results, strict=True):
        assert len({(*h.ids, h.finished) for h in found}) == len(found) > 1
        for h in found:
            log_p, weights = forced(model, row, int(length), h)
            assert h.weights.shape == (len(h.ids), length)
            np.testing.assert_array_equal(h.weights, weights[: len(h.ids)])
            np.testing.assert_allclose(h.score, log_p.mean(), rtol=1e-12)


def test_best_hypotheses_come_first() -> None:
    for found in beam_search(model_of(), sources(), LENGTHS, beam=6, nbest=6, max_length=8):
        keys = [(not h.finished, -h.score) for h in found]
        assert keys == sorted(keys)


@pytest.mark.parametrize("choices", [
    *(dict(cell=cell, order=order, input_feeding=feeding) for cell, order, feeding in CASES), *STEP_BY_STEP.values(),
])  # fmt: skip
def test_beam_of_one_is_greedy(choices: dict[str, Any]) -> None:
    model, source = model_of(**choices), sources()
    ids, weights = model.greedy(source, LENGTHS, max_length=10)
    for i, (h,) in enumerate(beam_search(model, source, LENGTHS, beam=1, max_length=10)):
        n = len(h.ids)
        assert ids[i, :n].tolist() == h.ids
        assert not h.finished or ids[i, n] == 2
        np.testing.assert_array_equal(h.weights, weights[i, :n, : LENGTHS[i]])


def test_a_wider_beam_never_finds_less_when_it_finishes() -> None:
    """Wide enough to be exhaustive, it bounds every narrower one."""
    model, source = model_of(target_size=5), sources()
    best = [found[0].score for found in beam_search(model, source, LENGTHS, beam=400, max_length=4)]
    for beam in (1, 2, 5):
        for bound, found in zip(best, beam_search(model, source, LENGTHS, beam=beam, max_length=4), strict=True):
            assert not found[0].finished or found[0].score <= bound + 1e-12


@pytest.mark.parametrize("choices", [dict(), *STEP_BY_STEP.values()])
def test_a_sentence_does_not_depend_on_its_batch(isa: str, choices: dict[str, Any]) -> None:
    model, source = model_of(**choices), sources()
    for i, together in enumerate(beam_search(model, source, LENGTHS, beam=4, nbest=4, max_length=8)):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        (alone,) = beam_search(model, one, length, beam=4, nbest=4, max_length=8)
        for a, b in zip(together, alone, strict=True):
            assert a.ids == b.ids and a.score == b.score and a.finished == b.finished
            np.testing.assert_array_equal(a.weights, b.weights)


def test_limits_of_each_sentence() -> None:
    model = model_of()
    model.parameters()["output.bias"][2] = -1e3
    found = beam_search(model, sources(), LENGTHS, beam=3, limits=np.array([1, 5, 2, 7]))
    assert [len(h.ids) for (h,) in found] == [1, 5, 2, 7] and not any(h.finished for (h,) in found)
    default = beam_search(model, sources(), LENGTHS, beam=1)
    assert [len(h.ids) for (h,) in default] == [2 * length + 10 for length in LENGTHS]


def test_no_sentences() -> None:
    assert beam_search(model_of(), np.zeros((0, 3), np.int64), np.zeros(0, np.int64), beam=2) == []


@pytest.mark.parametrize("options, words", [
    (dict(beam=0), "beam"), (dict(beam=-2), "beam"), (dict(beam=2, nbest=3), "nbest"), (dict(nbest=0), "nbest"),
    (dict(max_length=0), "max_length"), (dict(length_penalty=-1.0), "length_penalty"),
    (dict(length_penalty=float("nan")), "length_penalty"),
])  # fmt: skip
def test_bad_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        beam_search(model_of(), sources(), LENGTHS, **options)


def test_a_model_of_nan_is_refused() -> None:
    model = model_of()
    model.parameters()["output.bias"][3] = np.nan
    with pytest.raises(NumericError, match="NaN at step 1"):
        beam_search(model, sources(), LENGTHS)


class Watched:
    """A model that notes what a search asks of it."""

    def __init__(self, model: Seq2Seq) -> None:
        self.model, self.states, self.full, self.top = model, list[Any](), 0, list[int]()

    def start(self, *arguments: Any) -> Any:
        self.states.append(self.model.start(*arguments))
        return self.states[-1]

    def advance(self, state: Any, tokens: np.ndarray, sentence: np.ndarray) -> Any:
        self.full += 1
        self.states.append(state)
        return self.model.advance(state, tokens, sentence)

    def advance_top(self, state: Any, tokens: np.ndarray, sentence: np.ndarray, k: int) -> Any:
        self.top.append(k)
        self.states.append(state)
        return self.model.advance_top(state, tokens, sentence, k)


SEARCHES: dict[str, tuple[dict[str, Any], Any]] = {
    "plain": ({}, None),
    "rules": (dict(min_length=3, no_repeat_ngram=2, no_unknown=True, coverage_penalty=0.2), None),
    "prefix": ({}, Constraints.of([(4, 5)] * 4)),
    "phrases": ({}, Constraints.of(None, [[(4, 5)]] * 4)),
    "samples": (dict(sample=True, nbest=5), None),
}


@pytest.mark.parametrize("case", SEARCHES.values(), ids=SEARCHES)
def test_the_memory_is_shared_by_all_hypotheses(case: Any) -> None:
    """The encoder runs once; every step reads the memory it made, and no hypothesis' state grows with the source."""
    changes, constraints = case
    sizes = []
    for S in (6, 60):
        watched = Watched(model_of())
        source = np.random.default_rng(0).integers(3, 8, (4, S))
        beam_search(watched, source, np.full(4, S), beam=5, limits=np.full(4, 6), constraints=constraints, **changes)
        first, *others = watched.states
        assert len(others) > 2 and all(state.stepper is first.stepper for state in others)
        sizes.append([sum(a.nbytes for a in (s.h, s.readout, s.position)) // len(s.position) for s in watched.states])
    assert len({size for own in sizes for size in own}) == 1


def test_no_more_is_asked_of_the_model_than_can_win() -> None:
    """All log-probabilities only while a prefix or a phrase is open; else the beam, and as many as are banned."""
    asked = {}
    for name, (changes, constraints) in SEARCHES.items():
        watched = Watched(model_of())
        beam_search(watched, sources(), LENGTHS, beam=5, limits=np.full(4, 12), constraints=constraints, **changes)
        asked[name] = watched.full, watched.top
    assert asked["plain"][0] == 0 and max(asked["plain"][1]) == 5
    assert asked["rules"][0] == 0 and max(asked["rules"][1]) <= 5 + 2 + 10
    assert asked["prefix"][0] == 2 and max(asked["prefix"][1]) == 5
    assert asked["phrases"][0] > 0
    assert asked["samples"][0] > 0 and not asked["samples"][1]  # any token may be drawn


def test_greedy_refuses_a_model_of_nan() -> None:
    """As beam search does, whether the core goes the whole way or step by step."""
    for choices in (dict(), STEP_BY_STEP["coverage"]):
        for value in (np.nan, np.inf):
            model = model_of(**choices)
            model.parameters()["output.bias"][3] = value
            with pytest.raises(NumericError, match="greedy: the model gave NaN at step 1"):
                model.greedy(sources(), LENGTHS)
            with pytest.raises(NumericError, match="NaN at step 1"):
                beam_search(model, sources(), LENGTHS)
        model = model_of(**choices)
        model.parameters()["output.bias"][3] = -np.inf  # never written, which is no fault
        assert (model.greedy(sources(), LENGTHS)[0] != 3).all()


def test_room_is_not_set_aside_for_very_many_steps(monkeypatch):
    model = Seq2Seq(ModelConfig(source_size=6, target_size=7, embedding=4, hidden=4), seed=0)
    model.parameters()["output.bias"][END] = 50  # it ends at once
    source, lengths = np.array([[4, 5, 2]]), np.array([3])
    (want,) = beam_search(model, source, lengths, beam=2, max_length=MOST_WHOLE)
    monkeypatch.setattr(Seq2Seq, "beam", None)
    (found,) = beam_search(model, source, lengths, beam=2, max_length=2**31 - 1)
    assert [(h.ids, h.score, h.finished) for h in found] == [(h.ids, h.score, h.finished) for h in want]
