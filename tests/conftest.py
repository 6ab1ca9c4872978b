"""What holds for every test."""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

# As Python does by itself: programs that tests start would else compile all they import each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, so each takes one thread, as the programs that it starts do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile("long", max_examples=20_000, deadline=None)
"""What `--hypothesis-profile=long` asks for: an hour or so, for one property at a time."""


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    """Fail a test that leaves an asyncio task running."""
    yield
    await asyncio.sleep(0)  # a task that has just been told to end may do so
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"left behind: {sorted(task.get_name() for task in left if task)}"


@pytest.fixture(autouse=True)
def _watch_tasks(request: pytest.FixtureRequest) -> None:
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("no_task_left_behind")


@pytest.fixture(autouse=True)
def _watch_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test in which a run went on from a fault that the test did not mean."""
    told: list[str] = []
    watching = logging.Handler(logging.WARNING)
    watching.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("edge_coordinator.run.faults")
    log.addHandler(watching)
    yield
    log.removeHandler(watching)
    assert not told or request.node.get_closest_marker("faults"), told
