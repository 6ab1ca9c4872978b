"""Top-k and randomised top-k: the largest values of each sample, and where they are.

What is left out comes back as zero. Which values are the largest is decided by value, and of equal
ones by place: a partition's own order differs between processors.
"""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from runtime.seeding import Key, quick_generator
from runtime.wire.codecs.codec import Floats32, Layout
from runtime.wire.codecs.floats import SCALE, from_halves, to_halves
from runtime.wire.frames import Tensor, TensorSpec

ALPHA = 0.1
"""Of randomised top-k: the probability that a place goes to a value that is not of the largest."""
_NEVER = np.uint64(2**64 - 1)
_Mask = NDArray[np.bool_]


class TopK:
    """The largest fraction of each sample, in half precision, with their places."""

    paper = "Stich, Cordonnier, Jaggi, Sparsified SGD with Memory, NeurIPS 2018"
    relative_error = 1.0
    flop_per_value = 60.0

    def __init__(self, fraction: float) -> None:
        self._fraction = fraction
        self.name = f"topk:{fraction:g}"
        self.error = f"biased: all but the largest {fraction:.3g} of a sample come back as 0"

    def specs(self, layout: Layout) -> tuple[TensorSpec, ...]:
        """A scale, and of each value that is kept the value and its place."""
        rows, width = _rows(layout)
        kept = (rows, self._num_kept(width))
        dtype = "<u2" if width <= 0x10000 else "<i4"
        return SCALE, TensorSpec("<f2", kept), TensorSpec(dtype, kept, num_values=max(width, 1))

    def encode(self, x: Floats32, layout: Layout, key: Key) -> list[Tensor]:
        """Keep some values of each sample."""
        rows, width = _rows(layout)
        values = x.reshape(rows, width)
        num_kept = self._num_kept(width)
        mask = self._chosen(np.abs(values), num_kept, key)
        places = np.nonzero(mask)[1].reshape(rows, num_kept)
        scale, halves = to_halves(np.take_along_axis(values, places, axis=1))
        return [scale, halves, places.astype(self.specs(layout)[2].dtype)]

    def decode(self, parts: Sequence[Tensor], layout: Layout) -> Floats32:
        """Put the values back among zeros."""
        scale, halves, places = parts
        values = np.zeros(_rows(layout), np.float32)
        np.put_along_axis(values, places.astype(np.int64), from_halves(scale, halves), axis=1)
        return values.reshape(layout.shape)

    def _num_kept(self, width: int) -> int:
        return min(width, ceil(self._fraction * width))

    def _chosen(self, sizes: Floats32, num_kept: int, key: Key) -> _Mask:  # noqa: ARG002
        return largest(sizes, num_kept)


class RandomTopK(TopK):
    """Most of the largest, and now and then another: so that small values learn as well."""

    paper = "Zheng et al., Randomized Top-k Sparsification for Split Learning, IJCAI 2023"
    flop_per_value = 200.0

    def __init__(self, fraction: float) -> None:
        super().__init__(fraction)
        self.name = f"randtopk:{fraction:g}"
        self.error += f"; {ALPHA:.0%} of the places go to others at random"

    def _chosen(self, sizes: Floats32, num_kept: int, key: Key) -> _Mask:
        top, generator = largest(sizes, num_kept), quick_generator(key)
        num_others = generator.binomial(num_kept, ALPHA, size=len(sizes))
        num_others = np.minimum(num_others, sizes.shape[1] - num_kept)
        words = generator.bit_generator.random_raw(sizes.size).reshape(sizes.shape)
        of_top = _lowest(np.where(top, words, _NEVER), num_kept - num_others)
        of_others = _lowest(np.where(top, _NEVER, words), num_others)
        return of_top | of_others


def largest(sizes: Floats32, num_kept: int) -> _Mask:
    """Mark the largest of each row; of equal ones those that come first, [row, place]."""
    if num_kept == 0:
        return np.zeros(sizes.shape, np.bool_)
    place = sizes.shape[1] - num_kept
    least = np.partition(sizes, place, axis=1)[:, place, np.newaxis]
    above, equal = sizes > least, sizes == least
    room = num_kept - above.sum(axis=1, keepdims=True)
    mask: _Mask = above | (equal & (np.cumsum(equal, axis=1) <= room))
    return mask


def _lowest(words: NDArray[np.uint64], counts: NDArray[np.int64]) -> _Mask:
    """Mark so many of the lowest words of each row; words are random, so no two are equal."""
    most = int(counts.max(initial=0))
    if most == 0:
        return np.zeros(words.shape, np.bool_)
    place = min(most, words.shape[1] - 1)
    lowest = np.sort(np.partition(words, place, axis=1)[:, : place + 1], axis=1)
    beyond = np.where(counts <= place, lowest[np.arange(len(words)), np.minimum(counts, place)], 0)
    everything = counts > place
    mask: _Mask = (words < beyond[:, np.newaxis]) | everything[:, np.newaxis]
    return mask


def _rows(layout: Layout) -> tuple[int, int]:
    """Samples, and values of each; a tensor of one axis is one row."""
    shape = layout.shape
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, layout.size)
