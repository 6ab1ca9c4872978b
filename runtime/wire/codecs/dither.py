"""Dither: what is added to a value before it is cut off to a level, so that it is right on average.

All of it stands in one table, which is the same everywhere; where a frame begins to read in it
follows from the frame's address. Drawing numbers for each frame would take as long as all the rest
of encoding. Over the places to begin, each value's dither is evenly spread over `NUM_PLACES` places
between two levels, and any two values of a frame, or of two frames, have it independently but for
one part in a thousand: so sums of many values are as right as with numbers drawn for each.
"""

import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np

from runtime.seeding import Key, Purpose, quick_generator
from runtime.wire.codecs.codec import Floats32

NUM_PLACES = 1024
"""An average is right within half of this part of a level. More would round up to a whole level."""
NUM_STARTS = 2**18
BLOCK = 2**16
"""Values that are read one after another; the next as many begin elsewhere."""


def add_dither(values: Floats32, key: Key) -> None:
    """Add a number above 0 and below 1 to each value, [value], in place."""
    table = _table()
    for first in range(0, len(values), BLOCK):
        block = values[first : first + BLOCK]
        start = _scattered(zlib.crc32(_packing(len(key) + 1)(*key, first))) % NUM_STARTS
        block += table[start : start + len(block)]


@cache
def _packing(num_words: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{num_words}Q").pack


def _scattered(number: int) -> int:
    """Mix the bits of a 32-bit number, as MurmurHash3 does last: neighbours come far apart."""
    number = ((number ^ (number >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    number = ((number ^ (number >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return number ^ (number >> 16)


@cache
def _table() -> Floats32:
    """Shuffle as many of each place; the first ones once more at the end, so that all can begin."""
    words = quick_generator((0, Purpose.ROUNDING, NUM_STARTS)).bit_generator.random_raw(NUM_STARTS)
    places = (np.argsort(words, kind="stable") % NUM_PLACES).astype(np.float32)
    table = np.concatenate([places, places[:BLOCK]])
    return (table + np.float32(0.5)) / np.float32(NUM_PLACES)
