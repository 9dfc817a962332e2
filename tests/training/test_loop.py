"""Training: the same bits from the same seed, stop and resume, interrupts, and numbers that are not."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import ModelConfig, NumericError, Seq2Seq, TrainConfig, strict_json
from dhyan.text.pairs import Pair
from dhyan.training import loop
from dhyan.training.checkpoint import metadata_from_bytes, read_log, save_files, tensors_from_bytes, tensors_to_bytes
from dhyan.training.config import SELECTIONS
from dhyan.training.folder import load_progress, load_tables
from dhyan.training.loop import SELECT, Report
from dhyan.training.schedule import lr_factor
from helpers.training import BATCHES, CONFIG, OPTIONS, TRAIN, VALID, WEIGHTS, after, digests, interrupt, train
from safetensors.numpy import load_file


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("never-stopped")
    train(folder)
    return digests(folder)


# ------------------------------------------------------------------------------------------------ determinism


def test_two_runs_give_the_same_bytes(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    train(tmp_path)
    assert digests(tmp_path) == never_stopped


def test_threads_change_no_byte(threads: None, tmp_path: Path, never_stopped: dict[str, str]) -> None:
    dhyan.set_num_threads(3)
    train(tmp_path)
    assert digests(tmp_path) == never_stopped


def test_another_seed_gives_other_bytes(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    train(tmp_path, seed=6)
    assert not set(digests(tmp_path).values()) & set(never_stopped.values())


def test_the_returned_model_is_the_best_one(tmp_path: Path) -> None:
    model = train(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored.keys() == model.parameters().keys()
    for name, array in model.parameters().items():
        np.testing.assert_array_equal(array, stored[name])


# ------------------------------------------------------------------------------------------------ stop and resume


@pytest.mark.parametrize("stop", [1, 3, BATCHES - 1, BATCHES, BATCHES + 1, 2 * BATCHES, 3 * BATCHES])
def test_stop_at_a_step_and_resume_is_never_stopping(tmp_path: Path, stop: int, never_stopped: dict[str, str]) -> None:
    with pytest.raises(KeyboardInterrupt, match=rf"step {stop}\b.*--resume"):
        train(tmp_path, on_step=after(stop, interrupt))
    train(tmp_path, resume=True)
    assert digests(tmp_path) == never_stopped


def test_stop_many_times(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    resume = False
    for _ in range(8):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, resume=resume, on_step=after(2, interrupt))
        resume = True
    train(tmp_path, resume=True)
    assert digests(tmp_path) == never_stopped


def test_stop_while_validating(tmp_path: Path, never_stopped: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = Seq2Seq.greedy

    def interrupted(*arguments: Any, **options: Any) -> Any:
        interrupt()
        return greedy(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Seq2Seq, "greedy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path)
    train(tmp_path, resume=True)
    assert digests(tmp_path) == never_stopped


@pytest.mark.parametrize("updates", [2, BATCHES, BATCHES + 3])
def test_a_limit_of_updates_then_resume_is_never_stopping(
    tmp_path: Path, updates: int, never_stopped: dict[str, str]
) -> None:
    steps: list[int] = []
    train(tmp_path, updates=updates, on_step=lambda *_: steps.append(1))
    assert len(steps) == updates
    train(tmp_path, resume=True)
    name = "training.safetensors: model"
    assert digests(tmp_path)[name] == never_stopped[name]


@pytest.mark.parametrize("schedule, optimizer", [
    ("cosine", "adamw"), ("plateau", "adam"), ("constant", "sgd"), ("inverse_sqrt", "adamw"),
])  # fmt: skip
def test_schedules_and_optimizers_survive_a_stop(tmp_path: Path, schedule: str, optimizer: str) -> None:
    options: dict[str, Any] = dict(
        schedule=schedule, optimizer=optimizer, weight_decay=0.01, warmup=4, patience=2, epochs=5
    )
    train(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", **options, on_step=after(BATCHES + 2, interrupt))
    train(tmp_path / "parts", resume=True, **options)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_the_state_is_strict_json(tmp_path: Path) -> None:
    """Before the first validation the best error is infinite, which JSON does not have."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, on_step=after(2, interrupt))
    data = (tmp_path / "training.safetensors").read_bytes()
    state = metadata_from_bytes(data)  # which refuses other JSON
    assert state["best_error"] is None and state["step"] == 2


@pytest.mark.parametrize("wrong", [{"config": {"hidden": 8}}, {"options": {"batch": 4}}, {"data": "word"}])
def test_wrong_types_are_named(tmp_path: Path, wrong: dict[str, Any]) -> None:
    (name,) = wrong
    expected = {"config": "ModelConfig", "options": "TrainConfig", "data": "DataConfig"}[name]
    kind = f"train: {name} is of type {type(wrong[name]).__name__}, expected {expected}"
    with pytest.raises(TypeError, match=kind):
        dhyan.train(**{"config": CONFIG, "train": TRAIN, "valid": VALID, "out": tmp_path / "m"} | wrong)
    assert not (tmp_path / "m").exists()


def test_resume_needs_the_same_model_and_data(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    with pytest.raises(dhyan.CheckpointError, match="hidden was 8 and is now 9"):
        dhyan.train(
            dataclasses.replace(CONFIG, hidden=9), TRAIN, VALID, out=tmp_path,
            options=TrainConfig(**OPTIONS), resume=True,
        )  # fmt: skip
    other = [*TRAIN, Pair("f", "f")]
    with pytest.raises(dhyan.CheckpointError, match=r"vocab|source_size"):
        dhyan.train(CONFIG, other, VALID, out=tmp_path, options=TrainConfig(**OPTIONS), resume=True)
    with pytest.raises(dhyan.CheckpointError):
        train(tmp_path / "nothing-here", resume=True)


# ------------------------------------------------------------------------------------------------ learning


def test_a_run_that_dies_early_leaves_no_mixture_of_two_models(tmp_path: Path) -> None:
    """New vocabularies beside the weights of an older run of equal sizes would load, and write other words."""

    def die() -> None:
        raise RuntimeError("died")

    config = ModelConfig(source_size=4, target_size=4, embedding=4, hidden=4)
    options = TrainConfig(epochs=1, batch=8)
    old = [Pair(" ".join("abc"[i % 3 :]), "a b") for i in range(9)]
    new = [Pair(p.source.replace("a", "z"), p.target) for p in old]
    folder = tmp_path / "m"
    dhyan.train(config, old, old, folder, options=options)
    before = digests(folder)
    for examples in (old, new):  # the older run's own model and words fit: it stays
        with pytest.raises(RuntimeError, match="died"):
            dhyan.train(config, examples, examples, folder, options=options, overwrite=True, on_step=after(1, die))
        if examples is old:
            assert digests(folder) == before and dhyan.load(folder).translate("a").tokens is not None
    with pytest.raises(dhyan.CheckpointError, match=r"does not list .model.safetensors"):
        dhyan.load(folder)
    with pytest.raises(dhyan.CheckpointError, match=r"does not list 'training"):
        dhyan.train(config, new, new, folder, options=options, resume=True)
    dhyan.train(config, new, new, folder, options=options)
    assert "z" in dhyan.load(folder).source_vocab


def test_it_learns_and_says_so(tmp_path: Path) -> None:
    reports: list[Report] = []
    dhyan.train(
        dataclasses.replace(CONFIG, embedding=16, hidden=24, dropout=0.0), TRAIN, VALID, out=tmp_path,
        options=TrainConfig(batch=4, epochs=20, lr=0.01, label_smoothing=0.0),
        on_report=lambda report, model: reports.append(report),
    )  # fmt: skip
    assert [r.epoch for r in reports] == list(range(1, 21)) and reports[-1].step == 20 * BATCHES
    assert reports[-1].train_loss < 0.3 * reports[0].train_loss
    assert min(r.token_error_rate for r in reports) < 0.7 * reports[0].token_error_rate
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [r.step for r in reports]


def test_patience_ends_a_run_without_progress(tmp_path: Path) -> None:
    reports: list[Report] = []
    train(tmp_path, epochs=50, patience=3, lr=1e-12, on_report=lambda report, model: reports.append(report))
    since_best = len(reports) - max(i for i, r in enumerate(reports) if r.best) - 1
    assert since_best == 3 and len(reports) < 50


# ------------------------------------------------------------------------------------------------ what resuming sees


def steps_of(folder: Path, **options: Any) -> int:
    """The updates that a resumed run makes."""
    steps: list[int] = []
    train(folder, resume=True, on_step=lambda *_: steps.append(1), **options)
    return len(steps)


def test_a_resumed_run_does_not_spin_where_the_epoch_has_fewer_batches(tmp_path: Path) -> None:
    twice = ([*TRAIN, *TRAIN], VALID)  # the vocabularies are the same
    train(tmp_path, updates=8, data=twice)
    with pytest.raises(dhyan.CheckpointError, match=r"cannot resume inside an epoch, batch was 4 and is now 20"):
        train(tmp_path, resume=True, batch=20, data=twice)
    with pytest.raises(dhyan.CheckpointError, match=r"the training data are not those of the stopped run"):
        train(tmp_path, resume=True)
    # A run of format version 1 does not know its data: it is refused by the batches that it has behind it.
    state = load_progress(tmp_path)
    state.run = {}
    tensors = tensors_from_bytes((tmp_path / "training.safetensors").read_bytes())
    save_files(tmp_path, {"training.safetensors": tensors_to_bytes(tensors, strict_json.plain(state.to_dict()))})
    with pytest.raises(dhyan.CheckpointError, match=r"8 batches of epoch 1 are done, which now has 6: other"):
        train(tmp_path, resume=True)


@pytest.mark.parametrize("which", ["training", "validation"])
def test_other_data_of_the_same_words_are_not_resumed(tmp_path: Path, which: str) -> None:
    train(tmp_path, epochs=1)
    data = (TRAIN[::-1], VALID) if which == "training" else (TRAIN, VALID[::-1])
    with pytest.raises(dhyan.CheckpointError, match=f"cannot resume, the {which} data are not those of the stopped"):
        train(tmp_path, resume=True, data=data)
    with pytest.raises(dhyan.CheckpointError, match="cannot resume, seed was 5 and is now 6"):
        train(tmp_path, resume=True, seed=6)


def test_what_is_changed_on_resume_is_kept(tmp_path: Path) -> None:
    train(tmp_path, updates=2)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, resume=True, epochs=7, lr=0.02, patience=9, on_step=after(1, interrupt))
    kept = load_tables(tmp_path)[1]
    assert (kept.updates, kept.epochs, kept.lr, kept.patience) == (0, 7, 0.02, 9)
    assert load_progress(tmp_path).lr == 0.02


def test_another_batch_goes_on_between_epochs(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    assert steps_of(tmp_path, epochs=2, batch=11) == 2


def test_a_folder_that_is_gone_ends_the_run_with_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    gone = f"{folder}: the folder was removed or moved during training; not saved"

    def remove() -> None:
        shutil.rmtree(folder)

    def move() -> None:
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        interrupt()

    for act in (remove, move):
        with pytest.raises(dhyan.CheckpointError) as caught:
            train(folder, on_step=after(1, act))
        assert str(caught.value) == gone
        assert not folder.exists() or not list(folder.iterdir())


def test_the_line_that_a_kill_kept_out_of_the_log_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(*_: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr("dhyan.training.checkpoint.append_log", kill)
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path)
    assert read_log(tmp_path) == []
    train(tmp_path, resume=True)
    train(tmp_path, resume=True)
    assert [row["epoch"] for row in read_log(tmp_path)] == [1, 2, 3]


def test_resuming_a_finished_run_finishes_a_save_that_was_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Any, target: Any) -> None:
        if Path(target).name == "training.safetensors" and load_progress(tmp_path).epoch == 3:
            raise RuntimeError("killed")
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with pytest.raises(RuntimeError, match="killed"):
            train(tmp_path)
    assert list(tmp_path.glob(".*.tmp"))
    train(tmp_path, resume=True)
    assert not list(tmp_path.glob(".*.tmp"))
    state = metadata_from_bytes((tmp_path / "training.safetensors").read_bytes())
    assert state["epoch"] == 3


def test_the_file_of_the_save_before_is_a_whole_state(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    """A partial backup put back: weights, moments and progress cannot be of two saves."""
    train(tmp_path, epochs=1)
    before = (tmp_path / "training.safetensors").read_bytes()
    train(tmp_path, resume=True, epochs=2)
    (tmp_path / "training.safetensors").write_bytes(before)
    train(tmp_path, resume=True)
    assert digests(tmp_path) == never_stopped


def test_a_second_signal_loses_no_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop.save_training

    def interrupted(*arguments: Any) -> None:
        interrupt()
        save(*arguments)
        interrupt()

    with pytest.raises(KeyboardInterrupt, match="saved after step 3"), monkeypatch.context() as patch:
        patch.setattr(loop, "save_training", interrupted)
        train(tmp_path, on_step=after(3, interrupt))
    assert load_progress(tmp_path).step == 3


def test_a_folder_that_holds_a_model_is_not_written_over_unasked(tmp_path: Path) -> None:
    train(tmp_path, epochs=1)
    before = digests(tmp_path)
    with pytest.raises(dhyan.DataError, match=r"holds a trained model: --resume .* --overwrite"):
        train(tmp_path, epochs=1)
    assert digests(tmp_path) == before
    train(tmp_path, epochs=1, overwrite=True, seed=8)
    assert digests(tmp_path) != before


def test_validation_data_without_any_token_are_refused_before_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(dhyan.DataError, match="every target of the validation data is empty"):
        train(tmp_path, data=(TRAIN, [Pair("a", "")]))


# ------------------------------------------------------------------------------------------------ the best weights


def test_every_rule_has_a_name() -> None:
    assert tuple(SELECT) == SELECTIONS


@pytest.mark.parametrize("name", SELECTIONS)
def test_what_is_kept_is_the_best_by_the_rule(tmp_path: Path, name: str) -> None:
    reports: list[Report] = []
    train(
        tmp_path, epochs=8, select=name, lr=0.03, label_smoothing=0.0,
        on_report=lambda report, model: reports.append(report),
    )  # fmt: skip
    measures = {
        "error": lambda r: 0.5 * (min(1.0, r.token_error_rate) + 1 - r.exact_match),
        "loss": lambda r: r.valid_loss,
        "exact": lambda r: 1 - r.exact_match,
    }
    if name in measures:
        ranks = [(measures[name](r), r.valid_loss) for r in reports]
        assert [r.best for r in reports] == [rank < min(ranks[:i], default=(np.inf,)) for i, rank in enumerate(ranks)]
    assert load_tables(tmp_path)[1].select == name and any(r.best for r in reports)
    progress = load_progress(tmp_path)
    if name in ("bleu", "chrf"):
        outputs = [t.text for t in dhyan.load(tmp_path).translate([p.source for p in VALID], beam=1)]
        score = getattr(dhyan.metrics, name)(outputs, [p.target for p in VALID])
        assert progress.best_error == pytest.approx(-score.score)


def test_a_model_that_writes_too_much_is_no_worse_than_one_that_writes_nothing() -> None:
    report = Report(
        epoch=1, step=1, train_loss=1.0, valid_loss=2.0, token_error_rate=1.0, exact_match=0.0, lr=0.1, seconds=1.0,
        tokens_per_second=1.0, best=False,
    )  # fmt: skip
    wordy = dataclasses.replace(report, token_error_rate=3.8, valid_loss=1.0)
    assert SELECT["error"](wordy, [], []) == SELECT["error"](report, [], []) == 1.0
    assert SELECT["error"](dataclasses.replace(report, token_error_rate=0.5), [], []) == 0.75


def test_the_report_shows_the_rate_that_was_used(tmp_path: Path) -> None:
    reports: list[Report] = []
    train(tmp_path, schedule="cosine", on_report=lambda report, model: reports.append(report))
    options = TrainConfig(**(OPTIONS | {"schedule": "cosine"}))
    assert [r.lr for r in reports] == [0.01 * lr_factor(options, r.step, BATCHES) for r in reports]
    assert reports[0].lr > reports[-1].lr


# ------------------------------------------------------------------------------------------------ inside an epoch


@pytest.mark.parametrize("every", [1, 2, 4, BATCHES])
def test_validations_inside_an_epoch(tmp_path: Path, every: int) -> None:
    steps: list[int] = []

    def note(report: Report, model: Seq2Seq) -> None:
        steps.append(report.step)
        assert load_progress(tmp_path).step == report.step

    train(tmp_path, validate_every=every, on_report=note)
    assert steps == [step for step in range(1, 3 * BATCHES + 1) if step % every == 0 or step % BATCHES == 0]


@pytest.mark.parametrize("stop", [1, 3, 4, BATCHES, BATCHES + 2])
def test_validations_inside_an_epoch_survive_a_stop(tmp_path: Path, stop: int) -> None:
    options: dict[str, Any] = dict(validate_every=4, average=2, patience=3)
    train(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", **options, on_step=after(stop, interrupt))
    train(tmp_path / "parts", resume=True, **options)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    logs = [read_log(tmp_path / name) for name in ("whole", "parts")]
    keep = ("epoch", "step", "valid_loss", "best", "lr")
    assert [[row[key] for key in keep] for row in logs[0]] == [[row[key] for key in keep] for row in logs[1]]


def test_a_limit_of_time_saves_and_leaves_no_trace(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    train(tmp_path, time=1e-9)
    assert load_progress(tmp_path).step == 1
    assert steps_of(tmp_path) == 3 * BATCHES - 1
    assert digests(tmp_path)["training.safetensors: model"] == never_stopped["training.safetensors: model"]


# ------------------------------------------------------------------------------------------------ gold links, location


def linked(examples: list[Pair]) -> list[Pair]:
    """The pairs with the links of words written backwards, all sure."""
    sizes = [len(p.source.split()) for p in examples]
    gold = [tuple((n - 1 - t, t, True) for t in range(n)) for n in sizes]
    return [dataclasses.replace(p, links=links) for p, links in zip(examples, gold, strict=True)]


def run(
    folder: Path, train: Any = TRAIN, valid: Any = VALID, changes: dict[str, Any] | None = None, **options: Any
) -> list[Report]:
    """Train CONFIG with changes; the reports."""
    reports: list[Report] = []
    dhyan.train(
        dataclasses.replace(CONFIG, **(changes or {})), train, valid, out=folder,
        options=TrainConfig(**(OPTIONS | options)), on_report=lambda report, model: reports.append(report),
    )  # fmt: skip
    return reports


@pytest.mark.parametrize("name", dhyan.scorings())
def test_every_scoring_trains_and_comes_back(tmp_path: Path, name: str) -> None:
    reports = run(tmp_path, linked(TRAIN), linked(VALID), {"attention": name, "dropout": 0.0}, epochs=3)
    assert reports[-1].train_loss < reports[0].train_loss
    loaded = dhyan.load(tmp_path)
    assert loaded.model.config.attention == name
    assert loaded.model.config.max_source == (6 if name == "location" else 0)
    digest = digests(tmp_path)
    run(tmp_path / "again", linked(TRAIN), linked(VALID), {"attention": name, "dropout": 0.0}, epochs=3)
    assert digests(tmp_path / "again") == digest


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 2}, {"window": "predictive:2"}, {"normalize": "sparsemax"}, {"heads": 2}, {"temperature": 0.5},
        {"normalize": "monotonic", "normalized": True}, {"attention": "scaled_dot", "heads": 4, "order": "luong"},
    ],
    ids=str,
)  # fmt: skip
def test_every_normaliser_trains_stops_and_resumes(tmp_path: Path, changes: dict[str, Any]) -> None:
    config, options = dataclasses.replace(CONFIG, **changes), TrainConfig(**(OPTIONS | {"epochs": 2}))
    dhyan.train(config, TRAIN, VALID, out=tmp_path / "whole", options=options)
    with pytest.raises(KeyboardInterrupt):
        dhyan.train(config, TRAIN, VALID, out=tmp_path / "parts", options=options, on_step=after(7, interrupt))
    dhyan.train(config, TRAIN, VALID, out=tmp_path / "parts", options=options, resume=True)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")
    assert dhyan.load(tmp_path / "whole").model.config.setting == config.setting


def sharpness(folder: Path) -> float:
    """The weight that a trained model puts on the gold links of VALID, a token."""
    gold = [p.links for p in linked(VALID)]
    found = dhyan.load(folder).align([p.source for p in VALID], [p.target for p in VALID])
    return float(np.mean([f.weights[t, s] for f, links in zip(found, gold, strict=True) for s, t, _ in links or ()]))


def test_guided_training_reads_where_the_links_are(tmp_path: Path) -> None:
    options: dict[str, Any] = dict(epochs=12, changes={"dropout": 0.0})
    run(tmp_path / "free", linked(TRAIN), **options)
    run(tmp_path / "guided", linked(TRAIN), guided=1.0, **options)
    assert sharpness(tmp_path / "guided") > sharpness(tmp_path / "free") + 0.1
    # Links of some pairs are enough, and other links than the gold ones are followed as well.
    some = [p if i % 2 else dataclasses.replace(p, links=None) for i, p in enumerate(linked(TRAIN))]
    run(tmp_path / "some", some, guided=1.0, **options)
    assert sharpness(tmp_path / "some") > sharpness(tmp_path / "free") + 0.1


def test_links_change_nothing_where_nobody_reads_them(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    run(tmp_path, linked(TRAIN), linked(VALID))
    assert digests(tmp_path) == never_stopped


def test_the_coverage_loss_is_learned_from(tmp_path: Path, never_stopped: dict[str, str]) -> None:
    plain = run(tmp_path / "plain")
    covered = run(tmp_path / "covered", coverage=0.5)
    assert covered[0].train_loss > plain[0].train_loss
    assert not set(digests(tmp_path / "covered").values()) & set(never_stopped.values())


def test_the_oracle_validates_by_the_gold_links(tmp_path: Path) -> None:
    """With only the linked word in sight, writing it is a table of five words; nothing else is as easy."""
    small: dict[str, Any] = dict(epochs=8, lr=0.03, label_smoothing=0.0)
    oracle = run(tmp_path, linked(TRAIN), linked(VALID), {"attention": "oracle", "dropout": 0.0}, **small)
    uniform = run(tmp_path / "u", TRAIN, VALID, {"attention": "uniform", "dropout": 0.0}, **small)
    assert oracle[-1].valid_loss < uniform[-1].valid_loss
    assert min(r.token_error_rate for r in oracle) < min(r.token_error_rate for r in uniform)


@pytest.mark.parametrize("attention, guided", [("oracle", 0.0), ("additive", 0.5)])
def test_links_that_are_missing_are_named(tmp_path: Path, attention: str, guided: float) -> None:
    changes = {"attention": attention}
    with pytest.raises(
        dhyan.DataError, match=r"the training data:.* no .*gold links, expected .*third column"
    ) as caught:
        run(tmp_path, TRAIN, linked(VALID), changes, guided=guided)
    assert "\n" not in str(caught.value) and not tmp_path.joinpath("config.toml").exists()
    path = tmp_path / "train.tsv"
    path.write_text("a b\tb a\t0-1 1-0\nb\tb\n", encoding="utf-8")
    if attention == "oracle":
        with pytest.raises(dhyan.DataError, match=r"train\.tsv:2: no gold links"):
            run(tmp_path / "m", path, linked(VALID), changes)
        with pytest.raises(dhyan.DataError, match=r"the validation data: pair 0: no gold links"):
            run(tmp_path / "m", linked(TRAIN), VALID, changes)
    else:
        run(tmp_path / "m", path, VALID, changes, guided=guided, epochs=1)  # some links are enough to learn from


def test_links_outside_a_sentence_name_the_pair(tmp_path: Path) -> None:
    bad = [*linked(TRAIN)[:3], Pair("a b", "b a", ((0, 1, True), (2, 0, True)))]
    with pytest.raises(dhyan.DataError, match=r"pair 3: a link names source token 2, but the source has 2 tokens"):
        run(tmp_path, bad, guided=0.1)
    data = dhyan.DataConfig(source_level="char", target_level="char")
    good = [Pair("ab", "ba", ((1, 0, True), (0, 1, True)))] * 3
    dhyan.train(CONFIG, good, good, out=tmp_path, options=TrainConfig(epochs=1, guided=0.1), data=data)
    with pytest.raises(dhyan.DataError, match="pair 0: a link names source token 1"):
        run(tmp_path / "w", good, guided=0.1)


def test_location_knows_the_longest_source_of_both(tmp_path: Path) -> None:
    changes = {"attention": "location"}
    longer = [*VALID, Pair("a b c d e a b", "b a e d c b a")]
    run(tmp_path, TRAIN, longer, changes, epochs=1)
    assert dhyan.load(tmp_path).model.config.max_source == 8  # seven words and the end symbol
    with pytest.raises(
        dhyan.DataError, match=r"'a b c d e a b' has 8 positions with its end symbol, expected at most .* 7"
    ):
        run(tmp_path / "m", TRAIN, longer, changes | {"max_source": 7}, epochs=1)
    run(tmp_path / "m", TRAIN, longer, changes | {"max_source": 20}, epochs=1)
    translator = dhyan.load(tmp_path)
    assert translator.translate("a b c d e a b").tokens is not None
    with pytest.raises(dhyan.DataError, match="the source has 8 tokens, expected at most 7"):
        translator.translate("a b c d e a b c")


# ------------------------------------------------------------------------------------------------ not a number


def finite(folder: Path) -> bool:
    files = [folder / name for name in WEIGHTS if (folder / name).exists()]
    return all(np.isfinite(array).all() for file in files for array in load_file(file).values())


def test_a_loss_of_nan_is_refused_and_not_saved(tmp_path: Path) -> None:
    saved: list[dict[str, str]] = []

    def poison(report: Report, model: Seq2Seq) -> None:
        saved.append(digests(tmp_path))
        model.parameters()["output.bias"][3] = np.nan

    with pytest.raises(NumericError, match=rf"loss is nan at step {BATCHES + 1}"):
        train(tmp_path, on_report=poison)
    assert digests(tmp_path) == saved[0] and finite(tmp_path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_bad_gradient_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    backward, calls = Seq2Seq.backward, []

    def poisoned(self: Seq2Seq, cache: Any) -> Any:
        gradients = backward(self, cache)
        calls.append(1)
        if len(calls) == BATCHES + 2:
            gradients["readout.weight"][0, 0] = value
        return gradients

    monkeypatch.setattr(Seq2Seq, "backward", poisoned)
    with pytest.raises(NumericError, match=rf"readout\.weight.*step {BATCHES + 2}"):
        train(tmp_path)
    assert finite(tmp_path)


@pytest.mark.filterwarnings("ignore:(invalid value|overflow) encountered:RuntimeWarning")  # inf * 0, before the refusal
@pytest.mark.parametrize("lr", [1e30, 1e38, 1e45])
def test_a_diverging_run_never_saves_what_cannot_be_loaded(tmp_path: Path, lr: float) -> None:
    """Weights beyond float32: refused with a reason, or still finite; the folder stays loadable."""
    try:
        train(tmp_path, lr=lr)
    except NumericError as error:
        assert "step" in str(error)
    assert finite(tmp_path)


def test_ctrl_c_saves_no_bad_weights(tmp_path: Path) -> None:
    """The update that breaks the weights is the last one before the interrupt."""
    with pytest.raises((KeyboardInterrupt, NumericError)):
        train(tmp_path, lr=1e45, on_step=after(1, interrupt))
    assert finite(tmp_path)


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def corpus(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "train.tsv", tmp_path / "valid.tsv"
    for path, examples in zip(paths, (TRAIN, VALID), strict=True):
        path.write_text("".join(f"{p.source}\t{p.target}\n" for p in examples), encoding="utf-8")
    return paths


def command(corpus: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    options = {"hidden": 8, "embedding": 6, "cell": "gru", "batch": 4, "lr": 0.01, "seed": 5, "patience": 100_000}
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return [sys.executable, "-m", "dhyan", "train", *map(str, corpus), "--out", str(out), *flags, *more]


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_how_to_resume(
    tmp_path: Path, corpus: tuple[Path, Path], number: int, code: int
) -> None:
    out = tmp_path / "model"
    run = subprocess.Popen(
        command(corpus, out, "--epochs", "100000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / "log.jsonl").exists() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        run.send_signal(number)
        _, stderr = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert run.returncode == code, stderr
    assert "--resume" in stderr and "Traceback" not in stderr
    step = load_progress(out).step
    assert f"step {step}" in stderr
    epochs = str(step // BATCHES + 2)
    resumed = subprocess.run(
        command(corpus, out, "--epochs", epochs, "--resume"), capture_output=True, text=True, timeout=60
    )
    assert resumed.returncode == 0, resumed.stderr
    whole = tmp_path / "whole"
    subprocess.run(command(corpus, whole, "--epochs", epochs), check=True, capture_output=True, timeout=120)
    assert digests(out) == digests(whole)
