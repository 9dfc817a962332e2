"""The mean of several models' weights as a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dhyan import CheckpointError, ModelConfig, Seq2Seq, Vocabulary, average, load
from dhyan.text.config import DataConfig
from dhyan.training.config import TrainConfig
from dhyan.training.folder import load_folder, save_best, start_folder


def write(
    folder: Path, seed: int, words: str = "a b c", *, train: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None, **changes: Any,
) -> Path:  # fmt: skip
    """A model folder of random weights."""
    vocabulary = Vocabulary(words.split(), "word")
    sizes: dict[str, Any] = {"source_size": len(vocabulary), "target_size": len(vocabulary)}
    config = ModelConfig(**sizes | {"embedding": 4, "hidden": 5} | changes)
    options, table = TrainConfig(**train or {}), DataConfig(**data or {})
    tables = {"model": config.to_dict(), "train": options.to_dict(), "data": table.to_dict()}
    start_folder(folder, tables, vocabulary, vocabulary)
    save_best(folder, Seq2Seq(config, seed=seed, dtype=options.precision))
    return folder


@pytest.mark.parametrize("count", [1, 2, 3])
def test_weights_are_the_mean(tmp_path: Path, count: int) -> None:
    folders = [write(tmp_path / str(seed), seed) for seed in range(count)]
    average(folders, tmp_path / "mean")
    made, parts = load_folder(tmp_path / "mean"), [load_folder(folder) for folder in folders]
    for name, array in made.model.parameters().items():
        exact = np.mean([part.model.parameters()[name].astype(np.float64) for part in parts], 0)
        np.testing.assert_array_equal(array, exact.astype(np.float32))
    assert made.model.config == parts[0].model.config and made.target_vocabulary == parts[0].target_vocabulary
    assert load(tmp_path / "mean").translate("a b", max_length=3).source_tokens == ["a", "b", "</s>"]


@pytest.mark.parametrize("other, message", [
    (dict(hidden=6), "average: hidden of .*two is 6, expected 5 as in .*one"),
    (dict(attention="dot"), "attention of .*two is 'dot', expected 'additive'"),
    (dict(words="a b d"), r"the source vocabulary of .*two .* differs from that of .*one"),
    (dict(train={"precision": "float64"}), "precision of .*two is 'float64', expected 'float32' as in .*one"),
    (dict(data={"columns": "1,2:3"}), "columns of .*two are '1,2:3', expected a source as in '1:2' of .*one"),
])  # fmt: skip
def test_models_that_differ(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    folders = [write(tmp_path / "one", 1), write(tmp_path / "two", 2, **other)]
    with pytest.raises(CheckpointError, match=message):
        average(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_a_model_is_not_written_over(tmp_path: Path) -> None:
    one = write(tmp_path / "one", 1)
    before = (one / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match="one holds a model already, expected a new folder"):
        average([one, one], one)
    assert (one / "model.safetensors").read_bytes() == before
    with pytest.raises(ValueError, match="got no folder"):
        average([], tmp_path / "mean")
    with pytest.raises(CheckpointError, match="absent"):
        average([tmp_path / "absent"], tmp_path / "mean")


@pytest.mark.parametrize("folders, out, message", [
    ("one", "mean", "average: folders is a str, expected a list of folders"),
    (None, "mean", "average: folders is None, expected a list of folders"),
    (["one", 2], "mean", "average: folder 2 is a int, expected a path"),
    (["one"], None, "average: out is of type NoneType, expected the path of a folder to write"),
])  # fmt: skip
def test_wrong_types_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: Any, out: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "one", 1)
    with pytest.raises(TypeError, match=message):
        average(folders, out)
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_several_folders_load_as_an_ensemble(tmp_path: Path) -> None:
    folders = [write(tmp_path / "one", 1), write(tmp_path / "two", 2, hidden=7, cell="gru", data={"max_length": 3})]
    both = load(folders)
    assert len(both.model.models) == 2 and both.max_source == 3
    weights = both.translate("a b c", beam=2, max_length=4, prefix="c a b").weights[:3]
    np.testing.assert_allclose(both.align(["a b c"], ["c a b"])[0].weights, weights, atol=1e-6)
    alone = [load(folder).align(["a b c"], ["c a b"])[0].weights for folder in folders]
    np.testing.assert_allclose(weights, np.mean(alone, 0), atol=1e-6)
    assert load(folders[:1]).translate("a").score == load(folders[0]).translate("a").score
    other = write(tmp_path / "other", 3, words="c b a")
    with pytest.raises(CheckpointError, match=r"load: the source vocabulary of .*other .* differs from that of .*one"):
        load([folders[0], other])
    with pytest.raises(ValueError, match="load: got no folder, expected at least one"):
        load([])
