"""The fixture `ramify_replay` of pytest: a test's runs are recorded once, and played from then on.

pytest imports this at its start wherever ramify is installed, so nothing of ramify is imported before a test asks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ..backends.replay.cassette import Cassette

_FOLDER = "recordings"
_ODD = re.compile(r"[^\w.-]+")
_MODES = ("once", "none", "all")
_PASSED = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --ramify-record."""
    parser.getgroup("ramify").addoption(
        "--ramify-record",
        choices=_MODES,
        default="once",
        help="recordings of tests that ask for ramify_replay: `once` records those that are not there (the default), "
        "`none` records nothing, `all` records all of them again",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Remember of tests that are recorded whether they passed."""
    report = yield
    if call.when == "call" and "ramify_replay" in getattr(item, "fixturenames", ()):
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
def ramify_replay(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """Programs that run in the test are played from `recordings/MODULE/TEST.rec` beside the test's file.

    The file is made when the test passes for the first time, and again with --ramify-record=all. Commit it.
    """
    from .cassettes import recorded_as, replay

    path = _path(request.path, request.node.name)
    mode = request.config.getoption("--ramify-record")
    if mode != "none":
        path.parent.mkdir(parents=True, exist_ok=True)
    opened = recorded_as(path) if mode == "all" else replay(path, once=mode == "once")
    with suppress(_Failed), opened as cassette:
        yield cassette
        if not request.node.stash.get(_PASSED, False):
            raise _Failed  # so that nothing is kept of it


class _Failed(Exception):
    """The test did not pass."""


def _path(file: Path, test: str) -> Path:
    """Where the recording of a test is."""
    return file.parent / _FOLDER / file.stem / f"{_ODD.sub('-', test).strip('-')}.rec"
