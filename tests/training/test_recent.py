"""The mean of the weights after the last epochs: its arithmetic, and training that validates and keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import Seq2Seq
from dhyan.training.averaging import RecentWeights
from dhyan.training.checkpoint import read_log
from dhyan.training.loop import Report
from helpers.training import BATCHES, VALID, after, digests, interrupt, train
from safetensors.numpy import load_file

EPOCHS = 6


# ------------------------------------------------------------------------------------------------ arithmetic


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
def test_the_mean_of_the_last_epochs(count: int, dtype: str) -> None:
    rng = np.random.default_rng(count)
    every = list(rng.normal(0, 100, (5, (1 << 16) + 7)).astype(dtype))  # more than one block
    recent, out = RecentWeights(count), np.empty_like(every[0])
    for epoch, now in enumerate(every, 1):
        recent.mean(now, out)
        last = [w.astype(np.float64) for w in every[max(0, epoch - max(count, 1)) : epoch]]
        np.testing.assert_array_equal(out, (sum(last) / len(last)).astype(dtype))
        recent.keep(epoch, now)
        assert len(recent._past) <= max(count - 1, 0)
    assert bool(recent) == (count > 1)


def test_what_is_kept_is_a_copy() -> None:
    recent, now, out = RecentWeights(2), np.ones(3), np.empty(3)
    recent.keep(1, now)
    now[:] = 3
    recent.mean(now, out)
    np.testing.assert_array_equal(out, [2, 2, 2])


# ------------------------------------------------------------------------------------------------ training


def last_weights(folder: Path) -> dict[str, np.ndarray]:
    arrays = load_file(folder / "training.safetensors")
    return {name.removeprefix("model/"): array for name, array in arrays.items() if name.startswith("model/")}


def by_hand(ends: list[dict[str, np.ndarray]], count: int) -> dict[str, np.ndarray]:
    """The mean of the last of these, in float64."""
    last = ends[-count:]
    return {name: (sum(w[name].astype(np.float64) for w in last) / len(last)).astype(np.float32) for name in last[0]}


@pytest.mark.parametrize("count", [2, 3, 10])
def test_every_validation_measures_the_mean(tmp_path: Path, count: int) -> None:
    """Against the weights that a training without averaging saves after each epoch: its steps are the same."""
    ends: list[dict[str, np.ndarray]] = []
    options: dict[str, Any] = dict(epochs=EPOCHS, schedule="constant")
    train(tmp_path / "plain", on_report=lambda *_: ends.append(last_weights(tmp_path / "plain")), **options)
    reports: list[Report] = []
    best: list[dict[str, np.ndarray]] = []

    def check(report: Report, model: Seq2Seq) -> None:
        mean = by_hand(ends[: report.epoch], count)
        for name, array in model.parameters().items():
            np.testing.assert_array_equal(array, mean[name], err_msg=f"{name} after epoch {report.epoch}")
        reports.append(report)
        if report.best:
            best.append(mean)
        for name, array in last_weights(tmp_path / "mean").items():  # training goes on from the weights themselves
            np.testing.assert_array_equal(array, ends[report.epoch - 1][name])

    model = train(tmp_path / "mean", average=count, on_report=check, **options)
    assert len(reports) == EPOCHS and best
    for name, array in load_file(tmp_path / "mean" / "model.safetensors").items():
        np.testing.assert_array_equal(array, best[-1][name])
        np.testing.assert_array_equal(array, model.parameters()[name])
    chosen = [r for r in reports if r.best][-1]  # the figures are those of the mean
    outputs = dhyan.load(tmp_path / "mean").translate([p.source for p in VALID], beam=1)
    assert np.mean([output.text == p.target for output, p in zip(outputs, VALID, strict=True)]) == chosen.exact_match


@pytest.mark.parametrize("count", [0, 1])
def test_a_mean_of_one_is_off(tmp_path: Path, count: int) -> None:
    train(tmp_path / "plain")
    train(tmp_path / "one", average=count)
    assert digests(tmp_path / "one") == digests(tmp_path / "plain")
    assert not any(name.startswith("recent/") for name in load_file(tmp_path / "one" / "training.safetensors"))


@pytest.mark.parametrize("stops", [[1], [BATCHES], [2 * BATCHES + 1], [3, BATCHES, 1, BATCHES, 2], [4] * 6])
@pytest.mark.parametrize("count", [2, 4])
def test_stop_and_resume_is_never_stopping(tmp_path: Path, count: int, stops: list[int]) -> None:
    options: dict[str, Any] = dict(average=count, epochs=EPOCHS)
    train(tmp_path / "whole", **options)
    for number, steps in enumerate(stops):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", resume=number > 0, on_step=after(steps, interrupt), **options)
    train(tmp_path / "parts", resume=True, **options)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    log = [read_log(tmp_path / name) for name in ("whole", "parts")]
    assert [(row["valid_loss"], row["best"]) for row in log[0]] == [(row["valid_loss"], row["best"]) for row in log[1]]


def test_stop_while_validating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is saved then are the weights that learn, not the mean that is being measured."""
    options: dict[str, Any] = dict(average=3, epochs=4)
    train(tmp_path / "whole", **options)
    greedy, calls = Seq2Seq.greedy, []

    def interrupted(*arguments: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            interrupt()
        return greedy(*arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Seq2Seq, "greedy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "parts", **options)
    train(tmp_path / "parts", resume=True, **options)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_a_limit_of_updates_inside_an_epoch_leaves_no_trace(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(average=3, epochs=4, schedule="constant")
    train(tmp_path / "whole", **options)
    train(tmp_path / "parts", updates=2 * BATCHES + 2, **options)
    train(tmp_path / "parts", resume=True, **options)
    for part in ("model", "optimizer", "recent"):
        name = f"training.safetensors: {part}"
        assert digests(tmp_path / "parts")[name] == digests(tmp_path / "whole")[name]


def test_resume_needs_the_same_mean(tmp_path: Path) -> None:
    train(tmp_path, average=3)
    with pytest.raises(dhyan.CheckpointError, match="cannot resume, average was 3 and is now 4"):
        train(tmp_path, average=4, resume=True, epochs=5)
    with pytest.raises(dhyan.CheckpointError, match="cannot resume, average was 3 and is now 0"):
        train(tmp_path, resume=True)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    train(tmp_path, average=3)
    path = tmp_path / "training.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(dhyan.CheckpointError, match=r"training\.safetensors: has \d+ bytes, expected"):
        train(tmp_path, average=3, resume=True, epochs=5)
    assert dhyan.load(tmp_path).translate("a b").tokens is not None  # translating needs none of it
