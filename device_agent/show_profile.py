"""A device's profile as a table of plain text: each figure, and how it was measured."""

from itertools import zip_longest
from textwrap import wrap

from profiles.link_estimate import LinkFigures
from runtime.wire.published import ComputeProfile, DeviceProfile

Row = tuple[str, str, str]
"""What, how much, how measured."""

_GAP = "  "
_LEAST_WHAT, _LEAST_HOW = 12, 28
"""Columns that a long name leaves to what stands beside it, and is left at least."""


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
