"""What a job asks of its planner: found out once, when the first devices are there."""

from dataclasses import replace

from torch import nn

from edge_coordinator.job import Job, num_clusters
from edge_coordinator.planner import PlanningTask
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.planner import Grouping
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.server_speed import measure_server
from profiles.cuts import CutTable
from profiles.device import ComputeState
from profiles.link import IndependentLinks, SharedLink
from profiles.units import BITS_PER_BYTE
from runtime.messages import Ready
from runtime.models.cut_table import measure_cut_table
from runtime.models.sequence import layers_of
from runtime.tensors import TensorSpec

MAX_TIMED_SAMPLES = 512


def make_task(job: Job, model: EdgeModel, *, ready: Ready, num_devices: int) -> PlanningTask:
    """Count the network's layers and time the server at them; takes about a second.

    `ready` is the answer of any device, for the size of a label.
    """
    settings = job.settings
    cuts = _cut_table(job, model)
    count = num_clusters(settings, num_devices)
    label = TensorSpec(ready.label_dtype, ready.label_shape)
    workload = Workload(
        cuts=cuts,
        batch_size=settings.training.batch_size,
        local_epochs=job.local_epochs,
        label_bits=label.num_bytes * BITS_PER_BYTE,
        message_bytes=settings.broker.chunk_bytes,
        server=_server(job, model, cuts, num_devices=-(-num_devices // count)),
        medium=SharedLink() if settings.plan.medium == "shared" else IndependentLinks(),
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


def _cut_table(job: Job, model: EdgeModel) -> CutTable:
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


def _server(job: Job, model: EdgeModel, cuts: CutTable, *, num_devices: int) -> ComputeState:
    """Take the server's speed as given, or time it on the batch of one cluster."""
    given = job.settings.plan.server_flop_per_s
    if given is not None:
        return ComputeState.of_server(cuts, forward_flop_per_s=given, backward_flop_per_s=given)
    num_samples = min(job.settings.training.batch_size * num_devices, MAX_TIMED_SAMPLES)
    return measure_server(model.network, sample_shape=job.shapes[0], num_samples=num_samples)
