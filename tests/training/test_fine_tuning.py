"""Training from a folder: its weights and vocabularies, other data, and models that do not fit."""

from __future__ import annotations

import dataclasses
import os
import signal
import tomllib
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import DataConfig, DataError, ModelConfig, TrainConfig
from dhyan.cli import main
from dhyan.text.pairs import Pair
from helpers.training import digests
from safetensors.numpy import load_file

CONFIG = ModelConfig(source_size=4, target_size=4, embedding=6, hidden=8, cell="gru")
OLD = [Pair(s, s[::-1]) for s in ("a b", "b a c", "c", "a c b d", "d a")]
NEW = [Pair(s, s[::-1]) for s in ("e a", "b b", "a b e", "c c a")]  # e is unknown to the folder


def learn(
    out: Path, config: ModelConfig = CONFIG, examples: list[Pair] = NEW, resume: bool = False, **more: Any
) -> Any:
    options, data = {"batch": 2, "epochs": 2, "lr": 0.01} | more, more.pop("data", None)
    options.pop("data", None), options.pop("on_step", None)
    return dhyan.train(
        config, examples, examples, out=out, options=TrainConfig(**options), data=data, resume=resume,
        on_step=more.get("on_step"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("old") / "m"
    learn(folder, examples=OLD)
    return str(folder)


def test_it_starts_from_the_best_weights_and_keeps_the_vocabularies(tmp_path: Path, old: str) -> None:
    """A rate that changes nothing leaves the weights as they were, whatever the seed would have drawn."""
    learn(tmp_path, fine_tune=old, lr=1e-30, seed=9, epochs=1)
    before, after = (load_file(Path(folder) / "model.safetensors") for folder in (old, tmp_path))
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])
    theirs, mine = dhyan.load(old), dhyan.load(tmp_path)
    assert (mine.source_vocab, mine.target_vocab) == (theirs.source_vocab, theirs.target_vocab)
    assert "e" not in mine.source_vocab
    assert tomllib.loads((tmp_path / "config.toml").read_text())["train"]["fine_tune"] == old


def test_it_learns_on(tmp_path: Path, old: str) -> None:
    learn(tmp_path / "a", fine_tune=old)
    learn(tmp_path / "b", fine_tune=old)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    start, end = load_file(Path(old) / "model.safetensors"), load_file(tmp_path / "a" / "training.safetensors")
    assert any((start[name] != end[f"model/{name}"]).any() for name in start)


def test_what_does_not_change_the_parameters_may_differ(tmp_path: Path, old: str) -> None:
    other = dataclasses.replace(CONFIG, dropout=0.0, window=2, normalize="sparsemax")
    model = learn(tmp_path, other, fine_tune=old, precision="float64", lr=1e-30)
    assert model.dtype == np.float64 and model.config.dropout == 0.0 and model.config.normalize == "sparsemax"
    theirs = dhyan.load(old).model.parameters()
    for name, array in model.parameters().items():
        np.testing.assert_allclose(array, theirs[name], atol=1e-25)


@pytest.mark.parametrize("change, words", [
    (dict(hidden=9), "hidden is 9, expected 8 as"), (dict(cell="lstm"), "cell is 'lstm', expected 'gru' as"),
    (dict(attention="dot"), "attention is 'dot', expected 'additive'"), (dict(layers=2), "layers is 2, expected 1"),
    (dict(order="luong"), "order is 'luong', expected 'bahdanau'"),
    (dict(dropout=0.0, bidirectional=False), "bidirectional is False, expected True"),
])  # fmt: skip
def test_a_model_that_does_not_fit_is_named_in_one_line(
    tmp_path: Path, old: str, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=rf"fine_tune: {words} .*in .*old") as caught:
        learn(tmp_path / "m", dataclasses.replace(CONFIG, **change), fine_tune=old)
    assert "\n" not in str(caught.value) and not (tmp_path / "m").exists()


def test_other_levels_and_no_folder_are_refused(tmp_path: Path, old: str) -> None:
    with pytest.raises(DataError, match="fine_tune: source_level is 'char', expected 'word'"):
        learn(tmp_path / "m", fine_tune=old, data=DataConfig(source_level="char"))
    with pytest.raises(dhyan.CheckpointError, match="nothing: no such model folder"):
        learn(tmp_path / "m", fine_tune=str(tmp_path / "nothing"))


def test_a_stopped_run_goes_on_without_the_folder_it_came_from(tmp_path: Path, old: str) -> None:
    learn(tmp_path / "whole", fine_tune=old)
    steps: list[int] = []

    def stop(step: int, batches: int, loss: float) -> None:
        steps.append(step)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        learn(tmp_path / "parts", fine_tune=old, on_step=stop)
    learn(tmp_path / "parts", fine_tune=str(tmp_path / "gone"), resume=True)
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


def test_a_stopped_run_keeps_the_positions_of_the_folder_it_came_from(tmp_path: Path) -> None:
    """The scoring "location" knows as many as that folder's longest source, though all of the new data are shorter."""
    config = dataclasses.replace(CONFIG, attention="location")
    learn(tmp_path / "old", config, OLD)
    start = str(tmp_path / "old")
    learn(tmp_path / "whole", config, fine_tune=start)
    learn(tmp_path / "parts", config, fine_tune=start, updates=1)
    model = learn(tmp_path / "parts", config, fine_tune=start, resume=True)
    assert model.config.max_source == 5
    name = "training.safetensors: model"
    assert digests(tmp_path / "whole")[name] == digests(tmp_path / "parts")[name]


# ------------------------------------------------------------------------------------------------ the command


def test_the_command_takes_the_model_from_the_folder(
    tmp_path: Path, old: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.tsv"
    path.write_text("".join(f"{p.source}\t{p.target}\n" for p in NEW), encoding="utf-8")
    given = ["train", str(path), str(path), "--from", old, "--epochs", "1", "--out", str(tmp_path / "m")]
    assert main([*given, "--optimizer", "sgd", "--lr", "0.1", "--schedule", "inverse_sqrt"]) == 0
    assert dhyan.load(tmp_path / "m").model.config.hidden == 8
    assert main([*given, "--optimizer", "sgd", "--epochs", "2", "--resume"]) == 0
    capsys.readouterr()
    assert main([*given, "--optimizer", "adam", "--epochs", "3", "--resume"]) == 1
    assert "cannot resume, optimizer was 'sgd' and is now 'adam'" in capsys.readouterr().err
    assert main([*given, "--hidden", "9"]) == 1
    assert "dhyan: fine_tune: hidden is 9, expected 8 as in " in capsys.readouterr().err
    assert main([*given, "--print-config"]) == 0
    tables = tomllib.loads(capsys.readouterr().out)
    assert tables["model"]["hidden"] == 8 and tables["train"]["fine_tune"] == old
    (tmp_path / "c.toml").write_text(f'[train]\nfine_tune = "{old}"\n[model]\ndropout = 0.4\n', encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "c.toml"), "--print-config"]) == 0
    assert tomllib.loads(capsys.readouterr().out)["model"] | {"hidden": 8, "dropout": 0.4} == tables["model"] | {
        "dropout": 0.4
    }
    assert main(["train", str(path), str(path), "--from", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 1
    assert "no: no such model folder" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text("[train]\nfine_tune = 3\n", encoding="utf-8")
    assert main(["train", "--config", str(tmp_path / "c.toml"), "--print-config"]) == 1
    assert "TrainConfig: fine_tune is 3, expected the name of a model folder" in capsys.readouterr().err
