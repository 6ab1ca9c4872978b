"""The agents of a local run: real processes, each hosting some of the devices."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_coordinator.settings import JobSettings
from runtime.errors import EdgeError

_STOP_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class AgentProcess:
    """One agent process: which devices it hosts, where it logs."""

    devices: tuple[str, ...]
    log: Path
    process: Process


def device_names(count: int) -> list[str]:
    """Ids of local devices, in an order that is also their numbers' order."""
    width = len(str(count - 1))
    return [f"dev-{index:0{width}}" for index in range(count)]


def num_processes(settings: JobSettings) -> int:
    """How many processes host the devices: one a core by default."""
    wanted = settings.devices.processes or os.cpu_count() or 1
    return min(wanted, settings.devices.count)


@asynccontextmanager
async def local_agents(
    settings: JobSettings, *, url: str, base_dir: Path, log_dir: Path
) -> AsyncIterator[Sequence[AgentProcess]]:
    """Start the agents for the length of the block; they end with this process, however it ends."""
    names = device_names(settings.devices.count)
    count = num_processes(settings)
    agents: list[AgentProcess] = []
    try:
        for number in range(count):
            log = log_dir / f"agent-{number}.log"
            process = await _start(
                settings,
                names,
                range(number, len(names), count),
                url=url,
                base_dir=base_dir,
                log=log,
            )
            agents.append(AgentProcess(tuple(names[number::count]), log, process))
        yield agents
    finally:
        await asyncio.gather(*(_end(agent.process) for agent in agents))


async def watch(agents: Sequence[AgentProcess]) -> None:
    """Raise EdgeError when an agent ends by itself; its own words say why."""
    waiting = {asyncio.create_task(agent.process.wait()): agent for agent in agents}
    try:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    agent = waiting[next(iter(done))]
    lines = agent.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    last = lines[-1].removeprefix("cpsl-agent: ") if lines else "it said nothing"
    raise EdgeError(f"the agent of {', '.join(agent.devices)} ended: {last} (all in {agent.log})")


async def _start(
    settings: JobSettings,
    names: Sequence[str],
    indices: range,
    *,
    url: str,
    base_dir: Path,
    log: Path,
) -> Process:
    own = [
        flag
        for index in indices
        for flag in ("--id", names[index], "--shard", f"{index}/{len(names)}")
    ]
    with log.open("wb") as file:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "device_agent",
            "--broker", url,
            "--site", settings.site,
            "--data", settings.data.source,
            "--partition", settings.data.partition,
            "--seed", str(settings.seed),
            "--engine", "torch",
            "--chunk-bytes", str(settings.broker.chunk_bytes),
            "--end-with-stdin",
            *own,
            *(("--scenario", settings.devices.scenario) if settings.devices.scenario else ()),
            stdin=PIPE,
            stdout=file,
            stderr=file,
            cwd=base_dir,
            start_new_session=True,
        )  # fmt: skip


async def _end(process: Process) -> None:
    """Let an agent end as it would if this process died; make it, if it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
