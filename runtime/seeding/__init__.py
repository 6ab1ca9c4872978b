"""Every random number has an address: the run's seed, the device, the round, the local epoch.

So a rerun, a resumed run and a step that is repeated draw the same, whoever computes it.
"""

import hashlib
import zlib
from enum import IntEnum

import numpy as np
from numpy.random.bit_generator import ISeedSequence
from numpy.typing import DTypeLike, NDArray

Key = tuple[int, ...]
"""The address of some random numbers."""


class Purpose(IntEnum):
    """What the numbers are for; streams of different purposes never overlap.

    An address is the seed, the purpose, and at least one number that is not 0: numpy takes a
    shorter one as if zeros followed. A partition's alone has no purpose: it is the seed and the
    number of devices.
    """

    BATCH = 1
    DROPOUT = 2
    ORDER = 3
    TORCH = 4
    HELD_OUT = 5
    PLAN = 6
    STATES = 7
    SPREAD = 8
    ROUNDING = 9
    AUGMENTATION = 10
    ARRIVAL = 11


def step_key(purpose: Purpose, *, seed: int, device: str, round_: int, epoch: int) -> Key:
    """Address of one device's random numbers in one local epoch."""
    return (seed, purpose, zlib.crc32(device.encode()), round_, epoch)


def draw_batch(
    num_samples: int, batch_size: int, *, seed: int, device: str, round_: int, epoch: int
) -> np.ndarray:
    """Indices of a random mini-batch without repetition, at most `batch_size` of them."""
    key = step_key(Purpose.BATCH, seed=seed, device=device, round_=round_, epoch=epoch)
    generator = np.random.default_rng(key)
    return generator.choice(num_samples, size=min(batch_size, num_samples), replace=False)


class HashedKey(ISeedSequence):
    """Seeds a generator by the hash of an address: a third of the time of numpy's own seeds."""

    def __init__(self, key: Key) -> None:
        self._key = repr(tuple(map(int, key))).encode()

    def generate_state(
        self, n_words: int, dtype: DTypeLike = np.uint32
    ) -> NDArray[np.uint32 | np.uint64]:
        """Give so many words of state."""
        words = np.dtype(dtype).newbyteorder("<")
        state = hashlib.blake2b(self._key, digest_size=n_words * words.itemsize).digest()
        return np.frombuffer(state, words).astype(dtype)


def quick_generator(key: Key) -> np.random.Generator:
    """Make the generator of an address where making it must not take long."""
    return np.random.Generator(np.random.SFC64(HashedKey(key)))  # type: ignore[arg-type]


def torch_seed(key: Key) -> int:
    """Fold an address into the one number that torch's generator takes."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))


def dropout_mask(
    key: tuple[int, ...], layer: str, shape: tuple[int, ...], p: float
) -> NDArray[np.float32]:
    """Draw a mask of this shape: 0 with probability p, else 1 / (1 - p).

    `key` is (seed, device, round, local epoch) or whatever else tells one step from another and
    `layer` the layer's full name; equal arguments give equal bits on every machine, and different
    keys or layers independent masks. Whoever runs the layer (the device on either engine, or the
    server for several devices) draws the same, so moving the cut changes no mask.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout probability is {p}, and has to be at least 0 and below 1")
    num_words = int(np.prod(shape, dtype=np.int64))
    # The raw stream of Philox is fixed for good, while numpy may change how it makes floats of it.
    raw = np.random.Philox(key=_philox_key(key, layer)).random_raw((num_words + 1) // 2)
    words = raw.astype("<u8", copy=False).view("<u4")[:num_words]
    least = round(p * 2**32)  # Compared as 32 bits: as 64, the words would be copied.
    mask = (words >= np.uint32(min(least, 2**32 - 1))).astype(np.float32)
    mask *= np.float32(1 / (1 - p))
    return mask.reshape(shape)


def _philox_key(key: tuple[int, ...], layer: str) -> int:
    text = ",".join(str(int(word)) for word in key) + ":" + layer
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
