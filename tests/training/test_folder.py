"""A model folder: what is saved comes back bit for bit, and what is damaged is refused by file and part."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dhyan import (
    Adam,
    CheckpointError,
    DataConfig,
    DataError,
    ModelConfig,
    Seq2Seq,
    TrainConfig,
    Vocabulary,
    strict_json,
)
from dhyan.training import checkpoint
from dhyan.training.folder import (
    check_free,
    check_resumable,
    load_folder,
    load_progress,
    load_tables,
    load_training,
    save_best,
    save_training,
    start_folder,
)
from dhyan.training.state import Progress

SOURCE = Vocabulary.build(["मैं खाना खा रहा हूँ", "वह"], "char")
TARGET = Vocabulary.build(["I am eating", "he"], "word")
CONFIG = ModelConfig(source_size=len(SOURCE), target_size=len(TARGET), embedding=3, hidden=4, cell="gru", window=2)
OPTIONS = TrainConfig(seed=7, lr=0.01)
DATA = DataConfig(source_level="char")
NOW = Progress(epoch=1, lr=0.01, run={"training data": "ab12", "isa": "v4"})
FILES = ("config.toml", "source.vocab", "target.vocab", "model.safetensors")


def tables(config: ModelConfig = CONFIG) -> dict[str, dict[str, Any]]:
    return {"model": config.to_dict(), "train": OPTIONS.to_dict(), "data": DATA.to_dict()}


def trained(steps: int = 2) -> tuple[Seq2Seq, Adam]:
    """A model after some updates, with moments that are not zero."""
    model = Seq2Seq(CONFIG, seed=7)
    optimizer = Adam(model, lr=0.01)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        gradients = {name: rng.standard_normal(p.shape).astype(np.float32) for name, p in model.parameters().items()}
        optimizer.step(gradients)
    return model, optimizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole folder, as training leaves it."""
    model, optimizer = trained()
    start_folder(tmp_path / "m", tables(), SOURCE, TARGET)
    save_training(tmp_path / "m", model, optimizer, NOW, {}, best=model)
    return tmp_path / "m"


def replace(folder: Path, name: str, data: bytes) -> None:
    """As somebody would who also writes the manifest: digests are right, contents are not."""
    checkpoint.save_files(folder, {name: data})


def refused(folder: Path, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        load_folder(folder)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ round trip


def test_what_is_saved_comes_back(folder: Path) -> None:
    loaded = load_folder(folder)
    assert loaded.model.flat.tobytes() == trained()[0].flat.tobytes()
    assert (loaded.model.config, loaded.options, loaded.data) == (CONFIG, OPTIONS, DATA)
    assert (loaded.source_vocabulary, loaded.target_vocabulary) == (SOURCE, TARGET)
    assert load_folder(str(folder)).model.config == CONFIG
    assert load_tables(folder) == (CONFIG, OPTIONS, DATA)


def test_precision_is_that_of_training(tmp_path: Path) -> None:
    model = Seq2Seq(CONFIG, seed=7, dtype="float64")
    double = {**tables(), "train": dataclasses.replace(OPTIONS, precision="float64").to_dict()}
    start_folder(tmp_path, double, SOURCE, TARGET)
    save_best(tmp_path, model)
    assert load_folder(tmp_path).model.flat.tobytes() == model.flat.tobytes()


def test_training_resumes_where_it_was(folder: Path) -> None:
    model = Seq2Seq(CONFIG, seed=1)
    optimizer = Adam(model, lr=0.5)
    progress = check_resumable(folder, tables(), SOURCE, TARGET, NOW)
    assert progress == load_progress(folder) == dataclasses.replace(NOW, optimizer_steps=2)
    load_training(folder, model, optimizer, progress, {})
    before, moments = trained()
    assert model.flat.tobytes() == before.flat.tobytes() and optimizer.steps == 2
    assert optimizer.m.tobytes() == moments.m.tobytes() and optimizer.v.tobytes() == moments.v.tobytes()
    assert optimizer.m.any() and optimizer.v.any()


def test_a_new_run_replaces_tables_and_vocabularies(folder: Path) -> None:
    other = Vocabulary.build(["xyz"], "char")
    start_folder(folder, tables(dataclasses.replace(CONFIG, source_size=len(other))), other, TARGET)
    assert load_tables(folder)[0].source_size == len(other)
    refused(folder, r"manifest\.json does not list .model\.safetensors.")


# ------------------------------------------------------------------------------------------------ damage


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name.replace(".", r"\."))


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_changed_or_shortened_file_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    for bad in (data[:-1], data[: len(data) // 2], b"", data + b" ", bytes([data[0] ^ 1]) + data[1:]):
        (folder / name).write_bytes(bad)
        refused(folder, rf"{name.replace('.', '[.]')}: ")
    (folder / name).write_bytes(data)
    load_folder(folder)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    refused(tmp_path, r"holds no manifest\.json: not a model folder")
    refused(tmp_path / "missing", r"missing: no such model folder")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", r"file: no such model folder")


def test_a_run_without_a_validation_has_no_best_model(tmp_path: Path) -> None:
    start_folder(tmp_path, tables(), SOURCE, TARGET)
    refused(tmp_path, r"manifest\.json does not list 'model\.safetensors'")


@pytest.mark.parametrize(
    "change, words",
    [
        (("hidden = 4", "hidden = 5"), r"model\.safetensors: tensor '.*' is float32 .*, expected float32"),
        (('cell = "gru"', 'cell = "lstm"'), r"model\.safetensors: tensor '.*' is float32 .*, expected float32"),
        (
            ("bidirectional = true", "bidirectional = false"),
            r"model\.safetensors: tensor 'encoder\.0\.backward.*not part",
        ),
        (('attention = "additive"', 'attention = "dot"'), r"model\.safetensors: tensor 'attention\..*not part"),
        (
            ('attention = "additive"', 'attention = "concat"'),
            r"model\.safetensors: tensor 'attention\.weight' is missing",
        ),
        (('precision = "float32"', 'precision = "float64"'), r"model\.safetensors: tensor .*expected float64"),
        (("hidden = 4", "hidden = 0"), r"config\.toml: .*hidden is 0"),
        (("hidden = 4", "hiden = 4"), r"config\.toml: \[model\]: unknown key 'hiden', did you mean: hidden"),
        (("hidden = 4", "hidden = 4.0"), r"config\.toml: .*hidden is 4\.0, expected an integer"),
        (("hidden = 4", "hidden = "), r"config\.toml: .*line"),
        (('cell = "gru"', 'cell = "grru"'), r"config\.toml: .*'grru', expected one of: gru"),
        (("[train]", "[trian]"), r"config\.toml: unknown table \[trian\], expected one of: train"),
        (("window = 2", "window = -2"), r"config\.toml: .*radius is -2"),
        (("source_size", "# source_size"), r"config\.toml: .*source_size"),
    ],
    ids=lambda x: x[1] if isinstance(x, tuple) else "",
)
def test_a_configuration_of_another_model(folder: Path, change: tuple[str, str], words: str) -> None:
    text = (folder / "config.toml").read_text(encoding="utf-8")
    assert change[0] in text
    replace(folder, "config.toml", text.replace(*change, 1).encode())
    refused(folder, words)


@pytest.mark.parametrize("hidden", [10**7, 2**40, 2**62, 2**70], ids=str)
def test_sizes_that_are_merely_claimed_are_not_allocated(folder: Path, hidden: int) -> None:
    text = (folder / "config.toml").read_text(encoding="utf-8")
    replace(folder, "config.toml", text.replace("hidden = 4", f"hidden = {hidden}").encode())
    refused(folder, r"config\.toml|model\.safetensors")


@pytest.mark.parametrize("data", [b"\xff[model]", b"a = " + b"[" * 5000], ids=["not UTF-8", "nested"])
def test_a_configuration_that_is_no_toml(folder: Path, data: bytes) -> None:
    replace(folder, "config.toml", data)
    refused(folder, r"config\.toml: ")


@pytest.mark.parametrize("name", ["source", "target"])
def test_a_vocabulary_of_another_model(folder: Path, name: str) -> None:
    level, held = ("char", len(SOURCE)) if name == "source" else ("word", len(TARGET))
    other = Vocabulary.build(["x"], level)
    replace(folder, f"{name}.vocab", other.to_text().encode())
    refused(folder, rf"{name}\.vocab holds {len(other)} ids, config\.toml says {held}")
    for data in (b"", b"\xff\xfe", b"nothing of the kind\n"):
        replace(folder, f"{name}.vocab", data)
        refused(folder, rf"{name}\.vocab:")


def test_tensors_that_do_not_fit(folder: Path) -> None:
    good = trained()[0].parameters()
    fewer = {key: value for key, value in good.items() if key != "readout.bias"}
    extra = good | {"spare": np.zeros(2, np.float32)}
    shaped = good | {"readout.bias": np.zeros((3, 1), np.float32)}
    typed = good | {"readout.bias": np.zeros(3)}
    for tensors, words in [
        (fewer, "tensor 'readout.bias' is missing"),
        (extra, "tensor 'spare' is not part of this model"),
        (shaped, r"tensor 'readout.bias' is float32 \(3, 1\), expected float32 \(3,\)"),
        (typed, r"tensor 'readout.bias' is float64 \(3,\), expected float32 \(3,\)"),
    ]:
        replace(folder, "model.safetensors", checkpoint.tensors_to_bytes(tensors))
        refused(folder, r"model\.safetensors: " + words)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(folder: Path, value: float) -> None:
    from safetensors.numpy import save

    bad = {name: array.copy() for name, array in trained()[0].parameters().items()}
    bad["output.bias"][1] = value
    replace(folder, "model.safetensors", save(bad))
    refused(folder, rf"model\.safetensors: tensor 'output\.bias' holds {value} at \[1\], expected finite numbers")


# ------------------------------------------------------------------------------------------------ resume


def cannot_resume(
    folder: Path, words: str, config: ModelConfig = CONFIG, source: Vocabulary = SOURCE, target: Vocabulary = TARGET,
    now: Progress = NOW, **options: Any,
) -> None:  # fmt: skip
    model = Seq2Seq(config, seed=1)
    changed = tables(config)
    changed["train"] |= options
    with pytest.raises(CheckpointError, match=words) as caught:
        load_training(folder, model, Adam(model), check_resumable(folder, changed, source, target, now), {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(hidden=5), "hidden was 4 and is now 5"),
        (dict(cell="lstm"), "cell was 'gru' and is now 'lstm'"),
        (dict(window=None), "window was 2 and is now None"),
        (dict(dropout=0.5), "dropout was 0.2 and is now 0.5"),
        (dict(attention="dot"), "attention was 'additive' and is now 'dot'"),
        (dict(order="luong"), "order was 'bahdanau' and is now 'luong'"),
        (dict(source_size=40), r"source_size was \d+ and is now 40"),
    ],
    ids=str,
)
def test_another_configuration_is_not_resumed(folder: Path, change: dict[str, Any], words: str) -> None:
    cannot_resume(folder, f"cannot resume, {words}", dataclasses.replace(CONFIG, **change))


def test_other_vocabularies_are_not_resumed(folder: Path) -> None:
    """Of the same size too: the same number would mean another word."""
    other = Vocabulary([*TARGET.tokens[4:-1], "other"], "word")
    assert len(other) == len(TARGET)
    cannot_resume(folder, r"cannot resume, target\.vocab differs", target=other)
    other = Vocabulary([*SOURCE.tokens[4:-1], "x"], "char")
    cannot_resume(folder, r"cannot resume, source\.vocab differs", source=other)


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(optimizer="sgd"), "optimizer was 'adamw' and is now 'sgd'"),
        (dict(seed=99), "seed was 7 and is now 99"),
        (dict(precision="bf16"), "precision was 'float32' and is now 'bf16'"),
        (dict(select="loss"), "select was 'error' and is now 'loss'"),
    ],
    ids=str,
)
def test_options_that_the_state_was_made_for_are_not_changed(folder: Path, change: dict[str, Any], words: str) -> None:
    cannot_resume(folder, f"cannot resume, {words}", **change)


def test_other_data_are_not_resumed_and_another_instruction_set_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = dataclasses.replace(NOW, run={"training data": "cd34", "isa": "v4"})
    cannot_resume(folder, "cannot resume, the training data are not those of the stopped run", now=other)
    assert capsys.readouterr().err == ""
    other = dataclasses.replace(NOW, run={"training data": "ab12", "isa": "base"})
    assert check_resumable(folder, tables(), SOURCE, TARGET, other).run == other.run
    assert capsys.readouterr().err == f"{folder}: the run used v4 and goes on with base: other last bits\n"


def test_the_batch_may_change_only_between_epochs(folder: Path) -> None:
    more = tables()
    more["train"] |= {"batch": 20}
    assert check_resumable(folder, more, SOURCE, TARGET, NOW).batch == 0
    model, optimizer = trained()
    save_training(folder, model, optimizer, dataclasses.replace(NOW, batch=3), {})
    cannot_resume(folder, "cannot resume inside an epoch, batch was 64 and is now 20", batch=20)


def test_a_rate_that_is_asked_for_counts(folder: Path) -> None:
    model, optimizer = trained()
    save_training(folder, model, optimizer, dataclasses.replace(NOW, lr=0.001), {})  # lowered by the schedule
    assert check_resumable(folder, tables(), SOURCE, TARGET, NOW).lr == 0.001
    asked = tables()
    asked["train"] |= {"lr": 0.5}
    assert check_resumable(folder, asked, SOURCE, TARGET, NOW).lr == 0.5


@pytest.mark.parametrize("name", ["training.safetensors", "config.toml"])
def test_what_resuming_needs_is_named(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    cannot_resume(folder, rf"{name.replace('.', '[.]')}: has \d+ bytes, expected")
    (folder / name).unlink()
    cannot_resume(folder, rf"{name.replace('.', '[.]')}: the file is missing")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"epoch": "x"}, "epoch is 'x', expected an integer from 0 on"),
        ({"epoch": True}, "epoch is 'True', expected an integer from 0 on"),
        ({"batch": -1}, "batch is '-1', expected an integer from 0 on"),
        ({"step": 10**30}, "step is '1000"),
        ({"step": 1.0}, "step is '1.0', expected an integer"),
        ({"lr": None}, "lr is 'None', expected a positive finite number"),
        ({"lr": 0.0}, "lr is '0.0', expected a positive finite number"),
        ({"best_error": []}, r"best_error is '\[\]', expected a finite number"),
        ({"loss_sum": None}, "loss_sum is 'None', expected a finite number"),
        ({"loss_sum": 10**400}, "loss_sum is '1000"),
        ({"optimizer_steps": "many"}, "optimizer_steps is 'many', expected an integer"),
        ({"run": {"isa": 3}}, "run is .*, expected a table"),
        ({"report": 3}, "report is '3', expected a table"),
        ({"more": 3}, "unknown key 'more'"),
    ],
    ids=str,
)
def test_a_state_that_is_none(folder: Path, change: dict[str, Any], words: str) -> None:
    tensors = checkpoint.tensors_from_bytes(checkpoint.load_file(folder, "training.safetensors"))
    state = strict_json.plain(NOW.to_dict())
    replace(folder, "training.safetensors", checkpoint.tensors_to_bytes(tensors, state | change))
    cannot_resume(folder, rf"training\.safetensors: state: {words}")


@pytest.mark.parametrize("name", ["epoch", "lr", "optimizer_steps"])
def test_a_state_without_a_field(folder: Path, name: str) -> None:
    tensors = checkpoint.tensors_from_bytes(checkpoint.load_file(folder, "training.safetensors"))
    state = strict_json.plain(NOW.to_dict())
    del state[name]
    replace(folder, "training.safetensors", checkpoint.tensors_to_bytes(tensors, state))
    cannot_resume(folder, rf"training\.safetensors: state: {name} is missing")


def test_moments_of_another_model(folder: Path) -> None:
    tensors = checkpoint.tensors_from_bytes(checkpoint.load_file(folder, "training.safetensors"))
    tensors["optimizer/m"] = np.zeros(16, np.float32)
    state = strict_json.plain(NOW.to_dict())
    replace(folder, "training.safetensors", checkpoint.tensors_to_bytes(tensors, state))
    cannot_resume(folder, r"training\.safetensors: tensor 'optimizer/m' is float32 \(16,\), expected float32")


def test_a_folder_without_a_stopped_run(tmp_path: Path) -> None:
    cannot_resume(tmp_path / "missing", "missing: no such model folder")
    start_folder(tmp_path, tables(), SOURCE, TARGET)
    cannot_resume(tmp_path, r"manifest\.json does not list 'training\.safetensors'")


def test_a_folder_that_holds_a_model_is_not_free(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m holds a trained model: --resume .* --overwrite .* another --out"):
        check_free(folder)
    check_free(tmp_path / "missing")
    start_folder(tmp_path / "begun", tables(), SOURCE, TARGET)
    check_free(tmp_path / "begun")  # killed before anything was learned


def test_configurations_are_not_larger_than_they_need_be(folder: Path) -> None:
    replace(folder, "config.toml", b"#" * (1 << 17))
    refused(folder, r"config\.toml: is larger than the limit of 65536 bytes")
    replace(folder, "config.toml", b"a." * 10_000 + b"a = 1\n")  # the parser's time is quadratic in the parts
    refused(folder, r"config\.toml:1: the line has 20005 characters, expected at most 16384")


def test_a_folder_of_before_the_tags_key_splits_at_commas(folder: Path) -> None:
    """Its vocabulary holds whole bundles: read otherwise, every tag would be unknown."""
    assert load_tables(folder)[2].tags == "features"
    text = (folder / "config.toml").read_text(encoding="utf-8")
    replace(folder, "config.toml", text.replace('tags = "features"\n', "").encode())
    assert load_tables(folder)[2].tags == "commas"
