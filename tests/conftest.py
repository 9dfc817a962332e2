"""Fixtures shared by the tests."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from dhyan import _core, ops
from helpers.browser import browser as browser
from helpers.cuda_problem import library as library

# A shell starts background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is to mean something.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=ops.show_config()["isas"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set that is built and runs here, one after the other."""
    before = ops.show_config()["isa"]
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of threads back."""
    before = ops.get_num_threads()
    yield
    ops.set_num_threads(before)
