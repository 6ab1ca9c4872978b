"""Data of one's own: windows of a vibration sensor, of four kinds of machine, for a 1-D network.

cpsl local --data examples.own_data:vibrations --config examples/own_data.toml --rounds 20
"""

import numpy as np
from numpy.typing import NDArray

NUM_KINDS, NUM_AXES, NUM_READINGS = 4, 3, 64
Arrays = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]


def vibrations(num_train: int = 960, num_test: int = 240) -> Arrays:
    """Give x_train, y_train, x_test, y_test; x is [window, axis, reading], y whole numbers from 0.

    Each kind of machine turns at a speed of its own, at a phase and with noise that differ from
    window to window. A device that brings real data takes a folder or a file instead
    (`cpsl-agent --data npz:FILE`).
    """
    generator = np.random.default_rng(0)
    x_train, y_train = _windows(num_train, generator)
    return (x_train, y_train, *_windows(num_test, generator))


def _windows(
    count: int, generator: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    kinds = np.arange(count) % NUM_KINDS
    time = np.arange(NUM_READINGS) / NUM_READINGS
    phase = generator.uniform(0, 1, (count, NUM_AXES, 1))
    turns = (3 + 2 * kinds)[:, np.newaxis, np.newaxis]
    noise = generator.normal(0, 0.5, (count, NUM_AXES, NUM_READINGS))
    return (np.sin(2 * np.pi * (turns * time + phase)) + noise).astype(np.float32), kinds
