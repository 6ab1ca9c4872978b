"""What a mini-batch takes of memory in layers of torch, before it runs."""

import copy

import numpy as np
import psutil
import torch
from torch import nn

from profiles.cuts import CutTable
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.load import device_of

STATE_COPIES = 3
"""Weights, gradients and what an optimiser keeps, as a plan counts."""

NUM_SAMPLES = 2
"""To count with: batch norm refuses to train on one."""


def training_bytes(layers: nn.Sequential, sample_shape: tuple[int, ...]) -> float:
    """Bytes of one sample in a training step: what is kept for the way back, and two gradients.

    The gradients count as much as the largest that is kept.

    Two samples run through a copy of the layers. Each piece of memory that autograd keeps counts
    once, however many operators keep it.
    """
    device = device_of(layers)
    # Masks of dropout are drawn by NumPy, and cannot be where tensors have no numbers.
    subject = seed_dropout(copy.deepcopy(layers)).train(device.type != "meta")
    set_dropout_keys(subject, [((0,), NUM_SAMPLES)])
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[id(storage)] = storage
        return tensor

    with (
        torch.random.fork_rng(devices=[]),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        keep(subject(torch.ones(NUM_SAMPLES, *sample_shape, device=device)))
    for each in (*subject.parameters(), *subject.buffers()):
        kept.pop(id(each.untyped_storage()), None)
    sizes = [storage.nbytes() for storage in kept.values()]
    return (sum(sizes) + 2 * max(sizes, default=0)) / NUM_SAMPLES


def fitting_layers(table: CutTable, wanted: int, *, batch_size: int) -> tuple[int, str]:
    """How many of the first layers there is memory to measure, at least one; and why no more."""
    free_bytes = psutil.virtual_memory().available
    state_bytes = np.cumsum([layer.state_bytes for layer in table.layers[:wanted]])
    activation_bytes = np.cumsum([layer.activation_bytes for layer in table.layers[:wanted]])
    needed_bytes = STATE_COPIES * state_bytes + 2 * batch_size * activation_bytes
    fitting = max(int((needed_bytes <= free_bytes).sum()), 1)
    if fitting == wanted:
        return wanted, ""
    needed_mb, free_mb = needed_bytes[fitting] / 1e6, free_bytes / 1e6
    return fitting, f"measuring takes {needed_mb:.3g} MB, {free_mb:.3g} MB are free"
