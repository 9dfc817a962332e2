"""Shortlists: the lexicon behind them, what a search over one gives, and the commands."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import dhyan
import numpy as np
import pytest
from dhyan import ModelConfig, Seq2Seq
from dhyan.cli import main
from dhyan.errors import CheckpointError, DataError
from dhyan.search.beam import beam_search
from dhyan.text import lexicon
from dhyan.text.lexicon import KEPT, Lexicon
from dhyan.text.vocabulary import END, UNKNOWN
from dhyan.training import checkpoint

B, V = 12, 40


def model_of(dtype: str = "float32", **changes: object) -> Seq2Seq:
    settings = {"cell": "gru", "source_size": 30, "target_size": V, "embedding": 16, "hidden": 24, "dropout": 0.0}
    model = Seq2Seq(ModelConfig(**settings | changes), seed=5, dtype=dtype)
    model.parameters()["output.weight"][...] *= 3
    return model


def sources() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(2)
    return rng.integers(4, 30, (B, 7)), rng.integers(2, 8, B)


def lists() -> np.ndarray:
    chosen = np.random.default_rng(3).random((B, V)) < 0.3
    chosen[:, END] = True
    return chosen


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("attention", ["additive", "coverage"])
def test_a_search_writes_what_is_listed_and_shares_the_probability(isa: str, dtype: str, attention: str) -> None:
    model, (source, lengths), chosen = model_of(dtype, attention=attention), sources(), lists()
    start = np.ones(B, np.int64), np.arange(B)
    everything, _, _ = model.advance(model.start(source, lengths), *start)
    listed, _, _ = model.advance(model.start(source, lengths, shortlist=chosen), *start)
    assert (np.isneginf(listed) == ~chosen).all()
    p = np.where(chosen, np.exp(everything.astype(np.float64)), 0)
    tolerance = 1e-5 if dtype == "float32" else 1e-12  # some additions of numbers around 1, and one logarithm
    np.testing.assert_allclose(np.exp(listed.astype(np.float64)), p / p.sum(1, keepdims=True), tolerance, tolerance)
    top, ids, _, _ = model.advance_top(model.start(source, lengths, shortlist=chosen), *start, 3)
    for row in range(B):
        best = np.argsort(-listed[row], kind="stable")[:3]
        assert ids[row].tolist() == best.tolist() and (top[row] == listed[row, best]).all()
    ids, _ = model.greedy(source, lengths, 9, shortlist=chosen)
    for row in range(B):
        assert all(chosen[row, token] for token in ids[row] if token != 0)


def test_all_tokens_listed_is_no_list(isa: str) -> None:
    model, (source, lengths) = model_of(), sources()
    every = np.ones((B, V), bool)
    for got, want in zip(
        model.greedy(source, lengths, 9, shortlist=every), model.greedy(source, lengths, 9), strict=True
    ):
        assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sentence_does_not_depend_on_the_lists_of_others(isa: str, dtype: str) -> None:
    """Not in the last bit of a score: no sum passes over the tokens of others, which float64 shows."""
    model, (source, lengths), chosen = model_of(dtype), sources(), lists()
    model.freeze()
    ids, weights = model.greedy(source, lengths, 9, shortlist=chosen)
    found = beam_search(model, source, lengths, beam=3, shortlist=chosen)
    for i in range(B):
        part = slice(i, i + 1)
        alone, read = model.greedy(source[part], lengths[part], 9, shortlist=chosen[part])
        n = alone.shape[1]
        assert (alone[0] == ids[i, :n]).all() and not ids[i, n:].any()
        assert read[0, :, : lengths[i]].tobytes() == weights[i, :n, : lengths[i]].tobytes()
        (own,) = beam_search(model, source[part], lengths[part], beam=3, shortlist=chosen[part])
        assert [(h.ids, h.score) for h in own] == [(h.ids, h.score) for h in found[i]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("fewest, ended", [(1, False), (2, True), (6, True), (6, False)])
def test_a_beam_wider_than_a_list(
    isa: str, monkeypatch: pytest.MonkeyPatch, dtype: str, fewest: int, ended: bool
) -> None:
    """Tokens that only other sentences may write take no place in a beam: in one call of the core as step by step."""
    model, (source, lengths), chosen = model_of(dtype), sources(), lists()
    chosen[0] = False
    chosen[0, [END, *range(4, 4 + V)][:fewest] if ended else range(4, 4 + fewest)] = True
    chosen[:, :END] = False  # so that the end symbol is the first of what is as unlikely
    found = beam_search(model, source, lengths, beam=40, nbest=40, max_length=7, shortlist=chosen)
    with monkeypatch.context() as patch:
        patch.setattr(Seq2Seq, "beam", lambda *_: None)
        steps = beam_search(model, source, lengths, beam=40, nbest=40, max_length=7, shortlist=chosen)
    for whole, stepwise in zip(found, steps, strict=True):
        assert [(h.ids, h.score, h.finished, h.weights.tobytes()) for h in whole] == [
            (h.ids, h.score, h.finished, h.weights.tobytes()) for h in stepwise
        ]
    for i in range(B):
        part = slice(i, i + 1)
        (own,) = beam_search(
            model, source[part], lengths[part], beam=40, nbest=40, max_length=7, shortlist=chosen[part]
        )
        assert [(h.ids, h.score) for h in own] == [(h.ids, h.score) for h in found[i]]
        assert all(np.isfinite(h.score) and chosen[i, h.ids].all() for h in own)


def test_bad_lists() -> None:
    model, (source, lengths), chosen = model_of(), sources(), lists()
    for wrong in (chosen.astype(np.int64), chosen[:, :-1], chosen[:-1], "abc"):
        with pytest.raises(ValueError, match=r"Seq2Seq: shortlist is .* expected bool \(B, V\) = \(12, 40\)"):
            model.start(source, lengths, shortlist=wrong)  # type: ignore[arg-type]
    chosen[3] = False
    with pytest.raises(ValueError, match="the shortlist allows sentence 3 no token"):
        model.start(source, lengths, shortlist=chosen)


def test_the_lexicon_learns_a_cipher() -> None:
    rng = np.random.default_rng(0)
    sources = [rng.integers(4, 20, rng.integers(1, 8)).tolist() for _ in range(300)]
    targets = [[24 - i for i in reversed(row)] for row in sources]
    lexicon = Lexicon.learn(sources, targets, 20, 30)
    assert (lexicon.best[4:20, 0] == 24 - np.arange(4, 20)).all()
    assert (lexicon.best[[0, 1, 3]] == -1).all() and (lexicon.best[END] >= 0).any()
    counts = np.bincount(np.concatenate(targets), minlength=30)
    assert (np.diff(counts[lexicon.common]) <= 0).all() and set(lexicon.common) == set(np.flatnonzero(counts))

    chosen = lexicon.choices(np.array([[5, 6, 19]]), np.array([2]), 30, 1)
    assert set(np.flatnonzero(chosen[0])) == {19, 18, lexicon.common[0], END, UNKNOWN}  # 19 itself is padding
    for wrong in (0, KEPT + 1):
        with pytest.raises(ValueError, match=f"candidates is {wrong}, expected 1 to 100"):
            lexicon.choices(np.array([[5]]), np.array([1]), 30, wrong)


def test_the_lexicon_is_model_1() -> None:
    """One round by hand: two pairs, the first symbol of the second explained by its own word alone."""
    lexicon = Lexicon.learn([[4, 5], [5]], [[6, 7], [7]], 6, 8)
    p = {(s, t): 1.0 for s, t in [(4, 6), (4, 7), (5, 6), (5, 7), (END, 6), (END, 7)]}
    for _ in range(5):
        counts = dict.fromkeys(p, 0.0)
        for source, target in [([4, 5, END], [6, 7]), ([5, END], [7])]:
            for t in target:
                for s in source:
                    counts[s, t] += p[s, t] / sum(p[x, t] for x in source)
        p = {(s, t): counts[s, t] / (counts[s, 6] + counts[s, 7]) for s, t in p}
    for s in (4, 5, END):
        assert lexicon.best[s, :2].tolist() == sorted((6, 7), key=lambda t: -p[s, t])


def test_nothing_to_learn_from() -> None:
    lexicon = Lexicon.learn([], [], 5, 6)
    assert (lexicon.best == -1).all() and len(lexicon.common) == 0
    assert lexicon.choices(np.array([[4]]), np.array([1]), 6, 3).sum() == 2
    with pytest.raises(ValueError, match="1 sources and 0 targets"):
        Lexicon.learn([[4]], [], 5, 6)
    with pytest.raises(IndexError, match="target 0 holds an id outside 0 <= id < 6"):
        Lexicon.learn([[4]], [[6]], 5, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads letters and writes their upper case, its training pairs beside it."""
    out = tmp_path_factory.mktemp("shortlist")
    rng = np.random.default_rng(1)
    lines = [" ".join(rng.choice(list("abcdefg"), 3)) for _ in range(64)]
    (out / "pairs.tsv").write_text("".join(f"{line}\t{line.upper()}\n" for line in lines))
    common = ["--embedding", "16", "--hidden", "16", "--epochs", "20", "--batch", "8", "--lr", "0.02", "--dropout", "0"]
    pairs = str(out / "pairs.tsv")
    assert main(["train", pairs, pairs, "--out", str(out / "m"), *common]) == 0
    return out


def test_commands(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, pairs = str(folder / "m"), str(folder / "pairs.tsv")
    assert main(["evaluate", model, pairs, "--shortlist", "2", "--json"]) == 1
    assert "there is no shortlist.safetensors; make it with: dhyan shortlist" in capsys.readouterr().err
    assert main(["shortlist", model, pairs]) == 0
    assert "64 pairs, 8 source tokens" in capsys.readouterr().out
    shares = []
    for options in ([], ["--shortlist", "2"], ["--weights", "bfloat16"], ["--weights", "int8", "--beam", "1"]):
        assert main(["evaluate", model, pairs, "--json", *options]) == 0
        shares.append(json.loads(capsys.readouterr().out)["exact_match"])
    assert shares[0] > 0.9 and max(shares) - min(shares) < 0.05
    listed = dhyan.load(model, shortlist=1)
    wanted = listed.translate("a b", prefix="G")  # a prefix that the list lacks
    assert wanted.tokens[0] == "G"
    for wrong in (["--weights", "int4"], ["--shortlist", "101"]):
        assert main(["translate", model, pairs, *wrong]) == 2
    assert "expected one of: int8, bfloat16" in capsys.readouterr().err


def test_a_lexicon_of_other_vocabularies_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another model trained into the folder, with vocabularies of the same sizes: the ids are other words."""
    model, lines = str(tmp_path / "m"), (folder / "pairs.tsv").read_text()
    for made in (lines, lines.translate(str.maketrans("aA", "zZ"))):
        (tmp_path / "pairs.tsv").write_text(made)
        pairs = str(tmp_path / "pairs.tsv")
        small = ["--embedding", "4", "--hidden", "4", "--updates", "1", "--overwrite"]
        assert main(["train", pairs, pairs, "--out", model, *small]) == 0
        if made is lines:
            assert main(["shortlist", model, pairs]) == 0
            assert main(["evaluate", model, pairs, "--shortlist", "2"]) == 0
    capsys.readouterr()
    assert main(["evaluate", model, pairs, "--shortlist", "2"]) == 1
    assert "shortlist.safetensors: it was made for other vocabularies" in capsys.readouterr().err
    assert main(["shortlist", model, pairs]) == 0
    assert main(["evaluate", model, pairs, "--shortlist", "2"]) == 0


def test_damaged_lexicons(folder: Path) -> None:
    config = dhyan.load(folder / "m").model.config
    sizes = config.source_size, config.target_size
    good = Lexicon.learn([[4]], [[5]], *sizes).arrays()
    assert Lexicon.of(good, *sizes, "x").best.tolist() == good["best"].tolist()
    for damaged in (
        {},
        {**good, "best": good["best"][:-1]},
        {**good, "best": good["best"].astype(np.float64)},
        {**good, "best": np.full_like(good["best"], 10**6)},
        {**good, "best": np.full_like(good["best"], -2)},
        {**good, "common": np.array([-1])},
        {**good, "common": np.arange(101) % 4},
    ):
        with pytest.raises(CheckpointError, match=r"^x: "):
            Lexicon.of(damaged, *sizes, "x")
        checkpoint.save_files(folder / "m", {"shortlist.safetensors": checkpoint.tensors_to_bytes(damaged)})
        with pytest.raises((CheckpointError, DataError), match=r"shortlist\.safetensors"):
            dhyan.load(folder / "m", shortlist=5)


def test_no_folder_is_made_for_a_shortlist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shortlist", str(tmp_path / "missing"), str(tmp_path / "pairs.tsv")]) == 1
    assert "missing: no such model folder" in capsys.readouterr().err
    assert not (tmp_path / "missing").exists()


def test_a_lexicon_of_many_chunks_is_that_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    sources = [rng.integers(4, 60, rng.integers(0, 9)).tolist() for _ in range(200)]
    targets = [rng.integers(4, 50, rng.integers(0, 9)).tolist() for _ in range(200)]
    whole = Lexicon.learn(sources, targets, 60, 50)
    monkeypatch.setattr(lexicon, "CHUNK", 40)
    parts = Lexicon.learn(sources, targets, 60, 50)
    assert parts.best.tobytes() == whole.best.tobytes() and parts.common.tobytes() == whole.common.tobytes()


def test_memory_of_learning_grows_with_the_words_and_not_with_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sentences eight times over: no array holds every pair of positions of the corpus."""
    rng = np.random.default_rng(9)
    monkeypatch.setattr(lexicon, "CHUNK", 1 << 15)
    sources = rng.integers(4, 300, (300, 20)).tolist()

    def most(times: int) -> int:
        tracemalloc.start()
        Lexicon.learn(sources * times, sources * times, 300, 300)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert most(8) < 1.1 * most(2)
