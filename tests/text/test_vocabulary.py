"""Vocabularies: ids, levels, round trips of any Unicode text, the file format."""

import unicodedata

import pytest
from dhyan.errors import DataError
from dhyan.text.vocabulary import SPECIALS, Vocabulary, normalize, tokenize
from hypothesis import given
from hypothesis import strategies as st

HINDI = "मैं खाना खा रहा हूँ"
TEXTS = st.lists(st.text(min_size=1), min_size=1, max_size=5)
LEVELS = pytest.mark.parametrize("level", ["char", "word"])


def test_special_ids_come_first():
    vocabulary = Vocabulary(["a"], "word")
    assert vocabulary.tokens == ("<pad>", "<begin>", "<end>", "<unk>", "a")
    assert len(vocabulary) == 5
    assert vocabulary.encode("a b") == [4, 3]


def test_build_orders_by_count_then_code_point():
    vocabulary = Vocabulary.build(["b a c", "c b", "é"], "word")
    assert vocabulary.tokens[4:] == ("b", "c", "a", "é")


def test_build_limits():
    texts = ["a a a b b c"]
    assert Vocabulary.build(texts, "word", min_count=2).tokens[4:] == ("a", "b")
    assert Vocabulary.build(texts, "word", max_size=5).tokens[4:] == ("a",)
    assert len(Vocabulary.build(texts, "word", max_size=4)) == 4


def test_build_takes_texts_and_token_sequences():
    vocabulary = Vocabulary.build(["ab", ("a", "pos=V")], "char")
    assert vocabulary.tokens[4:] == ("a", "b", "pos=V")
    assert vocabulary.encode(("pos=V", "b")) == [6, 5]


def test_devanagari_marks_are_tokens_of_their_own_and_come_back():
    vocabulary = Vocabulary.build([HINDI], "char")
    assert vocabulary.tokenize("हूँ") == ["ह", "ू", "ँ"]
    assert vocabulary.decode(vocabulary.encode(HINDI)) == HINDI
    words = Vocabulary.build([HINDI], "word")
    assert words.tokenize(HINDI) == ["मैं", "खाना", "खा", "रहा", "हूँ"]
    assert words.decode(words.encode(HINDI)) == HINDI


def test_nfc_joins_what_looks_the_same():
    assert tokenize("e\u0301", "char") == ["é"]
    assert tokenize("e\u0301 x", "word") == ["é", "x"]
    # The nukta letters are excluded from composition: U+095C becomes two code points, in every text alike.
    assert tokenize("\u095c", "char") == ["\u0921", "\u093c"]


def test_other_unicode_forms():
    assert [normalize("ﬁ e\u0301", form) for form in ("nfc", "nfkc", "none")] == ["ﬁ é", "fi é", "ﬁ e\u0301"]
    assert tokenize("ﬁ\u00a0Ａ", "char", "nfkc") == ["f", "i", " ", "A"]
    assert tokenize("e\u0301", "char", "none") == ["e", "\u0301"]
    vocabulary = Vocabulary.build(["ﬁn"], "word", normalization="nfkc")
    assert vocabulary.encode("fin") == vocabulary.encode("ﬁn") == [4]
    assert Vocabulary.from_text(vocabulary.to_text(), normalization="nfkc") == vocabulary
    assert Vocabulary.from_text(vocabulary.to_text()) != vocabulary
    for act in (lambda: normalize("a", "nfd"), lambda: Vocabulary([], "word", "nfd")):
        with pytest.raises(ValueError, match="normalization is 'nfd', expected one of: nf"):
            act()


def test_words_of_subwords_are_split_at_their_mark_too():
    assert tokenize("a▁b c", "subword") == ["a", "b", "c"] and tokenize("a▁b c", "word") == ["a▁b", "c"]
    with pytest.raises(ValueError, match="level is 'subword', expected one of char, word"):
        Vocabulary([], "subword")


def test_words_split_at_any_unicode_white_space():
    assert tokenize("a\u00a0b\u2028c\u3000d", "word") == ["a", "b", "c", "d"]


@LEVELS
@given(texts=TEXTS)
def test_any_text_survives_encoding(level, texts):
    vocabulary = Vocabulary.build(texts, level)
    for text in texts:
        normal = unicodedata.normalize("NFC", text)
        assert vocabulary.decode(vocabulary.encode(text)) == (normal if level == "char" else " ".join(normal.split()))


@LEVELS
@given(texts=TEXTS)
def test_any_vocabulary_survives_its_text_form(level, texts):
    vocabulary = Vocabulary.build(texts, level)
    text = vocabulary.to_text()
    assert len(text.splitlines()) == len(vocabulary) - 4 + 1  # no token can look like a line break to anyone
    assert Vocabulary.from_text(text) == vocabulary


@given(text=st.text())
def test_from_text_of_anything_is_a_vocabulary_or_a_data_error(text):
    try:
        assert len(Vocabulary.from_text("dhyan-vocabulary 1 char " + text)) >= 4
    except DataError as error:
        assert "\n" not in str(error)


def test_special_names_in_a_text_are_ordinary_words():
    text = "say <end> now"
    assert Vocabulary.build(["say now"], "word").encode(text) == [5, 3, 4]
    vocabulary = Vocabulary.build([text, *SPECIALS], "word")
    ids = vocabulary.encode(text)
    assert min(ids) > 3
    assert vocabulary.decode(ids) == text
    assert Vocabulary.from_text(vocabulary.to_text()) == vocabulary


def test_decode_stops_at_end_and_drops_padding():
    vocabulary = Vocabulary(["a", "b"], "word")
    assert vocabulary.decode([1, 4, 0, 3, 5, 2, 4]) == "a <unk> b"
    assert vocabulary.tokens_of([2, 4]) == []


@pytest.mark.parametrize("bad", [-1, 6, 10**9])
def test_decode_names_the_position_of_a_foreign_id(bad):
    with pytest.raises(IndexError, match=rf"ids\[1\] is {bad}, expected 0 <= id < 6"):
        Vocabulary(["a", "b"], "word").decode([4, bad])


def test_save_and_load(tmp_path):
    vocabulary = Vocabulary(["खाना", "a b", "\\", "\n", "\u2028", "\u200d"], "char")
    vocabulary.save(tmp_path / "v")
    assert Vocabulary.load(tmp_path / "v") == vocabulary
    assert (tmp_path / "v").read_text(encoding="utf-8").split("\n") == [
        "dhyan-vocabulary 1 char 6",
        "खाना",
        "a\\u0020b",
        "\\\\",
        "\\u000a",
        "\\u2028",
        "\u200d",
        "",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: got ''"),
        ("dhyan-vocabulary 2 word 1\na\n", "1: got"),
        ("dhyan-vocabulary 1 word 2\na\n", "holds 1 whole tokens, expected 2"),
        ("dhyan-vocabulary 1 word 1\na", "holds 0 whole tokens, expected 1"),
        ("dhyan-vocabulary 1 word 2\na\na\n", "token 'a' stands at ids 4 and 5"),
        ("dhyan-vocabulary 1 word 1\n\n", "token 4 is empty"),
        ("dhyan-vocabulary 1 word 1\na\\x\n", "v:2: unknown escape"),
        ("dhyan-vocabulary 1 word 1\n\\ud800\n", "lone surrogate"),
    ],
)
def test_damaged_file_is_one_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as caught:
        Vocabulary.from_text(text, "v")
    assert "\n" not in str(caught.value)


def test_file_that_is_not_utf8(tmp_path):
    (tmp_path / "v").write_bytes(b"dhyan\xff")
    with pytest.raises(DataError, match="byte 5 is not UTF-8"):
        Vocabulary.load(tmp_path / "v")


def test_bad_arguments():
    with pytest.raises(ValueError, match="level is 'letter', expected one of char, word"):
        Vocabulary([], "letter")
    with pytest.raises(ValueError, match="level is 'letter'"):
        tokenize("a", "letter")
    with pytest.raises(TypeError, match="tokens is a str"):
        Vocabulary("abc", "char")
    with pytest.raises(TypeError, match="token 4 is a int"):
        Vocabulary([7], "char")
    with pytest.raises(ValueError, match="'\\\\ud800' holds a lone surrogate"):
        Vocabulary(["\ud800"], "char")
    with pytest.raises(ValueError, match="max_size is 3"):
        Vocabulary.build([], "char", max_size=3)
    with pytest.raises(ValueError, match="min_count is 0"):
        Vocabulary.build([], "char", min_count=0)


def test_equality_hash_and_membership():
    a, b = Vocabulary(["x"], "char"), Vocabulary(["x"], "char")
    assert a == b and hash(a) == hash(b)
    assert a != Vocabulary(["x"], "word") and a != Vocabulary(["y"], "char") and a != "x"
    assert "x" in a and "<end>" not in a
    assert repr(a) == "Vocabulary(5 tokens, level='char')"
