"""A device's part in one cluster's turn: which work follows which request, and its answers."""

import hashlib

from runtime.protocol.answers import Answers, Request
from runtime.protocol.events import (
    CollectWeights,
    PassOpened,
    Predict,
    RunForward,
    TrainLocally,
)
from runtime.protocol.frame_steps import offered_step, turn_of
from runtime.protocol.returned_gradients import ReturnedGradients
from runtime.wire.chunks.questions import Inquire, NotInTurn, SendAgain
from runtime.wire.commands import (
    Assignment,
    FrozenOffer,
    GraphsOffer,
    Join,
    Joined,
    NeedGraphs,
    Stop,
)
from runtime.wire.device_graphs import offered_specs
from runtime.wire.frames import FrameKind, StepId, TensorSpec

QUIET_S = 5.0
"""A coordinator that has said nothing for so long may be replaced by another."""


class TurnOfDevice:
    """One turn; without a join, none."""

    def __init__(self, join: Join | None) -> None:
        self.join = join
        self.opened: PassOpened | None = None
        self.missing: GraphsOffer | FrozenOffer | None = None
        """What was offered with the join and has to come first."""
        self.answers = Answers()
        self.epoch = ReturnedGradients(StepId(0, 0, 0, 0), 1)
        """Of the present step."""
        self.last: StepId | None = None
        """The step whose model is handed out, once that is what is computed."""

    @property
    def purpose(self) -> str:
        """What the turn is for; nothing where there is none."""
        return self.join.purpose if self.join is not None else ""

    @property
    def first_step(self) -> StepId:
        """Its first local epoch."""
        assert self.join is not None
        return StepId(self.join.run, self.join.round, self.join.cluster, 0)

    def is_after(self, join: Join) -> bool:
        """Whether a join came before this turn's."""
        return self.join is not None and turn_of(join) < turn_of(self.join)

    def answer_to_join(self, *, is_waiting: bool) -> Joined | NeedGraphs | None:
        """What stands in the way of taking part, or that nothing does; silence while at work."""
        assert self.join is not None
        run, round_, cluster = turn_of(self.join)
        if self.opened:
            return Joined(run=run, round=round_, cluster=cluster)
        if is_waiting and self.missing:
            return NeedGraphs(run=run, round=round_, cluster=cluster, digest=self.missing.digest)
        return None

    def has_lost(self, message: Inquire | SendAgain) -> bool:
        """Whether what is asked about is of another turn, or comes after where this one is."""
        if self.join is None or turn_of(message) != turn_of(self.join):
            return True
        if not isinstance(message, Inquire) or message.request != "gradient":
            return False
        return self.answers.request is None or message.epoch > self.epoch.step.epoch

    def missing_at(self, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of what is missing of what was offered, if its step is this one."""
        if self.join is None or self.missing is None:
            return None
        is_its = step == offered_step(self.join, self.missing)
        return offered_specs(self.missing) if is_its else None

    def offers_at(self, step: StepId) -> bool:
        """Whether something was offered that has this step."""
        if self.join is None:
            return False
        offers = (self.join.graphs, self.join.frozen)
        return any(each and step == offered_step(self.join, each) for each in offers)

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
                self.last = last
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
            self.last = step
            return CollectWeights(step)
        following = _at(step, step.epoch + 1)
        self._begin(request, following)
        return RunForward(following)

    def _begin(self, request: Request, step: StepId, num_answers: int | None = None) -> None:
        """Answer a request by this step."""
        assert self.opened is not None
        assert self.join is not None
        num_frames = len(self.opened.gradients)
        is_whole = self.join.aggregated is not None and self.join.micro_batches is None
        num_parts = num_answers or (1 if is_whole else num_frames)
        self.epoch = ReturnedGradients(step, num_parts, num_frames if is_whole else None)
        self.answers.begin(request, num_parts)


def not_in_turn(message: Join | Inquire | SendAgain) -> NotInTurn:
    """Say so of the turn that was asked about."""
    return NotInTurn(run=message.run, round=message.round, cluster=message.cluster)


def is_end_of(assignment: Assignment | None, stop: Stop) -> bool:
    """Whether a stop ends this run, by whoever gave it."""
    if assignment is None or stop.run != assignment.run:
        return False
    digest = hashlib.sha256((stop.secret or "").encode()).hexdigest()
    return assignment.stop_digest in (None, digest)


def _at(step: StepId, epoch: int) -> StepId:
    return StepId(step.run, step.round, step.cluster, epoch)
