"""Unknown output words, replaced by the source word they were read from."""

import numpy as np
import pytest
from dhyan.errors import DataError
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.report.evaluation import evaluate
from dhyan.text.batch import Batch
from dhyan.text.pairs import Pair
from dhyan.text.vocabulary import Vocabulary
from dhyan.text.words import Words
from dhyan.training.optimizer import Adam
from dhyan.translate.translator import Translator
from dhyan.translate.unknown import read_dictionary, replaced

WEIGHTS = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.0, 0.0, 0.0]], np.float32)


def test_the_source_token_with_the_largest_weight_is_copied():
    tokens = ["<unk>", "<unk>", "<unk>"]
    # The end symbol stands at the third position: nothing is copied from it. The last row reads nothing.
    assert replaced([3, 3, 3], tokens, WEIGHTS, ["Asha", "sings"], {}) == ["Asha", "sings", "<unk>"]
    assert replaced([3, 9, 3], tokens, WEIGHTS, ["a", "b"], {"a": "A"}) == ["A", "<unk>", "<unk>"]
    assert tokens == ["<unk>"] * 3
    assert replaced([3], ["<unk>"], np.array([[0.5, 0.5]]), ["a", "b"], {}) == ["a"]  # of equals the first
    assert replaced([3], ["<unk>"], np.ones((1, 1)), [], {}) == ["<unk>"]


def test_pieces_are_copied_as_text_or_as_their_whole_word():
    source = ["▁a", "sha", "▁b"]
    weights = np.array([[0.1, 0.8, 0.1, 0.0]])
    assert replaced([3], ["<unk>"], weights, source, {}) == ["sha"]
    assert replaced([3], ["<unk>"], weights[:, [1, 0, 2, 3]], source, {}) == ["a"]
    words = Words(("asha", "b"), (0, 0, 1))
    assert replaced([3], ["<unk>"], weights, source, {"asha": "Asha"}, words) == ["Asha"]


def test_a_dictionary_is_a_tsv_file(tmp_path):
    (tmp_path / "d.tsv").write_text("दिल्ली\tDelhi\ne\u0301\tE\nदिल्ली\tNew Delhi\n", encoding="utf-8")
    assert read_dictionary(tmp_path / "d.tsv") == {"दिल्ली": "Delhi", "é": "E"}
    assert read_dictionary(tmp_path / "d.tsv", "none") == {"दिल्ली": "Delhi", "e\u0301": "E"}
    (tmp_path / "bad.tsv").write_text("one column\n", encoding="utf-8")
    for name in ("bad.tsv", "none.tsv"):
        with pytest.raises(DataError, match=name):
            read_dictionary(tmp_path / name)


# ------------------------------------------------------------------------------------------------ in a model

PAIRS = [("raja sees moti", "R sees M"), ("moti sees", "M sees")]
LINKS = [[(0, 0, True), (1, 1, True), (2, 2, True)], [(0, 0, True), (1, 1, True)]]


@pytest.fixture(scope="module", params=["word", "char"])
def translator(request):
    """It reads by links, so that what is copied does not hang on how well it has learned; it writes unknowns."""
    source = Vocabulary.build([s for s, _ in PAIRS], "word")
    target = Vocabulary.build(["sees"] if request.param == "word" else [], request.param)
    config = ModelConfig(
        source_size=len(source), target_size=len(target), embedding=8, hidden=12, dropout=0.0, attention="oracle"
    )
    model = Seq2Seq(config, seed=1)
    targets = [text for _, text in PAIRS] if request.param == "word" else ["xyz", "xy"]
    batch = Batch.from_ids([source.encode(s) for s, _ in PAIRS], [target.encode(t) for t in targets], LINKS)
    optimizer = Adam(model, lr=0.03)
    for step in range(60):
        _, cache = model.forward(batch, step=step)
        optimizer.step(model.backward(cache))
    return Translator(model, source, target)


def test_translate_copies_or_looks_up(translator):
    sources = [source for source, _ in PAIRS]
    plain = translator.translate(sources, links=LINKS)
    assert [t.tokens.count("<unk>") for t in plain] == ([2, 1] if translator.target_vocab.level == "word" else [3, 2])
    copied = translator.translate(sources, links=LINKS, replace_unknown=True)
    joined = " " if translator.target_vocab.level == "word" else ""
    assert [t.text for t in copied] == [joined.join(source.split()) for source in sources]
    assert [t.tokens for t in copied] == [source.split() for source in sources]
    assert [t.score for t in copied] == [t.score for t in plain]
    looked_up = translator.translate(sources, links=LINKS, nbest=2, replace_unknown={"raja": "Raja", "sees": "sees"})
    assert looked_up[0].tokens[0] == "Raja" and looked_up[0].tokens[2] == "moti"
    assert not any("<unk>" in other.text and other.links() for t in looked_up for other in t.nbest[:1])


def test_evaluate_measures_what_was_replaced(translator):
    pairs = [Pair(s, " ".join(s.split()), tuple(links)) for (s, _), links in zip(PAIRS, LINKS, strict=True)]
    if translator.target_vocab.level == "word":
        assert evaluate(translator, pairs)["exact_match"] == 0
        assert evaluate(translator, pairs, replace_unknown=True)["exact_match"] == 1


def test_what_looks_at_no_word_is_refused():
    vocabulary = Vocabulary(["a"], "word")
    for attention in ("none", "uniform"):
        config = ModelConfig(source_size=5, target_size=5, embedding=4, hidden=4, attention=attention)
        made = Translator(Seq2Seq(config), vocabulary, vocabulary)
        with pytest.raises(ValueError, match=f"replace_unknown with attention '{attention}', which looks at no word"):
            made.translate("a", replace_unknown=True)
    config = ModelConfig(source_size=5, target_size=5, embedding=4, hidden=4)
    with pytest.raises(TypeError, match="replace_unknown is a str, expected true, false or a dictionary"):
        Translator(Seq2Seq(config), vocabulary, vocabulary).translate("a", replace_unknown="d.tsv")
