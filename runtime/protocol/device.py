"""The device's half: the coordinator asks, the device answers, a repeat gets the same answer."""

from enum import Enum, auto

from runtime.errors import UnexpectedEventError
from runtime.protocol.events import (
    CollectWeights,
    CommandArrived,
    DeviceCommand,
    DeviceEvent,
    ForwardDone,
    FrameArrived,
    FrameSent,
    GraphsMissing,
    LoadModel,
    OpenPass,
    PartCame,
    PassOpened,
    Predict,
    Prepare,
    Prepared,
    RunBackward,
    RunForward,
    SendFrame,
    SendReply,
    TakeGraphs,
    TrainLocally,
    WeightsCollected,
    WorkFailed,
)
from runtime.wire.commands import (
    Assignment,
    Holding,
    Inquire,
    Join,
    Joined,
    NeedGraphs,
    Preparing,
    Ready,
    Refused,
    SendAgain,
    Stop,
)
from runtime.wire.device_graphs import offered_specs
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec
from runtime.wire.inbox import FrameInbox


class SessionState(Enum):
    """Where a device stands."""

    UNASSIGNED = auto()
    PREPARING = auto()
    READY = auto()
    OPENING = auto()
    AWAITING_GRAPHS = auto()
    AWAITING_MODEL = auto()
    COMPUTING = auto()
    AWAITING_GRADIENT = auto()
    FINISHED = auto()


class DeviceSession:
    """One device's conversation with the coordinator; `handle` is the only way to change it."""

    def __init__(self) -> None:
        self.state = SessionState.UNASSIGNED
        self.num_stale = 0
        """Messages of another run, round or step, dropped."""
        self._assignment: Assignment | None = None
        self._ready: Ready | None = None
        self._join: Join | None = None
        self._opened: PassOpened | None = None
        self._request: tuple[FrameKind, StepId] | None = None
        self._answer: Frame | None = None
        self._is_sent = False
        """Whether all of the answer is with the broker."""
        self.frames = FrameInbox(self.asked_for)
        self._step = StepId(0, 0, 0, 0)

    @property
    def join(self) -> Join | None:
        """The cluster's turn that this device takes part in."""
        return self._join

    def asked_for(self, kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of a frame that may arrive now, the last request's repeat included."""
        if kind is FrameKind.GRAPHS:
            return self._offered_at(step)
        if self._opened is None:
            return None
        is_repeat = (kind, step) == self._request
        match kind:
            case FrameKind.MODEL if is_repeat or (
                self.state is SessionState.AWAITING_MODEL and step == self._first_step()
            ):
                return self._opened.model
            case FrameKind.GRADIENT if is_repeat or (
                self.state is SessionState.AWAITING_GRADIENT and step == self._step
            ):
                return self._opened.gradient
        return None

    def handle(self, event: DeviceEvent) -> list[DeviceCommand]:
        """Take one event; what to do now. A repeat is answered again, what is stale is dropped."""
        match event:
            case CommandArrived(Inquire() | SendAgain() as question):
                return self._asked(question)
            case CommandArrived(Assignment() | Join() | Stop() as message):
                return self._command_arrived(message)
            case FrameArrived(_, frame):
                return self._frame_arrived(frame)
            case PartCame() | FrameSent():
                return self._frame_moved(event)
            case WorkFailed(run, reason):
                return self._work_failed(run, reason)
        return self._work_done(event)

    def _frame_moved(self, event: PartCame | FrameSent) -> list[DeviceCommand]:
        if isinstance(event, PartCame):
            return self._tell_held(event.kind, event.step, number=0)
        if self._answer and (event.kind, event.step) == (self._answer.kind, self._answer.step):
            self._is_sent = True
        return []

    def _asked(self, message: Inquire | SendAgain) -> list[DeviceCommand]:
        """Say how far a frame is, or send what was lost of the answer to it."""
        if isinstance(message, Inquire):
            kind = FrameKind[message.request.upper()]
            return self._tell_held(kind, _step_of(message), number=message.number)
        if self._answer is None or not self._is_answer(message):
            self.num_stale += 1
            return []
        if not self._is_sent:
            return []  # It is on its way.
        self._is_sent = False
        return [SendFrame(self._answer, message.chunks)]

    def _command_arrived(self, message: Assignment | Join | Stop) -> list[DeviceCommand]:
        match self.state, message:
            case _, Assignment() if message == self._assignment:
                return [SendReply(self._ready or Preparing(run=message.run))]
            case _, Assignment():
                self._forget(SessionState.PREPARING, message)
                return [Prepare(message)]
            case _, Join() if message == self._join:
                return self._answer_to_join(message)
            case _, Stop(run=run) if self._assignment and run == self._assignment.run:
                self._forget(SessionState.UNASSIGNED, None)
                return []
            case state, Join() if state is not SessionState.PREPARING and self._is_next(message):
                self.state, self._join = SessionState.OPENING, message
                self._opened = self._request = self._answer = None
                return [OpenPass(message)]
        self.num_stale += 1
        return []

    def _frame_arrived(self, frame: Frame) -> list[DeviceCommand]:
        request = (frame.kind, frame.step)
        match self.state, frame.kind:
            case SessionState.AWAITING_GRAPHS, FrameKind.GRAPHS if self._offered_at(frame.step):
                assert self._join is not None
                self.state = SessionState.OPENING
                return [TakeGraphs(self._join, frame.tensors)]
            case _ if request == self._request:
                return []  # It came twice. What is missing of the answer is asked for by name.
            case SessionState.AWAITING_MODEL, FrameKind.MODEL if frame.step == self._first_step():
                self._compute(request)
                return [LoadModel(frame.tensors), self._first_work(frame.step)]
            case SessionState.AWAITING_GRADIENT, FrameKind.GRADIENT if frame.step == self._step:
                self._compute(request)
                return [RunBackward(frame.tensors), self._next_work(frame.step)]
        self.num_stale += 1
        return []

    def _work_done(self, event: DeviceEvent) -> list[DeviceCommand]:
        match self.state, event:
            case SessionState.PREPARING, Prepared(ready) if self._is_run(ready.run):
                self.state, self._ready = SessionState.READY, ready
                return [SendReply(ready)]
            case SessionState.OPENING, PassOpened(join) if join == self._join:
                measured = join.purpose == "measure"
                self.state = SessionState.FINISHED if measured else SessionState.AWAITING_MODEL
                self._opened = event
                return self._answer_to_join(join)
            case SessionState.OPENING, GraphsMissing(join) if join == self._join:
                self.state = SessionState.AWAITING_GRAPHS
                return self._answer_to_join(join)
            case SessionState.COMPUTING, ForwardDone(step, tensors) if step == self._step:
                evaluating = self._join is not None and self._join.purpose == "evaluate"
                self.state = SessionState.FINISHED if evaluating else SessionState.AWAITING_GRADIENT
                self._answer, self._is_sent = Frame(FrameKind.SMASHED, step, tensors), False
                return [SendFrame(self._answer)]
            case SessionState.COMPUTING, WeightsCollected(step, tensors) if step == self._step:
                self.state = SessionState.FINISHED
                self._answer, self._is_sent = Frame(FrameKind.WEIGHTS, step, tensors), False
                return [SendFrame(self._answer)]
            case (
                _,
                Prepared() | PassOpened() | GraphsMissing() | ForwardDone() | WeightsCollected(),
            ):
                return []  # Work of a turn or a run that is over.
        raise UnexpectedEventError(self.state.name, event)

    def _work_failed(self, run: int, reason: str) -> list[DeviceCommand]:
        if not self._is_run(run):
            return []
        # Forgotten, so that a coordinator that asks anew is answered anew. Ours does not ask again
        # before this agent is started again.
        self._forget(SessionState.UNASSIGNED, None)
        return [SendReply(Refused(run=run, reason=reason))]

    def _answer_to_join(self, join: Join) -> list[DeviceCommand]:
        """What stands in the way of taking part, or that nothing does; silence while at work."""
        place = {"run": join.run, "round": join.round, "cluster": join.cluster}
        if self._opened:
            return [SendReply(Joined(**place))]
        if self.state is SessionState.AWAITING_GRAPHS and join.graphs:
            return [SendReply(NeedGraphs(**place, digest=join.graphs.digest))]
        return []

    def _tell_held(self, kind: FrameKind, step: StepId, *, number: int) -> list[DeviceCommand]:
        """Say how far a frame is, and what is missing of it."""
        held: dict[str, object] = {"request": kind.name.lower(), "number": number}
        if (kind, step) == self._request:
            sent = "sent" if self._is_sent else "sending"
            held["state"] = sent if self._answer else "working"
        elif self.asked_for(kind, step) is not None:
            held |= {"state": "receiving", "missing": self.frames.missing(kind, step)}
        elif kind is FrameKind.GRAPHS and self._join and step == self._first_step():
            if self._opened:
                return self._answer_to_join(self._join)
            held["state"] = "working"
        else:
            self.num_stale += 1
            return []
        return [SendReply(Holding.model_validate(vars(step) | held))]

    def _is_answer(self, message: SendAgain) -> bool:
        if self._answer is None or self._answer.step != _step_of(message):
            return False
        return self._answer.kind.name.lower() == message.answer

    def _offered_at(self, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of the graphs of this turn's offer, while they are missing."""
        if self.state is not SessionState.AWAITING_GRAPHS or step != self._first_step():
            return None
        assert self._join is not None
        return offered_specs(self._join.graphs) if self._join.graphs else None

    def _compute(self, request: tuple[FrameKind, StepId]) -> None:
        self.state, self._request, self._answer = SessionState.COMPUTING, request, None

    def _first_work(self, step: StepId) -> RunForward | TrainLocally | Predict:
        assert self._join is not None
        match self._join.purpose:
            case "train":
                self._step = step
                return RunForward(step)
            case "train_locally":
                self._step = _at(step, self._join.local_epochs - 1)
                return TrainLocally(self._step)
            case "evaluate" | "measure":  # Nobody sends a model to be measured with.
                self._step = step
                return Predict(step)

    def _next_work(self, step: StepId) -> RunForward | CollectWeights:
        assert self._join is not None
        if step.epoch + 1 == self._join.local_epochs:
            return CollectWeights(step)
        self._step = _at(step, step.epoch + 1)
        return RunForward(self._step)

    def _first_step(self) -> StepId:
        assert self._join is not None
        return StepId(self._join.run, self._join.round, self._join.cluster, 0)

    def _is_run(self, run: int) -> bool:
        return self._assignment is not None and run == self._assignment.run

    def _is_next(self, join: Join) -> bool:
        before = (self._join.round, self._join.cluster) if self._join else (0, 0)
        is_ready = self._ready is not None and self._is_run(join.run)
        return is_ready and (join.round, join.cluster) >= before

    def _forget(self, state: SessionState, assignment: Assignment | None) -> None:
        self.state, self._assignment = state, assignment
        self._ready = self._join = self._opened = self._request = self._answer = None


def _step_of(message: Inquire | SendAgain) -> StepId:
    return StepId(message.run, message.round, message.cluster, message.epoch)


def _at(step: StepId, epoch: int) -> StepId:
    return StepId(step.run, step.round, step.cluster, epoch)
