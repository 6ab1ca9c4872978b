"""What a local run needs beside its coordinator: a broker and the agents, started ahead of it.

They take as long to start as the coordinator takes to import PyTorch and to prepare its job, and
on another core. So nothing here imports what is heavy.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_coordinator.job.settings import JobSettings, device_names
from edge_coordinator.local.agents import AgentProcess, local_agents
from edge_coordinator.local.broker import LocalBroker, local_broker
from edge_coordinator.local.page import LocalPage, local_page
from profiles.emulation import EmulationError
from runtime.errors import SettingsError
from runtime.scenarios.files import load_emulation
from runtime.service.descriptors import allow_many

MAX_NAMED = 12
"""Devices whose classes are named one by one; of more, they are counted."""


@dataclass(frozen=True)
class PageWanted:
    """That a page is to be served, and how."""

    port: int | None
    opens: bool
    """In a browser, where there is a display."""


class LocalSite:
    """A broker and agents for the length of the block, or until `end`; on a loop of their own.

    What then goes on with them has to `run` there.
    """

    def __init__(
        self,
        settings: JobSettings,
        *,
        base_dir: Path,
        log_dir: Path,
        page: PageWanted | None = None,
        spans: str | None = None,
    ) -> None:
        """`spans` is where the agents' go, if anywhere."""
        self.emulated = emulated_classes(settings, base_dir=base_dir)
        self._settings, self._base_dir, self._log_dir = settings, base_dir, log_dir
        self._runner = asyncio.Runner()
        self._started = AsyncExitStack()
        self.broker: LocalBroker
        self.agents: list[AgentProcess]
        self.page: LocalPage | None = None
        self._page_wanted, self._spans = page, spans

    def __enter__(self) -> Self:
        allow_many()  # Broker and agents inherit it.
        try:
            self._runner.run(self._start())
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._runner.run(self.end())
        finally:
            self._runner.close()

    def run(self, training: Coroutine[None, None, None]) -> None:
        """Run something on the loop of the site."""
        self._runner.run(training)

    async def end(self) -> None:
        """End the agents and the broker."""
        await self._started.aclose()

    async def _start(self) -> None:
        async with AsyncExitStack() as started:
            broker = self._settings.broker
            self.broker = await started.enter_async_context(local_broker(broker.local, broker.port))
            agents = local_agents(
                self._settings,
                url=self.broker.url,
                base_dir=self._base_dir,
                log_dir=self._log_dir,
                spans=self._spans,
            )
            self.agents = list(await started.enter_async_context(agents))
            if (wanted := self._page_wanted) is not None:
                page = local_page(
                    broker_url=self.broker.url,
                    site=self._settings.site,
                    port=wanted.port,
                    opens=wanted.opens,
                )
                self.page = await started.enter_async_context(page)
            self._started = started.pop_all()


def emulated_classes(settings: JobSettings, *, base_dir: Path) -> str:
    """Name what each device emulates; SettingsError if the scenario cannot be used."""
    if settings.devices.scenario is None:
        return ""
    try:
        scenario = load_emulation(settings.devices.scenario, base_dir=base_dir)
    except EmulationError as error:
        raise SettingsError(str(error)) from error
    names = device_names(settings.devices.count)
    classes = [scenario.class_of(number).name for number in range(len(names))]
    if len(names) > MAX_NAMED:
        counted = (f"{count} {name}" for name, count in Counter(classes).items())
        return f"emulated: {', '.join(counted)}"
    named = (f"{name} {what}" for name, what in zip(names, classes, strict=True))
    return f"emulated: {', '.join(named)}"
