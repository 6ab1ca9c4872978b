"""What a planned round costs: where its seconds go, and each device's work and transfers."""

from dataclasses import astuple, dataclass

import numpy as np

from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.plan import ClusterPlan, Plan
from profiles.phases import Phase
from profiles.units import BITS_PER_BYTE, Floats


@dataclass(frozen=True)
class RoundCosts:
    """One round by the latency model."""

    phase_s: Floats
    """Seconds of each phase on the path that the round waits for, [phase]; they sum to it."""
    device_flop: float
    """What each device computes in the round."""
    table_up_bytes: float
    """Of all devices by the cost table, without headers and optimiser state."""
    table_down_bytes: float
    """A broadcast counts once."""


def round_costs(plan: Plan, workload: Workload, *, table_cut: int) -> RoundCosts:
    """Account for a round at this cut of the cost table."""
    cuts, epochs = workload.cuts, workload.local_epochs
    phase_s = sum(
        (
            waited_phases(cluster, local_epochs=epochs, loss_on_device=workload.loss_on_device)
            for cluster in plan.clusters
        ),
        np.zeros(len(Phase)),
    )
    flop = cuts.device_forward_flop[table_cut] + cuts.device_backward_flop[table_cut]
    num_devices = sum(len(cluster.devices) for cluster in plan.clusters)
    model = cuts.device_model_bits[table_cut] / BITS_PER_BYTE
    samples = epochs * workload.batch_size * num_devices * (not workload.loss_on_device)
    smashed = samples * cuts.smashed_bits[table_cut] / BITS_PER_BYTE
    labels = samples * workload.label_bits / BITS_PER_BYTE
    return RoundCosts(
        phase_s=phase_s,
        device_flop=float(epochs * workload.batch_size * flop),
        table_up_bytes=float(smashed + labels + num_devices * model),
        table_down_bytes=float(smashed * (table_cut > 0) + len(plan.clusters) * model),
    )


def waited_phases(cluster: ClusterPlan, *, local_epochs: int, loss_on_device: bool) -> Floats:
    """Part a cluster's seconds into the phases of whichever device it waits for, [phase]."""
    own_s = np.array([astuple(phases) for phases in cluster.phases]).T  # [phase, device]
    waited_s = np.zeros(len(Phase))
    waited_s[Phase.DISTRIBUTE] = own_s[Phase.DISTRIBUTE].max()
    if loss_on_device:
        rest = (Phase.FORWARD, Phase.UPLOAD, Phase.DOWNLOAD, Phase.BACKWARD, Phase.MODEL_UPLOAD)
        times = np.array([*[float(local_epochs)] * 4, 1.0])
        _wait(waited_s, own_s, rest, times)
        return waited_s
    waited_s[Phase.SERVER] = local_epochs * own_s[Phase.SERVER].sum()
    _wait(waited_s, own_s, (Phase.FORWARD, Phase.UPLOAD), np.full(2, float(local_epochs)))
    _wait(waited_s, own_s, (Phase.DOWNLOAD, Phase.BACKWARD), np.full(2, local_epochs - 1.0))
    _wait(waited_s, own_s, (Phase.DOWNLOAD, Phase.BACKWARD, Phase.MODEL_UPLOAD), np.ones(3))
    return waited_s


def _wait(waited_s: Floats, own_s: Floats, phases: tuple[Phase, ...], times: Floats) -> None:
    """Add the phases of the device that takes longest in them together, each so many times."""
    parts_s = own_s[list(phases)] * times[:, np.newaxis]
    waited_s[list(phases)] += parts_s[:, parts_s.sum(axis=0).argmax()]
