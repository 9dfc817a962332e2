"""The wording of "no such name", and short names of folders."""

from __future__ import annotations

import pytest
from dhyan.errors import DataError, located, nearest_first, unknown_name
from dhyan.training.folder import short_names


@pytest.mark.parametrize(
    "name, first", [("bahdanu", "bahdanau"), ("LUONG", "luong"), ("loung", "luong"), ("baudanau", "bahdanau")]
)
def test_the_nearest_name_comes_first(name: str, first: str) -> None:
    assert nearest_first(name, ["luong", "none", "bahdanau"])[0] == first


def test_every_name_is_listed_once_and_equals_keep_their_order() -> None:
    names = ["rnn", "lstm", "gru"]
    assert sorted(nearest_first("lst", names)) == sorted(names)
    assert nearest_first("###", names) == names
    assert nearest_first("", names) == names
    assert names == ["rnn", "lstm", "gru"]


def test_any_iterable_of_names_will_do() -> None:
    assert nearest_first("b", {"a": 1, "b": 2}) == ["b", "a"]
    assert nearest_first("a", iter(())) == []


def test_the_error_says_what_got_and_expected() -> None:
    error = unknown_name("ModelConfig: cell", "lst", ("rnn", "lstm", "gru"))
    assert type(error) is ValueError
    assert str(error) == "ModelConfig: cell is 'lst', expected one of: lstm, rnn, gru"


@pytest.mark.parametrize("name", [None, 3, 2.5, ["dot"], b"dot", "line\nbreak"], ids=repr)
def test_what_is_no_name_is_shown_on_one_line(name: object) -> None:
    message = str(unknown_name("score", name, ("dot", "cosine")))
    assert message.startswith(f"score is {name!r}, expected one of: ") and "\n" not in message


def test_a_data_error_says_where_it_was() -> None:
    """Others pass as they are."""
    with pytest.raises(DataError, match=r"^align: text 3: too long$"), located("align: text 3"):
        raise DataError("too long")
    with pytest.raises(TypeError, match=r"^no text$"), located("align: text 3"):
        raise TypeError("no text")


def test_short_names() -> None:
    assert short_names(["a/b", "c/d/"]) == ["b", "d"]
    assert short_names(["a/m", "b/m"]) == ["a/m", "b/m"]
    assert short_names(["/", "x"]) == ["/", "x"]
    assert short_names(["x/y"]) == ["y"] and short_names([]) == []
