"""The demo on a small recipe: everything is printed and written, and its promises about the data hold."""

import subprocess
import sys

import pytest
from dhyan import corpus
from dhyan.cli.demo import Recipe, demo, sentences
from dhyan.text.pairs import read_pairs
from dhyan.translate.translator import load

SMALL = Recipe(pairs=200, short_pairs=100, valid=20, test_per_bucket=5, embedding=12, hidden=16, epochs=2)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(folder, stdout, stderr) of a run in a process of its own, without terminal."""
    out = tmp_path_factory.mktemp("demo") / "out"
    code = f"import sys; from dhyan.cli.demo import Recipe, demo; demo(sys.argv[1], {SMALL!r})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(out)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout, done.stderr


def test_what_it_writes(ran):
    out, _, _ = ran
    names = {path.name for path in out.iterdir()}
    pictures = {f"{name}.{suffix}" for name in ("heatmap", "bleu-by-length") for suffix in ("svg", "png")}
    assert names == pictures | {"model", "model-none", "test.tsv"}
    pairs = read_pairs(out / "test.tsv")
    assert len(pairs) == 4 * SMALL.test_per_bucket and all(pair.links for pair in pairs)
    assert load(out / "model").model.config.attention == "additive"
    assert load(out / "model-none").model.config.attention == "none"


def test_what_it_prints(ran):
    _, out, err = ran
    for source, target in corpus.DEMO:
        assert source in out and target in out
    assert "attention.query" in out and "total" in out  # the model summary
    assert out.count("\n    1 ") == 2 and out.count("\n    2 ") == 2  # one row an epoch and model
    for words in ("Training without attention", "Training with additive attention", "BLEU", "exact match"):
        assert words in out
    assert "AER  " in out and "Try next" in out and "dhyan translate" in out
    assert "BLEU, 3 to 8 source words" in out and "BLEU, 21 to 2" in out
    assert "\x1b" not in out + err and "Warning" not in err


def test_nothing_of_the_test_is_trained_on():
    training, valid, test = sentences(SMALL)
    seen = {pair.source for pair in training}
    shown = {source for source, _ in corpus.DEMO}
    assert not seen & {pair.source for pair in test} and not seen & {pair.source for pair in valid}
    assert not {pair.source for pair in valid} & {pair.source for pair in test}
    assert not (seen | {pair.source for pair in [*valid, *test]}) & shown
    lengths = [len(pair.source.split()) for pair in training]
    assert max(lengths) <= corpus.BUCKETS[-1][1]


def test_the_default_test_set_fills_every_bucket():
    assert Recipe().test_per_bucket >= 100 and len(corpus.BUCKETS) >= 4


def test_without_the_extras_it_still_runs(tmp_path, monkeypatch, capsys):
    for name in ("matplotlib", "sacrebleu"):
        monkeypatch.setitem(sys.modules, name, None)
    recipe = Recipe(pairs=100, short_pairs=20, valid=10, test_per_bucket=2, embedding=8, hidden=8, epochs=1)
    results = demo(tmp_path / "out", recipe)
    captured = capsys.readouterr()
    assert results["additive"]["bleu"] is None
    assert captured.err.count("pip install 'dhyan[text]'") == 1
    assert not list((tmp_path / "out").glob("*.png")) and not (tmp_path / "out" / "bleu-by-length.svg").exists()
    assert "Try next" in captured.out
