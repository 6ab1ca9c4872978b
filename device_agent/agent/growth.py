"""A device's data grow: its source is read again and again, or a scenario says what has come."""

import asyncio
import logging
from concurrent.futures import Executor
from functools import partial

from device_agent.agent.agent import Agent
from device_agent.agent.own_data import OwnData
from device_agent.settings import AgentSettings, load_samples
from profiles.emulation import DeviceClass
from runtime.addresses import own_path
from runtime.errors import SettingsError

log = logging.getLogger(__name__)

Marks = tuple[tuple[str, int, int], ...]
"""Path, time of change and size of each file."""


async def watch_data(
    settings: AgentSettings, data: OwnData, agent: Agent, compute: Executor
) -> None:
    """Take over what the source holds, every so many seconds, until cancelled.

    What cannot be taken over is said once, and costs nothing but the new samples.
    """
    assert settings.watch_data_s is not None
    seen, said = await asyncio.to_thread(marks_of, settings), ""
    while True:
        await asyncio.sleep(settings.watch_data_s)
        now = await asyncio.to_thread(marks_of, settings)
        if now and now == seen:
            continue
        seen = now
        try:
            samples = (await asyncio.to_thread(load_samples, settings))[0]
            loop = asyncio.get_running_loop()
            num_new = await loop.run_in_executor(compute, partial(data.grow, samples))
        except SettingsError as error:
            if str(error) != said:
                said = str(error)
                log.warning("the data are not taken over as they are now: %s", error)
            continue
        if num_new:
            log.info("%d new samples, %d by now", num_new, len(samples))
            await agent.tell_growth()


async def follow_scenario(
    stated: DeviceClass, num_samples: int, data: OwnData, agent: Agent, compute: Executor
) -> None:
    """Have ever more of so many samples, as a scenario states it of the seconds since now."""
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    for from_s in sorted({point.from_s or 0.0 for point in stated.growth}):
        await asyncio.sleep(start_s + from_s - loop.time())
        num_there = stated.num_there(num_samples, round_=0, elapsed_s=from_s)
        num_new = await loop.run_in_executor(compute, partial(data.arrive, num_there))
        if num_new:
            log.info("%d new samples by the scenario, %d by now", num_new, num_there)
            await agent.tell_growth()


def marks_of(settings: AgentSettings) -> Marks:
    """Tell the source's files as they are now; nothing if it has none, as code of one's own."""
    _, _, place = settings.data.partition(":")
    path = own_path(place.partition("?")[0], base_dir=settings.base_dir)
    if not place or not path.exists():
        return ()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    marks = []
    for each in files:
        try:
            found = each.stat()
        except OSError:  # It has just gone.
            continue
        marks.append((str(each), found.st_mtime_ns, found.st_size))
    return tuple(marks)
