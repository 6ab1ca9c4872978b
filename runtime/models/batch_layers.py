"""Which layers of a network look at a mini-batch as a whole: they cannot be given micro-batches.

Normalisation over the batch is the usual one. Whatever a layer is called, it is tried: on a random
mini-batch, and on the parts of it, with the masks that a training step would draw. A layer that
gives another result on the parts, or changes what it keeps, looks at the whole.
"""

import copy

import torch
from torch import nn

from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.sequence import Network, Shape, layers_of
from runtime.seeding.torch_generator import forked_generator, seed_generators
from runtime.wire.micro_batches import Rows

_BATCH, _FIRST = 5, 3
"""Samples of the mini-batch that is tried, and of its first part: unequal parts, none of one."""
_TOLERANCE = 1e-3
"""Of the largest value: far above rounding, and far below what the statistics of five differ by."""
_KEY = (0,)


def batch_layers(network: Network, sample_shape: Shape) -> dict[int, str]:
    """Index of each layer that looks at the whole mini-batch in training, to why; in order.

    The network and torch's random generator stay as they were.
    """
    subject = seed_dropout(copy.deepcopy(network)).train()
    found = {}
    with forked_generator(0), torch.no_grad():
        inputs = random_samples(subject, sample_shape)
        for index, (name, layer) in enumerate(layers_of(subject).items()):
            what = f"layer {name} ({type(layer).__name__})"
            before = [buffer.clone() for buffer in layer.buffers()]
            outputs = _run(layer, inputs, Rows.all(_BATCH))
            if not all(map(torch.equal, before, layer.buffers())):
                found[index] = f"{what} keeps statistics of each mini-batch"
            elif not _is_the_same_in_parts(layer, inputs, outputs):
                found[index] = f"{what} gives another result on a part of a mini-batch"
            inputs = outputs
    return found


def random_samples(
    network: nn.Sequential, sample_shape: Shape, num_samples: int = _BATCH
) -> torch.Tensor:
    """Draw numbers; ones and zeros, and a one to begin with, where it takes token ids and masks.

    The network stays as it was; torch's random generator does not.
    """
    numbers, subject = torch.randn(num_samples, *sample_shape), copy.deepcopy(network)
    inputs, rows = numbers[:_BATCH], Rows.all(min(num_samples, _BATCH))
    try:
        with torch.no_grad():
            for layer in layers_of(subject).values():
                inputs = _run(layer, inputs, rows)
    except (RuntimeError, IndexError):
        numbers = torch.randint(2, (num_samples, *sample_shape)).float()
        numbers[..., 0] = 1
    return numbers


def _is_the_same_in_parts(layer: nn.Module, inputs: torch.Tensor, whole: torch.Tensor) -> bool:
    try:
        parts = [
            _run(layer, inputs[rows.start : rows.stop], rows)
            for rows in (Rows(0, _FIRST, _BATCH), Rows(_FIRST, _BATCH, _BATCH))
        ]
    except (RuntimeError, ValueError, TypeError, IndexError):  # It knows one size alone.
        return False
    joined = torch.cat(parts)
    if joined.shape != whole.shape:
        return False
    scale = float(whole.abs().max()) if whole.numel() else 0.0
    return bool(((joined - whole).abs() <= _TOLERANCE * scale).all())


def _run(layer: nn.Module, inputs: torch.Tensor, rows: Rows) -> torch.Tensor:
    set_dropout_keys(layer, [(_KEY, rows)])
    seed_generators(0)  # As a step does, for layers that draw by themselves.
    outputs: torch.Tensor = layer(inputs)
    return outputs
