"""What holds for every test."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import hypothesis
import pytest

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
