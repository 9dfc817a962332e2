"""A server of `dhyan serve` for tests: small models of random weights, a server in a thread, and a plain client."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from dhyan.model.config import ModelConfig
from dhyan.model.seq2seq import Seq2Seq
from dhyan.text.vocabulary import SPECIALS, Vocabulary
from dhyan.translate.translator import Translator

JSON = {"content-type": "application/json"}
SENTENCE = "मैं खाना खा रहा हूँ"


def make_translator(texts: Sequence[str], seed: int = 1, vocabulary: Any = None, **changes: Any) -> Translator:
    """Words of the texts to the same words, by random weights; it writes on until it is cut."""
    vocabulary = Vocabulary.build(texts, "word") if vocabulary is None else vocabulary
    sizes = {"source_size": len(vocabulary), "target_size": len(vocabulary), "embedding": 8, "hidden": 8}
    model = Seq2Seq(ModelConfig(**(sizes | changes)), seed=seed)
    for array in model.parameters().values():
        array *= 3
    model.parameters()["output.bias"][: len(SPECIALS)] = -100
    return Translator(model, vocabulary, vocabulary)


class Slow:
    """A model whose every step takes so many seconds; it counts them."""

    def __init__(self, model: Any, seconds: float) -> None:
        self._model, self.seconds, self.steps = model, seconds, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def advance_top(self, *arguments: Any) -> Any:
        self.steps += 1
        time.sleep(self.seconds)
        return self._model.advance_top(*arguments)


@contextmanager
def serving(translators: dict[str, Translator], **options: Any) -> Iterator[Client]:
    """A server of these models, by name, at a free port; options: as `make_app`."""
    pytest.importorskip("uvicorn", reason="needs the extra dhyan[serve]")
    pytest.importorskip("starlette", reason="needs the extra dhyan[serve]")
    from dhyan.serve import server
    from dhyan.serve.app import make_app
    from dhyan.serve.work import Served, Worker

    worker = Worker([Served(name, translator) for name, translator in translators.items()])
    made, box = server.listen("127.0.0.1", 0), queue.Queue[Any]()
    app = make_app(worker, **options)

    def work() -> None:
        asyncio.run(server.serve(app, made, lambda ended: box.put((asyncio.get_running_loop(), ended))))

    thread = threading.Thread(target=work)
    client = Client(made.getsockname()[1], worker)
    thread.start()
    loop, ended = box.get(timeout=60)
    try:
        yield client
    finally:
        loop.call_soon_threadsafe(ended.set_result, 0)
        thread.join(60)
        assert not thread.is_alive() and worker.close(60)


class Client:
    """Requests to the server at a port of this machine."""

    def __init__(self, port: int, worker: Any = None) -> None:
        self.port, self.worker, self.url = port, worker, f"http://127.0.0.1:{port}/"

    def send(self, method: str, path: str, body: Any = None, headers: Any = ()) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def ask(self, **given: Any) -> dict[str, Any]:
        """The answer to a good request."""
        status, _, body = self.send("POST", "/api/translate", json.dumps(given), JSON)
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def stream(self, **given: Any) -> list[dict[str, Any]]:
        """The lines of the answer to a good request."""
        status, headers, body = self.send("POST", "/api/translate", json.dumps(given | {"stream": True}), JSON)
        assert status == 200 and headers["content-type"] == "application/x-ndjson; charset=utf-8", body
        return [json.loads(line) for line in body.decode().removesuffix("\n").split("\n")]

    def refused(self, method: str, path: str, body: Any = None, headers: Any = ()) -> tuple[int, str]:
        """Status and message of an answer that is one JSON line with nothing but an error."""
        status, got, text = self.send(method, path, body, headers)
        assert got["content-type"] == "application/json; charset=utf-8" and text.count(b"\n") == 1, text
        (message,) = json.loads(text).values()
        assert list(json.loads(text)) == ["error"] and "\n" not in message
        return status, message
