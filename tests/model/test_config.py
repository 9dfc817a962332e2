"""Configurations: every bad value refused by name, and the way through TOML and back."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dhyan import DataConfig, DataError, ModelConfig, TrainConfig, Window
from dhyan.attention.scorings import scorings
from dhyan.attention.windows import PredictiveWindow
from dhyan.training.config import TABLES, parse_toml, read_toml, to_toml

MODEL = dict(source_size=6, target_size=7)
NOT_INTEGERS = (1.0, "1", True, None)
NOT_NUMBERS = ("0.1", True, None, [0.1])

INTEGERS = [
    (ModelConfig, "source_size", 1),
    (ModelConfig, "target_size", 4),
    (ModelConfig, "embedding", 1),
    (ModelConfig, "hidden", 1),
    (ModelConfig, "layers", 1),
    (ModelConfig, "max_source", 0),
    (TrainConfig, "batch", 1),
    (TrainConfig, "epochs", 1),
    (TrainConfig, "patience", 1),
    (TrainConfig, "updates", 0),
    (TrainConfig, "warmup", 0),
    (TrainConfig, "seed", 0),
    (TrainConfig, "sampling_ramp", 0),
    (TrainConfig, "average", 0),
    (TrainConfig, "validate_every", 0),
    (DataConfig, "source_vocabulary", 0),
    (DataConfig, "target_vocabulary", 0),
    (DataConfig, "min_count", 1),
    (DataConfig, "max_length", 1),
]

# name, inside, outside
NUMBERS = [
    (ModelConfig, "dropout", (0, 0.0, 0.999), (-0.1, 1, 1.0)),
    (ModelConfig, "recurrent_dropout", (0, 0.5), (-0.1, 1, 1.0)),
    (ModelConfig, "embedding_dropout", (0, 0.5), (-0.1, 1, 1.0)),
    (ModelConfig, "temperature", (1, 0.1, 1e30), (0, 0.0, -1.0)),
    (TrainConfig, "lr", (1e-30, 1, 1e30), (0, 0.0, -1e-3)),
    (TrainConfig, "lr_decay", (0.1, 0.99), (0.0, 1.0, -0.5)),
    (TrainConfig, "clip", (0, 5.0), (-1.0,)),
    (TrainConfig, "weight_decay", (0, 0.01), (-0.01,)),
    (TrainConfig, "guided", (0, 0.5, 10), (-0.5,)),
    (TrainConfig, "coverage", (0, 1.0), (-1e-9,)),
    (TrainConfig, "beta1", (0, 0.9), (1.0, -0.1)),
    (TrainConfig, "beta2", (0, 0.999), (1.0, -0.1)),
    (TrainConfig, "label_smoothing", (0, 0.1), (1.0, -0.1)),
    (TrainConfig, "scheduled_sampling", (0, 0.5), (1.0, -0.1)),
    (TrainConfig, "momentum", (0, 0.9), (1.0, -0.1)),
    (TrainConfig, "time", (0, 0.5, 600), (-1.0,)),
]

NAMES = [
    (ModelConfig, "cell", "lstn", "lstm"),
    (ModelConfig, "attention", "aditive", "additive"),
    (ModelConfig, "order", "bahdanu", "bahdanau"),
    (ModelConfig, "normalize", "sofmax", "softmax"),
    (ModelConfig, "source", "feature", "features"),
    (ModelConfig, "tie", "outputs", "output"),
    (TrainConfig, "schedule", "cosin", "cosine"),
    (TrainConfig, "schedule", "inverse", "inverse_sqrt"),
    (TrainConfig, "optimizer", "sdg", "sgd"),
    (TrainConfig, "optimizer", "adamx", "adam"),
    (TrainConfig, "precision", "float46", "float64"),
    (TrainConfig, "select", "lose", "loss"),
    (DataConfig, "source_level", "chars", "char"),
    (DataConfig, "target_level", "words", "word"),
    (DataConfig, "source_level", "subwords", "subword"),
    (DataConfig, "bad_lines", "skipped", "skip"),
    (DataConfig, "normalization", "nfcc", "nfc"),
    (DataConfig, "subword_model", "unigrams", "unigram"),
]


def make(table: type, **values: Any) -> Any:
    return table(**((MODEL if table is ModelConfig else {}) | values))


def refused(error: type[Exception], words: str, table: type, **values: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        make(table, **values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("table, name, least", INTEGERS, ids=lambda x: getattr(x, "__name__", x))
def test_integers(table: type, name: str, least: int) -> None:
    assert getattr(make(table, **{name: least}), name) == least
    for value in (least - 1, -(2**70)):
        refused(ValueError, rf"{table.__name__}: {name} is {value}, expected at least {least}", table, **{name: value})
    for value in NOT_INTEGERS:
        refused(TypeError, rf"{table.__name__}: {name} is .*expected an integer", table, **{name: value})


@pytest.mark.parametrize("table, name, inside, outside", NUMBERS, ids=lambda x: getattr(x, "__name__", None))
def test_numbers(table: type, name: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    for value in inside:
        assert getattr(make(table, **{name: value}), name) == value
    for value in (*outside, math.nan, math.inf, -math.inf):
        refused(ValueError, rf"{table.__name__}: {name} is {value}, expected ", table, **{name: value})
    for value in NOT_NUMBERS:
        refused(TypeError, rf"{table.__name__}: {name} is .*expected a number", table, **{name: value})


@pytest.mark.parametrize("table, name, wrong, nearest", NAMES)
def test_unknown_names_list_the_nearest_first(table: type, name: str, wrong: str, nearest: str) -> None:
    refused(ValueError, rf"{name} is '{wrong}', expected one of: {nearest}\b", table, **{name: wrong})
    assert getattr(make(table, **{name: nearest}), name) == nearest
    for value in (None, 3, "", ["x"]):
        refused(ValueError, rf"{name} is {re.escape(repr(value))}, expected one of", table, **{name: value})


BOOLEANS = [
    *(
        (ModelConfig, name)
        for name in ("bidirectional", "input_feeding", "normalized", "variational", "residual", "layer_norm", "copy")
    ),
    (DataConfig, "byte_fallback"),
]


@pytest.mark.parametrize("table, name", BOOLEANS)
def test_booleans(table: type, name: str) -> None:
    for value in (0, 1, "true", None):
        refused(TypeError, rf"{table.__name__}: {name} is .*expected true or false", table, **{name: value})


def test_two_source_columns_are_not_cut_into_subwords() -> None:
    refused(ValueError, "'subword' with columns '1,2:3'", DataConfig, source_level="subword", columns="1,2:3")
    assert make(DataConfig, target_level="subword", columns="1,2:3").source_level == "word"
    refused(TypeError, "columns is 3, expected a text", DataConfig, columns=3)


def test_fine_tune_is_a_name() -> None:
    assert make(TrainConfig).fine_tune == "" and make(TrainConfig, fine_tune="model").fine_tune == "model"
    for value in (None, 1, True, Path("model")):
        refused(TypeError, r"TrainConfig: fine_tune is .*, expected the name of", TrainConfig, fine_tune=value)
    refused(ValueError, r"fine_tune is 'm\\udcff', expected one in UTF-8", TrainConfig, fine_tune="m\udcff")


def test_heads_is_an_integer_of_at_least_1() -> None:
    assert make(ModelConfig, heads=8).heads == 8
    for value in (0, -1, "1", None, 1.0, True):
        with pytest.raises((TypeError, ValueError), match=r"ModelConfig: heads is .*expected"):
            make(ModelConfig, heads=value)


@pytest.mark.parametrize(
    "words, values",
    [
        ("heads is 3, expected a divisor of 256", dict(heads=3)),
        ("heads is 32, expected a divisor of 16", dict(heads=32, hidden=16, bidirectional=False)),
        ("attention 'none': heads is 2, expected 1", dict(heads=2, attention="none")),
        ("attention 'location': heads is 2, expected 1", dict(heads=2, attention="location")),
        ("attention 'coverage': heads is 2, expected 1", dict(heads=2, attention="coverage")),
        ("attention 'dot': normalized is true, expected false", dict(normalized=True, attention="dot")),
        ("window with normalize 'monotonic'", dict(window=2, normalize="monotonic")),
        ("window with normalize 'monotonic'", dict(window="predictive:2", normalize="monotonic")),
        ("residual is true with layers = 1, expected at least 2", dict(residual=True)),
        ("tie is 'all' with source 'tokens', source_size 6 and target_size 7", dict(tie="all")),
        ("tie is 'all' with source 'features'", dict(tie="all", source="features", source_size=7)),
        ("attention 'uniform'.*normalize is 'sparsemax'", dict(attention="uniform", normalize="sparsemax")),
    ],
)
def test_parts_that_do_not_fit(words: str, values: dict[str, Any]) -> None:
    refused(ValueError, words, ModelConfig, **values)


def test_every_scoring_can_be_configured() -> None:
    """Also location, whose max_source may be left to train; a model asks for it."""
    for name in scorings():
        config = make(ModelConfig, attention=name)
        assert config.attention == name and config.max_source == 0
        if name != "location":
            assert config.setting.name == name
    with pytest.raises(ValueError, match="max_source is 0, expected"):
        make(ModelConfig, attention="location").setting  # noqa: B018
    assert make(ModelConfig, attention="location", max_source=9).setting.sizes.max_source == 9


def test_windows() -> None:
    assert make(ModelConfig).window is None and make(ModelConfig).radius == -1
    for window in (3, Window(3), "3"):
        config = make(ModelConfig, window=window)
        assert config.window == Window(3) and config.radius == 3 and config.to_dict()["window"] == 3
    for window in (PredictiveWindow(2), "predictive:2"):
        config = make(ModelConfig, window=window)
        assert config.window == PredictiveWindow(2) and config.radius == -1
        assert config.to_dict()["window"] == "predictive:2"
    for window, words in ((-1, "radius is -1"), (math.nan, "radius is nan"), ("predictive:0", "radius is 0")):
        refused(ValueError, f"ModelConfig: .*{words}", ModelConfig, window=window)
    for window in ("", "predictive", "predictive:", "predictive:x", "predictve:2", "predictive:-2", "2.5", "२"):
        refused(ValueError, f"ModelConfig: window is {window!r}, expected", ModelConfig, window=window)
    for window in (1.0, math.inf, True, [2]):
        refused(TypeError, "ModelConfig: .*radius is", ModelConfig, window=window)


def test_every_field_but_one_has_its_bad_values_here() -> None:
    """A new field needs a line above. `columns` is checked where the file is read."""
    checked = {(t, n) for t, n, *_ in [*INTEGERS, *NUMBERS, *NAMES]}
    checked |= {*BOOLEANS, (ModelConfig, "heads"), (ModelConfig, "window")}
    checked |= {(DataConfig, "columns"), (TrainConfig, "fine_tune")}
    assert checked == {(t, f.name) for t in TABLES.values() for f in dataclasses.fields(t)}


def test_a_configuration_does_not_change() -> None:
    for table in TABLES.values():
        config = make(table)
        with pytest.raises(dataclasses.FrozenInstanceError):
            config.seed = 3
        with pytest.raises(TypeError):
            table(1, 2)
    assert make(ModelConfig) == make(ModelConfig) and hash(make(ModelConfig)) == hash(make(ModelConfig))


def test_memory_size_is_the_width_of_both_directions() -> None:
    assert make(ModelConfig, hidden=8).memory_size == 16
    assert make(ModelConfig, hidden=8, bidirectional=False).memory_size == 8


# ------------------------------------------------------------------------------------------------ TOML


@pytest.mark.parametrize(
    "values",
    [
        dict(model={}, train={}, data={}),
        dict(model=dict(window=0, dropout=0.0, bidirectional=False, input_feeding=False, cell="gru", attention="none")),
        dict(model=dict(dropout=1 / 3, order="luong", source="features")),
        dict(model=dict(window="predictive:3", heads=4, temperature=0.3, normalized=True)),
        dict(model=dict(attention="location", max_source=40, normalize="sparsemax"), train=dict(guided=1 / 3)),
        dict(model=dict(normalize="monotonic"), train=dict(coverage=2)),
        dict(model=dict(residual=True, layers=2, tie="output", variational=True, embedding_dropout=0.1)),
        dict(train=dict(lr=1e-300, clip=1e22, weight_decay=5e-324, seed=2**53 + 1, lr_decay=0.1 + 0.2)),
        dict(train=dict(lr=1, clip=0, schedule="cosine", precision="float64")),
        dict(train=dict(optimizer="sgd", momentum=0.5, schedule="inverse_sqrt", fine_tune='a "b" \\ c')),
        dict(data=dict(columns="1,2:3", source_level="char")),
    ],
    ids=str,
)
def test_the_round_trip_changes_nothing(values: dict[str, dict[str, Any]]) -> None:
    configs = {title: make(TABLES[title], **given) for title, given in values.items()}
    text = to_toml({title: config.to_dict() for title, config in configs.items()})
    back = parse_toml(text, "config.toml")
    assert list(back) == list(configs)
    assert {title: TABLES[title].from_dict(back[title], "config.toml") for title in back} == configs


def test_a_file_of_an_older_version_is_read() -> None:
    """It lacks the keys that came later, and says heads = 1."""
    old = (
        '[model]\nsource_size = 6\ntarget_size = 7\nwindow = 2\nnormalize = "softmax"\nheads = 1\n[train]\nlr = 0.01\n'
    )
    tables = parse_toml(old, "config.toml")
    assert ModelConfig.from_dict(tables["model"], "x") == make(ModelConfig, window=2)
    assert TrainConfig.from_dict(tables["train"], "x") == TrainConfig(lr=0.01)


@pytest.mark.parametrize(
    "name, value", [("lr", np.float64(1e-3)), ("clip", np.float64(5.0)), ("label_smoothing", np.float64(0.25))]
)
def test_numbers_of_numpy_make_the_round_trip(name: str, value: float) -> None:
    """A sweep over np.geomspace gives these; a model whose config.toml cannot be read again would be lost."""
    config = TrainConfig(**{name: value})
    back = parse_toml(to_toml({"train": config.to_dict()}), "config.toml")
    assert TrainConfig.from_dict(back["train"], "config.toml") == config


@pytest.mark.parametrize(
    "text", ["", "a b", 'say "x"', "C:\\new\\table", "tab\tline\nend\r\x00\x1f\x7f", "हिन्दी 🙂", "'#=[]"]
)
def test_any_text_makes_the_round_trip(text: str) -> None:
    assert parse_toml(to_toml({"data": {"columns": text}}), "x") == {"data": {"columns": text}}


def test_none_is_left_out() -> None:
    assert to_toml({"model": {"window": None, "hidden": 3}}) == "[model]\nhidden = 3\n"


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"f\.toml: \[train\]: unknown key 'epoch', did you mean: epochs\b") as caught:
        TrainConfig.from_dict({"epoch": 3}, "f.toml: [train]")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"unknown key 'hiden', did you mean: hidden\b"):
        ModelConfig.from_dict(MODEL | {"hiden": 3}, "f.toml: [model]")
    with pytest.raises(ValueError, match=r"hidden is 0"):
        ModelConfig.from_dict(MODEL | {"hidden": 0}, "f.toml: [model]")


@pytest.mark.parametrize(
    "text, words",
    [
        ("[modle]\nhidden = 3\n", r"f\.toml: unknown table \[modle\], expected one of: model, "),
        ("hidden = 3\n", r"f\.toml: unknown table \[hidden\]"),
        ("train = 3\n", r"f\.toml: train is a value, expected a table \[train\]"),
        ("[[train]]\nlr = 1\n", r"f\.toml: train is a value, expected a table"),
        ("[train]\nlr = \n", r"f\.toml: .*line 2"),
        ("[train]\nlr = 1\nlr = 2\n", r"f\.toml: .*line 3"),
        ("[train]\n[train]\n", r"f\.toml: .*line 2"),
        ("\ufeff[train]\n", r"f\.toml: "),
        ("a = " + "[" * 5000, r"f\.toml: "),
    ],
    ids=lambda x: repr(x[:30]),
)
def test_bad_files_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        parse_toml(text, "f.toml")
    assert "\n" not in str(caught.value)
    path = tmp_path / "f.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        read_toml(path)


def test_files_that_are_no_text(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(DataError, match=path.name):
            read_toml(path)
    path = tmp_path / "latin.toml"
    path.write_bytes(b"[train] # caf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.toml"):
        read_toml(str(path))


def test_a_file_is_read_in_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text('# ध्यान\n[data]\ncolumns = "1,2:3"\n[train]\nlr = 1e-3\n', encoding="utf-8")
    assert read_toml(path) == {"data": {"columns": "1,2:3"}, "train": {"lr": 1e-3}}
