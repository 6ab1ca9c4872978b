"""Say what a training step through a captured graph costs, beside the module's own.

    python -m benchmarks.networks.graph_step [NAME …] [--batch 16] [--pairs 100] [--compile]

A step is forward, loss and backward. Both sides of a pair have the same weights and the same
batch, and take turns at going first; seconds are those of the processor. The median of the pairs'
ratios is printed with its quartiles, and in the end whether all are within 1.05. `--compile` times
the same graph as torch compiles it, which is what `training.compile` does to the server side.
"""

import argparse
import copy
import logging
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.networks.brought import Brought
from benchmarks.networks.own import OWN
from benchmarks.networks.text import TEXT
from benchmarks.networks.vision import VISION
from edge_coordinator.training.computing.compiled import Compiled
from runtime.models.dropout import set_dropout_keys
from runtime.models.graph.capture import capture
from runtime.models.graph.network import GraphNetwork
from runtime.models.graph.rows import rows_of
from runtime.models.graph.tracer import main_output

MOST = 1.05
"""Times the module's own step."""
WARM_UP = 3


def main() -> None:
    """Print a line for each network; exit with 1 if a graph's step costs more than it may."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.networks.graph_step",
        description="a training step through a graph beside the module's own",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which networks (PyTorch's alone)")
    parser.add_argument("--batch", type=int, default=16, help="samples of a step (16)")
    parser.add_argument("--pairs", type=int, default=100, help="steps of each, in turns (100)")
    parser.add_argument("--compile", action="store_true", help="as torch compiles the graph")
    flags = parser.parse_args()
    known = {brought.name: brought for brought in (*OWN, *TEXT, *VISION)}
    if unknown := set(flags.names) - known.keys():
        parser.error(f"no network named {min(unknown)!r}; there are {', '.join(known)}")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    chosen = [known[name] for name in flags.names] or list(OWN)
    print(f"{'network':30}{'module ms':>11}{'ratio':>8}  quartiles", flush=True)
    ratios = []
    for brought in chosen:
        own_s, quartiles = _compare(brought, flags.batch, flags.pairs, compiles=flags.compile)
        low, ratio, high = quartiles
        ratios.append(ratio)
        print(f"{brought.name:30}{1e3 * own_s:11.2f}{ratio:8.3f}  {low:.3f} to {high:.3f}")
    print(f"\nlargest {max(ratios):.3f}; at most {MOST} is wanted of a graph that is not compiled")
    if max(ratios) > MOST and not flags.compile:
        sys.exit(1)


def _compare(
    brought: Brought, batch: int, num_pairs: int, *, compiles: bool
) -> tuple[float, NDArray[np.float64]]:
    """Give the module's own seconds, and the quartiles of the ratios graph / module."""
    torch.manual_seed(0)
    module = brought.build()
    network = capture(module, name=brought.name, input_shape=brought.inputs)
    own = copy.deepcopy(module).train()
    network.train()
    for each in (own, network):
        set_dropout_keys(each, [((0,), batch)])
    samples = _samples(brought, batch)
    row = _as_it_travels(brought, samples)
    run = Compiled(network) if compiles else network

    def by_module() -> float:
        given = own(**samples) if isinstance(samples, dict) else own(samples)
        return _backward(own, main_output(given))

    def by_graph() -> float:
        return _backward(network, run(row))

    for _ in range(WARM_UP):
        by_module(), by_graph()
    pairs = [_pair(by_module, by_graph, flips=bool(index % 2)) for index in range(num_pairs)]
    own_s = float(np.median([pair[0] for pair in pairs]))
    return own_s, np.quantile([graph / module for module, graph in pairs], [0.25, 0.5, 0.75])


def _pair(
    first: Callable[[], float], second: Callable[[], float], *, flips: bool
) -> tuple[float, float]:
    """Time both, in either order; seconds of the first and of the second."""
    taken = {}
    for run in (second, first) if flips else (first, second):
        start_s = time.process_time()
        run()
        taken[run] = time.process_time() - start_s
    return taken[first], taken[second]


def _backward(module: nn.Module | GraphNetwork, outputs: object) -> float:
    assert isinstance(outputs, Tensor)
    loss = outputs.pow(2).mean()
    torch.autograd.backward(loss)
    for parameter in module.parameters():
        parameter.grad = None
    return loss.item()


def _samples(brought: Brought, batch: int) -> Tensor | dict[str, Tensor]:
    """Repeat the network's own random batch until there are so many samples."""
    given = brought.samples()

    def repeated(tensor: Tensor) -> Tensor:
        return tensor.repeat(-(-batch // len(tensor)), *(1 for _ in tensor.shape[1:]))[:batch]

    if isinstance(given, dict):
        return {name: repeated(tensor) for name, tensor in given.items()}
    return repeated(given)


def _as_it_travels(brought: Brought, samples: Tensor | dict[str, Tensor]) -> Tensor:
    if isinstance(samples, dict):
        assert isinstance(brought.inputs, dict)
        return torch.from_numpy(rows_of(samples, brought.inputs))
    return samples.float()


if __name__ == "__main__":
    main()
