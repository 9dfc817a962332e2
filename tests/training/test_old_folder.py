"""Folders written by version 1 of the format: they translate as they did, and a run stopped in one goes on exactly.

`old_folder` was made with `dhyan train train.tsv valid.tsv --out finished --hidden 4 --embedding 3 --cell gru --batch 2
--lr 0.05 --seed 3 --average 2 --dropout 0.1 --label-smoothing 0 --patience 100 --schedule constant --epochs 60`;
`stopped` is the same with `--updates 234`, inside epoch 59.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dhyan
import numpy as np
import pytest
from dhyan.cli import main
from dhyan.training import checkpoint
from safetensors.numpy import load_file

OLD = Path(__file__).parent / "old_folder"
LINES = {"a b": "b a", "c": "a c a b", "b a": "b"}  # what version 1 wrote, faults included


@pytest.fixture
def stopped(tmp_path: Path) -> Path:
    """A copy of the stopped run that may be written to."""
    return Path(shutil.copytree(OLD / "stopped", tmp_path / "stopped"))


def resume(folder: Path, *more: str) -> int:
    return main(["train", str(OLD / "train.tsv"), str(OLD / "valid.tsv"), "--out", str(folder), "--resume", *more])


@pytest.mark.parametrize("name", ["finished", "stopped"])
def test_it_translates_as_it_did(name: str) -> None:
    translator = dhyan.load(OLD / name)
    assert [translator.translate(line).text for line in LINES] == list(LINES.values())


def test_it_resumes_to_what_it_would_have_become(stopped: Path) -> None:
    """The last six updates: bit for bit on the instruction set it was made with, to rounding on another."""
    assert resume(stopped, "--updates", "0") == 0
    expected = load_file(OLD / "finished" / "model.safetensors")
    for name, array in load_file(stopped / "model.safetensors").items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)
    assert [row["step"] for row in checkpoint.read_log(stopped)][-2:] == [236, 240]


def test_the_next_save_rewrites_it(stopped: Path) -> None:
    assert resume(stopped, "--updates", "235") == 0
    assert json.loads((stopped / "manifest.json").read_bytes())["version"] == 2
    assert sorted(path.name for path in stopped.iterdir()) == [
        "config.toml", "log.jsonl", "manifest.json", "model.safetensors", "source.vocab", "target.vocab", "train.lock",
        "training.safetensors",
    ]  # fmt: skip
    assert resume(stopped, "--updates", "0") == 0  # and goes on from the new form
    expected = load_file(OLD / "finished" / "last.safetensors")
    found = load_file(stopped / "training.safetensors")
    for name, array in expected.items():
        np.testing.assert_allclose(found[f"model/{name}"], array, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("name", ["last.safetensors", "optimizer.safetensors", "recent-0.safetensors", "state.json"])
def test_damage_is_named(stopped: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (stopped / name).write_bytes((stopped / name).read_bytes()[:-1])
    assert resume(stopped) == 1
    assert f"{name}: has " in capsys.readouterr().err
