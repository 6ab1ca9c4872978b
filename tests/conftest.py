"""What holds for every test."""

import asyncio
import inspect
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

import hypothesis
import pytest

from tests.project.torch_needs import TORCH, module_of, needs_torch
from tests.root import ROOT

# As Python does by itself: programs that tests start would else compile all they import each time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, so each takes one thread, as the programs that it starts do.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

hypothesis.settings.register_profile(
    "busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
"""What takes long on a busy machine is no fault of what is tested."""
hypothesis.settings.load_profile("busy")
hypothesis.settings.register_profile(
    "long", parent=hypothesis.settings.get_profile("busy"), max_examples=20_000
)
"""What `--hypothesis-profile=long` asks for: an hour or so, for one property at a time."""


class _WithoutTorch(PathFinder):
    """Finds all that there is but PyTorch, as on a device that lacks it."""

    @classmethod
    def find_spec(
        cls,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        if fullname.split(".", 1)[0] in TORCH:
            return None
        return super().find_spec(fullname, path, target)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take `--without-torch`."""
    parser.addoption(
        "--without-torch", action="store_true", help="hide PyTorch; run what needs none"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hide PyTorch if that is wanted."""
    if config.getoption("--without-torch"):
        sys.meta_path[sys.meta_path.index(PathFinder)] = _WithoutTorch


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave whole systems, which train by it, and the files that are about it."""
    if not config.getoption("--without-torch") or collection_path.is_dir():
        return None
    of_systems = ROOT / "tests" / "system" in collection_path.parents
    return of_systems or needs_torch(module_of(collection_path)) or None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave single tests that are marked."""
    if item.config.getoption("--without-torch") and item.get_closest_marker("torch"):
        pytest.skip("needs PyTorch")


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
