"""Both halves of the protocol joined by two wires: no loop, no clock, nothing to learn."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.simulated_faults.device import Item, event_of
from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import (
    Arrived,
    Asked,
    AskedFor,
    CoordinatorCommand,
    CoordinatorEvent,
    Deliver,
    DeliverPart,
    FrameRequest,
    GiveUp,
    NoteLost,
    PartArrived,
    ReplyArrived,
    SendCommand,
    SendParts,
)
from runtime.protocol.device import DeviceSession
from runtime.protocol.events import (
    BackwardDone,
    CollectWeights,
    DeviceCommand,
    DeviceEvent,
    ForwardDone,
    FrameArrived,
    FrameSent,
    LoadModel,
    OpenPass,
    PassOpened,
    Prepare,
    Prepared,
    RunBackward,
    RunForward,
    SendFrame,
    SendReply,
    WeightsCollected,
)
from runtime.protocol.timers import Allowance
from runtime.wire.chunks.inbox import numbers_of
from runtime.wire.commands import Assignment, Join, Stop
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, decode_chunk, encode_chunks
from runtime.wire.frames import spec_of as spec
from tests.turn import ASSIGNMENT, CLUSTER, JOIN, READY, RUN

NUM_VALUES = 40
CHUNK_BYTES = 64
EPOCHS = JOIN.local_epochs


def tensor_of(step: StepId, what: float) -> tuple[Tensor, ...]:
    """Give a tensor that tells where it comes from."""
    value = 100 * step.round + 10 * step.epoch + what + step.micro_batch / 8
    return (np.full(NUM_VALUES, value, np.float32),)


def is_foreign(frame: Frame, what: float) -> bool:
    """Whether a frame holds anything but its own step's tensor."""
    return frame.tensors[0].tobytes() != tensor_of(frame.step, what)[0].tobytes()


SPEC = spec(tensor_of(StepId(0, 0, 0, 0), 0)[0])


@dataclass
class DeviceEnd:
    """A device, and what it is to send and to compute."""

    parts: int = 1
    """Micro-batches of a mini-batch."""
    session: DeviceSession = field(default_factory=DeviceSession)
    work: list[DeviceCommand] = field(default_factory=list)
    updates: list[StepId] = field(default_factory=list)
    """Steps whose gradients were applied."""
    up: list[Item] = field(default_factory=list)

    def receive(self, item: Item) -> None:
        """Take what came down the wire."""
        event = event_of(self.session, item)
        if isinstance(event, FrameArrived):
            frame = event.frame
            assert not is_foreign(frame, 1 if frame.kind is FrameKind.MODEL else 2)
        if event is not None:
            self._do(event)

    def is_over(self, command: DeviceCommand) -> bool:
        """Whether it is to begin what something else has taken the place of: an agent skips it."""
        match command:
            case Prepare(assignment):
                return assignment is not self.session.assignment
            case OpenPass(join):
                return join is not self.session.join
        return False

    def compute(self) -> None:
        """Do the next piece of work."""
        done: DeviceEvent | None = None
        while self.work and done is None:
            command = self.work.pop(0)
            done = None if self.is_over(command) else self._compute(command)
        if done is not None:
            self._do(done)

    def _compute(self, command: DeviceCommand) -> DeviceEvent | None:
        match command:
            case Prepare():
                return Prepared(READY)
            case OpenPass(join):
                is_joined = join.aggregated is not None and join.micro_batches is None
                more = 1 if is_joined else self.parts - 1
                return PassOpened(join, (SPEC,), (SPEC,), ((SPEC,),) * more)
            case RunBackward(step, gradient, is_last=is_last):
                assert _step_in(gradient) == step
                assert not gradient[1:] or _step_in(gradient[1:]) == step.part(1)
                self.updates.append(step)
                return None if is_last else BackwardDone(step)
            case RunForward(step):
                return ForwardDone(step, tensor_of(step, 3))
            case CollectWeights(step):
                return WeightsCollected(step, tensor_of(step, 4))
            case _:
                assert isinstance(command, LoadModel)
        return None

    def _do(self, event: DeviceEvent) -> None:
        for command in self.session.handle(event):
            match command:
                case SendReply(message):
                    self.up.append(message)
                case SendFrame(frame, missing):
                    self.up += _chunks(frame, missing)
                    self.session.handle(FrameSent(frame.kind, frame.step))
                case _:
                    self.work.append(command)


def _step_in(gradient: Sequence[Tensor]) -> StepId:
    exact = float(gradient[0][0])
    value = int(exact)
    return StepId(RUN, value // 100, CLUSTER, value % 100 // 10, round(8 * (exact - value)))


def _chunks(frame: Frame, missing: tuple[tuple[int, int], ...]) -> list[bytes]:
    only = numbers_of(missing) if missing else None
    return list(encode_chunks(frame, chunk_bytes=CHUNK_BYTES, only=only))


class CoordinatorEnd:
    """The coordinator of one device: it asks for one turn after the other, whatever happens."""

    def __init__(self, parts: int = 1, *, aggregates: bool = False) -> None:
        """With `aggregates` the gradient of a whole mini-batch comes in two frames."""
        self.parts = parts
        several = {"micro_batches": parts} if parts > 1 else {}
        self._join = JOIN.model_copy(update={"aggregated": 1} | several) if aggregates else JOIN
        self._num_gradients = 2 if aggregates and parts == 1 else parts
        self.session = CoordinatorSession(run=RUN, patience_s=60.0)
        self.now_s = 0.0
        self.round = 0
        self.asked: Asked | None = None
        self.next: Assignment | Join | int = ASSIGNMENT
        """What to ask next; a number is that of the answers there are to this turn's frames."""
        self.down: list[Item] = []
        self.turns: list[int] = []
        """Rounds that came to their ends."""
        self.given_up: list[str] = []
        self._frames: dict[tuple[FrameKind, StepId], Frame] = {}
        """By kind and step, what was sent in this turn."""

    def tell(self, event: CoordinatorEvent) -> None:
        """Tell the session what happened."""
        self._do(self.session.handle(event, self.now_s))

    def wait(self, seconds: float) -> None:
        """Let time pass, and do what is due by then."""
        self.now_s += seconds
        if self.session.next_timeout() <= self.now_s:
            self._do(self.session.handle_timeout(self.now_s))

    def arrive(self, session: str) -> None:
        """Have the device show up as a new session, which needs the job."""
        self.tell(Arrived(session))
        self.next = ASSIGNMENT

    def ask(self) -> None:
        """Ask for what is next."""
        allowance = Allowance(1.0, 60.0, is_learned=False)
        if isinstance(self.next, int):
            request, frames = self._frame_request(self.next)
            self.asked = request
            self.tell(AskedFor(request, allowance))
            for frame in frames:
                if self.asked is request and (frame.kind, frame.step) not in self._frames:
                    self._send(frame, ())
        else:
            self.asked = self.next
            self.tell(AskedFor(self.next, allowance))

    def receive(self, item: Item) -> None:
        """Take what came up the wire."""
        if isinstance(item, Message):
            self.tell(ReplyArrived(item))  # type: ignore[arg-type]
            return
        chunk = decode_chunk(memoryview(item))
        frame = self.session.frames.add(chunk)
        if frame is not None:
            self.tell(FrameArrived("", frame))
        else:
            is_last = chunk.index + 1 == chunk.num_chunks
            self.tell(PartArrived(chunk.kind, chunk.step, is_last=is_last))

    def _frame_request(self, num_answers: int) -> tuple[FrameRequest, list[Frame]]:
        is_first = not num_answers
        step = StepId(RUN, self.round, CLUSTER, max(num_answers - 1, 0))
        kind = FrameKind.MODEL if is_first else FrameKind.GRADIENT
        is_last = num_answers == EPOCHS
        answer = FrameKind.WEIGHTS if is_last else FrameKind.SMASHED
        answer_step = StepId(RUN, self.round, CLUSTER, min(num_answers, EPOCHS - 1))
        if is_first:
            self._frames.clear()
        steps = [step.part(index) for index in range(1 if is_first else self._num_gradients)]
        frames = [Frame(kind, each, tensor_of(each, 1 if is_first else 2)) for each in steps]
        request = FrameRequest(
            *(kind, step, answer, answer_step, (SPEC,)),
            more_specs=() if is_last else ((SPEC,),) * (self.parts - 1),
            num_parts=len(steps),
        )
        return request, frames

    def _do(self, commands: list[CoordinatorCommand]) -> None:
        for command in commands:
            match command:
                case SendCommand(message):
                    self.down.append(message)
                case SendParts(kind, step, missing):
                    self._send(self._frames[kind, step], missing)
                case DeliverPart(_, frame):
                    self._give_back_early(frame)
                case Deliver():
                    self._deliver(command)
                case GiveUp(what, reason):
                    assert what is self.asked
                    self.asked = None
                    self.given_up.append(reason)
                    if not isinstance(what, Assignment):
                        self._next_round()
                case NoteLost():
                    self.down.append(Stop(run=RUN))
                    self.next = ASSIGNMENT

    def _give_back_early(self, smashed: Frame) -> None:
        """Return the gradient of a micro-batch before the others have come."""
        assert not is_foreign(smashed, 3)
        gradient = Frame(FrameKind.GRADIENT, smashed.step, tensor_of(smashed.step, 2))
        self._send(gradient, ())

    def _send(self, frame: Frame, missing: tuple[tuple[int, int], ...]) -> None:
        self._frames[frame.kind, frame.step] = frame
        self.down += _chunks(frame, missing)
        self.tell(FrameSent(frame.kind, frame.step))

    def _deliver(self, command: Deliver) -> None:
        assert command.what is self.asked
        self.asked = None
        match command.what:
            case Assignment():
                self._next_round()
            case Join():
                self.next = 0
            case FrameRequest():
                assert isinstance(command.answer, Frame)
                is_last = command.answer.kind is FrameKind.WEIGHTS
                assert not is_foreign(command.answer, 4 if is_last else 3)
                self.next = self.next + 1 if isinstance(self.next, int) else self.next
                if is_last:
                    self.turns.append(self.round)
                    self._next_round()

    def _next_round(self) -> None:
        self.round += 1
        self.next = self._join.model_copy(update={"round": self.round})
