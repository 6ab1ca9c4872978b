"""How fast this server computes each layer of a network, measured once at the start of a run."""

import copy
import time
from time import perf_counter

import numpy as np
import torch
from torch import nn

from edge_coordinator.training.algorithm import Smashed
from edge_coordinator.training.edge_model import EdgeModel
from profiles.device import ComputeState
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.given_gradient import with_gradient
from runtime.models.sequence import layers_of
from runtime.wire.frames import Tensor

REPETITIONS = 4
"""The first of them warms up and does not count."""
REST_S = 0.03
"""Pause before a step: caches and clock cool down, as they do while it waits for the devices."""


def measure_server(
    network: nn.Sequential, *, sample_shape: tuple[int, ...], num_samples: int
) -> ComputeState:
    """Time every layer forward and backward on a batch of random numbers.

    The network and torch's random generator stay as they were.
    """
    subject = seed_dropout(copy.deepcopy(network)).train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rounds = [
            _layer_seconds(subject, torch.randn(num_samples, *sample_shape))
            for _ in range(REPETITIONS)
        ]
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
    with torch.random.fork_rng(devices=[]):
        turn = subject.turn(cut=cut, round_=0, learning_rate=0.0)
        for _ in range(REPETITIONS):
            time.sleep(REST_S)
            start_s = perf_counter()
            turn.step({"device": Smashed(x, labels)})
            taken_s.append(perf_counter() - start_s)
    return float(np.median(taken_s[1:]))


def _layer_seconds(network: nn.Sequential, batch: torch.Tensor) -> list[list[float]]:
    """Seconds of each layer for one batch, forward and backward, [direction, layer]."""
    set_dropout_keys(network, [((0,), len(batch))])
    forward_s, backward_s = [], []
    for layer in layers_of(network).values():
        inputs = batch.clone().requires_grad_()
        start_s = perf_counter()
        output = layer(inputs)
        forward_s.append(perf_counter() - start_s)
        number = with_gradient(output, torch.ones_like(output))
        start_s = perf_counter()
        torch.autograd.backward(number)
        backward_s.append(perf_counter() - start_s)
        batch = output.detach()
    return [forward_s, backward_s]
