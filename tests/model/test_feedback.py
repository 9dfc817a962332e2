"""The readers: what the core's decoder loop asks of them is what it does itself, for the formulas that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from dhyan import Batch, ModelConfig, Seq2Seq
from dhyan.attention.scoring import Parameters, Rows, Sizes, register_scoring, registry
from dhyan.attention.scorings import Coverage, scoring
from dhyan.attention.setting import Setting
from dhyan.model.dropout import Dropout
from dhyan.model.feedback import SearchCallback, SequenceCallback, padded_memory
from dhyan.search.beam import beam_search
from dhyan.training.optimizer import Adam
from spec import model as reference

# What the core reads by itself, and so does a callback for their twins.
KNOWN: list[dict[str, Any]] = [
    *(dict(attention=name) for name in ("uniform", "none", "dot", "scaled_dot", "general", "concat", "cosine")),
    dict(attention="location", max_source=9),
    dict(attention="additive"),
    dict(attention="additive", window=1, cell="lstm", bidirectional=False),
    dict(attention="additive", normalized=True, temperature=0.7, layers=2, dropout=0.3),
    dict(attention="dot", normalize="sparsemax", window=2, cell="rnn"),
    dict(attention="cosine", normalize="sparsemax", temperature=1.7),
]


@pytest.fixture
def asked(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """The choices, with a scoring of the same formula that the core is not to read by itself."""
    base = type(scoring(request.param["attention"]))
    twin = type("StepByStep", (base,), {"name": "step by step", "step_by_step": True})
    register_scoring(twin)
    yield {**request.param, "attention": twin.name}
    del registry[twin.name]


def models(choices: dict[str, Any], twin: dict[str, Any]) -> tuple[Seq2Seq, Seq2Seq]:
    """The model of these choices and its twin, with the same parameters."""
    sizes: dict[str, Any] = dict(source_size=9, target_size=8, embedding=5, hidden=6, cell="gru", dropout=0.0)
    made = [Seq2Seq(ModelConfig(**sizes | given), seed=2, dtype="float64") for given in (choices, twin)]
    values = reference.random_parameters(made[0].config, np.random.default_rng(0), 0.7)
    for model in made:
        for name, array in model.parameters().items():
            array[...] = values[name]
    return made[0], made[1]


def batch_of(rng: np.random.Generator) -> Batch:
    lengths, steps = np.array([3, 0, 7, 5, 1]), np.array([4, 2, 3, 7, 7])
    alignment = rng.random((5, 6, 7)) / 7
    alignment *= (np.arange(6) < steps[:, None] - 1)[:, :, None] & (np.arange(7) < lengths[:, None])[:, None]
    return Batch(rng.integers(0, 9, (5, 7)), lengths, rng.integers(0, 8, (5, 7)), steps, alignment)


def close(a: np.ndarray, b: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(1.0, float(np.abs(b).max(initial=0))), err_msg=what)


@pytest.mark.parametrize("order", [("bahdanau", True), ("luong", False), ("luong", True)])
@pytest.mark.parametrize("choices, asked", [(c, c) for c in KNOWN], indirect=["asked"])
def test_a_reader_does_what_the_loop_does(
    choices: dict[str, Any], asked: dict[str, Any], order: tuple[str, bool]
) -> None:
    """Loss, gradients, losses on the weights, two updates, forced rows and search, all to rounding."""
    more = dict(order=order[0], input_feeding=order[1])
    inside, outside = models(choices | more, asked | more)
    assert outside.config.setting.step_by_step and not inside.config.setting.step_by_step
    batch = batch_of(np.random.default_rng(1))
    updates = [Adam(model, lr=1e-2) for model in (inside, outside)]
    for step in range(2):
        losses = dict(guided=0.5, coverage=0.5 * step)
        (loss, cache), (other, twin) = (model.forward(batch, step=step, **losses) for model in (inside, outside))
        assert abs(loss - other) <= 1e-12 * loss
        expected, gradients = inside.backward(cache), outside.backward(twin)
        for name in expected:
            close(gradients[name], expected[name], name)
        updates[0].step(expected), updates[1].step(expected)
    for a, b in zip(outside.force(batch), inside.force(batch), strict=True):
        close(a, b, "force")
    source, lengths = batch.source, batch.source_lengths
    for a, b in zip(outside.greedy(source, lengths, 8), inside.greedy(source, lengths, 8), strict=True):
        close(a, b, "greedy")
    results = (beam_search(model, source, lengths, beam=3, max_length=8) for model in (outside, inside))
    for (found,), (known,) in zip(*results, strict=True):
        assert found.ids == known.ids
        close(found.weights, known.weights, "beam")


class Broken(Coverage):
    """Fails where a step is left to count down to."""

    name = "broken"
    left = -1

    def feedback_keys(self, p: Parameters, weights: np.ndarray) -> np.ndarray:
        Broken.left -= 1
        if Broken.left == 0:
            raise LookupError("of the third step")
        return super().feedback_keys(p, weights)


def test_what_a_reader_raises_comes_out_of_the_loop() -> None:
    """And the next call is right."""
    register_scoring(Broken)
    try:
        sizes: dict[str, Any] = dict(source_size=9, target_size=8, embedding=5, hidden=6)
        model, batch = Seq2Seq(ModelConfig(**sizes, attention="broken")), batch_of(np.random.default_rng(1))
        for call in (model.forward, model.force, lambda b: model.greedy(b.source, b.source_lengths, 5)):
            Broken.left = 3
            with pytest.raises(LookupError, match="of the third step"):
                call(batch)
            call(batch)
        expected = Seq2Seq(ModelConfig(**sizes, attention="coverage")).forward(batch)[0]
        assert model.forward(batch)[0] == expected
    finally:
        del registry["broken"]


def setting_of(**changes: Any) -> tuple[Setting, dict[str, np.ndarray]]:
    setting = Setting(**dict(name="coverage", sizes=Sizes(4, 6, 4)) | changes)
    rng = np.random.default_rng(0)
    return setting, {name: rng.normal(size=shape) for name, shape, _ in setting.parameters()}


def test_padded_memory() -> None:
    values, lengths = np.arange(10.0).reshape(5, 2) + 1, np.array([2, 0, 3])
    memory = padded_memory(values, values[:, :1], lengths)
    assert memory.values.shape == (3, 3, 2) and memory.keys is not None and memory.keys.shape == (3, 3, 1)
    np.testing.assert_array_equal(memory.values[0], [[1, 2], [3, 4], [0, 0]])
    np.testing.assert_array_equal(memory.values[2], values[2:])
    assert not memory.values[1].any() and padded_memory(values, None, lengths).keys is None


@pytest.mark.parametrize(
    "changes", [dict(), dict(normalize="monotonic"), dict(name="general", sizes=Sizes(4, 6, 4, heads=2))]
)
def test_a_sequence_is_what_its_sentences_are_alone(changes: dict[str, Any]) -> None:
    """Sentences leave from the end of the order of the first step; gradients come back in the order of the memory."""
    setting, p = setting_of(**changes)
    rng = np.random.default_rng(1)
    lengths, order, steps = np.array([3, 5, 0, 4]), np.array([2, 3, 1, 0]), [4, 3, 3, 1]
    starts = np.append(0, np.cumsum(lengths))
    values = rng.normal(size=(12, 6))
    states = [rng.normal(size=(n, 4)) for n in steps]
    dcontexts = [rng.normal(size=(n, 6)) for n in steps]
    dweights = [rng.normal(size=(n, 5)) for n in steps]

    def run(sentences: np.ndarray, picked: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, dict[str, np.ndarray]]:
        """The read of these sentences, which stand at the places `picked` of the order."""
        inside = np.concatenate([np.arange(starts[b], starts[b + 1]) for b in sorted(sentences)]).astype(np.int64)
        own = lengths[sorted(sentences)]
        rows = Rows(values[inside], np.concatenate([np.arange(n) for n in own]))
        keys = setting.scoring.keys(p, rows, setting.sizes)
        reader = SequenceCallback(setting, p, padded_memory(rows.memory, keys, own), hard=False, noise=None)
        S, out = int(own.max(initial=0)), []
        index = np.searchsorted(sorted(sentences), sentences)
        for t, state in enumerate(states):
            now = picked[picked < len(state)]
            context, weights = reader.read(index[: len(now)], np.full(len(now), t), state[now])
            out += [context, np.pad(weights, ((0, 0), (0, 5 - S)))]
        backward = reader.backward()
        for t in reversed(range(len(states))):
            now = picked[picked < len(states[t])]
            out.append(backward.read_backward(t, dcontexts[t][now], dweights[t][now][:, :S]))
        gradients = {name: np.empty_like(array) for name, array in p.items()}
        return out, backward.finish(rows, keys, gradients), gradients

    together, dmemory, gradients = run(order, np.arange(4))
    sums = {name: np.zeros_like(array) for name, array in p.items()}
    for place, b in enumerate(order):
        alone, dalone, parts = run(np.array([b]), np.array([place]))
        for whole, one in zip(together, alone, strict=True):
            np.testing.assert_array_equal(whole[place : place + 1], one)
        np.testing.assert_array_equal(dmemory[starts[b] : starts[b + 1]], dalone)
        for name in sums:
            sums[name] += parts[name]
    for name in sums:
        close(gradients[name], sums[name], name)


def test_a_step_reader_follows_its_rows() -> None:
    """Two rows of one sentence with different pasts read differently; each is what a sequence would read."""
    setting, p = setting_of()
    rng = np.random.default_rng(2)
    values, lengths, states = rng.normal(size=(5, 6)), np.array([5]), rng.normal(size=(3, 4))
    keys = setting.scoring.keys(p, Rows(values, np.arange(5)), setting.sizes)
    memory = padded_memory(values, keys, lengths)

    def sequence(*rows: int) -> list[np.ndarray]:
        reader = SequenceCallback(setting, p, memory, hard=False, noise=None)
        return [reader.read(np.array([0]), np.array([t]), states[[r]])[0] for t, r in enumerate(rows)]

    start = SearchCallback(setting, p, memory)
    feedback = start.start().take(np.array([0, 0]))
    contexts = []
    for t, rows in enumerate(([0, 1], [2, 2])):
        step = start.after(feedback)
        contexts.append(step.read(np.array([0, 0]), np.full(2, t), states[rows])[0])
        feedback = step.feedback
    for row, steps in enumerate(((0, 2), (1, 2))):
        for mine, theirs in zip(contexts, sequence(*steps), strict=True):
            np.testing.assert_array_equal(mine[row], theirs[0])
    assert (contexts[1][0] != contexts[1][1]).any()


def test_noise_is_that_of_the_step() -> None:
    setting, p = setting_of(normalize="monotonic")
    values = np.random.default_rng(3).normal(size=(4, 6))
    keys = setting.scoring.keys(p, Rows(values, np.arange(4)), setting.sizes)
    memory = padded_memory(values, keys, np.array([4]))

    def read(seed: int, step: int | None) -> np.ndarray:
        noise = Dropout(0.0, seed, step, np.dtype(np.float64))
        reader = SequenceCallback(setting, p, memory, hard=False, noise=noise)
        rows = [reader.read(np.array([0]), np.array([t]), np.ones((1, 4)))[1] for t in range(2)]
        return np.concatenate(rows)

    np.testing.assert_array_equal(read(1, 5), read(1, 5))
    np.testing.assert_array_equal(read(1, None), read(2, None))
    assert len({read(*of).tobytes() for of in ((1, 5), (1, 6), (2, 5), (1, None))}) == 4


def test_a_batch_without_sentences() -> None:
    setting, p = setting_of()
    rows = Rows(np.zeros((0, 6)), np.zeros(0, np.int64))
    keys = setting.scoring.keys(p, rows, setting.sizes)
    reader = SequenceCallback(
        setting, p, padded_memory(rows.memory, keys, np.zeros(0, np.int64)), hard=False, noise=None
    )
    gradients = {name: np.ones_like(array) for name, array in p.items()}
    assert reader.backward().finish(rows, keys, gradients).shape == (0, 6)
    assert not any(array.any() for array in gradients.values())
