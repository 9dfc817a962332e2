"""Subwords: training, round trips, tiny corpora, bytes for unseen characters, damaged models."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
import unicodedata

import pytest
from dhyan import corpus
from dhyan.errors import DataError
from dhyan.text.subword import SubwordVocabulary, _interruptible
from dhyan.text.words import Words

sentencepiece = pytest.importorskip("sentencepiece")

PAIRS = corpus.generate(150)
HINDI, ENGLISH = [pair.source for pair in PAIRS], [pair.target for pair in PAIRS]
KINDS = pytest.mark.parametrize("kind", ["unigram", "bpe"])
FALLBACK = pytest.mark.parametrize("byte_fallback", [False, True])


@pytest.fixture(scope="module")
def hindi():
    return SubwordVocabulary.train(HINDI)


@KINDS
@FALLBACK
def test_devanagari_comes_back(kind, byte_fallback):
    vocabulary = SubwordVocabulary.train(HINDI, kind, byte_fallback=byte_fallback)
    assert vocabulary.tokens[:4] == ("<pad>", "<begin>", "<end>", "<unk>")
    for text in HINDI:
        ids = vocabulary.encode(text)
        assert min(ids) > 3 and vocabulary.decode(ids) == text
        assert vocabulary.encode(unicodedata.normalize("NFD", text)) == ids
        assert vocabulary.encode(vocabulary.tokenize(text)) == ids  # a text that is cut already
    assert any(len(vocabulary.tokenize(text)) < len(text.replace(" ", "")) for text in HINDI)


def test_white_space_becomes_single_spaces(hindi):
    assert hindi.encode(" मैं\u00a0खाना\u3000\tखा ") == hindi.encode("मैं खाना खा")
    assert hindi.encode("मैं▁खाना") == hindi.encode("मैं खाना")  # the mark in a text is white space
    assert hindi.tokenize("") == hindi.tokenize(" \n▁") == []


@KINDS
def test_unseen_characters_are_unknown_or_bytes(kind):
    text = "मैं ☃ 漢字"
    without = SubwordVocabulary.train(HINDI, kind)
    assert 3 in without.encode(text) and "☃" in without.tokenize(text)
    assert without.decode(without.encode(text)) == "मैं <unk> <unk>"
    vocabulary = SubwordVocabulary.train(HINDI, kind, byte_fallback=True)
    assert 3 not in vocabulary.encode(text) and "<0xE2>" in vocabulary.tokenize(text)
    assert vocabulary.decode(vocabulary.encode(text)) == text
    assert vocabulary.words_of(vocabulary.tokenize(text)).texts == ("मैं", "☃", "漢字")
    assert vocabulary.join(["▁a", "<0xE2>", "<0x98>", "b", "<0xFF>"]) == "a\ufffdb\ufffd"


def test_special_names_in_a_text_are_text():
    texts = ["say <end> now", "<pad> <unk> <0x41>"]
    vocabulary = SubwordVocabulary.train(texts, byte_fallback=True)
    for text in texts:
        assert min(vocabulary.encode(text)) > 3 and vocabulary.decode(vocabulary.encode(text)) == text


@KINDS
def test_the_characters_of_a_special_name_are_learned_from_it_alone(kind):
    for name in ("<pad>", "<s>", "</s>", "<unk>"):
        texts = [f"x{name}y {name}"] * 9
        vocabulary = SubwordVocabulary.train(texts, kind)
        assert vocabulary.decode(vocabulary.encode(texts[0])) == texts[0]


def test_half_a_surrogate_pair_is_no_crash(hindi):
    assert hindi.encode("\ud800") == hindi.encode("?")


@KINDS
def test_the_same_texts_give_the_same_bytes_in_every_process(kind):
    code = (
        "import hashlib; from dhyan import corpus; from dhyan.text.subword import SubwordVocabulary\n"
        f"texts = [pair.source for pair in corpus.generate(150)]; v = SubwordVocabulary.train(texts, {kind!r})\n"
        "print(hashlib.sha256(v.model).hexdigest())"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    vocabulary = SubwordVocabulary.train(HINDI, kind)
    assert done.stdout.strip() == hashlib.sha256(vocabulary.model).hexdigest() and done.stderr == ""
    again = SubwordVocabulary.train(HINDI, kind)
    assert again == vocabulary and hash(again) == hash(vocabulary)
    assert vocabulary != SubwordVocabulary.train(HINDI[:100], kind) and vocabulary != "x"
    assert vocabulary != SubwordVocabulary(vocabulary.model, "nfkc")


# ------------------------------------------------------------------------------------------------ size


@KINDS
@FALLBACK
@pytest.mark.parametrize("texts", [["a"], ["hello"], ["a b", "b a"], ["x"] * 9, ["ab" * 4000], ["▅a"]])
def test_tiny_corpora_choose_a_size(kind, byte_fallback, texts):
    vocabulary = SubwordVocabulary.train(texts, kind, byte_fallback=byte_fallback)
    for text in texts:
        text = text.replace("▅", "")
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_a_size_follows_the_data():
    words = sum(len(text.split()) for text in HINDI)
    characters = len(set("".join(HINDI)) - {" "})
    assert len(SubwordVocabulary.train(HINDI)) <= 4 + 1 + characters + words // 50
    assert len(SubwordVocabulary.train(HINDI, "bpe")) == 4 + 1 + characters + words // 50
    assert len(SubwordVocabulary.train(HINDI, "bpe", size=120)) == 120
    assert len(SubwordVocabulary.train(HINDI, size=90)) == 90


@KINDS
def test_a_size_that_the_data_do_not_give_is_one_line(kind):
    with pytest.raises(DataError, match=r"x: they give at most \d+ subwords \(\w+\), got a vocabulary size of 99999"):
        SubwordVocabulary.train(HINDI, kind, size=99999, name="x")
    with pytest.raises(DataError, match=r"x: their characters alone need \d+ subwords, got a vocabulary size of 9"):
        SubwordVocabulary.train(HINDI, kind, size=9, name="x")


@pytest.mark.parametrize("texts", [[], [""], [" ", "▁"]])
def test_no_character_at_all(texts):
    with pytest.raises(DataError, match="no character to learn subwords from"):
        SubwordVocabulary.train(texts)


def test_bad_arguments(hindi):
    with pytest.raises(ValueError, match="kind is 'bpee', expected one of: bpe, unigram"):
        SubwordVocabulary.train(["a"], "bpee")
    with pytest.raises(ValueError, match="normalization is 'nfx', expected one of: nf"):
        SubwordVocabulary.train(["a"], normalization="nfx")
    with pytest.raises(IndexError, match=r"ids\[1\] is -1"):
        hindi.decode([4, -1])


# ------------------------------------------------------------------------------------------------ words


def test_pieces_of_words():
    vocabulary = SubwordVocabulary.train(["hello world"] * 5 + ["hell"], "bpe", size=12)
    text = "hello world hell"
    words = vocabulary.words_of(vocabulary.tokenize(text))
    assert words.texts == ("hello", "world", "hell")
    assert [i for i, token in enumerate(vocabulary.tokenize(text)) if token.startswith("▁")] == [
        words.index.index(k) for k in range(3)
    ]
    # What a model may write: no mark at first, marks that nothing follows, unknown pieces.
    assert vocabulary.words_of(["he", "▁", "▁wo", "<unk>", "▁"]) == Words(("he", "wo<unk>"), (0, 1, 1, 1, 1))
    assert vocabulary.words_of(["▁", "▁"]) == Words(("",), (0, 0))
    assert vocabulary.words_of([]) == Words((), ())
    assert vocabulary.compared(["▁he", "llo", "▁", "▁wo"]) == ["hello", "wo"]
    assert vocabulary.decode([1, *vocabulary.encode("hell"), 0, 2, 5]) == "hell"


# ------------------------------------------------------------------------------------------------ damage


def test_what_is_no_model_is_refused(hindi):
    for model in (b"", b"x", b"\0" * 50, b"\x0a\xff\xff\xff\xff\x0f", hindi.model[:100], hindi.model[:-1]):
        with pytest.raises(DataError, match="v: the bytes are no sentencepiece model"):
            SubwordVocabulary(model, name="v")


def test_models_of_other_ids_are_refused():
    import io

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH), model_writer=written, vocab_size=40, minloglevel=2, hard_vocab_limit=False
    )
    with pytest.raises(DataError, match="v: piece 0 is '<unk>', expected '<pad>'"):
        SubwordVocabulary(written.getvalue(), name="v")


def test_any_flipped_bit_is_refused_or_harmless(hindi):
    model = hindi.model
    for position in range(0, len(model), 61):
        changed = bytearray(model)
        changed[position] ^= 1 << (position % 8)
        try:
            vocabulary = SubwordVocabulary(bytes(changed), name="v")
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert all(0 <= i < len(vocabulary) for i in vocabulary.encode(HINDI[0]))


def test_without_the_extra_it_says_how_to_install(monkeypatch, hindi):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    for act in (lambda: SubwordVocabulary.train(["a"]), lambda: SubwordVocabulary(hindi.model)):
        with pytest.raises(ImportError, match=r"subwords need sentencepiece: pip install 'dhyan\[text\]'"):
            act()


def test_ctrl_c_is_honoured_while_sentencepiece_works():
    honoured, at_the_end = threading.Event(), []

    def work():
        os.kill(os.getpid(), signal.SIGINT)
        at_the_end.append(honoured.wait(60))

    with pytest.raises(KeyboardInterrupt):
        _interruptible(work)
    assert not at_the_end  # the work still goes on
    honoured.set()
    assert _interruptible(lambda: 3) == 3
