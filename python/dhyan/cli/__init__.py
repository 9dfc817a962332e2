"""The command line: `dhyan demo | train | translate | evaluate | report | serve | average | align | info`.

Results go to stdout, everything else to stderr. Exit codes: 0; 1 for data, file and numeric errors, one line each;
2 for usage; 130 after Ctrl-C, 143 after SIGTERM. Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from dhyan.cli.parser import UsageError, parse
from dhyan.training.interrupt import stopping


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    with _terminable():
        try:
            arguments = parse(sys.argv[1:] if argv is None else list(argv))
            if arguments is not None:
                from dhyan.cli import commands

                commands.run(arguments)
            sys.stdout.flush()
            return 0
        except BaseException as error:
            return _exit_code(error)


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0
    if isinstance(error, UsageError):
        return _say(str(error), 2)
    if isinstance(error, BrokenPipeError):
        # The reader has gone: nothing more can be said on stdout, not even by Python's flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, KeyboardInterrupt):
        number = getattr(error, "signal", signal.SIGINT)
        return _say(str(error) or "interrupted", 128 + number)
    if isinstance(error, MemoryError):
        return _say(f"out of memory{': ' if str(error) else ''}{error}", 1)
    if isinstance(error, OSError) and error.strerror:
        return _say(f"{error.filename}: {error.strerror}" if error.filename else error.strerror, 1)
    if isinstance(error, ValueError | TypeError | IndexError | ArithmeticError | OSError | ImportError):
        return _say(str(error), 1)
    raise error


def _say(message: str, code: int) -> int:
    """One line on stderr, whatever the message."""
    print("dhyan: " + " ".join(message.split()), file=sys.stderr)
    return code


class _Terminated(KeyboardInterrupt):
    signal = signal.SIGTERM


def _stop(number: int, frame: FrameType | None) -> None:
    if not stopping():
        raise _Terminated("terminated") if number == signal.SIGTERM else KeyboardInterrupt


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends a command like Ctrl-C does, through its clean-up, which no further signal cuts short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
