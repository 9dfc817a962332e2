"""The HTTP routes: the page, its form without script, and the JSON end point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from . import page
from .ask import OPTIONS, Ask, Refused, parse_form, parse_json
from .guard import App, Gone, Guard, read_body
from .work import Job, Worker

JSON_LINES = b"application/x-ndjson; charset=utf-8"


def make_app(
    worker: Worker, *, examples: Sequence[str] = (), anywhere: bool = False, names: tuple[str, ...] = ()
) -> App:
    """The ASGI application of the worker's models. anywhere, names: as `Guard`."""
    return Guard(_Site(worker, examples), anywhere=anywhere, names=names)


class _Site:
    """What stands at each address."""

    def __init__(self, worker: Worker, examples: Sequence[str]) -> None:
        self._worker, self._examples = worker, examples
        self._places: dict[str, tuple[tuple[str, ...], Callable[[Request], Awaitable[Any]]]] = {
            "/": (("GET", "HEAD", "POST"), self._page),
            "/icon.svg": (("GET", "HEAD"), self._icon),
            "/api/models": (("GET", "HEAD"), self._models),
            "/api/translate": (("POST",), self._translate),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path = request.url.path
        if path not in self._places:
            raise Refused(404, f"nothing at {path[:100]!r}, expected one of: {', '.join(self._places)}")
        methods, answer = self._places[path]
        if request.method not in methods:
            raise Refused(
                405, f"{path}: got {request.method[:20]}, expected {' or '.join(methods)}", ", ".join(methods)
            )
        with suppress(Gone):
            await (await answer(request))(scope, receive, send)

    async def _icon(self, request: Request) -> Response:
        return Response(page.ICON, media_type="image/svg+xml")

    async def _models(self, request: Request) -> Response:
        options = [
            {
                "key": o.key,
                "default": o.default,
                "expected": o.expected,
                "what": ": ".join(filter(None, (o.form.name, o.form.hint))),
            }
            for o in OPTIONS
        ]
        return JSONResponse({"models": [one.facts for one in self._worker.served.values()], "options": options})

    async def _page(self, request: Request) -> Response:
        """The page; a POST is its form sent without script, and is answered by the page with its cards."""
        shown = page.Shown(list(self._worker.served.values()), self._examples)
        status = 200
        if request.method == "POST":
            try:
                await self._fill(request, shown)
            except Refused as error:
                shown.problem, status = str(error), error.status
        return HTMLResponse(page.html(shown), status, headers={"content-security-policy": page.policy()})

    async def _fill(self, request: Request, shown: page.Shown) -> None:
        if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            raise Refused(415, "translate: expected the page's form, or JSON at /api/translate")
        asked = parse_form(await _body(request, self._worker), list(self._worker.served))
        shown.asked = asked[0]
        for ask in asked:
            result = await _last(_follow(self._worker.submit(ask), request.receive))
            shown.cards.append(result["card"])

    async def _translate(self, request: Request) -> Any:
        """One JSON object, or with "stream" one JSON line a decoding step, and the result as the last."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            got = f"is {kind[:60]!r}" if kind else "is missing"
            raise Refused(415, f"translate: content-type {got}, expected application/json")
        ask: Ask = parse_json(await _body(request, self._worker), list(self._worker.served))
        events = _follow(self._worker.submit(ask), request.receive)
        return _Lines(events) if ask.stream else JSONResponse(await _last(events))


async def _body(request: Request, worker: Worker) -> bytes:
    try:
        return await read_body(request.receive)
    except Refused as error:
        most = max(one.translator.max_source for one in worker.served.values())
        raise Refused(error.status, f"translate: {error} (a sentence has at most {most} tokens)") from None


async def _last(events: AsyncGenerator[dict[str, Any], None]) -> dict[str, Any]:
    """The result that the events end with. Errors: Refused where they end with an error."""
    async with aclosing(events):
        async for event in events:
            if "error" in event:
                raise Refused(event["status"], event["error"])
            if "result" in event:
                found: dict[str, Any] = event["result"]
    return found


class _Lines:
    """Events as JSON lines. The status goes with the first, so that what is refused before any step has its own."""

    def __init__(self, events: AsyncGenerator[dict[str, Any], None]) -> None:
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        async with aclosing(self._events) as events:
            async for event in events:
                if not begun:
                    if "error" in event:
                        raise Refused(event["status"], event["error"])
                    await send(
                        {"type": "http.response.start", "status": 200, "headers": [(b"content-type", JSON_LINES)]}
                    )
                    begun = True
                line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
                await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _follow(job: Job, receive: Receive) -> AsyncGenerator[dict[str, Any], None]:
    """The job's events up to the last. Errors: Gone where the asker leaves; the job is then stopped."""
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        while True:
            waiting = asyncio.ensure_future(job.events.get())
            await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                raise Gone
            event = waiting.result()
            yield event
            if "result" in event or "error" in event:
                return
    finally:
        job.cancelled.set()
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
