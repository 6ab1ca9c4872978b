"""The coordinator's half, for one device: what it is asked, when again, and when it is given up.

A request is a control message (the job, a join, a measurement of its link) or a frame; a device
has one of them before it at a time, and beside it the measurement of its link. A control message
is repeated with growing pauses. A frame never is on suspicion: an `Inquire` follows it, which
waits in the same queues and so arrives behind whatever of the frame is to arrive. The device's
`Holding` says what is missing, and that alone goes again; or that its answer is with the broker,
behind which the `Holding` came: then what has not come of the answer is lost, and `SendAgain`
names it. Questions are numbered, so that two answers to the same state send nothing twice.

Who is late owes its answer: it is asked for nothing until that has come. Who says that it is not in
the turn that it was asked about owes nothing, and begins anew with the job. A broken connection has
a moment to come back; while our own is down no clock runs. `next_timeout` says what is due.
"""

from math import inf

from runtime.errors import UnexpectedEventError
from runtime.protocol.coordinator_events import (
    Abandoned,
    Arrived,
    Asked,
    AskedFor,
    BusBack,
    BusLost,
    CoordinatorCommand,
    CoordinatorEvent,
    CountDropped,
    Deliver,
    Excluded,
    FrameRequest,
    GiveUp,
    NoteFree,
    NoteLost,
    NoteReady,
    NoteRefusal,
    PartArrived,
    Reply,
    ReplyArrived,
    Returned,
    Seen,
    Went,
)
from runtime.protocol.events import FrameArrived, FrameSent
from runtime.protocol.frame_steps import step_of, turn_of
from runtime.protocol.pending import (
    IN_VAIN,
    Contact,
    Owed,
    PeerState,
    Pending,
    is_answer,
)
from runtime.protocol.timers import GRACE_S, RETURN_S, Allowance, AnswerTimer
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import Holding, NotInTurn
from runtime.wire.commands import (
    AnyReply,
    Join,
    Joined,
    LinkMeasured,
    MeasureLink,
    Ready,
    Refused,
)
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec

GONE = "is not there any more"
LOST = "has lost its turn, and gets the job again"


class CoordinatorSession:
    """One device as the coordinator has it; `handle` and `handle_timeout` alone change it."""

    def __init__(self, *, run: int, patience_s: float) -> None:
        """`patience_s` is what a device gets for what it has never done before."""
        self.presence = Contact.GONE
        self.frames = FrameInbox(self.asked_for)
        self._run = run
        self._patience_s = patience_s
        self._is_paused = False
        self._lost_at_s = inf
        self._session = self._joined = ""
        self._pending: Pending | None = None
        self._link: Pending | None = None
        self._owed: Owed | None = None
        self._early: set[tuple[FrameKind, StepId]] = set()  # Sent before an answer was asked for.

    @property
    def state(self) -> PeerState:
        """What the device is at."""
        if self._pending is not None:
            return self._pending.state
        return PeerState.LATE if self._owed else PeerState.IDLE

    @property
    def why_busy(self) -> str:
        """Why the device is asked for nothing; empty if it may be."""
        return self._owed.reason if self._owed else ""

    def asked_for(self, kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of what the device has yet to send; None for anything else."""
        return self._pending.specs(kind, step) if self._pending else None

    def next_timeout(self) -> float:
        """When `handle_timeout` is due; infinite if nothing is."""
        if self._is_paused:
            return inf
        timers = [each.timer.next_timeout() for each in (self._pending, self._link) if each]
        owed_s = self._owed.until_s if self._owed else inf
        return min([*timers, self._lost_at_s, owed_s])

    def handle(self, event: CoordinatorEvent, now_s: float) -> list[CoordinatorCommand]:
        """Take one event; what to do now. What is not allowed raises and changes nothing."""
        match event:
            case AskedFor(what, allowance):
                return self._ask(what, allowance, now_s)
            case ReplyArrived(message):
                return self._reply(message, now_s)
            case PartArrived() | FrameArrived() | FrameSent():
                return self._frame(event, now_s)
            case Abandoned(what):
                self._drop(what)
            case BusLost() | BusBack():
                return self._bus(event, now_s)
            case _:
                return self._present(event, now_s)
        return []

    def handle_timeout(self, now_s: float) -> list[CoordinatorCommand]:
        """Do what is due: ask again, or give up."""
        if self._is_paused:
            return []
        if self._lost_at_s <= now_s:
            self.presence = Contact.GONE
            return self._lose("went offline")
        commands = self._settle() if self._owed and self._owed.until_s <= now_s else []
        for pending in self._all():
            if pending.timer.is_late(now_s=now_s):
                commands += self._late(pending, now_s)
            elif pending.timer.is_overdue(now_s=now_s):
                commands += pending.again()
        return commands

    def _ask(self, what: Asked, allowance: Allowance, now_s: float) -> list[CoordinatorCommand]:
        is_link = isinstance(what, MeasureLink)
        if isinstance(what, Join | FrameRequest):
            is_new = self.state is PeerState.ASSIGNING  # It was restarted, and is asked meanwhile.
            if self.presence is Contact.GONE or self._owed or (is_new and isinstance(what, Join)):
                return [GiveUp(what, GONE)]
            if isinstance(what, FrameRequest) and self._joined != self._session:
                return [GiveUp(what, "was restarted")]
        if self._link if is_link else self._pending:
            raise UnexpectedEventError(self.state.name, what)
        pending = Pending(what, AnswerTimer(allowance, now_s=now_s))
        if self._is_paused:
            pending.timer.pause()
        if is_link:
            self._link = pending
        else:
            self._pending = pending
            self.frames.forget()
            pending.note_early(self._early)
        return [] if isinstance(what, FrameRequest) else pending.again()

    def _reply(self, message: AnyReply, now_s: float) -> list[CoordinatorCommand]:
        pending = self._link if isinstance(message, LinkMeasured) else self._pending
        match pending, message:
            case _, Holding():
                return self._holding(message, now_s)
            case _, NotInTurn():
                return self._not_in(turn_of(message))
            case _, Refused(run=run, reason=reason) if run == self._run:
                return [NoteRefusal(reason), *self._lose(reason)]
            case None, Ready(run=run) if run == self._run:
                return [NoteReady(message)]
            case Pending(what=w), Ready() | Joined() | LinkMeasured() if is_answer(w, message):
                return self._answered(pending, message, now_s)
        said = pending.heard(message, self._patience_s, now_s) if pending else None
        return [CountDropped()] if said is None else said

    def _not_in(self, turn: tuple[int, int, int]) -> list[CoordinatorCommand]:
        """Wait no longer for what the device has lost; it begins anew, by the job."""
        if self._owed and turn_of(self._owed.request.step) == turn:
            commands = self._settle()
        elif self._pending and self._pending.is_of(turn):
            commands = [GiveUp(self._pending.what, LOST)]
            self._drop(self._pending.what)
        else:
            return [CountDropped()]
        self._joined = ""
        return [*commands, NoteLost()]

    def _holding(self, message: Holding, now_s: float) -> list[CoordinatorCommand]:
        """Take how far the device is: what it lacks goes again, and what we lack of its answer."""
        request = (FrameKind[message.request.upper()], step_of(message).first)
        if self._pending and self._pending.frame == request:
            said = self._pending.mend(message, self.frames, now_s)
            return [*said, *self._lose(IN_VAIN)] if said == [NoteRefusal(IN_VAIN)] else said
        if not self._owed or request != (self._owed.request.kind, self._owed.request.step):
            return [CountDropped()]
        self._owed.wait_on(self._patience_s, now_s)
        return []

    def _frame(
        self, event: PartArrived | FrameArrived | FrameSent, now_s: float
    ) -> list[CoordinatorCommand]:
        match event:
            case FrameSent(kind, step):
                if self._pending is None or not self._pending.note_sent(kind, step):
                    self._early.add((kind, step))
            case FrameArrived(_, frame) if self.asked_for(frame.kind, frame.step) is not None:
                return self._arrived(frame, now_s)
            case FrameArrived():
                raise UnexpectedEventError(self.state.name, event)
            case PartArrived(kind, step):
                if self._pending and self.asked_for(kind, step) is not None:
                    return self._pending.part(step.micro_batch, now_s)
                if self._owed and self._owed.ends_with(event, self._patience_s, now_s):
                    return [CountDropped(), *self._owed.shown(now_s), *self._settle()]
                return [CountDropped()]
        return []

    def _arrived(self, frame: Frame, now_s: float) -> list[CoordinatorCommand]:
        assert self._pending is not None
        if part := self._pending.take(frame, now_s):
            return [part]
        return self._answered(self._pending, frame, now_s)

    def _present(
        self, event: Arrived | Went | Returned | Seen | Excluded, now_s: float
    ) -> list[CoordinatorCommand]:
        """A change of presence: a broken connection has a moment to come back."""
        if isinstance(event, Excluded):
            return self._lose(event.reason)
        if isinstance(event, Seen):
            return [each for p in self._all() if p.timer.is_away for each in p.back(now_s)]
        commands, self._lost_at_s = self._settle(), inf
        match event:
            case Arrived(session):
                self.presence, self._session, self._joined = Contact.HERE, session, ""
                commands += self._lose("was restarted")  # Whoever it was before.
            case Went():
                self.presence, self._lost_at_s = Contact.AWAY, now_s + GRACE_S
            case Returned():
                self.presence = Contact.HERE
                commands += [each for pending in self._all() for each in pending.back(now_s)]
        return commands

    def _bus(self, event: BusLost | BusBack, now_s: float) -> list[CoordinatorCommand]:
        self._is_paused = isinstance(event, BusLost)
        if self._is_paused:
            for pending in self._all():
                pending.timer.pause()
            return []
        if self.presence is Contact.AWAY:  # It has the time to find the broker again.
            self._lost_at_s = now_s + RETURN_S
        return [command for pending in self._all() for command in pending.resume(now_s)]

    def _answered(
        self, pending: Pending, answer: Reply | Frame, now_s: float
    ) -> list[CoordinatorCommand]:
        if isinstance(pending.what, Join):
            self._joined = self._session
        self._drop(pending.what)
        timer = pending.timer
        took_s = timer.waited_s(now_s=now_s) if timer.is_undisturbed else None
        return [Deliver(pending.what, answer, took_s)]

    def _late(self, pending: Pending, now_s: float) -> list[CoordinatorCommand]:
        waited_s = pending.timer.waited_s(now_s=now_s)
        self._drop(pending.what)
        late = GiveUp(pending.what, pending.why_late(waited_s), waited_s)
        if not isinstance(pending.what, FrameRequest):
            return [late]
        self._owed = Owed(pending.what, pending.timer, now_s + max(self._patience_s, waited_s))
        return [late, *pending.again()]  # It may have lost the turn, and then owes nothing.

    def _settle(self) -> list[CoordinatorCommand]:
        """Let the device be asked again."""
        was_owed, self._owed = self._owed, None
        return [NoteFree()] if was_owed else []

    def _lose(self, reason: str) -> list[CoordinatorCommand]:
        """Wait no longer for the device."""
        self._lost_at_s = inf
        lost, self._pending, self._link = self._all(), None, None
        self.frames.forget()  # With what has come of a frame, which may be large.
        return [GiveUp(pending.what, reason) for pending in lost]

    def _drop(self, what: Asked) -> None:
        if self._link and self._link.what is what:
            self._link = None
        if self._pending and self._pending.what is what:
            self._pending = None
            self.frames.forget()

    def _all(self) -> list[Pending]:
        return [each for each in (self._pending, self._link) if each is not None]
