"""Several models as one: means of probabilities and weights, the same interface, the same promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from dhyan import Batch, Ensemble, ModelConfig, SearchOptions, Seq2Seq
from dhyan.model.ensemble import _log_mean
from dhyan.search.beam import beam_search
from dhyan.search.constraints import Constraints
from helpers.searching import LENGTHS, constraints_of, same, sources
from spec import model as reference_model
from spec import search as reference

KINDS: list[dict[str, Any]] = [
    dict(cell="gru"),
    dict(cell="lstm", order="luong", hidden=4, attention="dot", layers=2),
    dict(cell="rnn", attention="coverage", embedding=3),
]


def models(dtype: str = "float64", target_size: int = 5) -> list[Seq2Seq]:
    """Three that have nothing in common but their vocabularies."""
    made = []
    for seed, choices in enumerate(KINDS):
        sizes = dict(source_size=8, target_size=target_size, embedding=5, hidden=6, dropout=0.0)
        config = ModelConfig(**sizes | choices)
        model = Seq2Seq(config, dtype=dtype)
        for name, array in reference_model.random_parameters(config, np.random.default_rng(seed), 1.0).items():
            model.parameters()[name][...] = array
        made.append(model)
    return made


def test_a_step_is_the_mean_of_the_models_steps() -> None:
    parts, rows = models(), np.array([2, 0, 0, 3])
    ensemble = Ensemble(parts)
    state, states = ensemble.start(sources(), LENGTHS), [m.start(sources(), LENGTHS) for m in parts]
    tokens, sentence = np.full(4, 1), np.arange(4)
    for _ in range(3):
        log_p, weights, state = ensemble.advance(state, tokens, sentence)
        steps = [m.advance(s, tokens, sentence) for m, s in zip(parts, states, strict=True)]
        np.testing.assert_allclose(np.exp(log_p), np.mean([np.exp(p) for p, _, _ in steps], 0), rtol=1e-13)
        np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-13)
        np.testing.assert_allclose(weights, np.mean([w for _, w, _ in steps], 0), rtol=1e-13)
        state, states, sentence = state.select(rows), [s.select(rows) for _, _, s in steps], sentence[rows]
        tokens = np.arange(4)


def test_forcing_is_what_the_steps_say() -> None:
    ensemble, target = Ensemble(models()), np.array([[1, 4, 3, 2], [1, 2, 0, 0], [1, 3, 3, 2], [1, 0, 2, 0]])
    steps = np.array([4, 2, 4, 3])
    log_p, weights = ensemble.force(Batch(sources(), LENGTHS, target, steps))
    state = ensemble.start(sources(), LENGTHS)
    for t in range(3):
        every, rows, state = ensemble.advance(state, target[:, t], np.arange(4))
        for i in np.flatnonzero(steps - 1 > t):
            np.testing.assert_allclose(log_p[i, t], every[i, target[i, t + 1]], rtol=1e-13)
            np.testing.assert_allclose(weights[i, t], rows[i], rtol=1e-13)
        assert not log_p[steps - 1 <= t, t].any() and not weights[steps - 1 <= t, t].any()


@pytest.mark.parametrize("changes, prefix, phrases", [
    ({}, (), []), (dict(length_form="gnmt", coverage_penalty=0.4), (), []), (dict(no_repeat_ngram=2), (4,), [(0,)]),
])  # fmt: skip
def test_a_wide_beam_is_exhaustive_search(changes: dict[str, Any], prefix: tuple[int, ...], phrases: Any) -> None:
    """Every output scored by each model of the reference, and the probabilities averaged step by step."""
    parts, options, most = models(), SearchOptions.of(beam=400, **changes), 4
    source, lengths, expected = sources()[:1, :4], LENGTHS[:1], []
    for ids, _ in reference_model.exhaustive(parts[0].parameters(), parts[0].config, source, lengths, most):
        if reference.allowed(ids[:-1], options, prefix, phrases):
            forced = [
                reference_model.force(m.parameters(), m.config, source, lengths, np.array([[1, *ids]]), hard=True)
                for m in parts
            ]
            p = np.mean([np.exp(log_p[0, np.arange(len(ids)), ids]) for log_p, _ in forced], 0)
            weights = np.mean([w[0, : len(ids)] for _, w in forced], 0)
            expected.append((reference.score(float(np.log(p).sum()), weights, options), ids[:-1]))
    expected.sort(key=lambda pair: -pair[0])
    (found,) = beam_search(
        Ensemble(parts), source, lengths, options, nbest=len(expected), limits=np.array([most]),
        constraints=constraints_of(prefix, phrases),
    )  # fmt: skip
    assert [h.ids for h in found] == [ids for _, ids in expected]
    np.testing.assert_allclose([h.score for h in found], [score for score, _ in expected], rtol=1e-11)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sentence_does_not_depend_on_its_batch(isa: str, dtype: str, sample: bool) -> None:
    ensemble, source = Ensemble(models(dtype, 37)), sources()
    options = SearchOptions(beam=4, nbest=3, sample=sample, coverage_penalty=0.2)
    together = beam_search(ensemble, source, LENGTHS, options, max_length=8)
    for i in range(4):
        one, length = source[i : i + 1, : LENGTHS[i]], LENGTHS[i : i + 1]
        (alone,) = beam_search(ensemble, one, length, options, max_length=8)
        same(together[i], alone)
        assert together[i][0].weights.dtype == ensemble.dtype == np.dtype(dtype)


def test_an_ensemble_of_one_is_the_model() -> None:
    for model in models():
        plain, alone = (beam_search(m, sources(), LENGTHS, beam=3, nbest=3) for m in (model, Ensemble([model])))
        for a, b in zip(plain, alone, strict=True):
            same(a, b)


def test_the_mean_of_extremes() -> None:
    tiny = np.float32(-200)
    rows = [
        np.array([[0.0, -np.inf, -np.inf, tiny]], np.float32),
        np.array([[-np.inf, 0.0, -np.inf, tiny]], np.float32),
    ]
    np.testing.assert_allclose(_log_mean(rows), [[np.log(0.5), np.log(0.5), -np.inf, tiny]], rtol=1e-6)
    assert np.isnan(_log_mean([np.array([[np.nan]]), np.array([[0.0]])]))


def test_models_that_do_not_belong_together() -> None:
    one, *_ = models()
    with pytest.raises(ValueError, match="got no model, expected at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="target_size of model 2 is 6, expected 5 of the first"):
        Ensemble([one, models(target_size=6)[1]])
    with pytest.raises(ValueError, match="model 3 is float32, expected float64 of the first"):
        Ensemble([one, one, models("float32")[0]])
    assert Constraints.of() is None and Ensemble([one, one]).config is one.config
