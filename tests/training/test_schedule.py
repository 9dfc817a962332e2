"""Schedules: each against its formula and its picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from dhyan import TrainConfig
from dhyan.training.config import SCHEDULES
from dhyan.training.schedule import lr_factor, sampling_rate


def factors(steps: int = 100, batches: int = 10, **options: object) -> np.ndarray:
    made = TrainConfig(**({"epochs": 10} | options))
    return np.array([lr_factor(made, step, batches) for step in range(1, steps + 1)])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warm_up_rises_to_the_learning_rate(schedule: str) -> None:
    got = factors(schedule=schedule, warmup=20)
    without = factors(schedule=schedule) if schedule != "inverse_sqrt" else np.ones(100)
    np.testing.assert_allclose(got[:20] / without[:20], np.arange(1, 21) / 20, rtol=1e-14)
    assert got.max() <= 1 and (np.diff(got[:20]) > 0).all()


def test_plateau_and_constant_do_nothing_more() -> None:
    for schedule in ("plateau", "constant"):
        assert factors(schedule=schedule).tolist() == [1.0] * 100


def test_cosine_falls_to_nothing_over_all_updates() -> None:
    got = factors(schedule="cosine")
    np.testing.assert_allclose(got[:100], np.maximum((1 + np.cos(np.pi * np.arange(100) / 100)) / 2, 1e-3), rtol=1e-12)
    assert got[0] == 1 and got[50] == pytest.approx(0.5) and got[99] == 1e-3
    assert factors(schedule="cosine", updates=50)[25] == pytest.approx(0.5)
    assert factors(schedule="cosine", updates=50)[70] == 1e-3  # a run of more epochs than updates never stands still


def test_inverse_square_root_is_that_of_vaswani() -> None:
    """Their min(step^-0.5, step warmup^-1.5) is highest at the end of the warm-up, and here that is 1."""
    steps = np.arange(1, 101)
    theirs = np.minimum(steps**-0.5, steps * 16**-1.5)
    np.testing.assert_allclose(factors(schedule="inverse_sqrt", warmup=16), theirs / theirs.max(), rtol=1e-14)
    np.testing.assert_allclose(factors(schedule="inverse_sqrt"), steps**-0.5, rtol=1e-14)
    assert factors(schedule="inverse_sqrt", warmup=16)[63] == pytest.approx(0.5)


def test_a_factor_is_a_function_of_the_step_alone() -> None:
    for schedule in SCHEDULES:
        options = TrainConfig(schedule=schedule, warmup=7)
        forward = [lr_factor(options, step, 5) for step in range(1, 50)]
        assert [lr_factor(options, step, 5) for step in range(49, 0, -1)] == forward[::-1]
        assert all(0 < factor <= 1 and math.isfinite(factor) for factor in forward)


def test_sampling_rises_evenly_to_its_share() -> None:
    options = TrainConfig(scheduled_sampling=0.5, sampling_ramp=10)
    np.testing.assert_allclose([sampling_rate(options, step) for step in range(1, 11)], np.arange(1, 11) / 20)
    assert sampling_rate(options, 1000) == 0.5 and sampling_rate(TrainConfig(scheduled_sampling=0.5), 1) == 0.5
    assert sampling_rate(TrainConfig(), 1) == 0
