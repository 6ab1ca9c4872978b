"""What devices draw, and have drawn in a round: metered where that is theirs alone, else stated."""

from collections.abc import Mapping, Sequence

import numpy as np

from edge_coordinator.devices.machines import by_process
from edge_coordinator.devices.registry import DeviceRecord, Registry
from edge_coordinator.job.job import Job
from edge_coordinator.job.plan_settings import PlanSettings
from edge_coordinator.replanning.corrections import TurnMeasured
from profiles.phases import Phase
from profiles.power import Power, round_joules
from profiles.units import Floats


def power_of(settings: PlanSettings, record: DeviceRecord) -> Power:
    """What a device draws, as the job states it, or as its processor's class does."""
    device, machine = "", ""
    if record.profile is not None:
        device, machine = record.profile.device, record.profile.machine
    return settings.power_of(device, machine)


def drawn_joules(
    job: Job, registry: Registry, turns: Sequence[TurnMeasured], *, round_s: float
) -> dict[str, float]:
    """Joules of each device that was measured in every phase, over the whole round.

    A machine's meter counts all that runs on it: it is asked where a device has a process of its
    own, and is not on this machine. Beyond its turn a device waits.
    """
    phases_s = {
        device: own
        for turn in turns
        for device, own in turn.phases_s.items()
        if np.isfinite(own[Phase.FORWARD])
    }
    alone = {group[0] for group in by_process(registry, phases_s) if len(group) == 1}
    turn_s = {device: turn.turn_s for turn in turns for device in turn.phases_s}
    drawn_j = {}
    for device, own in phases_s.items():
        record, metrics = registry.records[device], registry.records[device].metrics
        power = power_of(job.settings.plan, record)
        drawn_j[device] = _stated(power, own, local_epochs=job.local_epochs, round_s=round_s)
        is_own = device in alone and job.settings.broker.url is not None
        if is_own and metrics is not None and metrics.metered_j is not None:
            waiting_s = max(round_s - turn_s[device], 0.0)
            drawn_j[device] = metrics.metered_j + power.idle_w * waiting_s
    return drawn_j


def _stated(power: Power, phases_s: Floats, *, local_epochs: int, round_s: float) -> float:
    known: Mapping[Phase, float] = {p: float(np.nan_to_num(phases_s[p])) for p in Phase}
    return round_joules(power, known, local_epochs=local_epochs, round_s=round_s)
