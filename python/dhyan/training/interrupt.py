"""Stopping a run between two updates: Ctrl-C and SIGTERM wait only while weights and progress are being changed."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stopped(KeyboardInterrupt):
    """The user asked to stop (signal SIGINT or SIGTERM); the message says what was saved and how to go on."""

    def __init__(self, signal_number: int, message: str = "stopped") -> None:
        super().__init__(message)
        self.signal = signal_number


def stopping() -> bool:
    """Whether an interrupt is being handled here: files are saved and things cleaned up on its way out.

    A signal handler that raised once more then would cut that short, or leave a traceback of both.
    """
    error = sys.exception()
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


class Stopper:
    """While entered, SIGINT and SIGTERM raise Stopped in the main thread, at once or at the end of a `hold` block.

    While Stopped is handled, further signals are ignored: they ask for what is being done. In another thread than the
    main one signals cannot be handled, and nothing is changed.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiting: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._held:
            self._waiting = number
        elif not stopping():
            raise Stopped(number)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Signals that come in this block take effect at its end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._waiting is not None:
            number, self._waiting = self._waiting, None
            raise Stopped(number)
