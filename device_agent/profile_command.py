"""`cpsl-agent profile`: measure this device once, and show what its profile would say."""

import time
from dataclasses import asdict, dataclass
from time import perf_counter

from device_agent.compute_probe import COMPUTE_PROBE_S
from device_agent.facts import measure_profile
from device_agent.link_loopback import LoopBack
from device_agent.show_profile import profile_text
from profiles.link_estimate import LinkFigures
from runtime.broker_url import TlsFiles
from runtime.errors import BusError, SettingsError
from runtime.mqtt import MqttBus
from runtime.ownership import new_session
from runtime.protocol.link_probe import LinkProbeError
from runtime.published import ComputeProfile, LinkProfile
from runtime.topics import Topics

_HOW = "frames to a topic of its own, retained ones back: to the broker alone, no coordinator"


@dataclass(frozen=True)
class ProfileSettings:
    """What to measure."""

    device: str
    site: str
    model: str
    batch_size: int
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
        engine="torch",
        num_samples=0,
        sample_shape=(),
    )
    link = LinkProfile(**asdict(figures), measured_at_unix_s=time.time()) if figures else None
    profile = facts.model_copy(update={"compute": compute, "link": link})
    return profile_text(profile, figures, link_how=how), profile.model_dump_json()


def measure_compute(settings: ProfileSettings) -> ComputeProfile:
    """Time a built-in network on PyTorch."""
    try:
        import torch  # noqa: PLC0415

        from device_agent.torch_engine import built_in_engine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the torch engine needs {error.name}; install it with pip install 'cpsl[torch]'"
        ) from error
    torch.set_num_threads(settings.num_threads)
    engine = built_in_engine(settings.model, batch_size=settings.batch_size)
    timings = engine.layer_timings(
        engine.random_batch(), budget_s=COMPUTE_PROBE_S, clock=perf_counter
    )
    return timings.profile(
        network=settings.model[:64], batch_size=settings.batch_size, now_unix_s=time.time()
    )


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
