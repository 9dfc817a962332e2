"""The parts of `dhyan serve` that need no server: what a request may say, the watched model, names and examples."""

import numpy as np
import pytest
from dhyan.errors import DataError
from dhyan.search import beam_search
from dhyan.serve.ask import OPTIONS, Refused, parse, parse_form, parse_json, shown
from dhyan.serve.watch import Watched
from dhyan.serve.work import names_of, read_examples
from dhyan.vocab import BEGIN
from serving import SENTENCE, make_translator

MODELS = ["a", "b"]

# ---------------------------------------------------------------- requests


def test_what_is_not_said_has_a_default():
    ask = parse({"text": "x"}, MODELS)
    assert (ask.text, ask.model, ask.stream, ask.card) == ("x", "a", False, False)
    assert ask.options == {"beam": 5, "nbest": 1}
    assert parse({"text": "x", "beam": None, "max_length": 7}, MODELS).options == {
        "beam": 5,
        "nbest": 1,
        "max_length": 7,
    }


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_option_is_held_to_its_range(option):
    assert option.check(option.low) == option.low and option.check(option.high) == option.high
    if option.default is not None:
        assert option.check(option.default) == option.default
    for value in (option.low - 1, option.high + 1, float("inf"), float("nan"), True, "1", None, [1], {}, 10**400):
        with pytest.raises(Refused, match=f"translate: {option.key} is ") as caught:
            option.check(value)
        assert caught.value.status == 400 and len(str(caught.value)) < 200


def test_a_sentence_is_one_line():
    assert parse({"text": "a\nb\r\nc\u2028d\n"}, MODELS).text == "a b c d"
    assert parse({"text": "a\tb"}, MODELS).text == "a\tb"  # two columns


def test_a_form_asks_every_model():
    first, second = parse_form("text=मैं&beam=3&nbest=&max_length=".encode(), MODELS)
    assert (first.text, first.model, second.model, first.card) == ("मैं", "a", "b", True)
    assert first.options == second.options == {"beam": 3, "nbest": 1}
    assert parse_form(b"text=ab&second=V", MODELS)[0].text == "ab\tV"
    for body in (b"a=1&" * 60, b"text=%ff", b"\xff"):
        with pytest.raises(Refused, match="cannot be read"):
            parse_form(body, MODELS)


def test_values_are_shown_as_written_and_short():
    assert shown(True) == "true" and shown("<b>") == '"<b>"' and len(shown("x" * 500)) == 60
    with pytest.raises(Refused, match="one of: b, a"):
        parse_json(b'{"text": "x", "model": "bb"}', MODELS)


# ---------------------------------------------------------------- the watched model


@pytest.mark.parametrize("changes", [{}, {"attention": "coverage"}, {"heads": 2}, {"layers": 2, "order": "luong"}])
@pytest.mark.parametrize("beam", [1, 3])
def test_watching_changes_no_bit_and_tells_every_step(beam, changes):
    translator = make_translator([SENTENCE, "I am eating"], **changes)
    source = np.array([[*translator.source_vocab.encode(SENTENCE), 2]])
    told = []

    def search(model):
        (found,) = beam_search(model, source, np.array([source.size]), beam=beam, nbest=beam, max_length=9)
        return [(h.ids, h.score, h.weights.tobytes()) for h in found]

    plain = search(translator.model)
    assert search(Watched(translator.model, lambda ids, weights: told.append((ids, weights)))) == plain
    assert [len(ids) for ids, _ in told] == list(range(1, 9))
    for ids, weights in told:
        assert BEGIN not in ids and weights.shape == (len(ids), source.size)
        np.testing.assert_array_equal(weights, forced(translator.model, source, ids))
    if beam == 1:
        assert all(ids == plain[0][0][: len(ids)] for ids, _ in told)


def forced(model, source, ids):
    """The weights with which these tokens are written, one step after the other."""
    state, rows = model.start(source, np.array([source.size])), []
    for token in [BEGIN, *ids[:-1]]:
        _, weights, state = model.advance(state, np.array([token]), np.array([0]))
        rows.append(weights[0])
    return np.array(rows)


def test_what_the_watcher_raises_ends_the_search():
    translator = make_translator([SENTENCE])

    def stop(ids, weights):
        if len(ids) == 3:
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        beam_search(Watched(translator.model, stop), np.array([[4, 2]]), np.array([2]), beam=2, max_length=9)


# ---------------------------------------------------------------- names and examples


def test_names_of_models_differ(tmp_path):
    assert names_of(["x/model", "y/other/"]) == ["model", "other"]
    assert names_of(["x/model", "y/model"]) == ["x/model", "y/model"]
    assert names_of(["x", "x"]) == ["x (1)", "x (2)"]
    assert names_of([str(tmp_path)]) == [tmp_path.name]


def test_examples_are_the_first_usable_sources(tmp_path):
    path = tmp_path / "test.tsv"
    path.write_bytes("मैं खाना\tI\t0-0\n\n\nfoo\nfoo\tagain\n".encode() + b"\xff\n" + b"x " * 300 + b"\nlast\tcolumn")
    translator = make_translator([SENTENCE])
    assert read_examples(str(path), translator) == ["मैं खाना", "foo", "last"]
    translator.two_columns = True
    assert read_examples(str(path), translator, 2) == ["मैं खाना\tI", "foo"]
    with pytest.raises(DataError, match="no such file"):
        read_examples("gone.tsv", translator)
