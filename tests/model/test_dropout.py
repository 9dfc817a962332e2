"""Dropout masks: a function of (seed, step, site) and of the position, with the promised rate and mean."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from dhyan.model.dropout import Dropout, apply

N = 100_000


def mask(rate: float = 0.3, seed: int = 1, step: int = 5, site: str = "readout", n: int = N) -> np.ndarray:
    made = Dropout(rate, seed, step, np.dtype(np.float32)).mask(site, (n,))
    assert made is not None
    return made


def test_no_mask_without_a_step_or_a_rate() -> None:
    assert Dropout(0.5, 1, None, np.dtype(np.float32)).mask("readout", (3,)) is None
    assert Dropout(0.0, 1, 5, np.dtype(np.float32)).mask("readout", (3,)) is None
    x = np.arange(3.0)
    assert apply(x, None) is x
    assert apply(x, np.array([0.0, 2.0, 2.0])).tolist() == [0.0, 2.0, 4.0]


def test_the_same_seed_step_and_site_give_the_same_mask(isa: str, threads: None) -> None:
    """Whatever was drawn before: nothing has a state."""
    first = mask()
    mask(step=6), mask(site="embedding")
    assert mask().tobytes() == first.tobytes()


def test_any_of_the_three_changes_the_mask() -> None:
    """Independent masks of keep rate .7 agree in .7^2 + .3^2 = .58 of the places, within 5 standard deviations."""
    masks = [mask(), mask(seed=2), mask(step=6), mask(site="embedding"), mask(seed=5, step=1), mask(seed=15, step=0)]
    bound = 5 * (0.58 * 0.42 / N) ** 0.5
    for one, other in itertools.combinations(masks, 2):
        assert abs(float(((one > 0) == (other > 0)).mean()) - 0.58) < bound


def test_seed_and_step_do_not_run_together() -> None:
    assert mask(seed=1, step=23).tobytes() != mask(seed=12, step=3).tobytes()


@pytest.mark.parametrize("rate", [0.01, 0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rate_values_and_mean(rate: float, dtype: type) -> None:
    made = Dropout(rate, 3, 1, np.dtype(dtype)).mask("encoder.0", (N // 100, 100))
    assert made is not None and made.shape == (N // 100, 100) and made.dtype == dtype
    kept = made[made > 0]
    rounding = np.finfo(dtype).eps * (1 + 1 / (1 - rate))  # of the value, and of the rate before 1 - rate magnifies it
    assert np.abs(kept.astype(float) * (1 - rate) - 1).max() <= rounding
    assert len(np.unique(made)) == 2 and made.min() == 0
    deviation = (rate * (1 - rate) / N) ** 0.5
    assert abs(1 - len(kept) / N - rate) < 5 * deviation
    assert abs(float(made.mean(dtype=np.float64)) - 1) < 5 * deviation / (1 - rate)  # x * mask keeps the mean of x


def test_places_are_independent_of_their_neighbours() -> None:
    """Of a row of N, neighbours 1, 2, 4, ... apart are kept together .7^2 of the time."""
    kept = mask() > 0
    for lag in (1, 2, 4, 8, 16, 64, 256):
        together = float((kept[lag:] & kept[:-lag]).mean())
        assert abs(together - 0.49) < 6 * (0.49 * 0.51 / N) ** 0.5, lag


def test_a_place_is_a_function_of_its_position() -> None:
    """So a longer batch begins with the mask of a shorter one, and both dtypes drop the same places."""
    assert mask(n=1000).tobytes() == mask()[:1000].tobytes()
    double = Dropout(0.3, 1, 5, np.dtype(np.float64)).mask("readout", (N,))
    assert double is not None and ((double > 0) == (mask() > 0)).all()
    shaped = Dropout(0.3, 1, 5, np.dtype(np.float32)).mask("readout", (10, 20, 5))
    assert shaped is not None and shaped.tobytes() == mask(n=1000).tobytes()


def test_empty_is_a_size() -> None:
    dropout = Dropout(0.3, 1, 5, np.dtype(np.float32))
    for made in (dropout.mask("readout", (0, 4)), dropout.noise("alignment 0", (0, 4))):
        assert made is not None and made.shape == (0, 4) and made.dtype == np.float32


# Noise: what monotonic attention adds to its scores in training, whatever the rate.


def noise(seed: int = 1, step: int = 5, site: str = "alignment 0", dtype: str = "float64") -> np.ndarray:
    made = Dropout(0.0, seed, step, np.dtype(dtype)).noise(site, (N // 100, 100))
    assert made is not None and made.shape == (N // 100, 100) and made.dtype == dtype
    return made


def test_no_noise_without_a_step() -> None:
    assert Dropout(0.5, 1, None, np.dtype(np.float32)).noise("alignment 0", (3,)) is None


def test_noise_is_a_function_of_seed_step_and_site() -> None:
    first = noise()
    noise(step=6)
    assert noise().tobytes() == first.tobytes()
    np.testing.assert_array_equal(noise(dtype="float32"), first.astype(np.float32))
    for other in (noise(seed=2), noise(step=6), noise(site="alignment 1"), noise(seed=5, step=1)):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 5 * N**-0.5


def test_noise_is_standard_normal() -> None:
    """The first four moments, within 5 of their standard deviations, and independence of the neighbour."""
    x = noise().ravel()
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 5 * (variance / N) ** 0.5, power
    assert abs((x[1:] * x[:-1]).mean()) < 5 * N**-0.5
    assert 3.5 < np.abs(x).max() < 6.5
