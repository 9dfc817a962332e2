"""A headless Chromium for tests of pages: driven through its debugging pipe, with nothing but the standard library.

    page = browser.open(url, width=390, dark=True)      # `browser` is a fixture; every page is a fresh profile
    page.hover(".outputs button:nth-child(2)"); page.press("Tab"); page.run("document.activeElement.id")
    page.problems, page.requests                        # what it complained of, and every address it asked for

No name is resolved but 127.0.0.1's: a page that wants the network fails here.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BINARY = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-pipe", "--lang=en",
    "--force-device-scale-factor=1",
)  # fmt: skip
# The browser reads commands from descriptor 3 and answers on 4.
STARTER = "import fcntl, os, sys; r, w = (fcntl.fcntl(int(n), fcntl.F_DUPFD, 10) for n in sys.argv[1:3])\n"
STARTER += "os.dup2(r, 3); os.dup2(w, 4); os.execv(sys.argv[3], sys.argv[3:])"  # from 10 on: never 3 or 4 themselves
KEYS = {
    "Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "PageUp": 33, "PageDown": 34, "End": 35, "Home": 36, "ArrowLeft": 37,
    "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
}  # fmt: skip
# What is painted with too little contrast: the ratio, the class, the words.
CONTRAST = """(() => {
  const parse = (c) => { const v = c.match(/[\\d.]+/g).map(Number); return v.length < 4 ? [...v, 1] : v; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3]));
  const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (c) => { const [r, g, b] = c.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { const own = parse(getComputedStyle(e).backgroundColor);
    const below = e.parentElement ? ground(e.parentElement) : [255, 255, 255]; return over(own, below); };
  const fade = (e) => e ? Number(getComputedStyle(e).opacity) * fade(e.parentElement) : 1;
  const bad = [];
  for (const e of document.querySelectorAll("body *")) {
    const words = [...e.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (!words.length || e.closest("script, style, [hidden], svg") || !e.getClientRects().length) continue;
    const back = ground(e), ink = parse(getComputedStyle(e).color);
    const front = over([...ink.slice(0, 3), ink[3] * fade(e)], back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) bad.push([ratio.toFixed(2), e.className, e.textContent.slice(0, 30)]);
  }
  return bad;
})()"""
PATIENCE = 60.0  # seconds for an answer: a busy machine is no failure


class Browser:
    """One process; `open` gives a page of it."""

    def __init__(self, folder: Path) -> None:
        assert BINARY is not None
        (read, self._write), (self._read, write) = os.pipe(), os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", STARTER, str(read), str(write), BINARY, *OPTIONS, f"--user-data-dir={folder}"],
                pass_fds=(read, write), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        finally:
            os.close(read)
            os.close(write)
        self._count, self._pending = 0, b""
        self.events: list[dict[str, Any]] = []

    def send(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """The result of a command of the DevTools protocol; events that come meanwhile are kept."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(until - time.monotonic())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer["result"]
                return found
            self.events.append(answer)

    def _receive(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], max(seconds, 0))
            assert ready, f"the browser does not answer within {PATIENCE:.0f} s"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._pending += data
        message, self._pending = self._pending.split(b"\0", 1)
        found: dict[str, Any] = json.loads(message)
        return found

    def open(self, url: str, *, width: int = 1000, height: int = 800, dark: bool = False, script: bool = True) -> Page:
        """A page at this address, loaded, in a profile of its own; script=False: without JavaScript."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            page.send(f"{domain}.enable")
        page.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.send("Emulation.setEmulatedMedia", features=[scheme])
        if not script:
            page.send("Emulation.setScriptExecutionDisabled", value=True)
        error = page.send("Page.navigate", url=url).get("errorText", "")
        assert not error, f"{url}: {error}"
        page.wait("document.readyState === 'complete' && document.URL !== 'about:blank'")
        return page

    def close(self) -> None:
        """End the browser."""
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self._process.kill()
        self._process.wait()
        os.close(self._read)
        os.close(self._write)


class Page:
    """One page: what a person does with it, and what can be seen of it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """As Browser.send, for this page."""
        return self._browser.send(method, self._session, **parameters)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited where it is a promise."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = PATIENCE) -> None:
        """Until the expression is true."""
        until = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < until, f"not true within {seconds:.0f} s: {script}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        """What is seen of the first element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def texts(self, selector: str) -> list[str]:
        """What is seen of every such element."""
        return list(self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.innerText)"))

    def hover(self, selector: str) -> None:
        """The pointer over the middle of the first element, scrolled into view."""
        self._mouse("mouseMoved", *self._middle(selector))

    def click(self, selector: str) -> None:
        """A click there."""
        x, y = self._middle(selector)
        self._mouse("mouseMoved", x, y)
        self._mouse("mousePressed", x, y, button="left", clickCount=1)
        self._mouse("mouseReleased", x, y, button="left", clickCount=1)

    def press(self, key: str, shift: bool = False) -> None:
        """One of KEYS, to whatever has the focus."""
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
        about |= {"modifiers": 8 if shift else 0}
        typed = {"Enter": "\r", " ": " "}.get(key)
        self.send("Input.dispatchKeyEvent", type="keyDown", **about, **({"text": typed} if typed else {}))
        self.send("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Text, to whatever has the focus."""
        self.send("Input.insertText", text=text)

    def screenshot(self, path: Path, whole: bool = False) -> None:
        """A picture (PNG) of what is seen, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def tree(self) -> list[tuple[str, str]]:
        """(role, name) of what a screen reader meets, in order."""
        nodes = self.send("Accessibility.getFullAXTree")["nodes"]
        kept = [node for node in nodes if not node["ignored"]]
        return [(node["role"]["value"], str(node.get("name", {}).get("value", ""))) for node in kept]

    @property
    def faint(self) -> list[Any]:
        """Texts with a contrast below 4.5 (WCAG 1.4.3), measured on what is painted."""
        return list(self.run(CONTRAST))

    @property
    def problems(self) -> list[str]:
        """What the page complained of: errors, exceptions, refused addresses, warnings of its policy."""
        found = []
        for name, about in self._events():
            if name == "Runtime.exceptionThrown":
                found.append(about["exceptionDetails"]["text"])
            elif name == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(about["entry"]["text"])
            elif name == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(str(about["args"]))
        return found

    @property
    def requests(self) -> list[str]:
        """Every address it asked for, its own first."""
        return [about["request"]["url"] for name, about in self._events() if name == "Network.requestWillBeSent"]

    def _events(self) -> Iterator[tuple[str, Any]]:
        self.run("0")  # what was on its way is here now
        yield from ((e["method"], e["params"]) for e in self._browser.events if e.get("sessionId") == self._session)

    def _middle(self, selector: str) -> tuple[float, float]:
        place = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{place}.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}})")
        box = self.run(
            f"(() => {{ const r = {place}.getBoundingClientRect(); return [r.x, r.y, r.width, r.height] }})()"
        )
        assert box[2] > 0 and box[3] > 0, f"{selector} is not shown"
        return box[0] + box[2] / 2, box[1] + box[3] / 2

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium of this session; the tests that ask for it are skipped where there is none."""
    if BINARY is None:
        pytest.skip("needs a Chromium")
    found = Browser(tmp_path_factory.mktemp("browser"))
    yield found
    found.close()
