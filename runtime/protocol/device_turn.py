"""A device's part in one cluster's turn: which work follows which request, and its answers."""

from runtime.protocol.answers import Answers, Request
from runtime.protocol.events import (
    CollectWeights,
    PassOpened,
    Predict,
    RunForward,
    TrainLocally,
)
from runtime.protocol.returned_gradients import ReturnedGradients
from runtime.wire.commands import Join
from runtime.wire.frames import FrameKind, StepId


class TurnOfDevice:
    """One turn; without a join, none."""

    def __init__(self, join: Join | None) -> None:
        self.join = join
        self.opened: PassOpened | None = None
        self.answers = Answers()
        self.epoch = ReturnedGradients(StepId(0, 0, 0, 0), 1)
        """Of the present step."""

    @property
    def purpose(self) -> str:
        """What the turn is for; nothing where there is none."""
        return self.join.purpose if self.join is not None else ""

    @property
    def first_step(self) -> StepId:
        """Its first local epoch."""
        assert self.join is not None
        return StepId(self.join.run, self.join.round, self.join.cluster, 0)

    def first_work(self, step: StepId) -> RunForward | TrainLocally | Predict:
        """Begin with the device-side model; what to do with it."""
        assert self.join is not None
        request = (FrameKind.MODEL, step)
        match self.join.purpose:
            case "train":
                self._begin(request, step)
                return RunForward(step)
            case "train_locally":
                last = _at(step, self.join.local_epochs - 1)
                self._begin(request, last, num_answers=1)
                return TrainLocally(last)
            case "evaluate" | "measure":  # Nobody sends a model to be measured with.
                self._begin(request, step, num_answers=1)
                return Predict(step)

    def next_work(self, step: StepId) -> RunForward | CollectWeights:
        """Go on from the gradients of a step; what to do once they are used."""
        assert self.join is not None
        request = (FrameKind.GRADIENT, step)
        if step.epoch + 1 == self.join.local_epochs:
            self.answers.begin(request, 1)
            return CollectWeights(step)
        following = _at(step, step.epoch + 1)
        self._begin(request, following)
        return RunForward(following)

    def _begin(self, request: Request, step: StepId, num_answers: int | None = None) -> None:
        """Answer a request by this step."""
        assert self.opened is not None
        num_parts = num_answers or len(self.opened.gradients)
        self.epoch = ReturnedGradients(step, num_parts)
        self.answers.begin(request, num_parts)


def _at(step: StepId, epoch: int) -> StepId:
    return StepId(step.run, step.round, step.cluster, epoch)
