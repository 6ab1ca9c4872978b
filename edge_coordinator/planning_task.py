"""What a job asks of its planner: found out once, when the first devices are there."""

from dataclasses import replace

import numpy as np
from torch import nn

from edge_coordinator.given_plans import num_clusters
from edge_coordinator.job import Job
from edge_coordinator.planner import PlanningTask
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.planner import Grouping
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.server_speed import measure_server, measure_step
from profiles.cuts import CutTable
from profiles.device import ComputeState
from profiles.link import IndependentLinks, SharedLink
from profiles.units import BITS_PER_BYTE
from runtime.models.cut_table import measure_cut_table
from runtime.models.sequence import layers_of
from runtime.wire.commands import Ready
from runtime.wire.frames import TensorSpec

MAX_TIMED_SAMPLES = 512


def make_task(job: Job, model: EdgeModel, *, ready: Ready, num_devices: int) -> PlanningTask:
    """Count the network's layers and time the server at them; takes about a second.

    `ready` is the answer of any device, for the size of a label.
    """
    settings = job.settings
    cuts = job_cut_table(job, model)
    count = num_clusters(settings, num_devices)
    label = TensorSpec(ready.label_dtype, ready.label_shape)
    server, server_device_s = _server(job, model, cuts, label, num_devices=-(-num_devices // count))
    workload = Workload(
        cuts=cuts,
        batch_size=settings.training.batch_size,
        local_epochs=job.local_epochs,
        label_bits=label.num_bytes * BITS_PER_BYTE,
        message_bytes=settings.broker.chunk_bytes,
        server=server,
        medium=SharedLink() if settings.plan.medium == "shared" else IndependentLinks(),
        loss_on_device=job.is_local,
        server_device_s=server_device_s,
        refused_cuts=job.refused_cuts,
    )
    grouping = Grouping(
        method=settings.training.method,
        num_clusters=count if settings.plan.cluster_size is None else None,
        cluster_size=settings.plan.cluster_size,
        balance_weight=settings.plan.balance_weight,
        form=settings.plan.grouping,
        equal_shares=settings.plan.shares == "equal",
    )
    return PlanningTask(settings.plan, grouping, job.cut, workload, settings.seed)


def job_cut_table(job: Job, model: EdgeModel) -> CutTable:
    """Count the layers; what an optimiser keeps of a parameter travels with it, if it does."""
    table = measure_cut_table(model.network, name=job.assignment.network, input_shape=job.shapes[0])
    if not job.assignment.carry_state:
        return table
    num_slots = sum(slot != "step" for slot in job.assignment.optimizer.slots)
    layers = (
        replace(cost, state_bytes=cost.state_bytes + num_slots * _parameter_bytes(layer))
        for cost, layer in zip(table.layers, layers_of(model.network).values(), strict=True)
    )
    return replace(table, layers=tuple(layers))


def _parameter_bytes(layer: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in layer.parameters())


def _server(
    job: Job, model: EdgeModel, cuts: CutTable, label: TensorSpec, *, num_devices: int
) -> tuple[ComputeState, float]:
    """Take the server's speed as given, or time it on the batch of one cluster.

    Returns also what a step takes for each device beside the layers: loss, update and all else.
    """
    given = job.settings.plan.server_flop_per_s
    if given is not None:
        server = ComputeState.of_server(cuts, forward_flop_per_s=given, backward_flop_per_s=given)
        return server, 0.0
    num_samples = min(job.settings.training.batch_size * num_devices, MAX_TIMED_SAMPLES)
    server = measure_server(model.network, sample_shape=job.shapes[0], num_samples=num_samples)
    labels = np.zeros((num_samples, *label.shape), dtype=label.dtype)
    last = cuts.num_layers - 1  # Where the layers take next to nothing of a step.
    step_s = measure_step(model, cut=last, smashed_shape=job.shapes[last], labels=labels)
    layers_s = num_samples * float(server.forward_s[last] + server.backward_s[last])
    return server, max(step_s - layers_s, 0.0) / num_devices
