"""From what devices publish to what the planner takes: one state a device.

Whatever a device has not measured is assumed, so that no device is kept out for want of a figure:
at the worst of what the others have, at what is slow anyway, and at no more than a measurement
that failed has shown to be possible. Every assumption comes with its reason.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.replanning.corrections import LearnedCorrections
from edge_coordinator.replanning.figure import Figure
from edge_coordinator.training.averaging import believed_counts
from profiles.cuts import CutTable
from profiles.device import ComputeState, DeviceState
from profiles.link import LinkState
from runtime.datasets.classes import union
from runtime.wire.fields import MAX_FLOP_PER_S
from runtime.wire.measures import ComputeProfile, LinkProfile
from runtime.wire.names import ClassNames
from runtime.wire.published import DeviceProfile

MAX_NAME_LETTERS = 64
"""A profile cuts longer names off."""
ASSUMED_FLOP_PER_S = 1e9
ASSUMED_BPS = 1e6
ASSUMED_ROUND_TRIP_S = 0.01
"""At best: what was not measured counts as slow, however fast the others are."""


@dataclass(frozen=True)
class KnownDevice:
    """A device's state, what of it was assumed and why, and the figures it rests on."""

    state: DeviceState
    assumed: str
    figures: Mapping[str, Figure]
    """By what it is a figure of; only what was measured."""


@dataclass(frozen=True)
class Assumptions:
    """What to assume of a device that has not measured itself."""

    flop_per_s: float
    link: LinkState

    @classmethod
    def of(cls, profiles: Iterable[DeviceProfile]) -> "Assumptions":
        """Take the worst of what has been measured by others, or what is slow anyway."""
        profiles = list(profiles)
        links = [each.link for each in profiles if each.link]
        speeds = [min(_speeds(each.compute)) for each in profiles if each.compute]
        return cls(
            min([ASSUMED_FLOP_PER_S, *speeds]),
            LinkState(
                up_bps=min([ASSUMED_BPS, *(each.up_bps for each in links)]),
                down_bps=min([ASSUMED_BPS, *(each.down_bps for each in links)]),
                round_trip_s=max([ASSUMED_ROUND_TRIP_S, *(each.round_trip_s for each in links)]),
                message_s=max((each.message_s for each in links), default=0.0),
            ),
        )

    def link_of(self, record: DeviceRecord) -> tuple[LinkState, str]:
        """The link of a device that has not measured it, and why it is taken to be that."""
        failure, link = record.link_failure, self.link
        if failure is None:
            return link, f"its link carries {link.up_bps / 1e6:.3g} Mbit/s up: no measurement"
        if failure.at_best is not None:
            link = LinkState(
                up_bps=min(link.up_bps, failure.at_best.up_bps),
                down_bps=min(link.down_bps, failure.at_best.down_bps),
                round_trip_s=max(link.round_trip_s, failure.at_best.round_trip_s),
                message_s=link.message_s,
            )
        why = failure.reason or "no answer"
        return (
            link,
            f"its link carries {link.up_bps / 1e6:.3g} Mbit/s up: it was not measured: {why}",
        )


def known_devices(
    records: Mapping[str, DeviceRecord],
    cuts: CutTable,
    corrections: LearnedCorrections,
    *,
    shared_bps: float | None,
    classes: ClassNames = (),
) -> list[KnownDevice]:
    """Say what is known of these devices, all of which are ready, in id order.

    Labels are counted along the job's `classes`, or along all that the devices publish.
    """
    profiles = [record.profile for record in records.values() if record.profile]
    classes = classes or union(each.label_names for each in profiles if each.label_names)
    assumptions = Assumptions.of(profiles)
    known = [
        _known(
            *(device, record, cuts, corrections, assumptions),
            shared_bps=shared_bps,
            classes=classes,
        )
        for device, record in sorted(records.items())
    ]
    # Samples may be shared out by their numbers, so nobody's is taken at its word.
    believed = believed_counts({each.state.device: each.state.num_samples for each in known})
    return [
        replace(each, state=replace(each.state, num_samples=believed[each.state.device]))
        for each in known
    ]


def cuts_beyond(states: Iterable[DeviceState], candidates: Sequence[int]) -> dict[int, str]:
    """Candidate cuts that some device cannot run, though it can run another; and why."""
    able = [
        (each.deepest_cut, f"{each.device} cannot run it: {each.why_no_deeper}")
        for each in states
        if each.deepest_cut is not None and each.deepest_cut >= min(candidates)
    ]
    deepest, why = min(able, default=(max(candidates), ""))
    return {cut: why for cut in candidates if cut > deepest}


def cuts_before(
    states: Iterable[DeviceState], candidates: Sequence[int], *, beyond: Container[int]
) -> dict[int, str]:
    """Candidate cuts that come before what some device's owner lets out; and why.

    Those that want a cut which is none, or `beyond` what others can run, do not count: they are
    left out.
    """
    usable = [cut for cut in candidates if cut not in beyond]
    wanted = [
        (each.shallowest_cut, f"the owner of {each.device} lets nothing out before it")
        for each in states
        if each.shallowest_cut <= max(usable, default=0)
    ]
    shallowest, why = max(wanted, default=(0, ""))
    return {cut: why for cut in usable if cut < shallowest}


def is_complete(profile: DeviceProfile | None, cuts: CutTable) -> bool:
    """Whether a profile holds all that a plan can use."""
    if profile is None or profile.link is None:
        return False
    return is_of_network(profile.compute, cuts)


def is_of_network(compute: ComputeProfile | None, cuts: CutTable) -> bool:
    """Whether a compute profile lists the layers of a network."""
    if compute is None:
        return False
    names = tuple(layer.name for layer in compute.layers)
    known = (cuts.network, *cuts.cut_names[1:])
    return (compute.network, *names) == tuple(name[:MAX_NAME_LETTERS] for name in known)


def _known(
    device: str,
    record: DeviceRecord,
    cuts: CutTable,
    corrections: LearnedCorrections,
    assumptions: Assumptions,
    *,
    shared_bps: float | None,
    classes: ClassNames,
) -> KnownDevice:
    profile = record.profile
    compute = profile.compute if profile else None
    measured = profile.link if profile else None
    assumed = []
    if compute is None:
        assumed.append(f"computes at {assumptions.flop_per_s / 1e6:.3g} MFLOP/s: no measurement")
    elif not is_of_network(compute, cuts):
        assumed.append(f"its speed at {compute.network or 'a generic network'} is that at this one")
    if measured is not None:
        link = _link_state(measured, shared_bps=shared_bps)
    else:
        link, why = assumptions.link_of(record)
        assumed.append(why)
    if device in corrections.slower:
        factor = corrections.slower[device]
        assumed.append(f"takes {factor:.3g} times as long as predicted, or longer: it was late")
    state = DeviceState(
        device=device,
        num_samples=record.ready.num_samples if record.ready else 0,
        free_memory_bytes=profile.free_memory_bytes if profile else np.inf,
        compute=_compute_state(compute, cuts, assumptions),
        link=link,
        corrections=corrections.of(device),
        label_counts=_counts_along(classes, profile) if profile else None,
        deepest_cut=compute.deepest_cut if compute and is_of_network(compute, cuts) else None,
        why_no_deeper=compute.why_no_deeper if compute else "",
        shallowest_cut=_least_layers(profile, cuts) if profile else 0,
    )
    figures = _compute_figures(compute) | _link_figures(measured)
    return KnownDevice(state, "; ".join(assumed), figures)


def _least_layers(profile: DeviceProfile, cuts: CutTable) -> int:
    """Count the layers that a device has to run at least: its owner, or its settings, want it."""
    by_topic = profile.settings.applied.get("min_cut", "") if profile.settings else ""
    return max(_layer_number(profile.min_cut, cuts), _layer_number(by_topic, cuts))


def _layer_number(wanted: str, cuts: CutTable) -> int:
    """Read a layer's name or number; more than there are if it is neither."""
    names = [name[:MAX_NAME_LETTERS] for name in cuts.cut_names]
    if wanted in names[1:]:
        return names.index(wanted, 1)
    if not wanted:
        return 0
    return int(wanted) if wanted.isdecimal() else len(names)


def _counts_along(classes: ClassNames, profile: DeviceProfile) -> tuple[int, ...] | None:
    """Samples of each of the job's classes; a device counts along its own."""
    counts, names = profile.label_counts, profile.label_names
    if counts is None or names is None or not classes:
        return counts
    of_name = dict(zip(names, counts, strict=False))
    return tuple(of_name.get(name, 0) for name in classes)


def _compute_state(
    compute: ComputeProfile | None, cuts: CutTable, assumptions: Assumptions
) -> ComputeState:
    if compute is not None and is_of_network(compute, cuts):
        # A clock too coarse for a layer shows no time at all, and from none nothing is learned.
        least_forward_s = [layer.forward_flop / MAX_FLOP_PER_S for layer in cuts.layers]
        least_backward_s = [layer.backward_flop / MAX_FLOP_PER_S for layer in cuts.layers]
        return ComputeState.of_device_layers(
            layer_forward_s=np.maximum([t.forward_s for t in compute.layers], least_forward_s),
            layer_backward_s=np.maximum([t.backward_s for t in compute.layers], least_backward_s),
        )
    forward, backward = _speeds(compute) if compute else (assumptions.flop_per_s,) * 2
    return ComputeState.of_device(cuts, forward_flop_per_s=forward, backward_flop_per_s=backward)


def _speeds(compute: ComputeProfile) -> tuple[float, float]:
    return compute.forward_flop_per_s, compute.backward_flop_per_s


def _link_state(link: LinkProfile, *, shared_bps: float | None) -> LinkState:
    most_bps = np.inf if shared_bps is None else shared_bps
    return LinkState(
        up_bps=min(link.up_bps, most_bps),
        down_bps=min(link.down_bps, most_bps),
        round_trip_s=link.round_trip_s,
        message_s=link.message_s,
    )


def _compute_figures(compute: ComputeProfile | None) -> dict[str, Figure]:
    if compute is None:
        return {}
    relative = compute.relative_deviation
    forward, backward = _speeds(compute)
    return {
        "forward pass, MFLOP/s": Figure(forward / 1e6, forward / 1e6 * relative),
        "backward pass, MFLOP/s": Figure(backward / 1e6, backward / 1e6 * relative),
    }


def _link_figures(link: LinkProfile | None) -> dict[str, Figure]:
    if link is None:
        return {}
    return {
        "upload, Mbit/s": Figure(link.up_bps / 1e6, link.up_deviation_bps / 1e6),
        "download, Mbit/s": Figure(link.down_bps / 1e6, link.down_deviation_bps / 1e6),
    }
