"""Translations one at a time in a thread of their own, each step handed to the server's event loop.

The model is wrapped so that it tells after every step of a search what its best open hypothesis is, and can be
stopped; everything else passes through, and results are the same bits.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dhyan.errors import DataError
from dhyan.plot.card import card_html, language
from dhyan.plot.drawing import label
from dhyan.search.beam import Hypothesis
from dhyan.text.pairs import scan_file
from dhyan.training.folder import short_names
from dhyan.translate.translation import SOURCE_END, Translation, weight_rows
from dhyan.translate.translator import Translator

from .ask import Ask, Refused

WAITING = 8  # most jobs that wait for the one at work
LONGEST_EXAMPLE = 200  # characters
SECONDS = 60.0  # most time of one translation, and of its wait before


class _Cancelled(Exception):
    """Nobody waits for the translation any more, or it takes too long."""


@dataclass(frozen=True)
class Served:
    """A model under the name that requests and the page call it."""

    name: str
    translator: Translator

    @property
    def facts(self) -> dict[str, Any]:
        """What a client may want to know of the model."""
        translator = self.translator
        config = translator.model.config
        return {
            "name": self.name,
            "attention": config.attention,
            "cell": config.cell,
            "layers": config.layers,
            "hidden": config.hidden,
            "source_level": translator.source_vocab.level,
            "target_level": translator.target_vocab.level,
            "two_columns": translator.two_columns,
            "max_source": translator.max_source,
        }


class Job:
    """One request on its way: `events` fills with dictionaries, the last of which has "result" or "error"."""

    def __init__(self, served: Served, ask: Ask, loop: asyncio.AbstractEventLoop) -> None:
        self.served, self.ask = served, ask
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.cancelled = threading.Event()
        self._loop, self._until, self._told = loop, time.monotonic() + SECONDS, list[str]()
        self._source, self._first = list[str](), dict[str, Any]()

    def run(self) -> None:
        """Translate; in the worker's thread. Nothing is raised: what goes wrong is the last event."""
        begin = time.monotonic()
        try:
            self._check()
            event: dict[str, Any] = {"result": self._translate(begin)}
        except _Cancelled:
            event = {"error": f"translate: took longer than {SECONDS:.0f} s and was stopped", "status": 503}
        except Refused as error:
            event = {"error": str(error), "status": error.status}
        except (ValueError, ArithmeticError) as error:
            event = {"error": " ".join(str(error).split()), "status": 400}
        except MemoryError:
            event = {"error": "translate: out of memory", "status": 503}
        except Exception as error:  # a mistake of ours must not end the server
            event = {"error": f"translate: {type(error).__name__}: {' '.join(str(error).split())}", "status": 500}
        self._tell(event)

    def _translate(self, begin: float) -> dict[str, Any]:
        translator, text = self.served.translator, self.ask.text
        try:
            tokens = self._source = translator.tokenize(text)
        except DataError as error:
            raise Refused(400, f"translate: {error}") from None
        if self.ask.stream:  # told with the first step: what is refused until then has a status of its own
            source = [*tokens, SOURCE_END]
            self._first = {"source_tokens": source, "labels": [label(t) for t in source], "lang": language(text)}
        watched = copy.copy(translator)  # the same model and vocabularies
        watched.model = Watched(translator.model, self._check, self._step if self.ask.stream else None)
        found = watched.translate(
            text, options=self.ask.search, prefix=self.ask.prefix, constraints=list(self.ask.constraints) or None,
            replace_unknown=self.ask.replace_unknown,
        )  # fmt: skip
        self._announce()
        seconds = time.monotonic() - begin
        return answer(self.served, found, seconds, self.ask.card)

    def _announce(self) -> None:
        if self._first:
            self._tell(self._first)
            self._first = {}

    def _step(self, ids: list[int], weights: np.ndarray) -> None:
        """Tell what is new since the step before. A better hypothesis may have taken the place of that one."""
        self._announce()
        hypothesis = Hypothesis(ids, 0.0, weights, finished=False)
        found = self.served.translator.written(self._source, [hypothesis], self.ask.replace_unknown)
        before, self._told = self._told, found.tokens
        keep = 0
        while keep < min(len(before), len(found.tokens)) and before[keep] == found.tokens[keep]:
            keep += 1
        tokens = found.tokens[keep:]
        event = {"step": len(found.tokens), "keep": keep, "tokens": tokens, "labels": [label(t) for t in tokens]}
        self._tell(event | {"weights": weight_rows(found.weights[keep:]), "text": found.text})

    def _check(self) -> None:
        if self.cancelled.is_set() or time.monotonic() > self._until:
            raise _Cancelled

    def _tell(self, event: dict[str, Any]) -> None:
        if not self._loop.is_closed() and not self.cancelled.is_set():
            try:
                self._loop.call_soon_threadsafe(self.events.put_nowait, event)
            except RuntimeError:  # closed meanwhile
                self.cancelled.set()


def answer(served: Served, found: Translation, seconds: float, card: bool = False) -> dict[str, Any]:
    """A translation as the JSON end point gives it; card: with the HTML that the page shows."""
    known = served.translator.source_vocab
    result = {
        "model": served.name,
        **found.to_dict(),
        "source_tokens": found.source_tokens,
        "nbest": [other.to_dict() for other in found.nbest],
        "unknown": [token for token in found.source_tokens[:-1] if token not in known],
        "seconds": round(seconds, 4),
    }
    if card:
        result |= {"card": _card(found, result["unknown"]), "lang": language(found.text)}
    return result


def _card(found: Translation, unknown: Sequence[str]) -> str:
    """The evidence card of notebooks, as `dhyan report` has them too."""
    card = found.card()
    more = [("unknown words", ", ".join(map(label, unknown)))] if unknown else []
    return card_html(replace(card, notes=[*card.notes, *more]))


class Worker:
    """The thread that translates, and the models by name. Errors of submit: Refused 503 where too many wait."""

    def __init__(self, served: Sequence[Served]) -> None:
        self.served: Mapping[str, Served] = {one.name: one for one in served}
        self._jobs: queue.Queue[Job | None] = queue.Queue(WAITING)
        self._current: Job | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="dhyan translate", daemon=True)
        self._thread.start()

    def submit(self, ask: Ask) -> Job:
        """Put a request in line; called in the event loop that reads the job's events."""
        job = Job(self.served[ask.model], ask, asyncio.get_running_loop())
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            message = f"translate: {WAITING} requests are waiting already; try again in a moment"
            raise Refused(503, message) from None
        return job

    def close(self, seconds: float) -> bool:
        """Stop what is at work and drop what waits; False where a step still runs after so many seconds."""
        self._closing = True
        if self._current is not None:
            self._current.cancelled.set()
        with contextlib.suppress(queue.Full):
            self._jobs.put_nowait(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closing:
            self._current = job
            if not job.cancelled.is_set():
                job.run()
            self._current = None


def names_of(folders: Sequence[str]) -> list[str]:
    """Names of the folders' models, each another one."""
    names = short_names(folders)
    return names if len(set(names)) == len(names) else [f"{name} ({k})" for k, name in enumerate(names, 1)]


def read_examples(path: str, translator: Translator, count: int = 8) -> list[str]:
    """The sources of a file's first usable lines, of text or TSV. Errors: DataError as `scan_file`."""
    found: list[str] = []
    columns = 2 if translator.two_columns else 1
    for line in scan_file(path):
        text = "\t".join(line.text.split("\t")[:columns]).strip()
        if not line.problem and text and text not in found and len(text) <= LONGEST_EXAMPLE:
            found.append(text)
        if len(found) == count:
            break
    return found


@dataclass(frozen=True)
class _Step:
    """The hypotheses that a step of the model read: token each ends with, its weights, and the row it extends."""

    before: _Step | None
    rows: np.ndarray  # (N,) of the step before
    tokens: np.ndarray  # (N,) read at this step; at the first one the begin symbol
    weights: np.ndarray  # (N, S) with which the next token is written


@dataclass(frozen=True)
class _State:
    """The model's own state, and the steps that led to it."""

    inner: Any
    step: _Step | None
    rows: np.ndarray

    def select(self, rows: np.ndarray) -> _State:
        return _State(self.inner.select(rows), self.step, self.rows[rows])

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


class Watched:
    """model, calling `check` before each step; what that raises ends the search.

    told(ids, weights), where it is given, hears before each step but the first the tokens (t,) so far and their
    weights (t, S): of several open hypotheses those of the first row, which searches keep for the best. One sentence a
    search.
    """

    def __init__(
        self, model: Any, check: Callable[[], None], told: Callable[[list[int], np.ndarray], None] | None = None
    ) -> None:
        self._model, self._check, self._told = model, check, told

    def __getattr__(self, name: str) -> Any:
        if name == "beam":  # the whole search in one call, which nobody could watch
            raise AttributeError(name)
        value = getattr(self._model, name)
        return self._advancing(value) if name in ("advance", "advance_top") else value

    def start(self, *arguments: Any, **named: Any) -> Any:
        state = self._model.start(*arguments, **named)
        return _State(state, None, np.zeros(1, np.int64)) if self._told else state

    def _advancing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        told = self._told

        def advance(state: Any, tokens: np.ndarray, *arguments: Any) -> tuple[Any, ...]:
            self._check()
            if told is None:
                found: tuple[Any, ...] = function(state, tokens, *arguments)
                return found
            if state.step is not None:
                told(*_walk(state, tokens))
            *others, weights, inner = function(state.inner, tokens, *arguments)
            step = _Step(state.step, state.rows, np.asarray(tokens), weights)
            return (*others, weights, _State(inner, step, np.arange(len(tokens))))

        return advance


def _walk(state: _State, tokens: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The first row's tokens and the weights each was written with."""
    ids, weights = [int(tokens[0])], []
    step, row = state.step, state.rows[0]
    while step is not None:
        weights.append(step.weights[row])
        ids.append(int(step.tokens[row]))
        row = step.rows[row]
        step = step.before
    return ids[-2::-1], np.array(weights[::-1])  # without the begin symbol
