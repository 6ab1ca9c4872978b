"""Data that can be learned, for devices that have none."""

from collections.abc import Sequence

import numpy as np

from runtime.datasets.samples import Samples

Shape = tuple[int, ...]


def random_samples(count: int, shape: Shape, *, num_classes: int, seed: int) -> Samples:
    """Learnable noise: each class has a pattern of its own."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, num_classes, count)
    patterns = np.random.default_rng(0).standard_normal((num_classes, *shape))
    x = patterns[y] + 0.5 * generator.standard_normal((count, *shape))
    return Samples(x.astype(np.float32), y)


def shards(sizes: Sequence[int], shape: Shape, *, num_classes: int = 10) -> dict[str, Samples]:
    """Samples for devices `d0`, `d1` and so on."""
    return {
        f"d{index}": random_samples(size, shape, num_classes=num_classes, seed=100 + index)
        for index, size in enumerate(sizes)
    }
