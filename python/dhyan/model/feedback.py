"""Callbacks that the core's decoder loop makes once a step, for attention it has no kernel for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dhyan.attention.read import NO_FEEDBACK, Feedback, PaddedMemory, ReadCache, Sums, read_backward, read_forward
from dhyan.attention.scoring import Parameters, Rows
from dhyan.attention.setting import Setting
from dhyan.attention.windows import Attendable, Window, ranges

from .dropout import Dropout


def _pad(rows: np.ndarray | None, inside: np.ndarray) -> np.ndarray | None:
    """Rows (N_s, W) of all sentences as (B, S, W), zeros where `inside` (B, S) is False."""
    if rows is None:
        return None
    padded = np.zeros((*inside.shape, rows.shape[1]), rows.dtype)
    padded[inside] = rows
    return padded


def padded_memory(values: np.ndarray, keys: np.ndarray | None, lengths: np.ndarray) -> PaddedMemory:
    """The memory of sentences one after another (N_s rows) as padded arrays."""
    inside = np.arange(int(lengths.max(initial=0))) < lengths[:, None]
    padded = _pad(values, inside)
    assert padded is not None
    return PaddedMemory(padded, _pad(keys, inside), lengths)


def _may(setting: Setting, lengths: np.ndarray, S: int, position: np.ndarray) -> Attendable:
    window = setting.window if isinstance(setting.window, Window) else None
    return Attendable(lengths, *ranges(lengths, 1, S, window=window, causal=False, position=position))


class SequenceCallback:
    """One training pass. Sentences leave from the end of the order of the first step: later steps read a prefix."""

    def __init__(
        self, setting: Setting, p: Parameters, memory: PaddedMemory, *, hard: bool, noise: Dropout | None
    ) -> None:
        self.setting, self.p, self.hard, self.noise = setting, p, hard, noise
        self.given = memory
        self.memory = memory  # in the order of the first step
        self.order = np.arange(len(memory.lengths))
        self.steps: list[ReadCache] = []
        self.feedback: Feedback | None = None

    def read(self, sentence: np.ndarray, position: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """state (n, Q) -> context (n, D), weights (n, S), the mean of the heads."""
        n, setting = len(sentence), self.setting
        S = self.given.values.shape[1]
        if self.feedback is None:
            self.order = sentence
            self.memory = self.given.take(sentence)
            self.feedback = Feedback.zeros(setting, n, S, state.dtype)
        noise = None
        if self.noise is not None:
            noise = self.noise.noise(f"alignment {len(self.steps)}", (n, setting.sizes.heads, 1, S))
        memory = self.memory.take(slice(n))
        context, weights, self.feedback, step = read_forward(
            setting,
            self.p,
            memory,
            state[:, None],
            _may(setting, memory.lengths, S, position),
            self.feedback.take(slice(n)),
            hard=self.hard,
            noise=noise,
        )
        assert weights is not None
        self.steps.append(step)
        return context[:, 0], weights[:, :, 0].mean(1)

    def backward(self) -> SequenceCallbackBackward:
        """A backward pass; each call starts one of its own, so that a cache may be used again."""
        return SequenceCallbackBackward(self)


class SequenceCallbackBackward:
    """The steps of a SequenceCallback in reverse order, and the sums of their gradients."""

    def __init__(self, forward: SequenceCallback) -> None:
        self.forward = forward
        self.sums = Sums(forward.setting, forward.p, forward.memory)
        self.dfeedback = NO_FEEDBACK

    def read_backward(self, t: int, dcontext: np.ndarray, dweights: np.ndarray | None) -> np.ndarray:
        """dstate (n, Q) of step t from dcontext (n, D) and dweights (n, S) or None."""
        f, n = self.forward, len(dcontext)
        heads = f.setting.sizes.heads
        if dweights is not None:
            dweights = np.broadcast_to(dweights[:, None, None] / heads, (n, heads, 1, dweights.shape[1]))
        dquery, self.dfeedback = read_backward(
            f.setting,
            f.p,
            f.memory.take(slice(n)),
            dcontext[:, None],
            dweights,
            self.dfeedback.grown(n),
            f.steps[t],
            self.sums,
            slice(n),
        )
        return dquery[:, 0]

    def finish(self, rows: Rows, keys: np.ndarray | None, gradients: Parameters) -> np.ndarray:
        """dmemory (N_s, D); the parameters' gradients are written. rows and keys are those of the forward pass."""
        f = self.forward
        inside = np.arange(f.given.values.shape[1]) < f.given.lengths[:, None]
        self.sums.reorder(f.order, len(inside))
        if keys is not None:
            self.sums.finish(f.setting, f.p, rows, keys, inside)
        for name, array in self.sums.gradients.items():
            gradients[name][...] = array
        return self.sums.values[inside]


@dataclass(frozen=True, eq=False)
class SearchCallback:
    """Reads for the rows of a search: row i reads sentence[i], after the feedback of its own history."""

    setting: Setting
    p: Parameters
    memory: PaddedMemory

    def start(self) -> Feedback:
        """Before the first step, one row a sentence."""
        B, S = self.memory.values.shape[:2]
        return Feedback.zeros(self.setting, B, S, self.memory.values.dtype)

    def after(self, feedback: Feedback) -> SearchStep:
        """The callback of one step of rows with this feedback."""
        return SearchStep(self, feedback)


class SearchStep:
    """One step; `feedback` is replaced by that after it."""

    def __init__(self, search: SearchCallback, feedback: Feedback) -> None:
        self.search, self.feedback = search, feedback

    def read(self, sentence: np.ndarray, position: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """state (N, Q) -> context (N, D), weights (N, S), the mean of the heads."""
        r = self.search
        memory = r.memory.take(sentence)
        may = _may(r.setting, memory.lengths, memory.values.shape[1], position)
        context, weights, self.feedback, _ = read_forward(
            r.setting, r.p, memory, state[:, None], may, self.feedback, hard=r.setting.normalizer.feedback
        )
        assert weights is not None
        return context[:, 0], weights[:, :, 0].mean(1)
