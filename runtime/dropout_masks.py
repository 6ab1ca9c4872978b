"""Dropout masks that belong to a device's step, wherever the layer happens to run.

Whoever runs a dropout layer, the device with torch, the device with ONNX Runtime or the server
on behalf of several devices, draws the mask from the same key, so moving the cut changes no mask.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def dropout_mask(
    key: tuple[int, ...], layer: str, shape: tuple[int, ...], p: float
) -> NDArray[np.float32]:
    """Draw a mask of this shape: 0 with probability p, else 1 / (1 - p).

    `key` is (seed, device, round, local epoch) or whatever else tells one step from another and
    `layer` the layer's full name; equal arguments give equal bits on every machine, and different
    keys or layers independent masks.
    """
    if not 0 <= p < 1:
        raise ValueError(f"dropout probability is {p}, and has to be at least 0 and below 1")
    num_words = int(np.prod(shape, dtype=np.int64))
    # The raw stream of Philox is fixed for good, while numpy may change how it makes floats of it.
    raw = np.random.Philox(key=_philox_key(key, layer)).random_raw((num_words + 1) // 2)
    words = raw.astype("<u8").view("<u4")[:num_words]
    kept = words >= np.uint64(round(p * 2**32))
    return np.where(kept, np.float32(1 / (1 - p)), np.float32(0)).reshape(shape)


def _philox_key(key: tuple[int, ...], layer: str) -> int:
    text = ",".join(str(int(word)) for word in key) + ":" + layer
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
