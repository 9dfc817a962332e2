"""Access and limits of requests: checked before anything else looks at one.

A page of another site can make a browser send requests to this server, and a name under that site's control can be made
to point here (DNS rebinding). So the Host must be this machine, and an Origin, where a browser sends one, must be the
page's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from .ask import MAX_BODY, Refused

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

DRAINED = 64 * MAX_BODY  # of the body of a request that is refused
BODY_SECONDS = 10.0  # to send a body
REQUEST_SECONDS = 120.0  # for all of a request
JSON_LINE = "application/json; charset=utf-8"
HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer the page's own form would say "Origin: null"
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """An ASGI application before another one. anywhere: the server listens beyond loopback, where its addresses vary.

    Without it Host must be localhost or a loopback address; with it also any other address, since rebinding needs a
    name, and the names in `names`.
    """

    def __init__(self, app: App, *, anywhere: bool = False, names: tuple[str, ...] = ()) -> None:
        self._app, self._anywhere = app, anywhere
        self._names = {"localhost", *(name.lower().rstrip(".") for name in names)}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        exchange = _Exchange(receive, send)
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                try:
                    self._check(scope)
                    await self._app(scope, exchange.receive, exchange.send)
                except Refused as error:
                    await exchange.refuse(error)
        except TimeoutError:
            await exchange.refuse(Refused(503, f"the request took longer than {REQUEST_SECONDS:.0f} s"))
        except Exception as error:  # a mistake of ours must not look like an answer, nor end the server
            told = f"serve: {type(error).__name__}: {' '.join(str(error).split())}"
            print(f"dhyan: {told}", file=sys.stderr)
            await exchange.refuse(Refused(500, told))

    def _check(self, scope: MutableMapping[str, Any]) -> None:
        if scope["type"] != "http":
            raise Refused(400, f"got a {scope['type']} connection, expected http")
        headers: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.lower(), []).append(value.decode("latin-1"))
        hosts = headers.get(b"host", [])
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            raise Refused(403, f"Host is {', '.join(hosts)[:100]!r}, expected localhost or this machine's address")
        for origin in headers.get(b"origin", []):
            if origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
                raise Refused(403, f"Origin is {origin[:100]!r}, expected none or http://{hosts[0][:100]}")
        for site in headers.get(b"sec-fetch-site", []):
            if site not in ("same-origin", "none") and scope["method"] != "GET":
                raise Refused(403, f"Sec-Fetch-Site is {site[:40]!r}, expected same-origin: another page asks")

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine. Its port is free: a tunnel may have changed it."""
        try:
            parts = urlsplit(f"//{host}")
            name, _ = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            return False
        if parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or self._anywhere


def machine_names(host: str) -> tuple[str, ...]:
    """What this machine may be called where it serves others: the name given, and its own."""
    return tuple({host, socket.gethostname(), f"{socket.gethostname()}.local"})


class _Exchange:
    """The two ways of one request: how far each is, and the headers of every answer."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._read, self._begun, self._ended = False, False, False

    async def receive(self) -> Message:
        message = await self._receive()
        self._read |= message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._begun = True
            own = {name for name, _ in message.get("headers", [])}
            more = [(k.encode(), v.encode()) for k, v in HEADERS.items() if k.encode() not in own]
            message["headers"] = [*message.get("headers", []), *more]
        self._ended |= message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, error: Refused) -> None:
        """Answer with one JSON line. Half an answer ends with its connection, so that nobody takes it for the whole."""
        if self._ended:
            return
        if self._begun:
            raise error
        await self._drain()
        body = json.dumps({"error": str(error)}, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"
        fields = {"content-type": JSON_LINE, "content-length": f"{len(body)}"}
        fields |= {"connection": "close"} | ({"allow": error.allow} if error.allow else {})
        headers = [(k.encode(), v.encode()) for k, v in fields.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def _drain(self) -> None:
        """Read and drop the rest of a body: its sender hears the answer only after it."""
        size = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BODY_SECONDS):
                while not self._read and size <= DRAINED:
                    size += len((await self.receive()).get("body", b""))


async def read_body(receive: Receive) -> bytes:
    """A request's body. Errors: Refused 413 where it is longer than MAX_BODY, 408 where it comes too slowly, Gone."""
    size, parts, more = 0, [], True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                parts.append(message.get("body", b""))
                size, more = size + len(parts[-1]), message.get("more_body", False)
                if size > MAX_BODY:
                    raise Refused(413, f"the request's body is longer than the limit of {MAX_BODY} bytes")
    except TimeoutError:
        raise Refused(408, f"the request's body did not come within {BODY_SECONDS:.0f} s") from None
    return b"".join(parts)


class Gone(Exception):
    """Whoever asked has closed the connection."""
