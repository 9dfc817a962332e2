"""Who may ask the server of `dhyan serve`, how much and for how long; and how requests that go wrong end."""

import contextlib
import json
import socket
import time

import numpy as np
import pytest
from helpers.serving import JSON, SENTENCE, Slow, make_translator, serving

pytest.importorskip("starlette", reason="needs the extra dhyan[serve]")
pytest.importorskip("uvicorn", reason="needs the extra dhyan[serve]")
from dhyan.serve import guard, server, work


@pytest.fixture(scope="module")
def translator():
    return make_translator([SENTENCE, "I am eating"])


@pytest.fixture(scope="module")
def client(translator):
    with serving({"model": translator}) as found:
        yield found


# ---------------------------------------------------------------- who may ask


def ended(raw):
    """What the server sends until it ends the connection."""
    found = b""
    while data := raw.recv(65536):
        found += data
    return found


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"host": "localhost:9"}, True),  # through a tunnel
        ({"host": "LOCALHOST"}, True),
        ({"host": "[::1]:8000"}, True),
        ({"host": "127.1.2.3"}, True),
        ({"host": "evil.example"}, False),
        ({"host": "evil.example:8000"}, False),
        ({"host": "localhost.evil.example"}, False),
        ({"host": "127.0.0.1.evil.example"}, False),
        ({"host": "localhost@evil.example"}, False),
        ({"host": "evil.example#localhost"}, False),
        ({"host": "localhost:port"}, False),
        ({"host": "192.168.1.7"}, False),
        ({"host": ""}, False),
        ({"host": "localhost", "origin": "http://localhost"}, True),
        ({"host": "localhost:81", "origin": "http://localhost:82"}, False),
        ({"host": "localhost", "origin": "http://evil.example"}, False),
        ({"host": "localhost", "origin": "null"}, False),
        ({"host": "localhost", "sec-fetch-site": "same-origin"}, True),
        ({"host": "localhost", "sec-fetch-site": "cross-site"}, False),
        ({"host": "localhost", "sec-fetch-site": "same-site"}, False),
    ],
)
def test_host_and_origin(client, headers, allowed):
    body = json.dumps({"text": SENTENCE})
    if allowed:
        assert client.send("POST", "/api/translate", body, JSON | headers)[0] == 200
    else:
        status, message = client.refused("POST", "/api/translate", body, JSON | headers)
        assert status == 403 and "expected" in message


def test_beyond_loopback_addresses_are_allowed_and_foreign_names_are_not(translator):
    with serving({"m": translator}, anywhere=True, names=("Box.local",)) as found:
        for host, status in (("192.168.1.7:80", 200), ("box.LOCAL:1", 200), ("evil.example", 403)):
            assert found.send("GET", "/", headers={"host": host})[0] == status


def test_one_host_only(client):
    for head in ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", client.port), timeout=60) as raw:
            raw.sendall(head.encode())
            assert raw.recv(65536).split(b" ")[1] in (b"400", b"403")


@pytest.mark.parametrize(
    "said", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a b\x00\r\n\r\n", b"\x16\x03\x01\r\n\r\n"]
)
def test_what_is_not_http(client, said):
    with socket.create_connection(("127.0.0.1", client.port), timeout=60) as raw:
        raw.sendall(said)
        head, body = ended(raw).split(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and json.loads(body) == {"error": "invalid http request received."}
    assert client.ask(text=SENTENCE)["tokens"]


def test_strange_requests(translator, monkeypatch):
    """Random changes of a good one: every answer is a status, and the server goes on."""
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.1)
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.1)
    random, seen = np.random.default_rng(0), set()
    given = {"text": SENTENCE, "beam": 2, "max_length": 3, "constraints": ["am"]}
    body = json.dumps(given, ensure_ascii=False).encode()
    head = b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    with serving({"m": translator}) as found:
        for k in range(500):
            parts = [bytearray(head), bytearray(body)]
            changed = parts[k % 2]
            for _ in range(random.integers(1, 4)):
                where = int(random.integers(len(changed)))
                changed[where : where + int(random.integers(0, 4))] = random.bytes(int(random.integers(0, 4)))
            with socket.create_connection(("127.0.0.1", found.port), timeout=60) as raw:
                raw.sendall(bytes(parts[0]) + b"Content-Length: %d\r\n\r\n" % len(parts[1]) + bytes(parts[1]))
                with contextlib.suppress(ConnectionResetError):
                    seen.add(ended(raw)[:12])
        assert {b"HTTP/1.1 200", b"HTTP/1.1 400", b"HTTP/1.1 403"} <= seen and b"HTTP/1.1 500" not in seen
        assert found.ask(text=SENTENCE)["tokens"]


def test_every_answer_has_the_headers_that_keep_it_in_its_place(client):
    for method, path, body in (("GET", "/", None), ("GET", "/nope", None), ("POST", "/api/translate", '{"text": "a"}')):
        _, headers, _ = client.send(method, path, body, JSON)
        assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY" and "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"] and "server" not in headers
        assert not any(name.startswith("access-control") for name in headers)


# ---------------------------------------------------------------- time-outs, leaving, many at once


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nX-A: "])
def test_who_says_too_little_is_cut_off(translator, monkeypatch, said):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with (
        serving({"m": translator}) as found,
        socket.create_connection(("127.0.0.1", found.port), timeout=60) as raw,
    ):
        raw.sendall(said)
        with contextlib.suppress(ConnectionResetError):
            assert ended(raw) == b""
        monkeypatch.undo()
        assert found.ask(text=SENTENCE)


def test_a_body_that_does_not_come(translator, monkeypatch):
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.3)
    head = (
        b"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
    )
    with serving({"m": translator}) as found, socket.create_connection(("127.0.0.1", found.port), timeout=60) as raw:
        raw.sendall(head + b"\r\n{")
        answer = ended(raw)
        assert answer.startswith(b"HTTP/1.1 408") and b"did not come within 0 s" in answer


def test_a_translation_that_takes_too_long(monkeypatch):
    monkeypatch.setattr(work, "SECONDS", 0.2)
    with serving({"m": slow_translator()}) as found:
        status, message = found.refused("POST", "/api/translate", json.dumps({"text": SENTENCE}), JSON)
        assert status == 503 and message.startswith("translate: took longer than")


def slow_translator():
    """Its longest output takes 100 s."""
    slow = make_translator([SENTENCE])
    slow.model = Slow(slow.model, 0.05)
    return slow


def sent(client, **given):
    """A connection with a whole request on its way."""
    body = json.dumps({"text": SENTENCE, "max_length": 2000} | given).encode()
    head = f"POST /api/translate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {JSON['content-type']}\r\n"
    raw = socket.create_connection(("127.0.0.1", client.port), timeout=60)
    raw.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return raw


def wait(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_stops_the_work(stream):
    slow = slow_translator()
    with serving({"m": slow}) as found:
        with sent(found, stream=stream):
            wait(lambda: slow.model.steps)
        wait(lambda: found.worker._current is None)
        assert slow.model.steps < 1000  # of 2000


def test_only_so_many_wait():
    with serving({"m": slow_translator()}) as found, contextlib.ExitStack() as waiting:
        waiting.enter_context(sent(found))
        wait(lambda: found.worker._current is not None)
        for k in range(work.WAITING):
            waiting.enter_context(sent(found))
            wait(lambda k=k: found.worker._jobs.qsize() == k + 1)
        status, message = found.refused("POST", "/api/translate", json.dumps({"text": SENTENCE}), JSON)
        assert status == 503 and "8 requests are waiting already" in message
        assert found.send("GET", "/")[0] == 200  # the page is still there


def test_a_mistake_of_ours_is_one_line_and_not_the_end(translator, monkeypatch, capsys):
    broken = make_translator([SENTENCE])
    broken.model = None
    with serving({"m": broken, "good": translator}) as found:
        status, message = found.refused("POST", "/api/translate", json.dumps({"text": SENTENCE}), JSON)
        assert status == 500 and message.startswith("translate: AttributeError: ")
        monkeypatch.setattr("dhyan.serve.page.html", lambda shown: 1 / 0)
        assert found.refused("GET", "/") == (500, "serve: ZeroDivisionError: division by zero")
        assert capsys.readouterr().err == "dhyan: serve: ZeroDivisionError: division by zero\n"
        assert found.ask(text=SENTENCE, model="good")["tokens"]


def test_nothing_listens_afterwards(translator):
    with serving({"m": translator}) as found:
        port = found.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
