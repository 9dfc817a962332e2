"""The parts of `dhyan serve` that need no server: what a request may say, the watched model, names and examples."""

import dataclasses

import numpy as np
import pytest
from dhyan.errors import DataError
from dhyan.search.beam import beam_search
from dhyan.search.options import SearchOptions
from dhyan.serve.ask import OPTIONS, Ask, Refused, parse, parse_form, parse_json, shown
from dhyan.serve.work import Watched, names_of, read_examples
from dhyan.text.vocabulary import BEGIN
from helpers.serving import SENTENCE, make_translator

MODELS = ["a", "b"]

# ---------------------------------------------------------------- requests


def test_what_is_not_said_has_a_default():
    ask = parse({"text": "x"}, MODELS)
    assert ask == Ask("x", "a", SearchOptions())
    assert parse({"text": "x", "beam": None, "max_length": 7}, MODELS).search == SearchOptions(max_length=7)
    given = {"prefix": "I am", "constraints": ["a b", "c"], "stream": True, "card": True, "model": "b", "beam": 2.0}
    asked = Ask("x", "b", SearchOptions(beam=2), "I am", ("a b", "c"), False, True, True)
    assert parse({"text": "x"} | given, MODELS) == asked


def test_every_option_of_the_search_can_be_given():
    fields = {field.name for field in dataclasses.fields(SearchOptions)}
    assert {option.key for option in OPTIONS} == fields | {"replace_unknown"}
    for option in OPTIONS:
        assert option.default is None or option.check(option.default) == option.default, option.key


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.key)
def test_every_option_is_held_to_its_range(option):
    good = {bool: (True, False), str: option.choices}.get(option.kind, (option.form.low, option.form.high))
    bad = [None, [1], {}, "x", 10**400, float("nan"), float("inf"), -1, -0.5]
    bad += {bool: [0, 1, "true"], str: [True, 0, ""]}.get(option.kind, [option.form.high + 1, True, "1"])
    for value in good:
        assert option.check(value) == value and type(option.check(value)) is option.kind
    for value in bad:
        with pytest.raises(Refused, match=f"translate: {option.key} is .*, expected ") as caught:
            option.check(value)
        assert caught.value.status == 400 and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nbest": 3, "beam": 2}, "translate: nbest is 3, expected at most the beam of 2"),
        ({"temperature": 0.5}, "translate: temperature is 0.5, which only sampling reads"),
        ({"min_length": 9, "max_length": 9}, "translate: min_length is 9, expected less than max_length = 9"),
        ({"prefix": 3}, "translate: prefix is 3, expected a string of at most 1000 characters"),
        ({"prefix": "x" * 1001}, "expected a string of at most 1000 characters"),
        ({"prefix": "a\0"}, "translate: prefix holds NUL at character 1"),
        ({"constraints": "a"}, 'translate: constraints is "a", expected a list of at most 16 strings'),
        ({"constraints": ["a"] * 17}, "expected a list of at most 16 strings"),
        ({"constraints": ["a", None]}, "translate: constraints[1] is null, expected a string"),
        ({"constraints": ["\ud800"]}, "translate: constraints[0] holds a lone surrogate"),
    ],
)
def test_what_does_not_go_together(given, message):
    with pytest.raises(Refused) as caught:
        parse({"text": "x"} | given, MODELS)
    assert message in str(caught.value) and caught.value.status == 400


def test_a_sentence_is_one_line():
    assert parse({"text": "a\nb\r\nc\u2028d\n"}, MODELS).text == "a b c d"
    assert parse({"text": "a\tb"}, MODELS).text == "a\tb"  # two columns


def test_a_form_asks_every_model():
    first, second = parse_form("text=मैं&beam=3&nbest=&max_length=".encode(), MODELS)
    assert (first.text, first.model, second.model, first.card) == ("मैं", "a", "b", True)
    assert first.search == second.search == SearchOptions(beam=3)
    form = b"text=x&sample=on&seed=7&prefix=+&constraints=a+b%0D%0A%0D%0Ac&length_form=gnmt"
    asked = Ask(
        "x", "a", SearchOptions(sample=True, seed=7, length_form="gnmt"), None, ("a b", "c"), False, False, True
    )
    assert parse_form(form, MODELS)[0] == asked
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

    def checked():
        checks.append(len(told))

    checks = []
    plain = search(translator.model)
    assert search(Watched(translator.model, checked, lambda *step: told.append(step))) == plain
    assert search(Watched(translator.model, lambda: None)) == plain
    assert [len(ids) for ids, _ in told] == list(range(1, 9)) and checks == [0, *range(8)]
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

    def stop(*step):
        raise KeyError("enough")

    for watched in (Watched(translator.model, stop), Watched(translator.model, lambda: None, stop)):
        with pytest.raises(KeyError, match="enough"):
            beam_search(watched, np.array([[4, 2]]), np.array([2]), beam=2, max_length=9)


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
