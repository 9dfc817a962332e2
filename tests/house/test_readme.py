"""The README does what it says: its example prints its comments, its tables are complete, its recipe works."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan.attention import scorings
from dhyan.attention.scoring import registry

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def block(words: str) -> str:
    """The one Python block with these words."""
    (found,) = [text for text in BLOCKS if words in text]
    return found


def test_the_lines_without_a_model_print_their_comments() -> None:
    lines = block("dhyan.attend(").partition("translator =")[0]
    assert "dhyan.attend(" in lines and "dhyan.load(" not in lines
    printed, expected = io.StringIO(), re.findall(r"print\(.*\) +# (.*)", lines)
    with contextlib.redirect_stdout(printed):
        exec(lines, {})
    assert expected and printed.getvalue().splitlines() == expected


def test_the_sentence_about_the_example() -> None:
    assert "the scores are .7 .5 .3" in README
    states, query = np.array([[1, 0], [0.5, 0.5], [0, 1]]), np.array([0.7, 0.3])
    scores = dhyan.ops.score_forward(query[None, None], states[None], term="product")
    assert scores.round(12).tolist() == [[[0.7, 0.5, 0.3]]]
    rounded = dhyan.attend(query, states).weights.round(4) @ states
    assert "articles print the context as .5663 .4337" in README.replace("\n", " ")
    assert np.abs(rounded - [0.5663, 0.4337]).max() < 0.51e-4  # what rounding the weights first gives, .56625 .43375


def test_the_lines_that_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("train.tsv", "valid.tsv"):
        Path(name).write_text("gato\tcat\nperro\tdog\n" * 4, encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(block("dhyan.train("), {})
    assert printed.getvalue() == "cat\n" and (tmp_path / "model" / "training.safetensors").exists()


def test_every_public_name_of_the_example_is_there() -> None:
    names = {name for text in BLOCKS for name in re.findall(r"\bdhyan\.(\w+)\(", text)}
    assert names and names <= set(dhyan.__all__)


def test_the_table_lists_every_scoring_with_its_paper() -> None:
    (table,) = re.findall(r"\| scoring \|.*?\n\n", README, re.DOTALL)
    rows = [row.split("|") for row in table.strip().splitlines()[2:]]
    listed = {name: row[3] for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert set(listed) == set(dhyan.scorings())
    for name, papers in listed.items():
        assert scorings.scoring(name).source in ("baseline", *re.split(r", *", papers.strip())), name


# ------------------------------------------------------------------------------------------------ adding a scoring


@pytest.fixture
def halved() -> Iterator[None]:
    """The scoring of the README, registered as printed."""
    before = dict(registry)
    try:
        exec(block("@dhyan.register_scoring"), {"__name__": "halved"})
        yield
    finally:
        registry.clear()
        registry.update(before)


def loss_and_gradients(attention: str, **choices: Any) -> tuple[float, dict[str, np.ndarray], dhyan.Seq2Seq]:
    config = dhyan.ModelConfig(
        source_size=9, target_size=8, embedding=3, hidden=4, cell="gru", dropout=0.0, attention=attention, **choices
    )
    model = dhyan.Seq2Seq(config, seed=0, dtype="float64")
    source, target = np.array([[4, 5, 6, 7, 2], [8, 4, 2, 0, 0]]), np.array([[1, 4, 5, 2], [1, 6, 2, 0]])
    batch = dhyan.Batch(source, np.array([5, 3]), target, np.array([4, 3]))
    loss, cache = model.forward(batch)
    gradients = {name: array.copy() for name, array in model.backward(cache).items()}
    weights = model.force(batch)[1]
    return loss, gradients | {"weights": weights}, model


@pytest.mark.parametrize("order", ["bahdanau", "luong"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_scoring_of_the_readme_works_as_printed(halved: None, order: str, bidirectional: bool) -> None:
    """q . k / 2 is what scaled_dot computes at width 4: the same loss, gradients and weights, to the bit."""
    assert "halved" in dhyan.scorings()
    loss, arrays, model = loss_and_gradients("halved", order=order, bidirectional=bidirectional)
    scaled_loss, scaled, _ = loss_and_gradients("scaled_dot", order=order, bidirectional=bidirectional)
    plain_loss, _, _ = loss_and_gradients("dot", order=order, bidirectional=bidirectional)
    assert loss == scaled_loss != plain_loss
    assert arrays.keys() == scaled.keys() == {*model.parameters(), "weights"}
    assert all(arrays[name].tobytes() == scaled[name].tobytes() for name in arrays)


def test_it_is_gone_afterwards() -> None:
    assert "halved" not in dhyan.scorings()
    with pytest.raises(ValueError, match="'halved', expected one of"):
        dhyan.ModelConfig(source_size=9, target_size=8, attention="halved")
