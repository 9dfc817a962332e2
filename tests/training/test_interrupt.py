"""Signals between two updates: at once outside `hold`, at its end inside."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from dhyan.training.interrupt import Stopped, Stopper, stopping

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Whatever a test does, the handlers are put back; a SIGTERM nobody handles ends no test run."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once(number: int) -> None:
    reached = []
    with pytest.raises(Stopped) as caught, Stopper():
        signal.raise_signal(number)
        reached.append("after")
    assert caught.value.signal == number and not reached
    assert isinstance(caught.value, KeyboardInterrupt)  # so `except Exception` does not swallow it


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_hold(number: int) -> None:
    done = []
    with pytest.raises(Stopped) as caught, Stopper() as stopper:
        with stopper.hold():
            signal.raise_signal(number)
            done.append("inside")
        done.append("after")
    assert caught.value.signal == number and done == ["inside"]


def test_hold_without_a_signal_changes_nothing() -> None:
    with Stopper() as stopper:
        for _ in range(3):
            with stopper.hold():
                pass


def test_of_two_signals_in_hold_one_stop_is_left() -> None:
    with Stopper() as stopper:
        with pytest.raises(Stopped), stopper.hold():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
        with stopper.hold():
            pass  # the stop was delivered: nothing waits any longer
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_signals_while_a_stop_is_handled_are_ignored() -> None:
    done = []
    with Stopper() as stopper:
        try:
            signal.raise_signal(signal.SIGINT)
        except Stopped:
            assert stopping()
            signal.raise_signal(signal.SIGTERM)
            with stopper.hold():
                done.append("saved")
            try:
                raise OSError("an error on the way out")
            except OSError:
                signal.raise_signal(signal.SIGINT)
            done.append("after")
        assert not stopping()
        with pytest.raises(Stopped):  # a stop that was swallowed leaves the next one possible
            signal.raise_signal(signal.SIGTERM)
    assert done == ["saved", "after"]


def test_an_error_in_hold_is_not_hidden_and_ends_it() -> None:
    with Stopper() as stopper:
        with pytest.raises(ZeroDivisionError), stopper.hold():
            raise ZeroDivisionError
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)


def test_handlers_are_put_back() -> None:
    def mine(number: int, frame: object) -> None: ...

    signal.signal(signal.SIGTERM, mine)
    before = [signal.getsignal(number) for number in SIGNALS]
    with Stopper():
        assert mine not in [signal.getsignal(number) for number in SIGNALS]
    assert [signal.getsignal(number) for number in SIGNALS] == before
    with pytest.raises(Stopped), Stopper():
        signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_it_may_be_entered_again() -> None:
    stopper = Stopper()
    for number in SIGNALS:
        with pytest.raises(Stopped) as caught, stopper:
            signal.raise_signal(number)
        assert caught.value.signal == number


def test_in_another_thread_nothing_is_changed() -> None:
    seen: list[object] = []

    def work() -> None:
        with Stopper() as stopper, stopper.hold():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


def test_the_message_is_kept() -> None:
    assert str(Stopped(signal.SIGINT)) == "stopped"
    stopped = Stopped(signal.SIGTERM, "saved after step 3")
    assert (str(stopped), stopped.signal) == ("saved after step 3", signal.SIGTERM)
