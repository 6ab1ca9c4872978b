"""Say what sharing a server step out between two processes would gain here, and what it costs.

    python -m benchmarks.networks.data_parallel [--devices 6] [--batch 16] [--steps 60]

The server's step of a cluster, in one process with one thread and with two; and as torch's
`DistributedDataParallel` does it over gloo: rank 0 has the smashed data, sends the other process
those of half of the devices, both go forward and back, and the gradients of the inputs come back.
All take turns, so the ratios are of one run. Printed are the median step of each, how many bytes of
gradients are summed, and how far these are from those of one process, beside the largest.
"""

import argparse
import copy
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import cast

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from runtime.models.load import cut_index, input_shape_of, layer_shapes, load_network, split

NUM_CLASSES = 10
WARM_UP = 5


@dataclass(frozen=True)
class SharedNetwork:
    """A network, and where it is cut."""

    name: str
    cut: str
    options: tuple[tuple[str, object], ...] = ()


SUBJECTS = (
    SharedNetwork("lenet", "pool1"),
    SharedNetwork("mlp", "fc1", (("hidden", (1024, 1024, 1024)),)),
    SharedNetwork("resnet8", "block1"),
)


@dataclass(frozen=True)
class SharedStep:
    """A server side, and a cluster's smashed data and labels."""

    layers: nn.Module
    inputs: Tensor
    labels: Tensor

    def compute(self, run: nn.Module, part: slice) -> Tensor:
        """Forward and backward of some rows; the gradient of their own mean loss."""
        inputs = self.inputs[part].detach().requires_grad_()
        torch.autograd.backward(nn.functional.cross_entropy(run(inputs), self.labels[part]))
        assert inputs.grad is not None
        return inputs.grad


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks.data_parallel",
        description="a server step in one process, and shared out between two",
    )
    parser.add_argument("--devices", type=int, default=6, help="of the cluster, an even number (6)")
    parser.add_argument("--batch", type=int, default=16, help="samples of a device (16)")
    parser.add_argument("--steps", type=int, default=60, help="of each kind (60)")
    flags = parser.parse_args()
    if flags.devices % 2:
        parser.error(f"--devices {flags.devices} cannot be shared out evenly between two")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port()))
    print("network   cut       summed   1 thread  2 threads   2 processes  of 2 threads   apart")
    start_processes(  # type: ignore[no-untyped-call]
        _rank, (flags.devices * flags.batch, flags.steps), nprocs=2, start_method="spawn"
    )


def _rank(rank: int, num_samples: int, num_steps: int) -> None:
    """Be one of the two processes; the first prints."""
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        for subject in SUBJECTS:
            step = _step_of(subject, num_samples)
            shared = nn.parallel.DistributedDataParallel(step.layers)
            if rank:
                for _ in range(num_steps + WARM_UP):
                    _help(step, shared)
            else:
                _print(subject, step, shared, num_steps)
    finally:
        dist.destroy_process_group()


def _step_of(subject: SharedNetwork, num_samples: int) -> SharedStep:
    network = load_network(subject.name, dict(subject.options), seed=0)
    cut = cut_index(network, subject.cut)
    shape = layer_shapes(network, input_shape_of(network))[cut - 1]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(num_samples, *shape, generator=generator)
    labels = torch.randint(NUM_CLASSES, (num_samples,), generator=generator)
    return SharedStep(split(network, cut)[1].train(), inputs, labels)


def _help(step: SharedStep, shared: nn.Module) -> None:
    """Compute what the first process sends, and send it the gradient."""
    shared.zero_grad(set_to_none=True)
    half = len(step.inputs) // 2
    inputs, labels = torch.empty_like(step.inputs[half:]), torch.empty_like(step.labels[half:])
    for tensor in (inputs, labels):
        dist.recv(tensor, 0)
    dist.send(SharedStep(step.layers, inputs, labels).compute(shared, slice(None)), 0)


def _share(step: SharedStep, shared: nn.Module) -> Tensor:
    """Have half of the step computed by the other process."""
    half = len(step.inputs) // 2
    for tensor in (step.inputs, step.labels):
        dist.send(tensor[half:].contiguous(), 1)
    own = step.compute(shared, slice(half))
    other = torch.empty_like(own)
    dist.recv(other, 1)
    return torch.cat([own, other])


def _print(subject: SharedNetwork, step: SharedStep, shared: nn.Module, num_steps: int) -> None:
    own, everything = copy.deepcopy(step.layers), slice(None)  # What is shared sums in backward.
    ways: Sequence[tuple[int, nn.Module, Callable[[], Tensor]]] = (
        (1, own, lambda: step.compute(own, everything)),
        (2, own, lambda: step.compute(own, everything)),
        (1, step.layers, lambda: _share(step, shared)),
    )
    seconds: list[list[float]] = [[] for _ in ways]
    gradients: list[Tensor] = [torch.empty(0) for _ in ways]
    for _ in range(num_steps + WARM_UP):
        for index, (num_threads, layers, way) in enumerate(ways):
            torch.set_num_threads(num_threads)
            layers.zero_grad(set_to_none=True)
            start_s = time.perf_counter()
            way()
            seconds[index].append(time.perf_counter() - start_s)
            found = [cast(Tensor, each.grad).flatten() for each in layers.parameters()]
            gradients[index] = torch.cat(found)
    one, two, both = (1e3 * median(each[WARM_UP:]) for each in seconds)
    apart = (gradients[2] - gradients[0]).abs().max() / gradients[0].abs().max()
    megabytes = 4e-6 * len(gradients[0])
    print(
        f"{subject.name:10}{subject.cut:9}{megabytes:6.2f} MB {one:7.2f} ms {two:7.2f} ms "
        f"{both:10.2f} ms {both / two:13.2f} {apart:9.1e}",
        flush=True,
    )


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    main()
