"""Requests for a translation, checked: keys, types and ranges. One clear line for everything else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from dhyan.errors import nearest_first
from dhyan.options import Form
from dhyan.search.options import MORE, SearchOptions

MAX_BODY = 1_048_576  # bytes of a request's body; as long as a line of a text file may be


class Refused(Exception):
    """A request that is not answered: an HTTP status, one line, and for status 405 the methods there are."""

    def __init__(self, status: int, message: str, allow: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.status, self.allow = status, allow


@dataclass(frozen=True)
class Option:
    """A field of `SearchOptions`, or a switch, as a request may give it: its kind (int, float, bool or str), choices,
    and its range and place in the form.
    """

    key: str
    kind: Callable[[str], Any]
    form: Form
    choices: tuple[str, ...] = ()

    @property
    def default(self) -> Any:
        return getattr(SearchOptions, self.key, False)

    def check(self, value: Any) -> Any:
        """The value, checked; whole numbers may be written 5.0."""
        if self.kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        if self.kind is bool:
            good = isinstance(value, bool)
        elif self.kind is str:
            good = isinstance(value, str) and value in self.choices
        else:
            number = isinstance(value, int if self.kind is int else int | float) and not isinstance(value, bool)
            good = number and self.form.low <= value <= self.form.high  # NaN is in no range
        if not good:
            raise Refused(400, f"translate: {self.key} is {shown(value)}, expected {self.expected}")
        return self.kind(value)

    @property
    def expected(self) -> str:
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return f"one of: {', '.join(self.choices)}"
        return f"{'an integer' if self.kind is int else 'a number'} from {self.form.low:g} to {self.form.high:.16g}"


# By their groups on the page, the first without a name.
OPTIONS = tuple(
    sorted(
        [
            *(Option(key, o.kind, o.form, o.names) for key, o in SearchOptions.options().items() if o.form),
            Option(
                "replace_unknown", bool, Form("Replace unknown words", "by the source word they look at", group=MORE)
            ),
        ],
        key=lambda option: option.form.group,
    )
)
PHRASES, LONGEST_PHRASE = 16, 1000  # how many an output can be asked to hold, and their length in characters


@dataclass(frozen=True)
class Ask:
    """A checked request. prefix, constraints, replace_unknown: as `Translator.translate`; stream: send steps; card:
    send HTML too.
    """

    text: str
    model: str
    search: SearchOptions
    prefix: str | None = None
    constraints: tuple[str, ...] = ()
    replace_unknown: bool = False
    stream: bool = False
    card: bool = False


def shown(value: object) -> str:
    """A value as its sender wrote it, shortened."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse_json(body: bytes, models: Sequence[str]) -> Ask:
    """A request from its JSON body. Errors: Refused."""
    try:
        given = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise Refused(400, f"translate: byte {error.start} of the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Refused(400, f"translate: the body is not JSON: {error}") from None
    except RecursionError:
        raise Refused(400, "translate: the body is nested too deeply, expected a JSON object of plain values") from None
    except ValueError:  # an integer of more digits than Python converts
        raise Refused(400, "translate: the body holds a number of too many digits") from None
    if not isinstance(given, dict):
        raise Refused(400, f"translate: the body is {shown(given)}, expected a JSON object with the key 'text'")
    return parse(given, models)


def parse_form(body: bytes, models: Sequence[str]) -> list[Ask]:
    """The requests of the page's form, one a model, where no script is at hand. Errors: Refused."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50, errors="strict")
    except ValueError:
        raise Refused(400, "translate: the form cannot be read, expected UTF-8 of at most 50 fields") from None
    fields = dict(pairs)
    given: dict[str, Any] = {"text": fields.pop("text", "")}
    if "second" in fields:
        given["text"] += "\t" + fields.pop("second")
    kinds = {option.key: option.kind for option in OPTIONS}
    for key, text in fields.items():
        if not text.strip() and (key in kinds or key in ("prefix", "constraints")):
            continue
        if key == "constraints":
            given[key] = [phrase for phrase in text.splitlines() if phrase.strip()]
            continue
        try:
            given[key] = text == "on" if kinds.get(key) is bool else kinds.get(key, str)(text)
        except ValueError:
            given[key] = text  # what it is not, its check says
    return [parse(given | {"model": name, "card": True}, models) for name in models]


def parse(given: Mapping[str, Any], models: Sequence[str]) -> Ask:
    """A request from its keys and values. Errors: Refused for unknown keys, wrong types and values out of range."""
    known = ["text", "model", "stream", "card", *(option.key for option in OPTIONS), "prefix", "constraints"]
    for key in given:
        if key not in known:
            near = ", ".join(nearest_first(key[:100], known)[:3])
            raise Refused(400, f"translate: unknown key {shown(key)}, did you mean: {near}")
    model = given.get("model", models[0])
    if not isinstance(model, str) or model not in models:
        names = ", ".join(nearest_first(str(model)[:100], models))
        raise Refused(400, f"translate: model is {shown(model)}, expected one of: {names}")
    for key in ("stream", "card"):
        if not isinstance(given.get(key, False), bool):
            raise Refused(400, f"translate: {key} is {shown(given[key])}, expected true or false")
    options = {o.key: o.check(given[o.key]) for o in OPTIONS if given.get(o.key) is not None}
    unknown = options.pop("replace_unknown", False)
    try:
        search = SearchOptions.of(**options)
    except (ValueError, TypeError) as error:  # what does not go together
        raise Refused(400, f"translate: {str(error).removeprefix('search: ')}") from None
    prefix = None if given.get("prefix") is None else _phrase("prefix", given["prefix"])
    return Ask(
        _text(given), model, search, prefix, _constraints(given), unknown, given.get("stream", False),
        given.get("card", False),
    )  # fmt: skip


def _constraints(given: Mapping[str, Any]) -> tuple[str, ...]:
    phrases = given.get("constraints")
    if phrases is None:
        return ()
    if not isinstance(phrases, list) or len(phrases) > PHRASES:
        raise Refused(400, f"translate: constraints is {shown(phrases)}, expected a list of at most {PHRASES} strings")
    return tuple(_phrase(f"constraints[{i}]", phrase) for i, phrase in enumerate(phrases))


def _phrase(key: str, text: Any) -> str:
    if not isinstance(text, str) or len(text) > LONGEST_PHRASE:
        raise Refused(
            400, f"translate: {key} is {shown(text)}, expected a string of at most {LONGEST_PHRASE} characters"
        )
    return _plain(key, text)


def _text(given: Mapping[str, Any]) -> str:
    text = given.get("text")
    if not isinstance(text, str):
        got = f"text is {shown(text)}" if "text" in given else "the key 'text' is missing"
        raise Refused(400, f"translate: {got}, expected a string")
    return " ".join(_plain("text", text).splitlines())  # one sentence, however a text field wrapped it


def _plain(key: str, text: str) -> str:
    if "\0" in text:
        raise Refused(400, f"translate: {key} holds NUL at character {text.index(chr(0))}, expected plain text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"translate: {key} holds a lone surrogate at character {error.start}") from None
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(400, f"translate: the key {shown(twice)} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise Refused(400, f"translate: the body holds {name}, which is not JSON")
