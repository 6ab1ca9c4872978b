"""Joules of a plan's rounds, by what each device draws: docs/decisions/energy.md."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import PhasesByShare, device_phase_s
from edge_coordinator.planning.plan import Plan
from profiles.device import DeviceState
from profiles.phases import Phase
from profiles.power import busy_seconds, round_joules
from profiles.units import Counts, Floats


def weighed_s(
    fleet: Fleet,
    workload: Workload,
    seconds: PhasesByShare,
    *,
    members: Counts,
    shares: Floats,
    round_s: float,
) -> float:
    """Seconds that the joules of all devices count as; members and shares are [cluster, position].

    Devices whose watts nobody knows have none.
    """
    if workload.energy_weight == 0:
        return 0.0
    present = members >= 0
    devices = members[present]
    rows = device_phase_s(seconds, members=devices, shares=shares[present])
    compute_s, radio_s = busy_seconds(
        {phase: rows[phase] for phase in Phase}, local_epochs=seconds.local_epochs
    )
    idle_w, compute_w, radio_w = fleet.power_w[:, devices]
    joules = idle_w * round_s + compute_w * compute_s + radio_w * radio_s
    return workload.energy_weight * float(joules.sum())


def turn_weighed_s(
    fleet: Fleet,
    workload: Workload,
    seconds: PhasesByShare,
    *,
    members: Counts,
    shares: Floats,
    turns_s: Floats,
) -> Floats:
    """Seconds that each turn's joules count as, [cluster]: of its devices, and of all that wait."""
    weighed_s = np.zeros(len(members))
    if workload.energy_weight == 0:
        return weighed_s
    for cluster, (row, divided) in enumerate(zip(members, shares, strict=True)):
        devices = row[row >= 0]
        rows = device_phase_s(seconds, members=devices, shares=divided[row >= 0])
        compute_s, radio_s = busy_seconds(
            {phase: rows[phase] for phase in Phase}, local_epochs=seconds.local_epochs
        )
        _, compute_w, radio_w = fleet.power_w[:, devices]
        weighed_s[cluster] = compute_w @ compute_s + radio_w @ radio_s
    weighed_s += fleet.power_w[0].sum() * turns_s
    weighed_s *= workload.energy_weight
    return weighed_s


def with_joules(plan: Plan, states: Sequence[DeviceState], workload: Workload) -> Plan:
    """Add what each device draws in the round, where its watts are known."""
    power, round_s = {state.device: state.power for state in states}, plan.predicted_s or 0.0
    joules = {
        device: round_joules(own, phases, local_epochs=workload.local_epochs, round_s=round_s)
        for cluster in plan.clusters
        for device, phases in zip(cluster.devices, cluster.phases, strict=False)
        if (own := power[device]) is not None
    }
    return replace(plan, joules=joules)


def with_energy(plan: Plan, states: Sequence[DeviceState], workload: Workload) -> Plan:
    """Add what each device draws, and say it where joules count."""
    plan, weight = with_joules(plan, states, workload), workload.energy_weight
    if weight == 0:
        return plan
    joules = sum(plan.joules.values())
    said = f"; its devices draw {joules:.3g} J, and a joule counts as {weight:.3g} s"
    return replace(plan, reason=plan.reason + said)
