"""The gradients of one local epoch on a device: they come as they may, and are used in order."""

from runtime.wire.frames import StepId, Tensor


class ReturnedGradients:
    """Which micro-batches of a step went out, came back, and were used."""

    def __init__(self, step: StepId, num_parts: int) -> None:
        self.step = step
        self.num_out = 0
        """Micro-batches that were computed forward."""
        self._num_parts = num_parts
        self._num_used = 0
        self._arrived: dict[int, tuple[Tensor, ...]] = {}

    @property
    def is_out(self) -> bool:
        """Whether all have been computed forward."""
        return self.num_out == self._num_parts

    @property
    def have_arrived(self) -> bool:
        """Whether the gradients of all are there."""
        return self._num_used + len(self._arrived) == self._num_parts

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
        return step.first == self.step and place < self.num_out and is_new

    def missing(self) -> list[StepId]:
        """Those that went out and have not come back."""
        return [step for place in range(self.num_out) if self.awaits(step := self.step.part(place))]

    def take(self, step: StepId, gradient: tuple[Tensor, ...]) -> None:
        """Take in one that came."""
        self._arrived[step.micro_batch] = gradient

    def next_to_use(self) -> tuple[StepId, tuple[Tensor, ...], bool] | None:
        """Give the next in order and whether it is the last; None while it is not there."""
        gradient = self._arrived.pop(self._num_used, None)
        if gradient is None:
            return None
        step = self.step.part(self._num_used)
        self._num_used += 1
        return step, gradient, self._num_used == self._num_parts
