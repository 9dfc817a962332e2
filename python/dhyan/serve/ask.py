"""What a request for a translation may say: keys, types and ranges. One clear line for everything else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from ..names import nearest_first

MAX_BODY = 1_048_576  # bytes of a request's body; as long as a line of a text file may be


class Refused(Exception):
    """A request that is not answered: an HTTP status, one line, and for status 405 the methods there are."""

    def __init__(self, status: int, message: str, allow: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.status, self.allow = status, allow


@dataclass(frozen=True)
class Option:
    """One choice of the search: its key, type, range and how the page shows it. default None: left to the search."""

    key: str
    kind: type
    low: float
    high: float
    default: float | None
    name: str
    hint: str
    step: float = 1

    def check(self, value: object) -> int | float:
        """The value, checked; whole numbers may be written 5.0."""
        if self.kind is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        allowed = int if self.kind is int else (int, float)
        number = isinstance(value, allowed) and not isinstance(value, bool)
        if not number or not self.low <= value <= self.high:  # type: ignore[operator]  # NaN is in no range
            raise Refused(400, f"translate: {self.key} is {shown(value)}, expected {self.expected}")
        return value if self.kind is int else float(value)

    @property
    def expected(self) -> str:
        return f"{'an integer' if self.kind is int else 'a number'} from {self.low:g} to {self.high:g}"


OPTIONS = (
    Option("beam", int, 1, 32, 5, "Beam", "hypotheses kept; 1 is greedy search"),
    Option("nbest", int, 1, 32, 1, "Hypotheses shown", "at most the beam"),
    Option("max_length", int, 1, 2000, None, "Longest output", "in tokens; empty: by the length of the source"),
)


@dataclass(frozen=True)
class Ask:
    """A checked request. options: arguments of `Translator.translate`; stream: send every step; card: send HTML too."""

    text: str
    model: str
    options: dict[str, Any]
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
        if key in kinds and not text.strip():
            continue
        try:
            given[key] = kinds.get(key, str)(text)
        except ValueError:
            given[key] = text  # what it is not, its check says
    return [parse(given | {"model": name, "card": True}, models) for name in models]


def parse(given: Mapping[str, Any], models: Sequence[str]) -> Ask:
    """A request from its keys and values. Errors: Refused for unknown keys, wrong types and values out of range."""
    known = ["text", "model", "stream", "card", *(option.key for option in OPTIONS)]
    for key in given:
        if key not in known:
            near = ", ".join(nearest_first(key[:100], known)[:3])
            raise Refused(400, f"translate: unknown key {shown(key)}, did you mean: {near}")
    options = {o.key: o.check(given[o.key]) for o in OPTIONS if given.get(o.key) is not None}
    options = {o.key: o.default for o in OPTIONS if o.default is not None} | options
    if options["nbest"] > options["beam"]:
        raise Refused(
            400, f"translate: nbest is {options['nbest']}, expected an integer from 1 to beam = {options['beam']}"
        )
    for key in ("stream", "card"):
        if not isinstance(given.get(key, False), bool):
            raise Refused(400, f"translate: {key} is {shown(given[key])}, expected true or false")
    model = given.get("model", models[0])
    if not isinstance(model, str) or model not in models:
        names = ", ".join(nearest_first(str(model)[:100], models))
        raise Refused(400, f"translate: model is {shown(model)}, expected one of: {names}")
    return Ask(_text(given), model, options, given.get("stream", False), given.get("card", False))


def _text(given: Mapping[str, Any]) -> str:
    text = given.get("text")
    if not isinstance(text, str):
        got = f"text is {shown(text)}" if "text" in given else "the key 'text' is missing"
        raise Refused(400, f"translate: {got}, expected a string")
    if "\0" in text:
        raise Refused(400, f"translate: text holds NUL at character {text.index(chr(0))}, expected plain text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Refused(400, f"translate: text holds a lone surrogate at character {error.start}") from None
    return " ".join(text.splitlines())  # one sentence, however a text field wrapped it


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refused(400, f"translate: the key {shown(twice)} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise Refused(400, f"translate: the body holds {name}, which is not JSON")
