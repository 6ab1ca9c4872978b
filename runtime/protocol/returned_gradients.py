"""The gradients of one local epoch on a device: they come as they may, and are used in order.

Of a mini-batch in micro-batches each has a gradient of its own. Where the gradient of a whole
mini-batch comes in several frames, the aggregated samples' first, it is used once all are there.
"""

from itertools import chain

from runtime.wire.frames import StepId, Tensor


class ReturnedGradients:
    """Which micro-batches of a step went out, came back, and were used."""

    def __init__(self, step: StepId, num_parts: int, num_frames: int | None = None) -> None:
        """`num_frames` of gradients, if they are not one for each micro-batch."""
        self.step = step
        self.num_out = 0
        """Micro-batches that were computed forward."""
        self._num_parts = num_parts
        self._num_frames = num_parts if num_frames is None else num_frames
        self._num_used = 0
        """Frames of gradients."""
        self._arrived: dict[int, tuple[Tensor, ...]] = {}

    @property
    def is_out(self) -> bool:
        """Whether all have been computed forward."""
        return self.num_out == self._num_parts

    @property
    def have_arrived(self) -> bool:
        """Whether the gradients of all are there."""
        return self._num_used + len(self._arrived) == self._num_frames

    @property
    def next_out(self) -> StepId:
        """The micro-batch to compute forward next."""
        return self.step.part(self.num_out)

    def is_going_back(self, step: StepId) -> bool:
        """Whether it is the micro-batch that is computed backward."""
        return self.is_out and step == self.step.part(self._num_used - 1)

    def awaits(self, step: StepId) -> bool:
        """Whether it is the gradient of one that went out, and has not come."""
        place = step.micro_batch
        is_new = place >= self._num_used and place not in self._arrived
        return step.first == self.step and place < self._num_wanted and is_new

    def missing(self) -> list[StepId]:
        """Those that went out and have not come back."""
        steps = map(self.step.part, range(self._num_wanted))
        return [step for step in steps if self.awaits(step)]

    def take(self, step: StepId, gradient: tuple[Tensor, ...]) -> None:
        """Take in one that came."""
        self._arrived[step.micro_batch] = gradient

    def next_to_use(self) -> tuple[StepId, tuple[Tensor, ...], bool] | None:
        """Give the next in order and whether it is the last; None while it is not there."""
        if self._is_joined:
            return self._all_to_use()
        gradient = self._arrived.pop(self._num_used, None)
        if gradient is None:
            return None
        step = self.step.part(self._num_used)
        self._num_used += 1
        return step, gradient, self._num_used == self._num_parts

    def _all_to_use(self) -> tuple[StepId, tuple[Tensor, ...], bool] | None:
        if len(self._arrived) < self._num_frames:
            return None
        whole = tuple(chain.from_iterable(self._arrived[each] for each in sorted(self._arrived)))
        self._num_used, self._arrived = self._num_frames, {}
        return self.step, whole, True

    @property
    def _is_joined(self) -> bool:
        return self._num_frames != self._num_parts

    @property
    def _num_wanted(self) -> int:
        """Frames of gradients that may come now."""
        return self._num_frames if self._is_joined and self.is_out else self.num_out
