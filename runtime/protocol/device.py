"""The device's half: the coordinator asks, the device answers, a repeat gets the same answer.

Of a mini-batch in micro-batches, all go forward, then each goes backward, in order, as it comes.
Asked about a turn that it is not in, for whatever reason, it says so. While its coordinator speaks,
no other gives it a job; and that one alone ends it, by the secret whose digest came with the job.
"""

from enum import Enum, auto

from runtime.errors import UnexpectedEventError
from runtime.protocol.device_turn import QUIET_S, TurnOfDevice, is_end_of, not_in_turn
from runtime.protocol.events import (
    BackwardDone,
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
    Prepare,
    Prepared,
    RunBackward,
    RunForward,
    SendReply,
    TakeGraphs,
    WeightsCollected,
    WorkFailed,
)
from runtime.protocol.frame_steps import address, step_of
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import Holding, Inquire, SendAgain
from runtime.wire.commands import Assignment, Join, Preparing, Ready, Refused, Stop
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec


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
        self.assignment: Assignment | None = None
        self._ready: Ready | None = None
        self._turn = TurnOfDevice(None)
        self.frames = FrameInbox(self.asked_for)

    @property
    def join(self) -> Join | None:
        """The cluster's turn that this device takes part in."""
        return self._turn.join

    def asked_for(self, kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of a frame that may arrive now, the last request's repeat included."""
        if kind is FrameKind.GRAPHS:
            awaits = self.state is SessionState.AWAITING_GRAPHS
            return self._turn.missing_at(step) if awaits else None
        if self._turn.opened is None:
            return None
        is_repeat = (kind, step.first) == self._turn.answers.request
        match kind:
            case FrameKind.MODEL if is_repeat or (
                self.state is SessionState.AWAITING_MODEL and step == self._turn.first_step
            ):
                return self._turn.opened.model
            case FrameKind.GRADIENT if is_repeat or self._awaits_gradient(step):
                gradients = self._turn.opened.gradients
                return gradients[step.micro_batch] if step.micro_batch < len(gradients) else None
        return None

    def handle(self, event: DeviceEvent) -> list[DeviceCommand]:
        """Take one event; what to do now. A repeat is answered again, what is stale is dropped."""
        match event:
            case CommandArrived(Inquire() | SendAgain() as question):
                return self._asked(question)
            case CommandArrived(Assignment() | Join() | Stop() as message, quiet_s):
                return self._command_arrived(message, quiet_s)
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
        self._turn.answers.note_sent(event.kind, event.step)
        return []

    def _asked(self, message: Inquire | SendAgain) -> list[DeviceCommand]:
        """Say how far a frame is, or send what was lost of the answer to it."""
        if self._turn.has_lost(message):
            return self._not_in(message)
        if isinstance(message, Inquire):
            kind = FrameKind[message.request.upper()]
            return self._tell_held(kind, step_of(message), number=message.number)
        again = self._turn.answers.again(message)
        return self._stale() if again is None else [*again]

    def _assigned(self, message: Assignment, quiet_s: float) -> list[DeviceCommand]:
        if message == self.assignment:
            return [SendReply(self._ready or Preparing(run=message.run))]
        is_unused = self._is_run(message.run) and self._turn.join is None
        if self.assignment is not None and not is_unused and quiet_s < QUIET_S:
            return self._stale()
        self._forget(SessionState.PREPARING, message)
        return [Prepare(message)]

    def _command_arrived(
        self, message: Assignment | Join | Stop, quiet_s: float
    ) -> list[DeviceCommand]:
        match self.state, message:
            case _, Assignment():
                return self._assigned(message, quiet_s)
            case _, Join() if message == self._turn.join:
                return self._answer_to_join()
            case _, Stop() if is_end_of(self.assignment, message):
                self._forget(SessionState.UNASSIGNED, None)
                return []
            case state, Join() if state is not SessionState.PREPARING and self._is_next(message):
                self.state, self._turn = SessionState.OPENING, TurnOfDevice(message)
                return [OpenPass(message)]
            case _, Join() if self._ready is not None or not self._is_run(message.run):
                return self._not_in(message)
        return self._stale()

    def _stale(self) -> list[DeviceCommand]:
        self.num_stale += 1
        return []

    def _not_in(self, message: Join | Inquire | SendAgain) -> list[DeviceCommand]:
        self.num_stale += 1
        return [SendReply(not_in_turn(message))]

    def _frame_arrived(self, frame: Frame) -> list[DeviceCommand]:
        request = (frame.kind, frame.step.first)
        match self.state, frame.kind:
            case SessionState.AWAITING_GRAPHS, FrameKind.GRAPHS if (
                self._turn.join and self._turn.missing and self._turn.missing_at(frame.step)
            ):
                offer, self._turn.missing = self._turn.missing, None
                self.state = SessionState.OPENING
                return [TakeGraphs(self._turn.join, offer, frame.tensors)]
            case _ if request == self._turn.answers.request:
                return []  # It came twice. What is missing of the answer is asked for by name.
            case SessionState.AWAITING_MODEL, FrameKind.MODEL if (
                frame.step == self._turn.first_step
            ):
                self.state = SessionState.COMPUTING
                return [LoadModel(frame.tensors), self._turn.first_work(frame.step)]
            case _, FrameKind.GRADIENT if self._awaits_gradient(frame.step):
                self._turn.epoch.take(frame.step, frame.tensors)
                self._turn.answers.note_used(frame.step.micro_batch)
                return self._go_back()
        return self._stale()

    def _work_done(self, event: DeviceEvent) -> list[DeviceCommand]:
        match self.state, event:
            case SessionState.PREPARING, Prepared(ready) if self._is_run(ready.run):
                self.state, self._ready = SessionState.READY, ready
                return [SendReply(ready)]
            case SessionState.OPENING, PassOpened(join) if join == self._turn.join:
                measured = join.purpose == "measure"
                self.state = SessionState.FINISHED if measured else SessionState.AWAITING_MODEL
                self._turn.opened = event
                return self._answer_to_join()
            case SessionState.OPENING, GraphsMissing(join, offer) if join == self._turn.join:
                self.state, self._turn.missing = SessionState.AWAITING_GRAPHS, offer
                return self._answer_to_join()
            case _, Prepared() | PassOpened() | GraphsMissing():
                return []  # Work of a turn or a run that is over.
        return self._computed(event)

    def _computed(self, event: DeviceEvent) -> list[DeviceCommand]:
        epoch = self._turn.epoch
        match self.state, event:
            case SessionState.COMPUTING, ForwardDone(step) if step == epoch.next_out:
                return self._forward_done(event)
            case SessionState.COMPUTING, BackwardDone(step) if epoch.is_going_back(step):
                self.state = SessionState.AWAITING_GRADIENT
                return self._go_back()
            case SessionState.COMPUTING, WeightsCollected(step, tensors) if step == self._turn.last:
                self.state = SessionState.FINISHED
                return [self._turn.answers.add(Frame(FrameKind.WEIGHTS, step, tensors))]
            case _, ForwardDone() | BackwardDone() | WeightsCollected():
                return []  # Of a turn that is over.
        raise UnexpectedEventError(self.state.name, event)

    def _forward_done(self, event: ForwardDone) -> list[DeviceCommand]:
        """Send a micro-batch; then the next, or what has come back meanwhile."""
        sending = self._turn.answers.add(Frame(FrameKind.SMASHED, event.step, event.tensors))
        self._turn.epoch.num_out += 1
        if self._turn.purpose == "evaluate":
            self.state = SessionState.FINISHED
            return [sending]
        if not self._turn.epoch.is_out:
            return [sending, RunForward(self._turn.epoch.next_out)]
        self.state = SessionState.AWAITING_GRADIENT
        return [sending, *self._go_back()]

    def _go_back(self) -> list[DeviceCommand]:
        """Compute the next micro-batch backward, if its gradient is there and nothing else runs."""
        if self.state is not SessionState.AWAITING_GRADIENT:
            return []
        following = self._turn.epoch.next_to_use()
        if following is None:
            return []
        self.state = SessionState.COMPUTING
        step, gradient, is_last = following
        backward = RunBackward(step, gradient, is_last=is_last)
        return [backward, self._turn.next_work(step.first)] if is_last else [backward]

    def _work_failed(self, run: int, reason: str) -> list[DeviceCommand]:
        if not self._is_run(run):
            return []
        # Forgotten, so that a coordinator that asks anew is answered anew.
        self._forget(SessionState.UNASSIGNED, None)
        return [SendReply(Refused(run=run, reason=reason))]

    def _answer_to_join(self) -> list[DeviceCommand]:
        answer = self._turn.answer_to_join(is_waiting=self.state is SessionState.AWAITING_GRAPHS)
        return [SendReply(answer)] if answer else []

    def _tell_held(self, kind: FrameKind, step: StepId, *, number: int) -> list[DeviceCommand]:
        """Say how far a frame is, and what is missing of it."""
        held: dict[str, object] = {"request": kind.name.lower(), "number": number}
        if (kind, step.first) == self._turn.answers.request:
            held["state"] = self._turn.answers.state
        elif kind is FrameKind.GRADIENT and (missing := self._missing(step, number=number)):
            return [self._receiving(kind, each, held) for each in missing]
        elif self.asked_for(kind, step) is not None:
            return [self._receiving(kind, step, held)]
        elif kind is FrameKind.GRADIENT and self._is_going_back(step):
            held["state"] = "working"
        elif kind is FrameKind.GRAPHS and self._turn.offers_at(step):
            if self._turn.opened or self.state is SessionState.AWAITING_GRAPHS:  # Of another.
                return self._answer_to_join()
            held["state"] = "working"
        else:
            return self._stale()
        return [SendReply(Holding.model_validate(address(step) | held))]

    def _receiving(self, kind: FrameKind, step: StepId, held: dict[str, object]) -> SendReply:
        more = {"state": "receiving", "missing": self.frames.missing(kind, step)}
        return SendReply(Holding.model_validate(address(step) | held | more))

    def _missing(self, step: StepId, *, number: int) -> list[StepId]:
        """Gradients of a step that have not come; unasked, of this one alone."""
        if not number:
            return [step] if self._awaits_gradient(step) else []
        awaited = self._turn.epoch.missing() if step == self._turn.epoch.step else []
        return [each for each in awaited if self._awaits_gradient(each)]

    def _awaits_gradient(self, step: StepId) -> bool:
        computes = self.state in (SessionState.AWAITING_GRADIENT, SessionState.COMPUTING)
        trains = self._turn.purpose == "train"
        return computes and trains and self._turn.epoch.awaits(step)

    def _is_going_back(self, step: StepId) -> bool:
        """Whether all gradients of a step are there, and are not all used."""
        computes = self.state is SessionState.COMPUTING
        return computes and step == self._turn.epoch.step and self._turn.epoch.have_arrived

    def _is_run(self, run: int) -> bool:
        return self.assignment is not None and run == self.assignment.run

    def _is_next(self, join: Join) -> bool:
        is_ready = self._ready is not None and self._is_run(join.run)
        return is_ready and not self._turn.is_after(join)

    def _forget(self, state: SessionState, assignment: Assignment | None) -> None:
        self.state, self.assignment = state, assignment
        self._ready, self._turn = None, TurnOfDevice(None)
