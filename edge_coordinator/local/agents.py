"""The agents of a local run: real processes, each hosting some of the devices."""

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_coordinator.job.settings import JobSettings, code_flags, device_names
from runtime.errors import EdgeError

_STOP_TIMEOUT_S = 10.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_STABLE_S = 60.0

log = logging.getLogger(__name__)


@dataclass
class AgentProcess:
    """One agent process: which devices it hosts, where it logs, and how to start it again."""

    devices: tuple[str, ...]
    log: Path
    process: Process
    start_again: Callable[[], Awaitable[Process]]


@dataclass(frozen=True)
class HostGroup:
    """Devices that share a process: all of one engine, so that only some processes load torch."""

    engine: str
    devices: range
    """Their numbers."""


def host_groups(settings: JobSettings) -> list[HostGroup]:
    """Which processes host the devices: one a core by default, and at least one an engine."""
    count, name = settings.devices.count, settings.devices.engine
    wanted = settings.devices.processes or os.cpu_count() or 1
    engines = ["torch", "onnxruntime"][:count] if name == "mixed" else [name]
    groups = []
    for number, engine in enumerate(engines):
        own = range(number, count, len(engines))
        share = max(1, len(range(number, wanted, len(engines))))
        groups += [HostGroup(engine, own[first::share]) for first in range(min(share, len(own)))]
    return groups


@asynccontextmanager
async def local_agents(
    settings: JobSettings, *, url: str, base_dir: Path, log_dir: Path, spans: str | None = None
) -> AsyncIterator[Sequence[AgentProcess]]:
    """Start the agents for the length of the block; they end with this process, however it ends."""
    names = device_names(settings.devices.count)
    agents: list[AgentProcess] = []
    try:
        for number, group in enumerate(host_groups(settings)):
            log_file = log_dir / f"agent-{number}.log"
            start = partial(
                _start,
                settings,
                names,
                group,
                url=url,
                base_dir=base_dir,
                log_file=log_file,
                more=() if spans is None else ("--spans", spans),
            )
            devices = tuple(names[i] for i in group.devices)
            log_file.unlink(missing_ok=True)
            agents.append(AgentProcess(devices, log_file, await start(), start))
        yield agents
    finally:
        await asyncio.gather(*(_end(agent.process) for agent in agents))


async def watch(agents: Sequence[AgentProcess]) -> None:
    """Start agents again that are killed; EdgeError when one ends by itself."""
    async with asyncio.TaskGroup() as tasks:
        for agent in agents:
            tasks.create_task(_watch_one(agent), name=f"watch {agent.devices[0]}")


async def _watch_one(agent: AgentProcess) -> None:
    """Keep one agent running, as a service manager does; its own words say why it ended."""
    clock, pause_s = asyncio.get_running_loop(), _FIRST_PAUSE_S
    while True:
        started_at_s = clock.time()
        code = await agent.process.wait()
        if code >= 0:
            raise _ended(agent)
        if clock.time() - started_at_s > _STABLE_S:
            pause_s = _FIRST_PAUSE_S
        names = ", ".join(agent.devices)
        log.warning(
            "the agent of %s was killed by signal %d; it starts again in %g s",
            names,
            -code,
            pause_s,
        )
        await asyncio.sleep(pause_s)
        agent.process = await agent.start_again()
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _ended(agent: AgentProcess) -> EdgeError:
    lines = agent.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("cpsl-agent: ") if lines else "it said nothing"
    return EdgeError(f"the agent of {', '.join(agent.devices)} ended: {last} (all in {agent.log})")


async def _start(
    settings: JobSettings,
    names: Sequence[str],
    group: HostGroup,
    *,
    url: str,
    base_dir: Path,
    log_file: Path,
    more: Sequence[str],
) -> Process:
    own = [
        flag
        for index in group.devices
        for flag in ("--id", names[index], "--shard", f"{index}/{len(names)}")
    ]
    with log_file.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "device_agent",
            "--broker", url,
            "--site", settings.site,
            "--data", settings.data.source,
            "--partition", settings.data.partition,
            "--seed", str(settings.seed),
            "--engine", group.engine,
            "--chunk-bytes", str(settings.broker.chunk_bytes),
            "--end-with-stdin",
            *own,
            *(("--scenario", settings.devices.scenario) if settings.devices.scenario else ()),
            *code_flags(settings),
            *more,
            *(("--publish-labels",) if settings.plan.balance_weight else ()),
            stdin=PIPE,
            stdout=file,
            stderr=file,
            cwd=base_dir,
            start_new_session=True,
        )  # fmt: skip


async def _end(process: Process) -> None:
    """Let an agent end as a service manager would; make it, if it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()  # It also ends one that imports still, and does not read its input.
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
