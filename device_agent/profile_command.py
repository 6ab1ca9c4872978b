"""`cpsl-agent profile`: measure this device once, and show its profile as a table."""

import importlib.util
import shutil
from dataclasses import dataclass
from itertools import zip_longest
from textwrap import wrap
from time import perf_counter

from device_agent.agent.publisher import link_profile_of
from device_agent.engines.measurement import complete
from device_agent.profiling.link_loopback import LoopBack
from device_agent.profiling.machine import measure_profile
from device_agent.profiling.reference_network import measure_built_in
from profiles.link_estimate import LinkFigures
from runtime.bus.broker_url import TlsFiles
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError
from runtime.protocol.link_probe import LinkProbeError
from runtime.wire.measures import ComputeProfile
from runtime.wire.ownership import new_session
from runtime.wire.published import DeviceProfile
from runtime.wire.topics import Topics

Row = tuple[str, str, str]
"""What, how much, how measured."""

_GAP = "  "
_LEAST_WHAT, _LEAST_HOW = 12, 28
"""Columns that a long name leaves to what stands beside it, and is left at least."""

_HOW = "frames to a topic of its own, retained ones back: to the broker alone, no coordinator"


def profile_text(
    profile: DeviceProfile, figures: LinkFigures | None, *, link_how: str, width: int
) -> str:
    """Write a profile as aligned columns, at most `width` wide: what is long goes on below."""
    rows = [*_facts(profile), *(_compute(profile.compute) if profile.compute else [])]
    rows += _link(figures, link_how) if figures else [("link", "not measured", link_how)]
    amount_width = max(len(amount) for _, amount, _ in rows)
    longest = max(len(what) for what, _, _ in rows)
    what_width = min(longest, max(_LEAST_WHAT, width - amount_width - _LEAST_HOW - 2 * len(_GAP)))
    how_width = max(_LEAST_HOW, width - what_width - amount_width - 2 * len(_GAP))
    lines = wrap(f"device {profile.device}", width)
    for what, amount, how in rows:
        parts = zip_longest(wrap(what, what_width), [amount], wrap(how, how_width), fillvalue="")
        lines += [
            _GAP.join((f"{first:<{what_width}}", f"{middle:>{amount_width}}", last)).rstrip()
            for first, middle, last in parts
        ]
    return "\n".join(lines)


def _facts(profile: DeviceProfile) -> list[Row]:
    known: list[tuple[str, float | None, str, float]] = [
        ("memory", profile.memory_bytes, "MB", 1e-6),
        ("free memory", profile.free_memory_bytes, "MB", 1e-6),
        ("this process", profile.resident_bytes, "MB", 1e-6),
        ("load of all cores", profile.load_fraction, "%", 100),
        ("frequency", profile.cpu_hz, "MHz", 1e-6),
        ("temperature", profile.temperature_c, "degrees C", 1),
        ("battery", profile.battery_fraction, "%", 100),
    ]
    rows = [
        ("machine", profile.machine, f"engine {profile.engine}"),
        ("cores", str(profile.num_cores), "psutil"),
    ]
    for what, value, unit, factor in known:
        shown = f"{value * factor:.0f} {unit}" if value is not None else "unknown"
        rows.append((what, shown, "psutil"))
    return rows


def _compute(compute: ComputeProfile) -> list[Row]:
    how = f"batch of {compute.batch_size}, medians, +- {compute.relative_deviation:.0%}"
    rows = [
        ("forward", f"{compute.forward_flop_per_s / 1e6:.0f} MFLOP/s", how),
        ("backward and update", f"{compute.backward_flop_per_s / 1e6:.0f} MFLOP/s", how),
    ]
    for layer in compute.layers:
        seconds = f"{layer.forward_s * 1e6:.1f} + {layer.backward_s * 1e6:.1f} us"
        rows.append((f"layer {layer.name}", seconds, "a sample, forward + backward and update"))
    return rows


def _link(figures: LinkFigures, how: str) -> list[Row]:
    up, down = figures.up_bps / 1e6, figures.down_bps / 1e6
    return [
        ("up", f"{up:.2f} Mbit/s", f"+- {figures.up_deviation_bps / 1e6:.2f}; {how}"),
        ("down", f"{down:.2f} Mbit/s", f"+- {figures.down_deviation_bps / 1e6:.2f}; {how}"),
        ("round trip", f"{figures.round_trip_s * 1e3:.2f} ms", how),
        ("cost of a message", f"{figures.message_s * 1e3:.3f} ms", "four messages against one"),
    ]


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
