"""The HTTP server: the socket, time-outs of connections, and the signals that end it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import gc
import ipaddress
import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from dhyan.training.interrupt import Stopped

from .guard import JSON_LINE
from .work import Worker

EXTRA_MISSING = "serve needs starlette and uvicorn: pip install 'dhyan[serve]'"
HEAD_SECONDS = 10.0  # from a connection's begin, or its last answer, to the end of a request's head
WORK_SECONDS = 150.0  # from there to the end of the answer; more than `guard.REQUEST_SECONDS`
CONNECTIONS = 64


def check_installed() -> None:
    """Errors: ImportError with the command that installs what is missing."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        raise ImportError(EXTRA_MISSING) from None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 is any free one. Errors: OSError in one line."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"serve: --host is {host!r}: {getattr(error, 'strerror', None) or 'not a name'}") from None
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(CONNECTIONS)
    except OSError as error:
        made.close()
        if error.errno == errno.EADDRINUSE:
            raise OSError(f"serve: port {port} of {host} is in use; choose another with --port, 0 for any") from None
        raise OSError(f"serve: cannot listen at port {port} of {host}: {error.strerror}") from None
    return made


def is_loopback(made: socket.socket) -> bool:
    """Whether only this machine can reach a listening socket."""
    return ipaddress.ip_address(made.getsockname()[0].partition("%")[0]).is_loopback


def address(made: socket.socket, host: str) -> str:
    """The page's address as a browser takes it."""
    port = made.getsockname()[1]
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def run(app: Any, worker: Worker, made: socket.socket) -> None:
    """Answer until a signal comes. Errors: Stopped, always, with the signal. What still runs by then is dropped."""
    number = asyncio.run(serve(app, made))
    gc.freeze()  # the interpreter's last collections took most of 0.2 s
    if not worker.close(0.1):
        # A step that takes this long is inside a kernel, and nothing may wait for it.
        atexit.register(os._exit, 128 + number)
    raise Stopped(number)


async def serve(app: Any, made: socket.socket, started: Callable[[asyncio.Future[int]], None] | None = None) -> int:
    """Answer until SIGINT or SIGTERM, or until the future that `started` is given has a result; returns it."""
    stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, _stop, stopped, number)
    server = _server(app)
    serving = asyncio.ensure_future(server.serve(sockets=[made]))
    if started is not None:
        started(stopped)
    try:
        await asyncio.wait({serving, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        return stopped.result()
    finally:
        serving.cancel()  # not uvicorn's graceful end, which waits for connections
        with contextlib.suppress(asyncio.CancelledError):
            await serving
        for listener in getattr(server, "servers", []):
            listener.close()
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        made.close()
        await asyncio.sleep(0)  # connections hear of their end


def _stop(stopped: asyncio.Future[int], number: int) -> None:
    if not stopped.done():
        stopped.set_result(number)


def _server(app: Any) -> Any:
    """uvicorn with this protocol, no log, no signal handlers of its own."""
    import uvicorn

    class Server(uvicorn.Server):
        def capture_signals(self) -> Any:
            return contextlib.nullcontext()

    return Server(
        uvicorn.Config(
            app, http=_protocol(), ws="none", loop="asyncio", lifespan="off", log_config=None, log_level="critical",
            access_log=False, server_header=False, proxy_headers=False, limit_concurrency=CONNECTIONS,
            timeout_keep_alive=5, interface="asgi3",
        )
    )  # fmt: skip


def _protocol() -> type[asyncio.Protocol]:
    """uvicorn's protocol with an end for connections that say nothing, too little, or do not take their answer."""
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        _timer: asyncio.TimerHandle | None = None
        _busy = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch(HEAD_SECONDS)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._look()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._busy = False
            self._watch(HEAD_SECONDS)
            self._look()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._timer is not None:
                self._timer.cancel()

        def send_400_response(self, msg: str) -> None:
            """What is not HTTP hears what every bad request hears: one JSON line."""
            body = json.dumps({"error": msg.lower()}).encode() + b"\n"
            head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {JSON_LINE}\r\ncontent-length: {len(body)}\r\n"
            self.transport.write(f"{head}connection: close\r\n\r\n".encode() + body)
            self.transport.close()

        def _look(self) -> None:
            """A request's head is there: its time begins."""
            busy = self.cycle is not None and not self.cycle.response_complete
            if busy and not self._busy:
                self._watch(WORK_SECONDS)
            self._busy = busy

        def _watch(self, seconds: float) -> None:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(seconds, self.transport.abort)

    return Protocol
