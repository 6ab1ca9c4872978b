"""Torch's own random generator, which all threads of a process share.

Torch 2.13 makes a Python object while it holds the lock of a generator whose state it reads. If
garbage is collected then, tensors among it let other threads run; one of them that wants the same
lock waits for it without letting the first go on, and both do for ever. So whoever reads, sets or
seeds that generator does it here, one at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_ONE_AT_A_TIME = threading.Lock()


def generator_state() -> torch.Tensor:
    """Give the state of the CPU's generator, for `set_generator_state`."""
    with _ONE_AT_A_TIME:
        return torch.random.get_rng_state()


def set_generator_state(state: torch.Tensor) -> None:
    """Have the CPU's generator draw on from a state."""
    with _ONE_AT_A_TIME:
        torch.random.set_rng_state(state)


def seed_generators(seed: int) -> None:
    """Seed the CPU's generator, and those of the accelerators that are in use."""
    with _ONE_AT_A_TIME:
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed_all(seed)
        if torch.backends.mps.is_available():
            torch.mps.manual_seed(seed)


@contextmanager
def forked_generator(seed: int | None = None) -> Iterator[None]:
    """Have the CPU's generator be afterwards as before; with a seed, begin with that one."""
    state = generator_state()
    try:
        if seed is not None:
            with _ONE_AT_A_TIME:
                torch.manual_seed(seed)
        yield
    finally:
        set_generator_state(state)
