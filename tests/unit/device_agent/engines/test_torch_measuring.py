"""What a device measures of PyTorch: which layers run on it, how fast, and what they hold."""

from itertools import accumulate, count

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from device_agent.engines.activation_cost import training_bytes
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import complete
from device_agent.engines.torch_engine import TorchEngine
from device_agent.profiling.reference_network import built_in_assignment
from runtime.models.load import load_network, split

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


def _held_bytes(layers: nn.Sequential, batch: torch.Tensor) -> int:
    """What torch's allocator gave out at once at the most in a step on these layers."""

    def step() -> None:
        smashed = layers(batch)
        smashed.backward(torch.ones_like(smashed))

    step()  # Gradients of the weights are there from now on.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = profiled.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    return int(max(accumulate(changes))) + batch.nbytes


def test_what_a_sample_is_priced_at_is_what_the_allocator_gives_out_for_it() -> None:
    shape, more, fewer = (3, 32, 32), 12, 4
    layers = split(load_network("resnet8", {}, seed=0), 3)[0].train()
    held = [_held_bytes(layers, torch.ones(number, *shape)) for number in (more, fewer)]
    per_sample = (held[0] - held[1]) / (more - fewer)
    # What kernels copy within themselves differs between processors.
    assert per_sample / training_bytes(layers, shape) == pytest.approx(1.0, abs=0.2)
