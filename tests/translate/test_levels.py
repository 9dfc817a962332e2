"""Subwords and Unicode forms from training data to translations: folders, commands, mixes of levels, resume, damage."""

import contextlib
import hashlib
import io
import json
import subprocess
import sys

import dhyan
import numpy as np
import pytest
from dhyan import CheckpointError, DataConfig, ModelConfig, TrainConfig, corpus
from dhyan.cli import main
from dhyan.errors import DataError
from dhyan.report.evaluation import evaluate, measure_texts
from dhyan.text.encoded import Encoded
from dhyan.text.pairs import Pair, parse_links
from dhyan.text.subword import SubwordVocabulary
from dhyan.training import checkpoint
from dhyan.training.config import read_toml
from dhyan.training.folder import load_folder
from helpers.training import digests as tensor_digests

pytest.importorskip("sentencepiece")

PAIRS = corpus.generate(110)
TRAIN, VALID = PAIRS[20:], PAIRS[:20]
MODEL = ModelConfig(source_size=4, target_size=4, embedding=8, hidden=12, cell="gru", dropout=0.1)
SUBWORDS = DataConfig(source_level="subword", target_level="subword")
SMALL = ["--hidden", "12", "--embedding", "8", "--cell", "gru", "--batch", "16", "--seed", "3"]
WRITTEN = ("config.toml", "source.model", "target.model", "model.safetensors", "training.safetensors", "manifest.json")


def train(out, data=SUBWORDS, resume=False, **options):
    chosen = TrainConfig(**({"epochs": 2, "batch": 16, "seed": 3} | options))
    return dhyan.train(MODEL, TRAIN, VALID, out, options=chosen, data=data, resume=resume)


def digests(folder, names=WRITTEN):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """train.tsv, valid.tsv with links, and `model`, briefly trained on subwords of both sides by the command."""
    path = tmp_path_factory.mktemp("text")
    (path / "train.tsv").write_text(corpus.to_tsv(TRAIN), encoding="utf-8")
    (path / "valid.tsv").write_text(corpus.to_tsv(VALID), encoding="utf-8")
    levels = ["--source-level", "subword", "--target-level", "subword", "--subword-model", "bpe", "--byte-fallback"]
    files = [str(path / "train.tsv"), str(path / "valid.tsv"), "--out", str(path / "model")]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(["train", *files, *levels, "--epochs", "2", "--guided", "0.5", *SMALL]) == 0
    return path


@pytest.fixture(scope="module")
def translator(folder):
    return dhyan.load(folder / "model")


def run(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def fails(capsys, message, *arguments, code=1):
    assert main([str(argument) for argument in arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and message in err


# ------------------------------------------------------------------------------------------------ the folder


def test_the_folder_holds_sentencepiece_models(folder):
    names = {path.name for path in (folder / "model").iterdir()}
    assert {"source.model", "target.model"} <= names and not {"source.vocab", "target.vocab"} & names
    assert {"source.model", "target.model"} <= set(
        json.loads((folder / "model" / "manifest.json").read_text())["files"]
    )
    data = read_toml(folder / "model" / "config.toml")["data"]
    assert (data["subword_model"], data["byte_fallback"], data["normalization"]) == ("bpe", True, "nfc")
    loaded = load_folder(folder / "model")
    assert isinstance(loaded.source_vocabulary, SubwordVocabulary) and "<0x00>" in loaded.target_vocabulary.tokens


def test_two_runs_give_the_same_folder_and_a_stopped_one_goes_on(tmp_path):
    train(tmp_path / "a")
    train(tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    train(tmp_path / "c", updates=4)  # in the first epoch
    train(tmp_path / "c", resume=True)
    same = ("source.model", "target.model", "model.safetensors")
    assert digests(tmp_path / "a", same) == digests(tmp_path / "c", same)
    assert tensor_digests(tmp_path / "a") == tensor_digests(tmp_path / "c")
    other = SUBWORDS.to_dict() | {"source_vocabulary": 70}
    with pytest.raises(CheckpointError, match=r"cannot resume, source_size was \d+ and is now 70"):
        train(tmp_path / "c", DataConfig(**other), True)
    other = SUBWORDS.to_dict() | {"normalization": "nfkc"}
    with pytest.raises(CheckpointError, match=r"cannot resume, source\.model differs"):
        train(tmp_path / "c", DataConfig(**other), True)


def test_fine_tuning_keeps_the_subwords(folder, tmp_path):
    more = [Pair("नमस्ते ☃", "hello ☃")] * 3
    options = TrainConfig(updates=2, batch=16, fine_tune=str(folder / "model"))
    dhyan.train(MODEL, more, more, tmp_path / "m", options=options, data=SUBWORDS)
    names = ("source.model", "target.model")
    assert digests(tmp_path / "m", names) == digests(folder / "model", names)
    other = DataConfig(**SUBWORDS.to_dict() | {"normalization": "none"})
    with pytest.raises(DataError, match="normalization is 'none', expected 'nfc', that of the vocabulary in"):
        dhyan.train(MODEL, more, more, tmp_path / "n", options=options, data=other)
    with pytest.raises(DataError, match="source_level is 'word', expected 'subword'"):
        dhyan.train(MODEL, more, more, tmp_path / "n", options=options)


@pytest.mark.parametrize("name", ["source.model", "target.model"])
def test_a_damaged_model_file_is_named(folder, tmp_path, name):
    for path in (folder / "model").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    whole = (tmp_path / name).read_bytes()
    for damaged in (whole[:-1], whole[:100], b"", whole[:50] + bytes([whole[50] ^ 4]) + whole[51:]):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            dhyan.load(tmp_path)
    (tmp_path / name).write_bytes(whole)
    # Somebody who also writes the manifest: digests are right, contents are not.
    for damaged in (b"nothing", whole[:-1], SubwordVocabulary.train(["a b"]).model):
        checkpoint.save_files(tmp_path, {name: damaged})
        with pytest.raises(CheckpointError, match=name):
            dhyan.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        dhyan.load(tmp_path)


def test_the_level_of_a_vocabulary_is_that_of_the_configuration(tmp_path):
    train(tmp_path, DataConfig(), updates=1)
    config = (
        (tmp_path / "config.toml").read_text(encoding="utf-8").replace('source_level = "word"', 'source_level = "char"')
    )
    checkpoint.save_files(tmp_path, {"config.toml": config.encode()})
    with pytest.raises(CheckpointError, match=r"source\.vocab: holds words, config\.toml says char"):
        dhyan.load(tmp_path)


# ------------------------------------------------------------------------------------------------ translations


def test_a_translation_is_text_with_pieces_for_tokens(translator):
    for found in translator.translate([pair.source for pair in VALID], beam=3, nbest=2):
        assert "▁" not in found.text and found.text == " ".join(found.text.split())
        assert found.weights.shape == (len(found.tokens), len(found.source_tokens))
        words = found.in_words()
        assert " ".join(words.tokens).split() == found.text.split()
        assert words.weights.shape == (len(words.tokens), len(words.source_tokens))
        assert np.allclose(words.weights.sum(axis=1), 1, atol=1e-5)
        assert [other.text for other in found.nbest] and found.nbest[0] is found
    pair = VALID[0]
    assert translator.translate(pair.source).in_words().source_tokens == [*pair.source.split(), "</s>"]
    aligned = translator.align([pair.source], [pair.target])[0]
    assert aligned.text == pair.target and aligned.in_words().tokens == pair.target.split()
    assert "▁" in aligned.tokens[0] and "▁" in aligned._repr_html_()


def test_text_without_a_token_is_empty(translator):
    found = translator.translate(["", " \t", "▁"])
    assert [(one.text, one.tokens, one.source_tokens) for one in found] == [("", [], ["</s>"])] * 3
    assert translator.align(["▁"], [""])[0].tokens == []


def test_evaluate_counts_words(translator):
    result = evaluate(translator, VALID)
    assert result["aer"] is not None and 0 <= result["aer"] <= 1
    assert result["exact_match"] <= 1 and result["token_error_rate"] > 0
    outputs = [pair.target for pair in VALID]
    assert measure_texts(outputs, VALID, vocab=translator.target_vocab).result["token_error_rate"] == 0


def test_links_of_words_guide_pieces(translator):
    vocabularies = translator.source_vocab, translator.target_vocab
    pair = VALID[0]
    batch = Encoded.of([pair], *vocabularies, links=True).batch(np.array([0]))
    source, target = (v.words_of(v.tokenize(t)) for v, t in zip(vocabularies, (pair.source, pair.target), strict=True))
    linked = {link[:2] for link in pair.links}
    for t, j in enumerate(target.index):
        rows = {i for i, k in linked if k == j}
        expected = [float(i in rows) for i in source.index]
        row = batch.alignment[0, t, : len(expected)]
        assert np.allclose(row, np.array(expected) / max(sum(expected), 1))
    assert not batch.alignment[0, len(target.index) :].any()  # the end symbol reads nothing in particular


def test_a_long_sentence_is_refused_with_the_limit(translator):
    for text in ("a " * 10**6, "☃" * 10**6):
        with pytest.raises(DataError, match=r"text 0: the source has \d+ tokens, expected at most 500"):
            translator.translate(text)
        with pytest.raises(DataError, match=r"text 0: the target has \d+ tokens, expected at most 1010"):
            translator.align([VALID[0].source], [text])


def test_longer_validation_pairs_are_left_out(tmp_path, capsys):
    long = Pair("a " * 600, "b")
    dhyan.train(MODEL, TRAIN, [*VALID, long], tmp_path, options=TrainConfig(updates=1), data=DataConfig())
    assert "1 validation pairs longer than 500 tokens left out" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ levels


@pytest.mark.parametrize(
    "levels",
    [("char", "subword"), ("word", "subword"), ("subword", "char"), ("subword", "word"), ("subword", "subword")],
)
@pytest.mark.parametrize("normalization", ["nfc", "nfkc", "none"])
def test_mixes_of_levels(tmp_path, levels, normalization):
    data = DataConfig(source_level=levels[0], target_level=levels[1], normalization=normalization)
    pairs = [Pair(pair.source, pair.target) for pair in TRAIN]  # their links count words
    dhyan.train(MODEL, pairs, pairs[:8], tmp_path, options=TrainConfig(updates=2, batch=16), data=data)
    made = dhyan.load(tmp_path)
    assert (made.source_vocab.level, made.target_vocab.level) == levels
    assert made.source_vocab.normalization == made.target_vocab.normalization == normalization
    found = made.translate(pairs[0].source, beam=2)
    assert found.weights.shape == (len(found.tokens), len(found.source_tokens)) and "▁" not in found.text
    forced = made.align([pairs[0].source], [pairs[0].target])[0].in_words()
    expected = [list(text) if level == "char" else text.split() for text, level in zip(
        (pairs[0].source, pairs[0].target), levels, strict=True)]  # fmt: skip
    assert [forced.source_tokens[:-1], forced.tokens] == expected
    assert evaluate(made, pairs[:8])["pairs"] == 8


def test_inflection_with_subwords_of_the_target(tmp_path):
    pairs = [
        Pair("ver\tpos=V", "visto", None, ("v", "e", "r", "[pos=V]")),
        Pair("ir\tpos=V", "ido", None, ("i", "r", "[pos=V]")),
    ]
    data = DataConfig(columns="1,2:3", target_level="subword")
    dhyan.train(MODEL, pairs * 8, pairs, tmp_path, options=TrainConfig(updates=2), data=data)
    assert dhyan.load(tmp_path).translate("ver\tpos=V").source_tokens == ["v", "e", "r", "[pos=V]", "</s>"]


def test_the_oracle_reads_word_links_by_pieces_of_the_source_only(tmp_path):
    model = ModelConfig(source_size=4, target_size=4, embedding=8, hidden=12, attention="oracle")
    options = TrainConfig(updates=2, batch=16)
    with pytest.raises(DataError, match="attention 'oracle' with target level 'subword', expected char or word"):
        dhyan.train(model, TRAIN, VALID, tmp_path, options=options, data=SUBWORDS)
    dhyan.train(model, TRAIN, VALID, tmp_path, options=options, data=DataConfig(source_level="subword"))
    made = dhyan.load(tmp_path)
    forced = made.align([VALID[0].source], [VALID[0].target], links=[VALID[0].links])[0]
    assert {link[:2] for link in VALID[0].links} >= set(forced.in_words().links()) != set()
    assert made.translate(VALID[0].source, links=[VALID[0].links]).text is not None
    with pytest.raises(DataError, match="link 99-0 is outside"):
        made.translate(VALID[0].source, links=[((99, 0, True),)])


# ------------------------------------------------------------------------------------------------ Unicode forms


def test_every_text_gets_the_unicode_form_of_the_model(tmp_path):
    pairs = [Pair("ﬁn Ａ", "ﬂag ²"), Pair("e\u0301 b", "y x")]
    for form, source in (("nfkc", "fin A"), ("none", "ﬁn Ａ"), ("nfc", "ﬁn Ａ")):
        out = tmp_path / form
        options = TrainConfig(updates=60, epochs=60, batch=2, lr=0.03, patience=60, label_smoothing=0.0)
        dhyan.train(MODEL, pairs, pairs, out, options=options, data=DataConfig(normalization=form))
        made = dhyan.load(out)
        assert made.tokenize("ﬁn Ａ") == source.split()
        assert ("é" in made.source_vocab) == (form != "none") and ("e\u0301" in made.source_vocab) == (form == "none")
        assert made.translate("ﬁn Ａ").text == ("flag 2" if form == "nfkc" else "ﬂag ²")
        assert evaluate(made, pairs)["exact_match"] == 1  # references get the form too
        assert (made.translate("fin A").text == "flag 2") == (form == "nfkc")


# ------------------------------------------------------------------------------------------------ commands


def test_commands_speak_of_words(folder, tmp_path, capsys):
    model, test = folder / "model", folder / "valid.tsv"
    (tmp_path / "in").write_text("".join(pair.source + "\n" for pair in VALID), encoding="utf-8")
    out = run(capsys, "translate", model, tmp_path / "in", "--align", tmp_path / "links", "--replace-unknown")
    links = (tmp_path / "links").read_text(encoding="utf-8").splitlines()
    for pair, text, line in zip(VALID, out.splitlines(), links, strict=True):
        assert "▁" not in text
        assert all(s < len(pair.source.split()) and t < len(text.split()) for s, t, _ in parse_links(line))
    lines = run(capsys, "align", model, test).splitlines()
    for pair, line in zip(VALID, lines, strict=True):
        assert all(s < len(pair.source.split()) and t < len(pair.target.split()) for s, t, _ in parse_links(line))
    first = json.loads(run(capsys, "translate", model, tmp_path / "in", "--jsonl").splitlines()[0])
    assert "▁" in "".join(first["tokens"]) + first["source_tokens"][0] and "▁" not in first["text"]
    result = json.loads(run(capsys, "evaluate", model, test, "--json", "--replace-unknown"))
    assert result["pairs"] == 20 and result["aer"] is not None
    run(capsys, "report", model, test, "--out", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "source subwords" in page and "task: translation" in page and "▁" in page


def test_a_dictionary_on_the_command_line(folder, tmp_path, capsys):
    (tmp_path / "d.tsv").write_text("a\tb\n", encoding="utf-8")
    (tmp_path / "in").write_text(VALID[0].source + "\n", encoding="utf-8")
    assert run(capsys, "translate", folder / "model", tmp_path / "in", "--dictionary", tmp_path / "d.tsv")
    fails(capsys, "no such file", "translate", folder / "model", tmp_path / "in", "--dictionary", tmp_path / "none")
    (tmp_path / "d.tsv").write_text("a\n", encoding="utf-8")
    fails(capsys, "d.tsv:1: the line has 1 columns", "evaluate", folder / "model", folder / "valid.tsv",
          "--dictionary", tmp_path / "d.tsv")  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--normalization", "nfcd"], "normalization is 'nfcd', expected one of: nfc, "),
        (["--subword-model", "bpm"], "subword_model is 'bpm', expected one of: bpe, "),
        (["--source-level", "subword", "--columns", "1,2:3"], "source_level is 'subword' with columns '1,2:3'"),
        (["--source-level", "subwords"], "source_level is 'subwords', expected one of: subword, "),
    ],
)
def test_usage_errors(capsys, arguments, message):
    fails(capsys, message, "train", "a", "b", "--out", "x", *arguments, code=2)


def test_a_size_that_the_data_do_not_give(folder, tmp_path, capsys):
    files = [folder / "train.tsv", folder / "valid.tsv", "--out", tmp_path / "m", "--target-level", "subword"]
    fails(capsys, "the target side of the training data: they give at most", "train", *files,
          "--target-vocabulary", "9999")  # fmt: skip
    fails(capsys, "characters alone need", "train", *files, "--target-vocabulary", "9")


def test_without_the_extra_one_line_says_how_to_install(folder, tmp_path):
    code = "import sys; sys.modules['sentencepiece'] = None; from dhyan.cli import main; sys.exit(main(sys.argv[1:]))"
    files = [folder / "train.tsv", folder / "valid.tsv", "--out", tmp_path / "m", "--source-level", "subword"]
    for given in (["train", *files], ["translate", folder / "model"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, given)], input="x\n", capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr == "dhyan: subwords need sentencepiece: pip install 'dhyan[text]'\n"


def test_a_line_beyond_the_limit_is_refused(folder, tmp_path, capsys):
    (tmp_path / "long").write_text("a " * 10**6, encoding="utf-8")
    fails(capsys, "long:1: the line is longer than the limit of 1048576 bytes", "translate", folder / "model",
          tmp_path / "long")  # fmt: skip
    (tmp_path / "less").write_text("a " * 5 * 10**5, encoding="utf-8")  # two pieces a word, mark and letter
    fails(capsys, "less:1: the source has 1000000 tokens, expected at most 500", "translate", folder / "model",
          tmp_path / "less")  # fmt: skip
