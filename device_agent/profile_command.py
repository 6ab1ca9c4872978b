"""`cpsl-agent profile`: measure this device once, and show its profile as a table."""

import importlib.util
import shutil
from dataclasses import dataclass
from time import perf_counter

from device_agent.facts import measure_profile
from device_agent.generic import measure_built_in
from device_agent.link_loopback import LoopBack
from device_agent.measurement import complete
from device_agent.published_profile import link_profile_of
from device_agent.show_profile import profile_text
from profiles.link_estimate import LinkFigures
from runtime.bus.broker_url import TlsFiles
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError
from runtime.protocol.link_probe import LinkProbeError
from runtime.wire.ownership import new_session
from runtime.wire.published import ComputeProfile
from runtime.wire.topics import Topics

_HOW = "frames to a topic of its own, retained ones back: to the broker alone, no coordinator"


@dataclass(frozen=True)
class ProfileSettings:
    """What to measure."""

    device: str
    site: str
    model: str
    batch_size: int
    engine: str
    num_threads: int
    broker: str | None
    chunk_bytes: int
    tls: TlsFiles


async def measure_device(settings: ProfileSettings) -> tuple[str, str]:
    """Measure compute and, with a broker, the link; the table, and the profile as JSON."""
    compute = measure_compute(settings)
    figures, how = await _measure_link(settings)
    facts = measure_profile(
        settings.device,
        engine=settings.engine,
        num_samples=0,
        sample_shape=(),
    )
    link = link_profile_of(figures) if figures else None
    profile = facts.model_copy(update={"compute": compute, "link": link})
    width = shutil.get_terminal_size().columns
    text = profile_text(profile, figures, link_how=how, width=width)
    return text, profile.model_dump_json()


def measure_compute(settings: ProfileSettings) -> ComputeProfile:
    """Time a built-in network on the engine that would train it."""
    if settings.engine == "torch" and importlib.util.find_spec("torch"):
        import torch  # noqa: PLC0415

        torch.set_num_threads(settings.num_threads)
    timing = measure_built_in(
        settings.engine,
        settings.model,
        batch_size=settings.batch_size,
        num_threads=settings.num_threads,
        clock=perf_counter,
    )
    return complete(timing).profile(network=settings.model[:64], batch_size=settings.batch_size)


async def _measure_link(settings: ProfileSettings) -> tuple[LinkFigures | None, str]:
    if settings.broker is None:
        return None, "give --broker"
    client_id = f"{settings.device}-probe-{new_session()}"
    async with await MqttBus.connect(
        settings.broker, client_id=client_id, wait=False, tls=settings.tls
    ) as bus:
        loop_back = LoopBack(
            settings.device, bus, Topics(settings.site), chunk_bytes=settings.chunk_bytes
        )
        try:
            return await loop_back.measure(), _HOW
        except (LinkProbeError, BusError) as error:
            return None, f"{error}; the broker may not permit it"
