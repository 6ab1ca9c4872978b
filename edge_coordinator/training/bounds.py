"""What a device may send: bounded by what the others send, and by its own past.

A device is not trusted with the model. Of each answer one number is looked at, its size: of smashed
data, and of labels that are no classes, the largest root mean square of a sample; of gradients the
length; of a device-side model the length of its update, of the weights for each unit of the rate.
Sizes are compared as logarithms, by median and median absolute deviation, which a minority cannot
move:

- What the *others* send is, of each other device, its size in this step, or the largest that was
  ever taken from it if that is more. The bound is `factor` times their median, or 8 deviations
  above it if that is more. It takes two others: of two, nobody can say which is right.
- Its own *past* vouches for a device: what is within `factor` of the largest that was ever taken
  from it passes too, up to `factor` times that bound.
- What is beyond `LARGEST` is out of bounds whatever else is known.

Only what is too large is out of bounds: gradients may shrink to nothing and grow again, where
devices train one after another and the last forget what the first have learned. In honest runs of
all methods nothing was more than 7 times the median. A size that was refused is in nobody's past.
Devices are compared with those that cut at the same layer, and whoever cuts at another begins anew;
gradients, which are all of one loss, and labels are compared all the same.
"""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from math import exp, inf, log
from types import MappingProxyType

import numpy as np

from runtime.wire.frames import Tensor

NUM_DEVIATIONS = 8.0
LARGEST = 1e12
_SMALLEST = 1e-12
_TO_DEVIATION = 1.4826
"""Of a normal distribution: the standard deviation by the median absolute one."""
_LEAST_OTHERS = 2


class Sent(Enum):
    """What is looked at of a device's answers; for people."""

    SMASHED = "smashed data"
    LABELS = "labels"
    GRADIENT = "samples whose gradients are"
    WEIGHTS = "weights whose update is"
    STATISTICS = "normalisation statistics whose update is"
    OPTIMIZER = "optimiser state whose update is"


_UPDATES = frozenset({Sent.WEIGHTS, Sent.STATISTICS, Sent.OPTIMIZER})
_OF_A_CUT = _UPDATES | {Sent.SMASHED}


def factor(what: Sent) -> float:
    """How many times what is usual may be sent: updates of devices at one rate are more alike."""
    return 30.0 if what in _UPDATES else 100.0


class Bounds:
    """The largest that each device sent, and what follows for the next."""

    def __init__(
        self,
        largest: Mapping[str, Mapping[str, float]],
        cut: int | None,
        own_cuts: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """All are as they were when a run was interrupted; `own_cuts` are of some devices."""
        self.cut, self.own_cuts = cut, dict(own_cuts)
        self.largest: dict[str, dict[str, float]] = {
            sent.name: dict(largest.get(sent.name, {})) for sent in Sent
        }
        """By what was sent and device, as a logarithm."""

    def at_cut(self, cut: int, own_cuts: Mapping[str, int] = MappingProxyType({})) -> None:
        """Forget of each device what is not to be compared with what it sends at another cut."""
        for sent in _OF_A_CUT:
            own = self.largest[sent.name]
            for device in [d for d in own if self._cut_of(d) != own_cuts.get(d, cut)]:
                del own[device]
        self.cut, self.own_cuts = cut, dict(own_cuts)

    def _cut_of(self, device: str) -> int | None:
        return self.own_cuts.get(device, self.cut)

    def check(self, what: Sent, sizes: Mapping[str, float]) -> dict[str, str]:
        """Say whose sizes are out of bounds, and why; remember those of the others."""
        cuts = {self._cut_of(device) for device in sizes} if what in _OF_A_CUT else {None}
        caught: dict[str, str] = {}
        for cut in cuts if self.own_cuts else {None}:
            own = {d: size for d, size in sizes.items() if cut in (None, self._cut_of(d))}
            past = {
                d: e for d, e in self.largest[what.name].items() if cut in (None, self._cut_of(d))
            }
            caught |= self._check(what, own, past)
        return caught

    def _check(
        self, what: Sent, sizes: Mapping[str, float], largest: Mapping[str, float]
    ) -> dict[str, str]:
        """Compare devices with each other, and with the largest that was taken so far."""
        logs = {device: _log(size) for device, size in sizes.items()}
        known = {**largest, **{d: max(each, largest.get(d, each)) for d, each in logs.items()}}
        room = log(factor(what))
        surely = _surely_within(known.values(), room)
        caught = {}
        for device, size in sizes.items():
            own = largest.get(device, -inf)
            most = surely if logs[device] <= surely else _most(device, known, own=own, room=room)
            if logs[device] > most:
                caught[device] = (
                    f"sent {what.value} of size {size:.3g}; by what others and it sent so far "
                    f"{exp(most):.3g} is the most that is taken"
                )
        kept = {device: size for device, size in logs.items() if device not in caught}
        self.largest[what.name] |= {d: max(each, largest.get(d, each)) for d, each in kept.items()}
        return caught


def _most(device: str, known: Mapping[str, float], *, own: float, room: float) -> float:
    """The logarithm of the largest size that a device may send, by the others' and its `own`."""
    others = [size for other, size in known.items() if other != device]
    if len(others) < _LEAST_OTHERS:
        return log(LARGEST)
    middle = _upper_median(others)
    deviation = _TO_DEVIATION * _upper_median([abs(size - middle) for size in others])
    most = middle + max(room, NUM_DEVIATIONS * deviation)
    vouched = min(own, most) + room
    return min(max(most, vouched), log(LARGEST))


def _surely_within(known: Collection[float], room: float) -> float:
    """What is out of nobody's bounds: of a thousand devices not each is compared with each."""
    if len(known) <= _LEAST_OTHERS:
        return log(LARGEST)
    # Without any one of them, the upper median is at this place or the next.
    return min(sorted(known)[(len(known) - 1) // 2] + room, log(LARGEST))


def _upper_median(values: Collection[float]) -> float:
    """Of two in the middle the larger: so that one of three is outvoted."""
    return sorted(values)[len(values) // 2]


def _log(size: float) -> float:
    return log(max(size, _SMALLEST))


def sample_size(samples: Tensor) -> float:
    """Give the largest root mean square of a sample, [sample, ...]; infinity if it overflows."""
    rows = samples.reshape(len(samples), -1).astype(np.float32, copy=False)
    with np.errstate(over="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    return float(np.sqrt(squares.max(initial=0.0) / max(rows.shape[1], 1)))


def length_of(tensors: Iterable[Tensor]) -> float:
    """Give the length of some tensors as one vector; infinity if it overflows."""
    total = 0.0
    for tensor in tensors:
        flat = np.ravel(tensor).astype(np.float32, copy=False)
        with np.errstate(over="ignore"):
            total += float(np.vdot(flat, flat))
    return float(np.sqrt(total))
