"""Fixtures shared by the tests."""

from __future__ import annotations

import signal
import zlib
from collections import defaultdict
from collections.abc import Iterator

import pytest
from dhyan import _core, ops
from helpers.browser import browser as browser
from helpers.cuda_problem import library as library

# A shell starts background jobs with SIGINT ignored, and children inherit that: here Ctrl-C is to mean something.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


ISAS = ops.show_config()["isas"]
MANY = 24  # cases of one test


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Of a test with many cases each runs on one instruction set, and the other pairs are slow.

    The cases are dealt by a hash, so that no parameter goes along with the instruction set. A test of few cases runs
    all of them on all sets.
    """
    tests: dict[tuple[object, str], dict[str, list[pytest.Function]]] = defaultdict(lambda: defaultdict(list))
    for item in items:
        if "isa" in getattr(item, "fixturenames", ()):
            indices = {name: index for name, index in item.callspec.indices.items() if name != "isa"}
            tests[item.path, item.originalname][repr(sorted(indices.items()))].append(item)
    for cases in tests.values():
        for case, pairs in cases.items() if len(cases) >= MANY else ():
            chosen = ISAS[zlib.crc32(case.encode()) % len(ISAS)]
            for item in pairs:
                if item.callspec.params["isa"] != chosen:
                    item.add_marker(pytest.mark.slow)


@pytest.fixture(params=ISAS)
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
