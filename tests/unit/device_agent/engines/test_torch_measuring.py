"""A device whose PyTorch cannot run the upper layers, or none."""

from itertools import count

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import complete
from device_agent.engines.torch_engine import TorchEngine
from device_agent.profiling.reference_network import built_in_assignment

BATCH = np.zeros((2, 4), np.float32)


class NoKernel(nn.Module):
    """A layer that this device lacks something for."""

    def forward(self, x: Tensor) -> Tensor:
        """Work on no real tensor."""
        if x.is_meta:
            return x
        raise RuntimeError("no such kernel")


def limited() -> nn.Module:
    """A network whose second layer does not run here."""
    return nn.Sequential(nn.Linear(4, 3), NoKernel(), nn.Linear(3, 2))


def first_limited() -> nn.Module:
    """A network of which nothing runs here."""
    return nn.Sequential(NoKernel(), nn.Linear(4, 2))


def test_layers_that_do_not_run_on_torch_end_the_measurement_and_not_the_job() -> None:
    found = torch_timings("limited")
    assert (found.deepest_cut, found.why_no_deeper) == (1, "no such kernel")
    published = found.profile(network="limited", batch_size=2)
    assert (published.deepest_cut, len(published.layers)) == (1, 3)


def test_a_device_that_runs_no_layer_says_so() -> None:
    with pytest.raises(RuntimeError, match="no such kernel"):
        torch_timings("first_limited")


def torch_timings(name: str) -> ComputeTimings:
    """Measure a network of this module."""
    assignment = built_in_assignment(f"{__name__}:{name}", batch_size=2)
    engine = TorchEngine(assignment, sample_shape=(4,))
    engine.check((4,))
    with torch.random.fork_rng(devices=[]):
        clock = count(step=1.0).__next__
        timing = engine.measure_layers(BATCH, budget_s=0.01, clock=clock).take()
        return complete(timing, sleep=lambda _: None)
