"""From text to text: shapes, order, edge cases, and the loaded model's own."""

import numpy as np
import pytest
from dhyan.attention.scorings import scorings
from dhyan.errors import DataError
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.report.evaluation import evaluate
from dhyan.search.options import SearchOptions
from dhyan.text.batch import Batch
from dhyan.text.pairs import Pair
from dhyan.text.vocabulary import Vocabulary
from dhyan.training.optimizer import Adam
from dhyan.translate.translation import SOURCE_END, Translation
from dhyan.translate.translator import Translator, load

HINDI = ["मैं खाना खा रहा हूँ", "मैं सेब खा रहा हूँ", "लड़की खाना खा रही है", "मैं सो रहा हूँ"]
ENGLISH = ["I am eating", "I am eating an apple", "the girl is eating", "I am sleeping"]


def make(source_level="word", target_level="word", model=None, **options):
    """A translator that has learned nothing; model: what differs in its configuration."""
    source, target = Vocabulary.build(HINDI, source_level), Vocabulary.build(ENGLISH, target_level)
    sizes = {"source_size": len(source), "target_size": len(target), "embedding": 12, "hidden": 16, "dropout": 0.0}
    config = ModelConfig(**sizes | (model or {}))
    model = Seq2Seq(config, seed=5)
    return Translator(model, source, target, **options)


@pytest.fixture(scope="module")
def translator():
    """One that knows its four sentences by heart."""
    made = make()
    batch = Batch.from_ids(
        [made.source_vocab.encode(text) for text in HINDI], [made.target_vocab.encode(text) for text in ENGLISH]
    )
    optimizer = Adam(made.model, lr=0.02)
    for step in range(80):
        _, cache = made.model.forward(batch, step=step)
        optimizer.step(made.model.backward(cache))
    return made


def check(result, text, translator):
    assert result.weights.shape == (len(result.tokens), len(result.source_tokens))
    np.testing.assert_allclose(result.weights.sum(axis=1), 1, atol=1e-6)
    assert result.source_tokens == [*translator.source_vocab.tokenize(text), SOURCE_END]
    ordinary = [token for token in result.tokens if token not in ("<pad>", "<begin>")]
    assert result.text == translator.target_vocab.join(ordinary) == str(result)


@pytest.mark.parametrize("beam", [1, 5])
@pytest.mark.parametrize("levels", [("word", "word"), ("char", "word"), ("word", "char")])
def test_weights_belong_to_the_tokens(levels, beam):
    translator = make(*levels)
    for text in HINDI:
        check(translator.translate(text, beam=beam), text, translator)


def test_it_translates(translator):
    assert [result.text for result in translator.translate(HINDI)] == ENGLISH
    assert [result.text for result in translator.translate(HINDI, beam=1)] == ENGLISH
    assert all(-0.1 < result.score < 0 for result in translator.translate(HINDI))


def test_a_list_keeps_its_order(translator):
    texts = ["मैं " * n for n in (9, 1, 30, 4)] + HINDI * 20 + ["", "x"]
    results = translator.translate(texts, beam=3)
    assert len(results) == len(texts)
    for text, result in zip(texts, results, strict=True):
        check(result, text, translator)
    for i in (0, 2, 3, 50, len(texts) - 1):
        alone = translator.translate(texts[i], beam=3)
        assert (alone.text, alone.score) == (results[i].text, results[i].score)
        assert alone.weights.tobytes() == results[i].weights.tobytes()
    assert translator.translate([]) == [] and translator.translate(tuple(HINDI[:1]))[0].source_tokens[0] == "मैं"


@pytest.mark.parametrize("text", ["", "   ", "\t\u2003"])
def test_white_space_translates_to_nothing(translator, text):
    result = translator.translate(text)
    assert (result.text, result.tokens, result.source_tokens, result.score) == ("", [], [SOURCE_END], 0.0)
    assert result.weights.shape == (0, 1) and result.nbest == [result] and result.links() == []


def test_unknown_words_keep_their_form(translator):
    result = translator.translate("मैं 🙂 zebra")
    assert result.source_tokens == ["मैं", "🙂", "zebra", SOURCE_END]
    assert result.weights.shape[1] == 4
    assert result.tokens == translator.translate("मैं q w").tokens  # unknown is unknown


def test_too_long_is_refused_with_the_number(translator):
    short = make(max_source=4)
    assert short.translate("मैं " * 4).source_tokens[:-1] == ["मैं"] * 4
    with pytest.raises(DataError, match="translate: text 1: the source has 5 tokens, expected at most 4"):
        short.translate(["मैं", "मैं " * 5])


def test_two_columns():
    translator = Translator(make("char").model, make("char").source_vocab, make().target_vocab, two_columns=True)
    assert translator.translate("खा\tV,PST").source_tokens == ["ख", "ा", "[V]", "[PST]", SOURCE_END]
    old = Translator(
        translator.model, translator.source_vocab, translator.target_vocab, two_columns=True, tags="commas"
    )
    assert old.translate("खा\tV;A,PST").source_tokens == ["ख", "ा", "V;A", "PST", SOURCE_END]
    with pytest.raises(DataError, match="text 0: source 'खा' has 1 columns"):
        translator.translate("खा")


def test_white_space_around_a_text_is_left_out_as_in_training():
    """Of characters a blank would be a token that the model never saw."""
    translator = Translator(make("char").model, make("char").source_vocab, make("char").target_vocab)
    for text in (" खा", "खा\t ", "\u3000खा\n"):
        assert translator.translate(text).source_tokens == ["ख", "ा", SOURCE_END]
    (one,), (other,) = translator.align(["खा"], ["I am"]), translator.align([" खा "], [" I am\t"])
    assert one.tokens == other.tokens and one.weights.tobytes() == other.weights.tobytes()


def test_nbest_is_sorted_and_starts_with_the_result(translator):
    result = translator.translate(HINDI[0], beam=6, nbest=4)
    assert len(result.nbest) == 4 and result.nbest[0] is result
    assert [r.score for r in result.nbest] == sorted((r.score for r in result.nbest), reverse=True)
    assert len({tuple(r.tokens) for r in result.nbest}) == 4
    for one in result.nbest:
        check(one, HINDI[0], translator)


def test_focus_and_links():
    weights = np.array([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2], [0.1, 0.2, 0.7]])
    result = Translation("x y z", ["x", "y", "z"], ["a", "b", SOURCE_END], -1.0, weights)
    assert result.focus(0) == [("b", 0.5), (SOURCE_END, 0.3), ("a", 0.2)]
    assert [token for token, _ in result.focus(-2)] == ["a", "b", SOURCE_END]
    assert result.links() == [(1, 0), (0, 1)]  # z reads the end symbol
    with pytest.raises(IndexError, match="t is 3, expected an index of 3 output tokens"):
        result.focus(3)


def test_max_length(translator):
    assert len(translator.translate(HINDI[0], max_length=1, beam=1).tokens) <= 1
    with pytest.raises(ValueError, match="max_length is 0"):
        translator.translate(HINDI[0], max_length=0)


def test_align_is_the_forced_reading(translator):
    found = translator.align([*HINDI, ""], [*ENGLISH, "I"])
    for text, target, result in zip(HINDI, ENGLISH, found, strict=False):
        assert result.text == target and result.tokens == target.split()
        check(result, text, translator)
    # A model's own output, forced, is read as it was written.
    own = translator.translate(HINDI[1], beam=1)
    assert own.text == ENGLISH[1]
    forced = translator.align([HINDI[1]], [own.text])[0]
    np.testing.assert_allclose(forced.weights, own.weights, atol=1e-6)
    assert forced.score == pytest.approx(own.score, abs=1e-5)
    with pytest.raises(ValueError, match="1 sources and 0 targets"):
        translator.align(["x"], [])
    assert translator.align([], []) == []


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.translate(3), TypeError, "int"),
        (lambda t: t.translate([b"x"]), TypeError, "text 0 is a bytes, expected str"),
        (lambda t: t.translate(["x", None]), TypeError, "text 1 is a NoneType, expected str"),
        (lambda t: t.translate("x", beam=0), ValueError, "beam is 0"),
        (lambda t: t.translate("", beam=0), ValueError, "beam is 0"),
        (lambda t: t.translate("x", beam=2, nbest=3), ValueError, "nbest is 3, expected at most the beam of 2"),
        (lambda t: t.align(["x"], [None]), TypeError, "text 0 is a NoneType"),
    ],
)
def test_bad_input(translator, call, error, message):
    with pytest.raises(error, match=message):
        call(translator)
    assert isinstance(translator.translate(HINDI[0]), Translation)  # and the next good call is right


def test_vocabulary_of_another_model(translator):
    with pytest.raises(ValueError, match="source_vocab has 5 ids, expected the model's source_size"):
        Translator(translator.model, Vocabulary(["a"], "word"), translator.target_vocab)


def test_a_model_of_feature_vectors_has_no_text(translator):
    config = ModelConfig(source_size=3, target_size=len(translator.target_vocab), source="features", hidden=8)
    with pytest.raises(ValueError, match="source is 'features', expected 'tokens'"):
        Translator(Seq2Seq(config), translator.source_vocab, translator.target_vocab)


LINKS = [((0, 0, True), (2, 2, True)), ((1, 4, True), (0, 0, False)), (), ((3, 2, True), (3, 1, False))]


@pytest.mark.parametrize("beam", [1, 3])
def test_the_oracle_reads_by_the_links(beam):
    translator = make(model={"attention": "oracle"})
    assert translator.needs_links and not make().needs_links
    found = translator.translate(HINDI, beam=beam, links=LINKS)
    for one, text, links in zip(found, HINDI, LINKS, strict=True):
        expected = np.zeros((len(one.tokens), len(text.split()) + 1), np.float32)
        for s, t, _ in links:
            if t < len(expected):
                expected[t, s] = 1
        np.testing.assert_array_equal(one.weights, expected)
    alone = translator.translate(HINDI[1], beam=beam, links=LINKS[1:2])
    assert (alone.text, alone.score) == (found[1].text, found[1].score)
    forced = translator.align(HINDI, ENGLISH, links=LINKS)
    assert [f.links() for f in forced] == [[(0, 0), (2, 2)], [(0, 0), (1, 4)], [], [(3, 1), (3, 2)]]
    # Far beyond the longest output there is nothing to read, and no memory is asked for.
    far = translator.translate(HINDI[0], beam=beam, links=[((0, 10**12, True), (1, 1, True))], max_length=5)
    assert len(far.tokens) <= 5


def test_the_oracle_says_what_is_missing():
    translator = make(model={"attention": "oracle"})
    for call, message in (
        (
            lambda: translator.translate(HINDI[0]),
            "translate: .*'oracle' reads by gold links, got none, expected .* 1 text",
        ),
        (lambda: translator.translate(HINDI), "got none, expected links of 4 texts"),
        (lambda: translator.translate(HINDI, links=LINKS[:1]), "got those of 1, expected links of 4"),
        (lambda: translator.translate(HINDI, links=[*LINKS[:3], None]), "translate: text 3 has no gold links"),
        (
            lambda: translator.translate(HINDI[0], links=[((5, 0, True),)]),
            "text 0: link 5-0 is outside 5 source tokens",
        ),
        (lambda: translator.translate(HINDI[0], links=[((0, -1, True),)]), "link 0--1 is outside"),
        (lambda: translator.align(HINDI[:1], ENGLISH[:1]), "align: .*'oracle' reads by gold links"),
        (
            lambda: translator.align(HINDI[:1], ["I am"], links=[((0, 2, True),)]),
            "outside 5 source and 2 target tokens",
        ),
        (lambda: evaluate(translator, [Pair("x", "y")]), "text 0 has no gold links"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_evaluate_gives_the_oracle_its_links():
    translator = make(model={"attention": "oracle"})
    pairs = [Pair(s, t, links) for s, t, links in zip(HINDI, ENGLISH, LINKS, strict=True)]
    report = evaluate(translator, pairs, beam=1)
    # Forced, it points to the first linked source of every linked target: 6 links, of which 4 are sure; 4 sure in all.
    assert report["aer"] == pytest.approx(1 - (4 + 6) / (6 + 4))
    assert report["pairs"] == 4


def test_links_change_nothing_for_a_model_that_reads_by_itself(translator):
    assert translator.translate(HINDI[0], links=[None]).score == translator.translate(HINDI[0]).score
    assert translator.align(HINDI, ENGLISH, links=LINKS)[0].score == translator.align(HINDI, ENGLISH)[0].score


@pytest.mark.parametrize(
    "model",
    [
        *({"attention": name} for name in scorings() if name not in ("oracle", "location")),
        {"attention": "location", "max_source": 6}, {"heads": 4}, {"window": 1}, {"window": "predictive:2"},
        {"normalize": "sparsemax"}, {"normalize": "monotonic"}, {"temperature": 0.1, "normalized": True},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("beam", [1, 3])
def test_every_scoring_translates_aligns_and_is_evaluated(model, beam):
    translator = make(model=model)
    found = translator.translate(HINDI, beam=beam, max_length=6)
    forced = translator.align(HINDI, ENGLISH)
    for one in (*found, *forced):
        assert one.weights.shape == (len(one.tokens), len(one.source_tokens))
        sums = one.weights.sum(1)
        if "predictive" in str(model) or "monotonic" in str(model):
            assert (sums <= 1 + 1e-6).all()
        else:
            np.testing.assert_allclose(sums, 1, atol=1e-6)
    for i in (0, 3):
        alone = translator.translate(HINDI[i], beam=beam, max_length=6)
        assert (alone.text, alone.score) == (found[i].text, found[i].score)
        assert alone.weights.tobytes() == found[i].weights.tobytes()
    pairs = [Pair(s, t, links) for s, t, links in zip(HINDI, ENGLISH, LINKS, strict=True)]
    assert 0 <= evaluate(translator, pairs, beam=beam)["aer"] <= 1


def test_location_refuses_what_it_does_not_know():
    translator = make(model={"attention": "location", "max_source": 4})
    assert translator.translate("मैं " * 3, max_length=2).weights.shape[1] == 4
    with pytest.raises(DataError, match="text 0: the source has 4 tokens, expected at most 3"):
        translator.translate("मैं " * 4)


def test_evaluate_reports_every_field(translator):
    links = [tuple((t, t, True) for t in range(2))] * 4
    pairs = [Pair(s, t, link) for s, t, link in zip(HINDI, ENGLISH, links, strict=True)]
    report = evaluate(translator, pairs, beam=2, edges=[1, 5])
    assert list(report) == [
        "pairs", "bleu", "chrf", "ter", "signature", "exact_match", "token_error_rate", "perplexity", "by_length",
        "aer", "failures",
    ]  # fmt: skip
    assert report["pairs"] == 4 and 0 <= report["aer"] <= 1
    assert [(row["from"], row["to"], row["pairs"]) for row in report["by_length"]] == [(1, 4, 1), (5, 5, 3)]
    assert report["exact_match"] == 1.0 and report["bleu"] == pytest.approx(100)
    forced = translator.align(HINDI, ENGLISH)
    hits = sum(link in {(0, 0), (1, 1)} for f in forced for link in f.links())
    total = sum(len(f.links()) for f in forced)
    assert report["aer"] == pytest.approx(1 - 2 * hits / (total + 8))


def test_evaluate_without_links_has_no_aer(translator):
    assert evaluate(translator, [Pair(HINDI[0], ENGLISH[0])])["aer"] is None


# ---------------------------------------------------------------- options of decoding


def test_options_are_one_table(translator):
    options = SearchOptions(beam=3, nbest=2, min_length=4)
    found = translator.translate(HINDI, options=options)
    assert all(len(result.tokens) >= 4 and len(result.nbest) == 2 for result in found)
    assert [r.text for r in translator.translate(HINDI, 3, nbest=2, min_length=4)] == [r.text for r in found]
    assert len(translator.translate(HINDI[0], nbest=3, options=options).nbest) == 3  # what is given as well wins
    with pytest.raises(ValueError, match="the option is 'min_lenght', expected one of: min_length, "):
        translator.translate(HINDI[0], min_lenght=3)


def test_a_prefix_is_written_and_read(translator):
    result = translator.translate(HINDI[0], prefix="the girl")
    assert result.tokens[:2] == ["the", "girl"]
    check(result, HINDI[0], translator)
    both = translator.translate(HINDI, prefix=["", "I am", "the", "I"])
    assert [r.text for r in both] == ENGLISH  # what it would have said anyway
    for one, plain in zip(both, translator.translate(HINDI), strict=True):
        assert one.score == pytest.approx(plain.score, rel=1e-6)
        np.testing.assert_allclose(one.weights, plain.weights, atol=1e-6)
    assert translator.translate("", prefix="the").text == ""


def test_constraints_are_written(translator):
    result = translator.translate(HINDI[0], constraints=["apple", "the girl"])
    assert "apple" in result.tokens and "the girl" in result.text
    check(result, HINDI[0], translator)
    own = translator.translate(HINDI, constraints=[["apple"], [], ["I am"], []])
    assert "apple" in own[0].tokens and "I am" in own[2].text
    assert [own[i].text for i in (1, 3)] == [ENGLISH[i] for i in (1, 3)]
    for beam in (1, 2, 8):
        assert "sleeping" in translator.translate(HINDI[0], beam=beam, constraints=["sleeping"]).tokens
    # Room for them is made where the usual limit is too short.
    many = ["eating an apple", "the girl is", "I am sleeping", "apple apple apple apple apple apple"] * 3
    text = translator.translate("मैं", constraints=many).text
    assert all(phrase in text for phrase in many)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda t: t.translate("x", prefix="the zebra"),
            DataError,
            "translate: prefix of text 0: got 'zebra'",
        ),
        (lambda t: t.translate(["x"], prefix=["a", "b"]), DataError, "prefix of text 0: got 'a'"),
        (lambda t: t.translate(["x"], prefix=["", ""]), ValueError, "translate: prefix of 2 texts, expected 1"),
        (lambda t: t.translate(["x"], prefix=[3]), TypeError, "translate: prefix: text 0 is a int, expected str"),
        (lambda t: t.translate("x", constraints="the"), TypeError, "constraints is a str, expected a list of phrases"),
        (lambda t: t.translate("x", constraints=5), TypeError, "constraints is a int, expected a list of phrases"),
        (lambda t: t.translate("x", constraints=[5]), TypeError, "constraints of text 0 is a int, expected a list"),
        (lambda t: t.translate("x", prefix=5), TypeError, "translate: prefix is a int, expected a string, or one for"),
        (lambda t: t.translate("x", constraints=["the", ["I"]]), TypeError, "constraints is of mixed types"),
        (lambda t: t.translate(["x"], constraints=[[], []]), ValueError, "constraints of 2 texts, expected 1"),
        (lambda t: t.translate("x", constraints=["zebra"]), DataError, "constraint of text 0: got 'zebra'"),
        (lambda t: t.translate("x", constraints=["the"], sample=True), ValueError, "need a beam, got sample = True"),
        (
            lambda t: t.translate("x", constraints=["the girl"], max_length=2),
            ValueError,
            "expected at least 3 for prefix",
        ),
    ],
)
def test_bad_demands(translator, call, error, message):
    with pytest.raises(error, match=message):
        call(translator)
    assert translator.translate(HINDI[0]).text == ENGLISH[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.translate(None), "translate: text is None, expected a string or a list of strings"),
        (lambda t: t.translate(5), "translate: text is a int, expected a string or a list of strings"),
        (lambda t: t.translate("मैं".encode()), "translate: text is a bytes, expected a string or a list of strings"),
        (lambda t: t.translate({"मैं": 1}), "translate: text is a dict, expected a string or a list of strings"),
        (lambda t: t.translate(["मैं", None]), "translate: text 1 is a NoneType, expected str"),
        (lambda t: t.translate("x", options={"beam": 3}), "search: options is a dict, expected SearchOptions"),
        (lambda t: t.align("मैं", "I"), "align: sources is a str, expected a list of strings"),
        (lambda t: t.align(["मैं"], None), "align: targets is None, expected a list of strings"),
        (lambda t: load(None), "load: folder is None, expected a path or a list of paths"),
        (lambda t: load(3), "load: folder is a int, expected a path or a list of paths"),
        (lambda t: load([None]), "load: folder 1 is None, expected a path"),
        (lambda t: load("x", shortlist="5"), "load: shortlist is '5', expected an integer"),
        (lambda t: load("x", shortlist=True), "load: shortlist is True, expected an integer"),
        (lambda t: evaluate(t, [("a", "b")]), r"evaluate: pair 0 is a tuple, expected dhyan\.Pair"),
    ],
)
def test_wrong_types_are_named(translator, call, message):
    with pytest.raises(TypeError, match=message) as caught:
        call(translator)
    assert "\n" not in str(caught.value)
    assert translator.translate(HINDI[0]).text == ENGLISH[0]


@pytest.mark.parametrize("options, message", [
    ({"shortlist": -1}, "load: shortlist is -1, expected 0 to 100"),
    ({"shortlist": 101}, "load: shortlist is 101, expected 0 to 100"),
    ({"weights": "bfloat61"}, "load: weights is 'bfloat61', expected one of: bfloat16, int8"),
])  # fmt: skip
def test_what_load_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        load("there is no such folder", **options)


def test_a_score_that_is_not_finite_is_null():
    found = Translation("a", ["a"], ["b", "</s>"], -np.inf, np.full((1, 2), 0.5))
    assert found.to_dict()["score"] is None


def test_samples_are_translations(translator):
    result = translator.translate(HINDI[0], sample=True, nbest=20, temperature=3.0, seed=1)
    assert len(result.nbest) == 20 and len({one.text for one in result.nbest}) > 1
    for one in result.nbest:
        check(one, HINDI[0], translator)
    again = translator.translate([HINDI[1], HINDI[0]], sample=True, nbest=20, temperature=3.0, seed=1)[1]
    assert [one.text for one in again.nbest] == [one.text for one in result.nbest]
    assert translator.translate(HINDI, sample=True, temperature=0.01)[2].text == ENGLISH[2]
