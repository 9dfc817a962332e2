"""Vocabularies of training pairs, the pairs that are short enough, and gold links of their tokens."""

import pytest
from dhyan.errors import DataError
from dhyan.text.config import DataConfig
from dhyan.text.encoded import build_vocabulary, short_enough, token_links, vocabularies
from dhyan.text.pairs import Pair
from dhyan.text.vocabulary import Vocabulary

PAIRS = [Pair("a b c", "x"), Pair("a", "x y"), Pair("a b", "x y z")]


def test_what_is_too_long_is_left_out_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert short_enough(PAIRS, DataConfig(max_length=2)) == PAIRS[1:2]
    assert "2 training pairs longer than 2 tokens left out" in capsys.readouterr().err
    assert short_enough(PAIRS, DataConfig(max_length=3)) == PAIRS and not capsys.readouterr().err
    with pytest.raises(DataError, match="every validation pair is longer than max_length = 1"):
        short_enough(PAIRS[:1], DataConfig(max_length=1), what="validation")


def test_vocabularies_follow_the_options() -> None:
    source, target = vocabularies(PAIRS, DataConfig(min_count=2, target_vocabulary=5))
    assert source.tokens[4:] == ("a", "b") and target.tokens[4:] == ("x",)
    source, _ = vocabularies([Pair("ﬁ e\u0301", "x")], DataConfig(normalization="nfkc"))
    assert source.tokens[4:] == ("fi", "é") and source.normalization == "nfkc"
    source, _ = vocabularies([Pair("ﬁ e\u0301", "x")], DataConfig(normalization="none"))
    assert set(source.tokens[4:]) == {"ﬁ", "e\u0301"}
    with pytest.raises(DataError, match="every training pair is longer"):
        vocabularies(PAIRS[:1], DataConfig(max_length=2))


def test_links_of_words_stay_as_they_are() -> None:
    pair = Pair("a b", "x", ((1, 0, True),))
    words = Vocabulary(["a"], "word")
    assert token_links(pair, words, words) == pair.links and token_links(PAIRS[0], words, words) is None


# ------------------------------------------------------------------------------------------------ subwords

DATA = DataConfig(source_level="subword", target_level="subword", max_length=30)


def test_subwords_are_learned_from_short_pairs_and_counted() -> None:
    pytest.importorskip("sentencepiece")
    long_word, many = Pair("z" * 481, "x"), Pair("a " * 31, "x")  # 30 pieces hold at most 480 characters
    close = Pair("qwrtzpsdfgh" * 4, "x")  # 45 pieces, which only the vocabulary can tell
    pairs = [*PAIRS, *[Pair("hello there", "hi")] * 3, long_word, many, close]
    made = vocabularies(pairs, DATA)
    assert "z" in "".join(made[0].tokens)  # from the pair that may have been short enough
    assert short_enough(pairs, DATA, made) == pairs[:-3]
    assert short_enough(pairs, DATA) == [*pairs[:-3], close]


def test_the_side_is_named_where_subwords_cannot_be_learned() -> None:
    pytest.importorskip("sentencepiece")
    with pytest.raises(DataError, match="the target side of the training data: they give at most"):
        build_vocabulary(["a b"], DataConfig(target_level="subword", target_vocabulary=500), "target")


def test_links_of_words_become_links_of_pieces() -> None:
    pytest.importorskip("sentencepiece")
    data = DataConfig(source_level="subword", subword_model="bpe", source_vocabulary=9)
    pair = Pair("abc ab", "x y", ((0, 1, True), (1, 0, False)))
    source, target = vocabularies([pair] * 3, data)
    pieces = source.tokenize(pair.source)
    first = pieces.index("▁ab" if "▁ab" in pieces else pieces[0])
    links = token_links(pair, source, target)
    words = source.words_of(pieces)
    assert first == 0 and links is not None and words is not None
    assert set(links) == {(s, 1 - word, word == 0) for s, word in enumerate(words.index)}
