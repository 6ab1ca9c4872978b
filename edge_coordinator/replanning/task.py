"""What a job asks of its planner, with the server's speed: found out once, at the start."""

import copy
import time
from dataclasses import replace
from time import perf_counter

import numpy as np
import torch
from torch import nn

from edge_coordinator.job.given_plans import num_clusters
from edge_coordinator.job.job import Job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import NOTHING_OWN, OwnPlanning, named_form
from edge_coordinator.planning.wire import WireTable
from edge_coordinator.replanning.planner import PlanningTask
from edge_coordinator.training.algorithm import Smashed
from edge_coordinator.training.computing.accelerator import PROCESSOR, Accelerator
from edge_coordinator.training.edge_model import EdgeModel
from profiles.cuts import CutTable
from profiles.device import ComputeState
from profiles.link import IndependentLinks, SharedLink
from profiles.units import BITS_PER_BYTE
from runtime.errors import EdgeError
from runtime.models.batch_layers import random_samples
from runtime.models.cut_table import measure_cut_table
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.sequence import layers_of
from runtime.seeding.torch_generator import forked_generator
from runtime.wire.commands import Ready
from runtime.wire.frames import Tensor, TensorSpec
from runtime.wire.micro_batches import parted

REPETITIONS = 4
"""The first of them warms up and does not count."""
REST_S = 0.03
"""Pause before a step: caches and clock cool down, as they do while it waits for the devices."""

MAX_TIMED_SAMPLES = 512
MEASURED_PARTS = 4
"""Micro-batches of two samples each, beside one of all of them."""


def measure_server(
    network: nn.Sequential,
    *,
    sample_shape: tuple[int, ...],
    num_samples: int,
    accelerator: Accelerator = PROCESSOR,
) -> ComputeState:
    """Time every layer forward and backward on a batch of random numbers, or of token ids.

    The network and torch's random generator stay as they were.
    """
    subject = seed_dropout(copy.deepcopy(network)).train()
    with forked_generator(0):
        batch = random_samples(subject, sample_shape, num_samples)
        accelerator.place(subject)
        rounds = [_layer_seconds(subject, batch, accelerator) for _ in range(REPETITIONS)]
    forward_s, backward_s = np.median(rounds[1:], axis=0) / num_samples
    return ComputeState.of_server_layers(layer_forward_s=forward_s, layer_backward_s=backward_s)


def measure_step(
    model: EdgeModel, *, cut: int, smashed_shape: tuple[int, ...], labels: Tensor
) -> float:
    """Time a whole step of the server at a cut: layers, loss, update and all around them.

    The model and torch's random generator stay as they were.
    """
    subject = EdgeModel(copy.deepcopy(model.network), model.training)
    x = np.random.default_rng(0).standard_normal((len(labels), *smashed_shape)).astype(np.float32)
    taken_s = []
    with forked_generator():
        turn = subject.turn(cut=cut, round_=0, learning_rate=0.0)
        for _ in range(REPETITIONS):
            time.sleep(REST_S)
            start_s = perf_counter()
            turn.step({"device": Smashed(x, labels)})
            model.training.accelerator.wait()
            taken_s.append(perf_counter() - start_s)
    return float(np.median(taken_s[1:]))


def measure_part(
    model: EdgeModel, *, cut: int, smashed_shape: tuple[int, ...], labels: Tensor
) -> float:
    """Time what each further micro-batch takes the server at a cut, however few its samples.

    A mini-batch goes in micro-batches of two samples, and in one of all: what a sample takes is
    in both. The model and torch's random generator stay as they were.
    """
    subject = EdgeModel(copy.deepcopy(model.network), model.training)
    count = len(labels)
    x = np.random.default_rng(0).standard_normal((count, *smashed_shape)).astype(np.float32)
    taken_s = np.zeros((REPETITIONS, 2))
    with forked_generator():
        turn = subject.turn(cut=cut, round_=0, learning_rate=0.0)
        for repetition, place in np.ndindex(REPETITIONS, 2):
            turn.begin({"device": count})
            for rows in parted(count, (1, MEASURED_PARTS)[place]):
                part = slice(rows.start, rows.stop)
                time.sleep(REST_S)
                start_s = perf_counter()
                turn.add("device", rows, Smashed(x[part], labels[part]))
                taken_s[repetition, place] += perf_counter() - start_s
            turn.update(["device"])
    whole_s, parts_s = np.median(taken_s[1:], axis=0)
    return max(float(parts_s - whole_s), 0.0) / (MEASURED_PARTS - 1)


def _layer_seconds(
    network: nn.Sequential, batch: torch.Tensor, accelerator: Accelerator
) -> list[list[float]]:
    """Seconds of each layer for one batch, forward and backward, [direction, layer]."""
    set_dropout_keys(network, [((0,), len(batch))])
    batch = batch.to(accelerator.device)
    forward_s, backward_s = [], []
    for layer in layers_of(network).values():
        inputs = batch.clone().requires_grad_()
        accelerator.wait()
        start_s = perf_counter()
        with accelerator.computing(), accelerator.casting():
            output = layer(inputs)
        accelerator.wait()
        forward_s.append(perf_counter() - start_s)
        number = with_gradient(output, torch.ones_like(output))
        accelerator.wait()
        start_s = perf_counter()
        torch.autograd.backward(number)
        accelerator.wait()
        backward_s.append(perf_counter() - start_s)
        batch = output.detach().float()
    return [forward_s, backward_s]


def make_task(job: Job, model: EdgeModel, *, ready: Ready, num_devices: int) -> PlanningTask:
    """Count the network's layers and time the server at them; takes about a second.

    `ready` is the answer of any device, for the size of a label.
    """
    settings = job.settings
    cuts = job_cut_table(job, model)
    count = num_clusters(settings, num_devices)
    label = TensorSpec(ready.label_dtype, ready.label_shape)
    server, device_s, part_s = _server(
        job, model, cuts, label, num_devices=-(-num_devices // count)
    )
    return planning_task(
        job,
        cuts,
        server=server,
        server_device_s=device_s,
        server_part_s=part_s,
        label_bits=label.num_bytes * BITS_PER_BYTE,
        num_devices=num_devices,
    )


def planning_task(
    job: Job,
    cuts: CutTable,
    *,
    server: ComputeState,
    server_device_s: float,
    server_part_s: float,
    label_bits: float,
    num_devices: int,
) -> PlanningTask:
    """Bring together what a job asks of its planner, and how fast the server is."""
    settings = job.settings
    workload = Workload(
        cuts=cuts,
        batch_size=settings.training.batch_size,
        local_epochs=job.local_epochs,
        label_bits=label_bits,
        message_bytes=settings.broker.chunk_bytes,
        server=server,
        medium=SharedLink() if settings.plan.medium == "shared" else IndependentLinks(),
        loss_on_device=job.loss_on_device,
        server_device_s=server_device_s,
        server_part_s=server_part_s,
        refused_cuts=job.refused_cuts,
        wires=wire_tables(job, cuts),
        micro_batches=job.micro_batches,
        whole_batches=job.whole_batches,
        phi=settings.training.given_phi,
        phis=settings.training.phis,
        plain_cuts=job.plain_cuts,
        batch_sizes=settings.plan.batch_sizes,
        energy_weight=settings.plan.energy_weight,
        equal_batches=job.equal_batches,
    )
    grouping = grouping_of(settings, num_devices, job.own_planning)
    return PlanningTask(
        settings.plan, grouping, job.cut, workload, settings.seed, job.own_cuts, job.classes
    )


def grouping_of(
    settings: JobSettings, num_devices: int, own: OwnPlanning = NOTHING_OWN
) -> Grouping:
    """Take clusters as the job asks for them; by hand, the number that a run by hand would have."""
    by_size = settings.plan.cluster_size is not None and not settings.plan.is_by_hand
    return Grouping(
        method=settings.training.method,
        num_clusters=None if by_size else num_clusters(settings, num_devices),
        cluster_size=settings.plan.cluster_size if by_size else None,
        balance_weight=settings.plan.balance_weight,
        form=own.grouping or named_form(settings.plan.grouping),
        choose_cut=own.cut,
        cuts_by_device=settings.plan.chooses_own_cuts,
        equal_shares=settings.plan.shares == "equal",
    )


def wire_tables(job: Job, cuts: CutTable) -> tuple[WireTable, ...]:
    """What frames take with each of the codecs that a plan may choose from, or with the given one.

    Nothing where all tensors travel as they are: then the cut table says it.
    """
    if not job.settings.codec.is_planned and job.codecs[0].is_raw:
        return ()
    batch_size = job.settings.training.batch_size
    return tuple(WireTable.of(cuts, codecs, batch_size=batch_size) for codecs in job.codecs)


def job_cut_table(job: Job, model: EdgeModel) -> CutTable:
    """Count the layers; what an optimiser keeps of a parameter travels with it, if it does."""
    table = measure_cut_table(model.network, name=job.assignment.network, input_shape=job.shapes[0])
    if not job.assignment.carry_state:
        return table
    num_slots = sum(slot != "step" for slot in job.assignment.optimizer.slots)
    layers = (
        replace(
            cost,
            state_bytes=cost.state_bytes + num_slots * _parameter_bytes(layer),
            state_shapes=cost.state_shapes + num_slots * _parameter_shapes(layer),
        )
        for cost, layer in zip(table.layers, layers_of(model.network).values(), strict=True)
    )
    return replace(table, layers=tuple(layers))


def _parameter_bytes(layer: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in _learning(layer))


def _parameter_shapes(layer: nn.Module) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(p.shape) for p in _learning(layer) if p.dtype == torch.float32)


def _learning(layer: nn.Module) -> list[nn.Parameter]:
    return [each for each in layer.parameters() if each.requires_grad]


def _server(
    job: Job, model: EdgeModel, cuts: CutTable, label: TensorSpec, *, num_devices: int
) -> tuple[ComputeState, float, float]:
    """Take the server's speed as given, or time it on the batch of one cluster.

    Returns also what a step takes for each device beside the layers: loss, update and all else;
    and what each further micro-batch takes.
    """
    given = job.settings.plan.server_flop_per_s
    if given is not None:
        server = ComputeState.of_server(cuts, forward_flop_per_s=given, backward_flop_per_s=given)
        return server, 0.0, 0.0
    num_samples = min(job.settings.training.batch_size * num_devices, MAX_TIMED_SAMPLES)
    server = measure_server(
        model.network,
        sample_shape=job.shapes[0],
        num_samples=num_samples,
        accelerator=model.training.accelerator,
    )
    labels = np.zeros((num_samples, *label.shape), dtype=label.dtype)
    last = cuts.num_layers - 1  # Where the layers take next to nothing of a step.
    step_s = measure_step(model, cut=last, smashed_shape=job.shapes[last], labels=labels)
    layers_s = num_samples * float(server.forward_s[last] + server.backward_s[last])
    part_s = _part_seconds(job, model, label)
    return server, max(step_s - layers_s, 0.0) / num_devices, part_s


def _part_seconds(job: Job, model: EdgeModel, label: TensorSpec) -> float:
    """What each further micro-batch takes the server, at the given cut or one in the middle."""
    if job.micro_batches == (1,) or job.loss_on_device:
        return 0.0
    last = len(job.shapes) - 2  # That has layers above it.
    cut = last // 2 if job.cut is None else min(job.cut, last)
    labels = np.zeros((2 * MEASURED_PARTS, *label.shape), dtype=label.dtype)
    try:
        return measure_part(model, cut=cut, smashed_shape=job.shapes[cut], labels=labels)
    except EdgeError:  # What crosses may be no numbers like any other: a mask, say.
        return 0.0
