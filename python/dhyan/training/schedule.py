"""Schedules of learning rate and scheduled sampling: functions of the step alone, so that a resumed run agrees."""

from __future__ import annotations

import math

from .config import TrainConfig


def lr_factor(options: TrainConfig, step: int, batches: int) -> float:
    """What the learning rate is multiplied with at this update, counted from 1; `batches` updates are an epoch.

    warm-up        min(1, step / warmup), a factor of every schedule; 1 where warmup is 0
    inverse_sqrt   times sqrt(w / max(w, step)), w = max(1, warmup): highest at the end of the warm-up, then
                   falling with 1 / sqrt(step) (Vaswani et al. 2017)
    cosine         times (1 + cos(pi done)) / 2, done = the share of all updates made before this one
                   (Loshchilov & Hutter 2017), at least 1e-3
    plateau        no more: validation lowers the rate itself
    """
    factor = min(1.0, step / options.warmup) if options.warmup else 1.0
    if options.schedule == "inverse_sqrt":
        start = max(1, options.warmup)
        factor *= math.sqrt(start / max(start, step))
    if options.schedule == "cosine":
        done = min(1.0, (step - 1) / max(1, options.updates or options.epochs * batches))
        factor *= max(0.5 * (1 + math.cos(math.pi * done)), 1e-3)
    return factor


def sampling_rate(options: TrainConfig, step: int) -> float:
    """The share of target tokens sampled at this update, counted from 1: rising evenly over `sampling_ramp` updates.

    That is Bengio et al. 2015's linear decay of the share that is read from the reference.
    """
    ramp = options.sampling_ramp
    return options.scheduled_sampling * (min(1.0, step / ramp) if ramp else 1.0)
