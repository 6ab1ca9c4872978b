"""What a mini-batch takes of memory in layers of torch, before it runs."""

import copy
import weakref
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import psutil
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from profiles.cuts import CutTable
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.load import device_of
from runtime.seeding.torch_generator import forked_generator

STATE_COPIES = 3
"""Weights, gradients and what an optimiser keeps, as a plan counts."""

NUM_SAMPLES = 2
"""To count with, and one more: batch norm refuses to train on one."""


def training_bytes(layers: nn.Sequential, sample_shape: tuple[int, ...]) -> float:
    """Bytes of one sample in a training step: what is held at once at the most, and a working copy.

    A step on a copy of the layers is watched, and another with one sample more: each piece of
    memory is taken and let go in the same order, and what it has grown by is the sample's. As
    much as the largest piece counts twice, for what an operator copies within itself.
    """
    fewer, more = (_taken(layers, sample_shape, NUM_SAMPLES + each) for each in (0, 1))
    growth = np.subtract(more, fewer)
    return float(np.cumsum(growth).max(initial=0) + growth.max(initial=0))


def _taken(layers: nn.Sequential, sample_shape: tuple[int, ...], num_samples: int) -> list[int]:
    """Bytes of memory as a step takes them, and less than none as it lets them go, in order."""
    device = device_of(layers)
    # Masks of dropout are drawn by NumPy, and cannot be where tensors have no numbers.
    subject = seed_dropout(copy.deepcopy(layers)).train(device.type != "meta")
    set_dropout_keys(subject, [((0,), num_samples)])
    memory = _Memory((*subject.parameters(), *subject.buffers()))
    with forked_generator(), memory:
        smashed = subject(torch.ones(num_samples, *sample_shape, device=device))
        if smashed.requires_grad:
            smashed.backward(torch.ones_like(smashed))
        return memory.taken.copy()  # Before what is held in the end is let go.


class _Memory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches the memory of all tensors that are made while it is on, those of the state apart."""

    def __init__(self, state: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.taken: list[int] = []
        self._watched: dict[int, object] = {id(each.untyped_storage()): each for each in state}

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operator; note what it has made."""
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, torch.Tensor):
                self._note(each.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, num_bytes = id(storage), storage.nbytes()
        if key in self._watched:
            return

        def let_go(_: object) -> None:
            del self._watched[key]
            self.taken.append(-num_bytes)

        self._watched[key] = weakref.ref(storage, let_go)
        self.taken.append(num_bytes)


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
