"""What time passes by: the costs of layers, and what a planned round costs by them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.latency import transfer_bits
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.task import job_cut_table
from edge_coordinator.training.edge_model import EdgeModel
from profiles.corrections import phase_array
from profiles.cuts import CutTable
from profiles.phases import Phase
from profiles.scenario import Scenario
from profiles.units import BITS_PER_BYTE, Floats
from runtime.errors import SettingsError
from runtime.wire.micro_batches import num_aggregated


@dataclass(frozen=True)
class Costs:
    """A cut table, and which of its cuts stands for which cut of the network."""

    table: CutTable
    network_cuts: tuple[int, ...]
    """[cut of the table]"""
    is_stated: bool
    """By the scenario; else counted from the network."""
    layer_names: tuple[str, ...]
    """Of the network at each of its cuts, the input's first."""
    where: str

    def table_cut(self, network_cut: int) -> int:
        """Which cut of the table a cut of the network is; SettingsError if none is."""
        if network_cut in self.network_cuts:
            return self.network_cuts.index(network_cut)
        known = ", ".join(self.layer_names[cut] for cut in self.network_cuts)
        raise SettingsError(
            f"cut after {self.layer_names[network_cut]!r}: {self.where} states the costs of cuts "
            f"after {known} alone; take one of these, or a scenario without layers"
        )


def costs_of(scenario: Scenario, job: Job, model: EdgeModel) -> Costs:
    """Take the scenario's costs where it states any; else count those of the job's network."""
    names = ("input", *job.layer_names)
    if not scenario.layers:
        table = job_cut_table(job, model)
        cuts = tuple(range(table.num_layers + 1))
        return Costs(table, cuts, is_stated=False, layer_names=names, where="the network")
    stated = tuple(_network_cut(scenario, names, index) for index in range(len(scenario.layers)))
    _check_order(scenario, names, stated)
    return Costs(
        scenario.cut_table(),
        (0, *stated),
        is_stated=True,
        layer_names=names,
        where=f"scenario {scenario.name}",
    )


def counted_costs(job: Job, model: EdgeModel) -> CutTable:
    """Count the network's own costs, whatever a scenario states."""
    return job_cut_table(job, model)


def job_defaults(scenario: Scenario, asked: JobSettings) -> Mapping[str, object]:
    """Keys of the job that the scenario states: they hold where the job, as `asked`, is silent."""
    stated, defaults = scenario.model_fields_set, dict[str, object]()
    if "batch_size" in stated:
        defaults["training.batch_size"] = scenario.batch_size
    if "local_epochs" in stated:
        defaults["training.local_epochs"] = scenario.local_epochs
    if "num_clusters" in stated:
        own = asked.devices.count if "count" in asked.devices.model_fields_set else None
        defaults["devices.count"] = scenario.num_devices
        if asked.plan.cluster_size is None:
            defaults["plan.clusters"] = min(scenario.num_clusters, own or scenario.num_devices)
    if scenario.layers and asked.plan.mode == "by_hand":
        layer = scenario.layers[scenario.cut - 1]
        defaults["plan.cut"] = layer.network_layer or layer.name
    return defaults


def _check_order(scenario: Scenario, names: tuple[str, ...], cuts: tuple[int, ...]) -> None:
    """SettingsError unless each stated layer ends further on in the network than the one before."""
    ends = [
        ("the input", 0),
        *zip((repr(each.name) for each in scenario.layers), cuts, strict=True),
    ]
    for (before, earlier), (layer, later) in pairwise(ends):
        if later <= earlier:
            raise SettingsError(
                f"scenario {scenario.name}: layer {layer} ends at {names[later]} of the network, "
                f"and has to end after {names[earlier]}, where {before} ends"
            )


def _network_cut(scenario: Scenario, names: tuple[str, ...], index: int) -> int:
    """After which layer of the network a stated layer ends."""
    layer = scenario.layers[index]
    if index == len(scenario.layers) - 1:
        return len(names) - 1
    wanted = layer.network_layer or layer.name
    if wanted not in names:
        raise SettingsError(
            f"scenario {scenario.name} states costs up to layer {wanted!r}, which the network "
            f"lacks: its layers are {', '.join(names[1:])}; take a scenario without layers"
        )
    return names.index(wanted)


@dataclass(frozen=True)
class RoundCosts:
    """One round by the latency model."""

    phase_s: Floats
    """Seconds of each phase on the path that the round waits for, [phase]; they sum to it."""
    device_flop: float
    """What a device computes in the round, on average where they cut at different layers."""
    table_up_bytes: float
    """Of all devices by the cost table, without headers and optimiser state."""
    table_down_bytes: float
    """A broadcast counts once; where devices cut at different layers, each is sent a model."""


def round_costs(plan: Plan, workload: Workload) -> RoundCosts:
    """Account for a round, whose cuts are those of the cost table."""
    cuts, epochs = workload.cuts, workload.local_epochs
    phase_s = sum(
        (
            waited_phases(cluster, local_epochs=epochs, loss_on_device=workload.loss_on_device)
            for cluster in plan.clusters
        ),
        np.zeros(len(Phase)),
    )
    flop = cuts.device_forward_flop + cuts.device_backward_flop
    coded = replace(workload, chosen=plan.codecs)
    flops, up_bits, down_bits = list[float](), 0.0, 0.0
    for cluster in plan.clusters:
        at = np.array([*plan.cuts_of(cluster).values()])
        bits = transfer_bits(coded, cut=at)
        nothing, models_bits = np.zeros(len(at)), bits[Phase.DISTRIBUTE]
        sizes = cluster.batch_sizes or (workload.batch_size,) * len(at)
        times = np.array(sizes) / workload.batch_size
        flops += (epochs * np.array(sizes) * flop[at]).tolist()
        up_bits += float(
            (epochs * times * bits.get(Phase.UPLOAD, nothing) + bits[Phase.MODEL_UPLOAD]).sum()
        )
        gradient_bits = bits.get(Phase.DOWNLOAD, nothing)
        phi = (cluster.phi or 0.0) if workload.phis else workload.phi
        part = num_aggregated(phi, sizes) / workload.batch_size if gradient_bits.any() else 0.0
        # What is aggregated counts once for a cluster, whose devices all cut alike then.
        down_bits += epochs * float(times @ gradient_bits - part * gradient_bits[1:].sum())
        down_bits += float(models_bits.sum() if len(set(at)) > 1 else models_bits[0])
    return RoundCosts(
        phase_s=phase_s,
        device_flop=float(np.mean(flops)),
        table_up_bytes=up_bits / BITS_PER_BYTE,
        table_down_bytes=down_bits / BITS_PER_BYTE,
    )


def waited_phases(cluster: ClusterPlan, *, local_epochs: int, loss_on_device: bool) -> Floats:
    """Part a cluster's seconds into the phases of whichever device it waits for, [phase]."""
    own_s = np.array([phase_array(each) for each in cluster.phases]).T  # [phase, device]
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
    if cluster.micro_batches > 1 and cluster.predicted_s is not None:
        # Where phases overlap, each counts for its part of them all.
        waited_s *= cluster.predicted_s / waited_s.sum()
    return waited_s


def _wait(waited_s: Floats, own_s: Floats, phases: tuple[Phase, ...], times: Floats) -> None:
    """Add the phases of the device that takes longest in them together, each so many times."""
    parts_s = own_s[list(phases)] * times[:, np.newaxis]
    waited_s[list(phases)] += parts_s[:, parts_s.sum(axis=0).argmax()]
