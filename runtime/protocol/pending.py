"""One request to one device whose answer has not come, and what is said about it meanwhile."""

from dataclasses import dataclass, field
from enum import Enum, auto

from runtime.protocol.coordinator_events import (
    Asked,
    CoordinatorCommand,
    DeliverPart,
    FrameRequest,
    NoteLateAnswer,
    NoteRefusal,
    PartArrived,
    SendCommand,
    SendParts,
)
from runtime.protocol.frame_steps import address, offered_step, turn_of
from runtime.protocol.timers import Allowance, AnswerTimer
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import Holding, Inquire, SendAgain
from runtime.wire.commands import (
    AnyReply,
    Assignment,
    FrozenOffer,
    GraphsOffer,
    Join,
    Joined,
    LinkMeasured,
    MeasureLink,
    NeedGraphs,
    Preparing,
    Ready,
)
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec

MAX_GRAPHS_SENT = 3
"""How often graphs are sent for one request, to a device that says it lacks them still."""
MAX_UNUSABLE = 2
"""How often an answer is asked for again that never was one."""
IN_VAIN = "sent an answer that cannot be used, however often it was asked for"
SLOW_BYTES_PER_S = 50_000
"""Of a link that is slow: as long as large parameters take on it, they are waited for."""


class PeerState(Enum):
    """What a device is at, as far as the coordinator knows."""

    IDLE = auto()
    ASSIGNING = auto()
    JOINING = auto()
    ANSWERING = auto()
    LATE = auto()


class Contact(Enum):
    """Whether a device is there."""

    GONE = auto()
    AWAY = auto()
    """Its connection broke a moment ago."""
    HERE = auto()


Ranges = tuple[tuple[int, int], ...]


@dataclass
class Pending:
    """A request, its clock, and how far the frame is that goes with it."""

    what: Asked
    timer: AnswerTimer
    frame: tuple[FrameKind, StepId] | None = None
    """What was sent to the device, if it was a frame; of micro-batches, the first."""
    unsent: set[int] = field(default_factory=lambda: {0})
    """Frames that are not all with the broker: what is asked once there is none comes behind."""
    missing: set[int] = field(default_factory=set)
    """Frames of the answer that have not come."""
    num_questions: int = 0
    settled: dict[int, int] = field(default_factory=dict)
    """By micro-batch: questions up to this one are answered by what was sent again since."""
    num_graphs: int = 0
    num_mended: int = 0
    """How often the answer was asked for again."""

    def __post_init__(self) -> None:
        if isinstance(self.what, FrameRequest):
            self.frame = (self.what.kind, self.what.step)
            self.unsent = set(range(self.what.num_parts))
            self.missing = set(range(len(self.what.answers)))

    def specs(self, kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
        """Shapes of a frame of the answer that has yet to come; None for anything else."""
        if not isinstance(self.what, FrameRequest) or step.micro_batch not in self.missing:
            return None
        is_answer = (kind, step.first) == (self.what.answer_kind, self.what.answer_step)
        return self.what.answers[step.micro_batch] if is_answer else None

    def note_sent(self, kind: FrameKind, step: StepId) -> bool:
        """Take note that a frame is with the broker; False if it does not belong here."""
        if self.frame != (kind, step.first):
            return False
        self.unsent.discard(step.micro_batch)
        return True

    def note_early(self, sent: set[tuple[FrameKind, StepId]]) -> None:
        """Take note of frames that were sent before this was asked for; forget them."""
        for kind, step in sent:
            self.note_sent(kind, step)
        sent.clear()

    def take(self, frame: Frame, now_s: float) -> DeliverPart | None:
        """Take a frame of the answer: part of it, or None if that makes it whole."""
        assert isinstance(self.what, FrameRequest)
        self.missing.discard(frame.step.micro_batch)
        self.timer.note_whole(frame.step.micro_batch, now_s=now_s)
        return DeliverPart(self.what, frame) if self.missing else None

    def is_of(self, turn: tuple[int, int, int]) -> bool:
        """Whether it is about this run, round and cluster."""
        match self.what:
            case Join():
                return turn_of(self.what) == turn
            case FrameRequest(step=step):
                return turn_of(step) == turn
        return False

    @property
    def state(self) -> PeerState:
        """What the device is at while this is awaited."""
        match self.what:
            case Assignment():
                return PeerState.ASSIGNING
            case Join():
                return PeerState.JOINING
        return PeerState.ANSWERING

    def resume(self, now_s: float) -> list[CoordinatorCommand]:
        """Begin the clock anew, and ask again: our connection is back."""
        self.timer.restart(now_s=now_s)
        return self.again()

    def sign(self, now_s: float, *, is_word: bool = False) -> list[CoordinatorCommand]:
        """Take note that the device is at it, or says so; there is nothing to do."""
        self.timer.note_sign(now_s=now_s, is_word=is_word)
        return []

    def part(self, micro_batch: int, now_s: float) -> list[CoordinatorCommand]:
        """Take note of a part of a frame of the answer; there is nothing to do."""
        self.timer.note_part(micro_batch, now_s=now_s)
        return []

    def back(self, now_s: float) -> list[CoordinatorCommand]:
        """Ask a device again that has found its connection again."""
        return self.again() if self.timer.note_return(now_s=now_s) else []

    def again(self) -> list[CoordinatorCommand]:
        """Repeat a control message; of a frame, ask how far the device is with it."""
        if self.frame is None:
            assert not isinstance(self.what, FrameRequest)
            return [SendCommand(self.what)]
        if self.unsent:
            return []
        kind, step = self.frame
        self.num_questions += 1
        question = {"request": kind.name.lower(), "number": self.num_questions}
        return [SendCommand(Inquire.model_validate(address(step) | question))]

    def mend(self, holding: Holding, frames: FrameInbox, now_s: float) -> list[CoordinatorCommand]:
        """Send what a device lacks of the frame, or ask for what we lack of its answer.

        Only a question from after the last such repair shows what it has not mended. Of a device
        whose answer can be used as little each time that it comes, nothing more is asked.
        """
        self.sign(now_s, is_word=holding.state != "receiving")
        place = holding.micro_batch or 0
        settled = self.settled.get(place, 0)
        if not settled < holding.number <= self.num_questions or self.frame is None:
            return []
        kind, step = self.frame
        match holding.state, self.what:
            case "receiving", _ if self.num_graphs < MAX_GRAPHS_SENT:
                self.num_graphs += kind is FrameKind.GRAPHS
                self.settled[place] = self.num_questions
                self.unsent.add(place)
                return [SendParts(kind, step.part(place), holding.missing)]
            case "sent", _ if min(self.num_mended, frames.num_unusable) >= MAX_UNUSABLE:
                return [NoteRefusal(IN_VAIN)]
            case "sent", FrameRequest(answer_kind=answer, answer_step=at):
                self.num_mended += 1
                self.settled[place] = self.num_questions
                parts = [at.part(each) for each in sorted(self.missing)]
                return [_send_again(answer, part, frames.missing(answer, part)) for part in parts]
        return []

    def heard(
        self, message: AnyReply, patience_s: float, now_s: float
    ) -> list[CoordinatorCommand] | None:
        """Take word that the device is at it, or what it lacks; None if it says neither."""
        match self.what, message:
            case Assignment(run=run), Preparing() if message.run == run:
                return self.sign(now_s)
            case Join() as join, NeedGraphs() if offer := _lacked_of(join, message):
                return self._lack(join, offer, patience_s, now_s)
        return None

    def _lack(
        self, join: Join, offer: GraphsOffer | FrozenOffer, patience_s: float, now_s: float
    ) -> list[CoordinatorCommand]:
        """Send what a join offered; once: then it is asked about as any frame is."""
        step = offered_step(join, offer)
        if self.frame == (FrameKind.GRAPHS, step):
            return self.sign(now_s)
        if isinstance(offer, FrozenOffer):
            patience_s += offer.num_bytes / SLOW_BYTES_PER_S
        patient = Allowance(0.0, patience_s, is_learned=False)
        self.timer.allow_anew(patient, now_s=now_s)
        self.frame, self.unsent, self.num_graphs = (FrameKind.GRAPHS, step), {0}, 1
        self.settled = {0: self.num_questions}
        return [SendParts(FrameKind.GRAPHS, step, ())]

    def why_late(self, waited_s: float) -> str:
        """Say what was waited for in vain."""
        if not isinstance(self.what, FrameRequest):
            return f"gave no answer to {self.what.kind} within {waited_s:.3g} s"
        expected_s = self.timer.expected_s
        expected = f"; {expected_s:.3g} s were expected" if expected_s else ""
        return f"gave no answer within {waited_s:.3g} s{expected}"


@dataclass
class Owed:
    """An answer that was given up, and is awaited before anything else is asked."""

    request: FrameRequest
    timer: AnswerTimer
    until_s: float

    @property
    def reason(self) -> str:
        """Why the device is asked for nothing."""
        return f"was late, and is at its answer of round {self.request.step.round} still"

    def ends_with(self, part: PartArrived, patience_s: float, now_s: float) -> bool:
        """Take a part of what may be this answer; whether it is the last."""
        answer = (self.request.answer_kind, self.request.answer_step)
        if (part.kind, part.step.first) != answer:
            return False
        self.wait_on(patience_s, now_s)
        return part.is_last and part.step.micro_batch + 1 == len(self.request.answers)

    def wait_on(self, patience_s: float, now_s: float) -> None:
        """Take note that the device is at it still."""
        self.until_s = max(self.until_s, now_s + patience_s)

    def shown(self, now_s: float) -> list[CoordinatorCommand]:
        """Say how long the answer took after all, if that tells anything."""
        took_s = self.timer.waited_s(now_s=now_s)
        return [NoteLateAnswer(took_s)] if self.timer.is_undisturbed else []


def _send_again(kind: FrameKind, step: StepId, chunks: Ranges) -> SendCommand:
    named = {"answer": kind.name.lower(), "chunks": chunks}
    return SendCommand(SendAgain.model_validate(address(step) | named))


def is_answer(request: Asked, reply: AnyReply) -> bool:
    """Whether a reply is just what was asked for."""
    match request, reply:
        case Assignment(), Ready():
            return reply.run == request.run
        case Join(), Joined():
            return turn_of(reply) == turn_of(request)
        case MeasureLink(), LinkMeasured():
            return reply.probe == request.probe
    return False


def _lacked_of(join: Join, reply: NeedGraphs) -> GraphsOffer | FrozenOffer | None:
    """Find what a device asks for among what it was offered."""
    offers = (join.graphs, join.frozen) if turn_of(reply) == turn_of(join) else ()
    return next((each for each in offers if each and each.digest == reply.digest), None)
