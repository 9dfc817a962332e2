"""The mean of a training run's weights over its last epochs: checkpoint averaging while the run goes on."""

from __future__ import annotations

import numpy as np

_BLOCK = 1 << 16  # elements: the float64 sums of a block stay in the cache, and cost no second copy of the weights


class RecentWeights:
    """The flat weights at the ends of the last N - 1 epochs, to be averaged with those of now.

    mean = (w[e - N + 1] + ... + w[e]) / N, w[e] the weights after epoch e; while fewer epochs are over, the mean of all
    there are. The sum is made in float64, the oldest first, and rounded once. Weights close to the end of a run lie
    around a minimum that their mean is nearer to (Junczys-Dowmunt et al. 2016, Vaswani et al. 2017, who average the
    last checkpoints of a finished run). N = 0 and N = 1: nothing is kept, the mean is the weights themselves.

    Memory: N - 1 times the parameters here, and once more for the mean, which the caller owns.
    """

    def __init__(self, count: int) -> None:
        self._slots = max(count - 1, 0)
        self._past: dict[int, np.ndarray] = {}  # epoch, from 1 -> weights, the oldest first

    def __bool__(self) -> bool:
        """Whether the mean is anything but the weights of now."""
        return self._slots > 0

    def mean(self, now: np.ndarray, out: np.ndarray) -> None:
        """Write into `out` the mean of what is kept and `now`, all flat and of one size."""
        every = [*self._past.values(), now]
        for start in range(0, now.size, _BLOCK):
            block = slice(start, start + _BLOCK)
            out[block] = np.sum([weights[block] for weights in every], axis=0, dtype=np.float64) / len(every)

    def keep(self, epoch: int, now: np.ndarray) -> None:
        """Remember a copy of the weights at the end of this epoch, and forget what the next mean does not need."""
        if self:
            self._past[epoch] = now.copy()
            self._past.pop(epoch - self._slots, None)

    def newest(self) -> dict[str, dict[str, np.ndarray]]:
        """What the last `keep` changed: file name -> {epoch: weights}."""
        return {self.file(epoch): {str(epoch): self._past[epoch]} for epoch in list(self._past)[-1:]}

    def epochs(self, over: int) -> range:
        """Those whose weights are kept after so many epochs, the oldest first."""
        return range(max(1, over - self._slots + 1), over + 1)

    def file(self, epoch: int) -> str:
        """Where they are stored: one of N - 1 files that take turns, so that an epoch writes one of them."""
        return f"recent-{epoch % self._slots}.safetensors"
