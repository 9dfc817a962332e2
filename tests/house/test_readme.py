"""README and the pages of docs/ do what they say: examples run and print their comments, commands parse, links exist,
tables are complete, the recipe works."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan.attention import scorings
from dhyan.attention.scoring import registry
from dhyan.cli.parser import COMMANDS, parse

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
BLOCKS = [(path, text) for path in PAGES for text in re.findall(r"```python\n(.*?)```", PAGES[path], re.DOTALL)]


def page(name: str) -> str:
    return PAGES[ROOT / "docs" / name]


def block(words: str, name: str = "README.md") -> str:
    """The one Python block of the page with these words."""
    (found,) = [text for path, text in BLOCKS if path.name == name and words in text]
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `dhyan ...` of a page: lines of shell blocks, and code in sentences."""
    lines = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL)).splitlines()
    lines += [
        line
        for code in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
        for line in code.splitlines()
        if line[:2] == "$ "
    ]
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += re.findall(r"`(dhyan [^`]*)`", prose)
    for line in lines:
        for part in re.split(r"&&|\||>| # ", line.replace("\n", " ").removeprefix("$ ")):
            words = shlex.split(part, comments=True) if part.strip().startswith("dhyan ") else []
            if len(words) > 1:
                yield words[1:]


def test_readme_is_a_landing_page() -> None:
    assert len(README.splitlines()) <= 200


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", PAGES[path]):
        if not target.startswith(("http://", "https://")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_page_is_listed_and_says_what_it_is_for() -> None:
    for path, text in PAGES.items():
        if path.parent != ROOT and "\n\nWritten by `python tools/" not in text:  # a tool's own test reads what it wrote
            assert re.match(r"# .+\n\nThis page [^\n]+[.]\n", text), path.name
            if path.name != "index.md":
                assert f"(docs/{path.name})" in README and f"({path.name})" in page("index.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_commands_parse(path: Path) -> None:
    """With the real parser. A command that a sentence only names, such as `dhyan train`, must exist."""
    for words in commands(PAGES[path]):
        assert words[0] in COMMANDS, f"{path.name}: dhyan {' '.join(words)}"
        if len(words) > 1:
            assert parse(words) is not None


def test_the_commands_of_readme_are_found() -> None:
    assert ["translate", "model", "input.txt"] in list(commands(README))
    assert ["align", "dhyan-demo/model", "dhyan-demo/test.tsv"] in list(commands(page("translating.md")))


@pytest.mark.parametrize("name", ["README.md", "arrays.md"])
def test_the_lines_without_a_model_print_their_comments(name: str) -> None:
    lines = block("dhyan.attend(", name).partition("translator =")[0]
    assert "dhyan.attend(" in lines and "dhyan.load(" not in lines
    printed, expected = io.StringIO(), re.findall(r"print\(.*\) +# (.*)", lines)
    with contextlib.redirect_stdout(printed):
        exec(lines, {})
    assert expected and printed.getvalue().splitlines() == expected


def test_the_operations_print_their_comment(capsys: pytest.CaptureFixture[str]) -> None:
    lines = block("ops.attention_forward(", "arrays.md")
    exec(lines, {})
    assert capsys.readouterr().out.split() == lines.partition(")  # ")[2].split()


def test_the_layer_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("dhyan.Attention(", "attention.md"), {})
    assert capsys.readouterr().out.startswith("(4, 7, 9) (4, 9, 512) [")


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
        exec(block("dhyan.train(", "training.md"), {})
    assert printed.getvalue() == "cat\n" and (tmp_path / "model" / "training.safetensors").exists()

    shared = tmp_path / "shared"  # the files that docs/model-folder.md names are enough
    shared.mkdir()
    sentence = re.search(r"\*\*To share a model\*\*.*?and the two vocabularies", page("model-folder.md"), re.DOTALL)
    assert sentence is not None
    named = re.findall(r"`([^`]+)`", sentence[0])
    assert len(named) == 3
    for name in (*named, "source.vocab", "target.vocab"):
        shutil.copy(tmp_path / "model" / name, shared / name)
    assert dhyan.load(shared).translate("gato").text == "cat"
    for name in sorted(path.name for path in (tmp_path / "model").iterdir()):
        assert f"`{name}`" in page("model-folder.md"), name


def test_every_public_name_of_the_example_is_there() -> None:
    names = {name for _, text in BLOCKS for name in re.findall(r"\bdhyan\.(\w+)\(", text)}
    assert names and names <= set(dhyan.__all__)


def test_the_table_lists_every_scoring_with_its_paper() -> None:
    (table,) = re.findall(r"\| scoring \|.*?\n\n", page("attention.md"), re.DOTALL)
    rows = [row.split("|") for row in table.strip().splitlines()[2:]]
    listed = {name: row[3] for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert set(listed) == set(dhyan.scorings())
    for name, papers in listed.items():
        assert scorings.scoring(name).source in ("baseline", *re.split(r", *", papers.strip())), name


# ------------------------------------------------------------------------------------------------ adding a scoring


@pytest.fixture
def halved() -> Iterator[None]:
    """The scoring of docs/extending.md, registered as printed."""
    before = dict(registry)
    try:
        exec(block("@dhyan.register_scoring", "extending.md"), {"__name__": "halved"})
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
def test_the_scoring_of_the_page_works_as_printed(halved: None, order: str, bidirectional: bool) -> None:
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
