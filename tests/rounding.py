"""How far apart rounding alone puts two trainings, on the processor that runs the tests.

Two engines, or two kernels of one, round each sum in another order. What that comes to in the
weights at the end depends on the network, the optimiser and the processor, so no fixed number
bounds it. The yardstick here is the same training by the same engine on samples that were moved by
half an ulp: an error that rounding makes anyway, at the beginning of every sum.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from runtime.datasets.samples import Samples

ALLOWED = 16.0
"""How many times the yardstick another engine may be off: it rounds at every layer, both ways."""


def nudged(own: Mapping[str, Samples]) -> dict[str, Samples]:
    """The same samples, each value moved to a neighbour or left, by the toss of a coin."""
    return {device: _nudged(samples, seed) for seed, (device, samples) in enumerate(own.items())}


def _nudged(samples: Samples, seed: int) -> Samples:
    signs = np.random.default_rng(seed).choice([-1, 1], samples.stored.shape)
    towards = np.copysign(np.float32(np.inf), signs).astype(np.float32)
    return replace(samples, stored=np.nextafter(samples.x, towards))
