"""Say what several devices of the server side would gain here, and what they cost.

    python -m benchmarks.networks.data_parallel [--on cpu cpu] [--devices 6] [--batch 16]

The server's step of a cluster, as a run takes it: by the first device alone, and by all of them, as
`training.server_device` with a list has it. On the processor one process computes with one thread
and with as many as there are processes, which then have one each. All take turns, so the ratios are
of one run. Printed are the median step of each, how many bytes of gradients are summed, the ratio
of what is shared out to what has as many threads, and how far the gradients are from those of one
process, beside the largest.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.training.algorithm import Smashed
from edge_coordinator.training.edge_model import EdgeModel
from runtime.datasets.samples import DataSet, Samples
from runtime.models.load import cut_index, input_shape_of, layer_shapes, load_network

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
    SharedNetwork("lenet", "pool1", (("width", 4),)),
    SharedNetwork("mlp", "fc1", (("hidden", (1024, 1024, 1024)),)),
)


def main() -> None:
    """Print a line for each network."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks.data_parallel",
        description="a server step on one device, and shared out between several",
    )
    parser.add_argument(
        "--on", nargs="+", default=["cpu", "cpu"], help="cpu cpu, or cuda:0 cuda:1 (cpu cpu)"
    )
    parser.add_argument("--devices", type=int, default=6, help="of the cluster (6)")
    parser.add_argument("--batch", type=int, default=16, help="samples of a device (16)")
    parser.add_argument("--steps", type=int, default=60, help="of each kind (60)")
    flags = parser.parse_args()
    print("network   cut       summed   1 thread  as many threads   shared out    ratio   apart")
    for subject in SUBJECTS:
        _print(subject, flags.on, flags.devices, flags.batch, flags.steps)


def _model(subject: SharedNetwork, names: Sequence[str]) -> EdgeModel:
    """The model as a run prepares it, of samples that nobody trains on."""
    options = dict(subject.options)
    shape = input_shape_of(load_network(subject.name, options, seed=0))
    samples = Samples(np.zeros((8, *shape), np.float32), np.arange(8))
    data = DataSet(train=samples, test=samples, num_classes=NUM_CLASSES, name="noise")
    job = {
        "model.name": subject.name,
        "model.options": options,
        "plan.mode": "by_hand",
        "plan.cut": subject.cut,
        "server_threads": len(names),
        "training.server_device": list(names),
    }
    return prepare_job(load_job(None, job), run=0, base_dir=Path(), data=data)[1]


def _sent(model: EdgeModel, cut: int, num_devices: int, batch: int) -> dict[str, Smashed]:
    generator = np.random.default_rng(0)
    shape = layer_shapes(model.network, input_shape_of(model.network))[cut - 1]
    return {
        f"dev-{number:02}": Smashed(
            generator.standard_normal((batch, *shape)).astype(np.float32),
            generator.integers(0, NUM_CLASSES, batch),
        )
        for number in range(num_devices)
    }


def _print(
    subject: SharedNetwork, names: Sequence[str], num_devices: int, batch: int, num_steps: int
) -> None:
    one, _, shared = models = [_model(subject, names) for _ in range(3)]
    cut = cut_index(shared.network, subject.cut)
    own = _sent(shared, cut, num_devices, batch)
    num_threads = {0: 1, 1: len(names), 2: 1}
    seconds: list[list[float]] = [[] for _ in models]
    with shared.on_all_devices(print):
        for _ in range(num_steps + WARM_UP):
            for place, model in enumerate(models):
                torch.set_num_threads(num_threads[place])
                start_s = time.perf_counter()
                model.turn(cut=cut, round_=1, learning_rate=0.0).step(own)
                model.training.accelerator.wait()
                seconds[place].append(time.perf_counter() - start_s)
    side = shared.turn(cut=cut, round_=1, learning_rate=0.0).server_side
    megabytes = 4e-6 * sum(each.numel() for each in side.trainable)
    one_ms, many_ms, shared_ms = (1e3 * median(each[WARM_UP:]) for each in seconds)
    print(
        f"{subject.name:10}{subject.cut:9}{megabytes:6.2f} MB {one_ms:7.2f} ms {many_ms:13.2f} ms "
        f"{shared_ms:9.2f} ms {shared_ms / many_ms:8.2f} {_apart(one, shared):8.1e}",
        flush=True,
    )


def _apart(one: EdgeModel, shared: EdgeModel) -> float:
    """How far the sums of all steps' gradients are, beside the largest."""
    ours, theirs = one.snapshot(), shared.snapshot()
    sums = [name for name in ours if name.endswith("/momentum_buffer")]
    largest = max(float(ours[name].abs().max()) for name in sums)
    return max(float((ours[name] - theirs[name]).abs().max()) for name in sums) / largest


if __name__ == "__main__":
    main()
