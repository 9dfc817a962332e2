"""Copying from text to text: a model that learns it copies words that no vocabulary has, and says which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dhyan
import numpy as np
import pytest
from dhyan import DataError, Seq2Seq, Translator, Vocabulary
from dhyan.cli import main
from dhyan.model.config import ModelConfig
from dhyan.plot.card import card_html
from dhyan.report import choice
from dhyan.report.evaluation import evaluate
from dhyan.text.config import DataConfig
from dhyan.text.pairs import Pair
from dhyan.training.config import TrainConfig
from helpers.training import digests

NAMES = [a + b + c for a in ("ba", "ko", "mi", "tu") for b in ("ra", "se", "lo") for c in ("n", "s", "t", "ki")]


def pairs_of(count: int, seed: int) -> list[Pair]:
    """`the NAME met OTHER` is `OTHER was met by NAME`: both must be copied, in another order."""
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(len(NAMES), 2, replace=False) for _ in range(count)]
    return [Pair(f"the {NAMES[a]} met {NAMES[b]}{seed}", f"{NAMES[b]}{seed} was met by {NAMES[a]}") for a, b in drawn]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model. Names of its corpus are rare, those with another number behind them nobody knows."""
    out = tmp_path_factory.mktemp("copying") / "model"
    train, valid = [p for seed in range(40) for p in pairs_of(10, seed)], pairs_of(20, 99)
    config = ModelConfig(source_size=4, target_size=4, embedding=16, hidden=24, cell="gru", dropout=0.0, copy=True)
    options = TrainConfig(batch=16, epochs=12, lr=1e-2, label_smoothing=0.05, coverage=0.1)
    dhyan.train(config, train, valid, out, options=options, data=DataConfig(min_count=30))
    return out


@pytest.fixture(scope="module")
def translator(folder: Path) -> Translator:
    return dhyan.load(folder)


def test_unseen_words_are_copied_in_another_order(translator: Translator) -> None:
    test = pairs_of(50, 1234)
    found = translator.translate([p.source for p in test])
    right = [result.text == pair.target for result, pair in zip(found, test, strict=True)]
    assert np.mean(right) > 0.9
    for result, pair in zip(found, test, strict=True):
        assert result.copied is not None and result.p_gen is not None
        assert len(result.copied) == len(result.p_gen) == len(result.tokens)
        for token, copied, p_gen in zip(result.tokens, result.copied, result.p_gen, strict=True):
            assert 0 <= copied <= 1 and 0 <= p_gen <= 1
            if token not in translator.target_vocab:
                assert copied == 1 and token in pair.source.split()
    assert translator.translate(test[0].source, beam=1).text == found[0].text


def test_a_batch_shares_nothing(translator: Translator) -> None:
    texts = [p.source for p in pairs_of(20, 77)] + ["", "the x met y", "y"]
    together = translator.translate(texts, beam=3, nbest=2)
    for text, result in zip(texts, together, strict=True):
        alone = translator.translate(text, beam=3, nbest=2)
        assert (alone.text, alone.score, alone.copied, alone.p_gen) == (
            result.text, result.score, result.copied, result.p_gen,
        )  # fmt: skip
        assert [o.text for o in alone.others] == [o.text for o in result.others]
        for one in result.nbest:
            assert one.copied is not None and len(one.copied) == len(one.tokens)
            own = {t for t in one.tokens if t not in translator.target_vocab and t != "<unk>"}
            assert own <= set(text.split())
    assert together[20].copied == together[20].p_gen == ()


def test_prefixes_and_phrases_may_be_words_of_the_source(translator: Translator) -> None:
    result = translator.translate("the zorba met quux", prefix="quux was", constraints=["zorba"])
    assert result.tokens[:2] == ["quux", "was"] and "zorba" in result.tokens
    with pytest.raises(DataError, match="prefix of text 0: got 'nobody', expected tokens of the model's"):
        translator.translate("the zorba met quux", prefix="nobody")


def test_align_forces_words_that_only_the_source_has(translator: Translator) -> None:
    (found,) = translator.align(["the zorba met quux"], ["quux was met by zorba"])
    assert found.copied is not None and found.copied[0] == found.copied[4] == 1
    assert {(1, 4), (3, 0)} <= set(found.links())
    own = translator.translate("the zorba met quux")
    assert own.text == "quux was met by zorba"
    np.testing.assert_allclose(found.score, own.score, atol=1e-5)
    np.testing.assert_allclose(found.copied, own.copied or (), atol=1e-6)
    (other,) = translator.align(["the zorba met quux"], ["nobody was met by zorba"])  # unknown, and not in the source
    assert other.copied is not None and other.copied[0] < 0.5 and other.score < found.score - 0.5


def test_sampling_and_greedy_know_own_words(translator: Translator) -> None:
    for seed in range(3):
        result = translator.translate("the zorba met quux", sample=True, seed=seed)
        assert set(result.tokens) <= {*translator.target_vocab.tokens, "the", "zorba", "met", "quux"}


def test_evaluation_and_report(translator: Translator) -> None:
    test = pairs_of(20, 555)
    assert evaluate(translator, test)["exact_match"] > 0.8
    run = choice.Run(["model"], translator, [])
    assert choice.evidence_kind(run) == "attention, additive, copied source"
    result = translator.translate("the zorba met quux")
    assert {"quux", "zorba"} <= set(choice.copied(result))  # "met" may be copied too
    assert "copied source" in card_html(result.card()) and "quux 1.00" in card_html(result.card())
    assert set(result.to_dict()) >= {"copied", "p_gen"}


def test_a_round_trip_of_the_folder(folder: Path, translator: Translator) -> None:
    again = dhyan.load(folder)
    assert again.model.config.copy and again.copies
    for name, array in translator.model.parameters().items():
        np.testing.assert_array_equal(again.model.parameters()[name], array)
    assert "copy = true" in (folder / "config.toml").read_text()


def test_the_commands(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = tmp_path / "test.tsv"
    test.write_text("".join(f"{p.source}\t{p.target}\n" for p in pairs_of(9, 31)))
    (tmp_path / "text").write_text("the zorba met quux\n")

    def run(*argv: str) -> str:
        assert main(list(argv)) in (0, None)
        return capsys.readouterr().out

    assert run("translate", str(folder), str(tmp_path / "text")) == "quux was met by zorba\n"
    record = json.loads(run("translate", str(folder), str(tmp_path / "text"), "--jsonl"))
    assert len(record["copied"]) == len(record["p_gen"]) == 5 and record["copied"][0] == 1
    assert json.loads(run("evaluate", str(folder), str(test), "--json"))["pairs"] == 9
    assert len(run("align", str(folder), str(test)).splitlines()) == 9
    page = tmp_path / "page.html"
    run("report", str(folder), str(test), "--out", str(page))
    assert "copied source" in page.read_text()


def test_training_is_exact_and_resumes(tmp_path: Path) -> None:
    """Two runs give the same bits, and so does one that stopped."""
    train, valid = [p for seed in range(4) for p in pairs_of(10, seed)], pairs_of(5, 9)
    config = ModelConfig(source_size=4, target_size=4, embedding=6, hidden=7, dropout=0.2, copy=True)

    def learn(name: str, updates: int, **more: Any) -> Seq2Seq:
        options = TrainConfig(batch=8, epochs=2, updates=updates)
        return dhyan.train(config, train, valid, tmp_path / name, options=options, data=DataConfig(min_count=3), **more)

    whole, again = learn("a", 0), learn("b", 0)
    np.testing.assert_array_equal(whole.flat, again.flat)
    learn("c", 3)
    learn("c", 0, resume=True)
    assert digests(tmp_path / "c") == digests(tmp_path / "a")
    with pytest.raises(dhyan.CheckpointError, match="copy was True and is now False"):
        plain = ModelConfig(source_size=4, target_size=4, embedding=6, hidden=7, dropout=0.2)
        options = TrainConfig(batch=8, epochs=3)
        dhyan.train(plain, train, valid, tmp_path / "a", options=options, data=DataConfig(min_count=3), resume=True)


def test_levels_whose_tokens_are_no_words_of_each_other(tmp_path: Path) -> None:
    config = ModelConfig(source_size=4, target_size=4, copy=True)
    data = DataConfig(source_level="subword", target_level="word")
    with pytest.raises(DataError, match="copy with levels 'subword' and 'word', expected the same"):
        dhyan.train(config, pairs_of(9, 0), pairs_of(9, 1), tmp_path / "x", data=data)


def test_characters_that_the_target_lacks_are_copied() -> None:
    """Source and target may have vocabularies of their own: a character is the same by its form."""
    source, target = Vocabulary(list("abc"), "char"), Vocabulary(list("cba"), "char")
    config = ModelConfig(source_size=7, target_size=7, embedding=4, hidden=5, dropout=0.0, copy=True)
    model = Seq2Seq(config, dtype="float64")
    model.parameters()["copy.weight"][...] = 0
    model.parameters()["copy.bias"][...] = -50  # copies whatever it looks at
    result = Translator(model, source, target).translate("aéb", max_length=6)
    assert set(result.text) <= set("aéb") and min(result.copied or (1,)) > 0.99
