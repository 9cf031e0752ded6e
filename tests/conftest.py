"""What all tests share.

Async tests run under anyio's own plugin (no other one): mark them, or the module, with `pytest.mark.anyio`.
"""

import os
import time
from collections.abc import Callable
from typing import NoReturn

import hypothesis
import pytest

hypothesis.settings.register_profile("gapless", deadline=None)  # a busy machine is no bug
hypothesis.settings.load_profile("gapless")
pytest_plugins = ["ledgers", "nodejs"]


UNTIL = float(os.environ.get("PYTEST_UNTIL", "inf"))
"""The time, in seconds since 1970, after which no further test begins: `.ci/run` has a limit."""
FAST = {"unit", "contract"}
"""Folders of tests that start no process."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the many fast tests come first and the long ones last."""
    items.sort(key=lambda item: (item.get_closest_marker("slow") is not None, FAST.isdisjoint(item.path.parts)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Skip what does not fit any more."""
    if time.time() > UNTIL:
        pytest.skip("the time of this run is over: see PYTEST_UNTIL")


def pytest_xdist_auto_num_workers() -> int:
    """Return two more than there are cores: many tests wait for a process or a clock."""
    return (os.cpu_count() or 1) + 2


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The daemon is asyncio only."""
    return "asyncio"


@pytest.fixture(scope="session")
def absent() -> Callable[[str, str], NoReturn]:
    """Ends a test for want of a component: `absent("prometheus", "it is not on the PATH")`.

    It is a skip, but a failure if `GAPLESS_REQUIRE` (names parted by spaces) has the component, as in CI.
    """

    def end(component: str, reason: str) -> NoReturn:
        if component in os.environ.get("GAPLESS_REQUIRE", "").split():
            pytest.fail(f"{component} is required here: {reason}", pytrace=False)
        pytest.skip(f"{component}: {reason}")

    return end
