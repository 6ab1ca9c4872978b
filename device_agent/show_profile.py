"""A device's profile as a table of plain text: each figure, and how it was measured."""

from profiles.link_estimate import LinkFigures
from runtime.published import ComputeProfile, DeviceProfile

Row = tuple[str, str, str]
"""What, how much, how measured."""


def profile_text(profile: DeviceProfile, figures: LinkFigures | None, *, link_how: str) -> str:
    """Write a profile as aligned columns."""
    rows = [*_facts(profile), *(_compute(profile.compute) if profile.compute else [])]
    rows += _link(figures, link_how) if figures else [("link", "not measured", link_how)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(
        f"{what:<{widths[0]}}  {amount:>{widths[1]}}  {how}".rstrip() for what, amount, how in rows
    )


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
        ("device", profile.device, f"{profile.machine}, engine {profile.engine}"),
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
