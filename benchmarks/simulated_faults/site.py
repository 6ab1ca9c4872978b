"""The site of a simulated run: devices, lines, a clock without time, and what goes wrong."""

import heapq
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from benchmarks.simulated_faults.device import CHUNK_BYTES, Item, SimulatedDevice
from runtime.errors import EdgeError
from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import (
    Arrived,
    Asked,
    BusBack,
    BusLost,
    CoordinatorCommand,
    CoordinatorEvent,
    Deliver,
    DeliverPart,
    GiveUp,
    NoteReady,
    PartArrived,
    ReplyArrived,
    Returned,
    SendCommand,
    SendParts,
    Went,
)
from runtime.protocol.events import FrameArrived, FrameSent
from runtime.wire.chunks.inbox import numbers_of
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, StepId, decode_chunk, encode_chunks

RUN, NUM_DEVICES = 7, 3
FAULTY_S = 200.0
"""Nothing goes wrong after that."""
MOST_S = 5000.0
"""A run that has not come to its end by then does not."""
MOST_WAITING = 2000


class SimulationError(EdgeError):
    """What must hold did not."""


@dataclass
class Peer:
    """A device as the simulation has it: both halves, the line between, and what is known."""

    session: CoordinatorSession
    device: SimulatedDevice
    is_ready: bool = False
    is_away: bool = False
    frames: dict[tuple[FrameKind, StepId], Frame] = field(default_factory=dict)
    """What it was sent for its last request, to send again what is missing."""
    line_s: tuple[float, float] = (0.0, 0.0)
    """When the line down and the line up are free."""
    epoch: int = 0
    """Counts broken connections: what was on its way before one is lost."""


class SimulatedSite(ABC):
    """Carries messages, lets time pass and devices compute; somebody else says what to ask."""

    def __init__(self, seed: int, *, is_faulty: bool) -> None:
        self.now_s = 0.0
        self._rng = np.random.default_rng(seed)
        self._is_faulty = is_faulty
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sessions = itertools.count()
        self._is_cut = False
        self.peers = {
            f"d{index}": Peer(
                CoordinatorSession(run=RUN, patience_s=60.0), SimulatedDevice(f"d{index}")
            )
            for index in range(NUM_DEVICES)
        }

    @abstractmethod
    def assign(self, device: str) -> None:
        """Give a device the job."""

    @abstractmethod
    def delivered(self, device: str, command: Deliver | DeliverPart) -> None:
        """Take an answer, or one micro-batch of it."""

    @abstractmethod
    def given_up(self, device: str, what: Asked, reason: str) -> None:
        """Go on without an answer."""

    def begin(self) -> None:
        """Start the devices, and what goes wrong."""
        for device in self.peers:
            self._start(device)
            if self._is_faulty:
                self.later(self._rng.exponential(40.0), partial(self._strike, device))
        if self._is_faulty:
            self.later(self._rng.exponential(80.0), self._cut)

    def happen(self) -> None:
        """Let the next thing happen; SimulationError if there is none, or too many wait."""
        if not self._heap:
            raise SimulationError(f"nothing happens any more after {self.now_s:.0f} s")
        self.now_s, _, happen = heapq.heappop(self._heap)
        if self.now_s > MOST_S or len(self._heap) > MOST_WAITING:
            raise SimulationError(f"{len(self._heap)} events wait at {self.now_s:.0f} s")
        happen()

    # Faults

    def _does(self, chance: float) -> bool:
        is_on = self._is_faulty and self.now_s < FAULTY_S
        return is_on and bool(self._rng.random() < chance)

    def _strike(self, device: str) -> None:
        """A device dies, or its connection breaks; it comes back."""
        if self.now_s > FAULTY_S:
            return
        peer, back_s = self.peers[device], self._rng.exponential(4.0)
        peer.epoch += 1
        if self._rng.random() < 0.5:
            self.later(back_s, partial(self._start, device))
        else:
            self.later(back_s, partial(self._return, device, peer.device))
        peer.is_away = True
        self.tell(device, Went())
        self.later(back_s + self._rng.exponential(40.0), partial(self._strike, device))

    def _return(self, device: str, same: SimulatedDevice) -> None:
        peer = self.peers[device]
        if peer.is_away and peer.device is same:
            peer.is_away = False
            self.tell(device, Returned())

    def _start(self, device: str) -> None:
        peer = self.peers[device]
        peer.device, peer.is_ready, peer.is_away = SimulatedDevice(device), False, False
        self.tell(device, Arrived(str(next(self._sessions))))
        self.assign(device)

    def _cut(self) -> None:
        """The coordinator's own connection breaks, or is there again."""
        if self._is_cut or self.now_s < FAULTY_S:
            self._is_cut = not self._is_cut
            for device, peer in self.peers.items():
                peer.epoch += 1
                self.tell(device, BusLost() if self._is_cut else BusBack())
            self.later(self._rng.exponential(8.0 if self._is_cut else 80.0), self._cut)

    # The lines

    def _carry(self, device: str, items: Sequence[Item], *, is_down: bool) -> float:
        """Put messages on a line; when the last of them is with the broker."""
        peer, lines = self.peers[device], list(self.peers[device].line_s)
        for item in items:
            lines[not is_down] = max(lines[not is_down], self.now_s) + 0.05
            due_s = lines[not is_down] - self.now_s
            if self._does(0.05):
                due_s += self._rng.exponential(2.0)
            for _ in range(self._does(0.05) + (not self._does(0.05))):
                arrive = partial(self._arrive, device, item, peer.device, peer.epoch, is_down)
                self.later(due_s, arrive)
        peer.line_s = (lines[0], lines[1])
        return lines[not is_down] - self.now_s

    def _arrive(
        self,
        device: str,
        item: Item,
        sender: SimulatedDevice,
        epoch: int,
        is_down: bool,  # noqa: FBT001
    ) -> None:
        peer = self.peers[device]
        if self._is_cut or peer.is_away or peer.device is not sender or peer.epoch != epoch:
            return
        if is_down:
            peer.device.receive(item)
            self._serve(device)
        elif isinstance(item, Message):
            self.tell(device, ReplyArrived(item))  # type: ignore[arg-type]
        else:
            chunk = decode_chunk(memoryview(item))
            frame = peer.session.frames.add(chunk)
            is_last = chunk.index + 1 == chunk.num_chunks
            part = PartArrived(chunk.kind, chunk.step, is_last=is_last)
            self.tell(device, FrameArrived(device, frame) if frame else part)

    def _serve(self, device: str) -> None:
        """Let a device compute and send."""
        peer = self.peers[device]
        replies, frames, has_work = peer.device.take()
        self._carry(device, replies, is_down=False)
        for frame, chunks in frames:
            sent_s = self._carry(device, chunks, is_down=False)
            done = partial(self._then, device, peer.device, partial(peer.device.note_sent, frame))
            self.later(sent_s, done)
        if has_work:
            work = partial(self._then, device, peer.device, peer.device.compute)
            self.later(self._rng.exponential(0.5), work)

    def _then(self, device: str, same: SimulatedDevice, act: Callable[[], None]) -> None:
        if self.peers[device].device is same:
            act()
            self._serve(device)

    # The coordinator's halves

    def later(self, seconds: float, happen: Callable[[], None]) -> None:
        """Let something happen after so many seconds."""
        heapq.heappush(self._heap, (self.now_s + seconds, next(self._order), happen))

    def tell(self, device: str, event: CoordinatorEvent) -> None:
        """Tell a device's session what happened, and do what it says."""
        session = self.peers[device].session
        self._do(device, session.handle(event, self.now_s))

    def _look(self, device: str) -> None:
        session = self.peers[device].session
        if session.next_timeout() <= self.now_s:
            self._do(device, session.handle_timeout(self.now_s))

    def _do(self, device: str, commands: list[CoordinatorCommand]) -> None:
        for command in commands:
            match command:
                case SendCommand(message):
                    self._carry(device, [message], is_down=True)
                case SendParts(kind, step, missing):
                    self.send(device, self.peers[device].frames[kind, step], missing)
                case Deliver() | DeliverPart():
                    self.delivered(device, command)
                case NoteReady():
                    self.peers[device].is_ready = True
                case GiveUp(what, reason):
                    self.given_up(device, what, reason)
        due_s = self.peers[device].session.next_timeout()
        if due_s < MOST_S:
            self.later(max(due_s - self.now_s, 0.0), partial(self._look, device))

    def send(self, device: str, frame: Frame, missing: tuple[tuple[int, int], ...] = ()) -> None:
        """Send a device a frame, or what is missing of it."""
        self.peers[device].frames[frame.kind, frame.step] = frame
        only = numbers_of(missing) if missing else None
        self._carry(
            device, [*encode_chunks(frame, chunk_bytes=CHUNK_BYTES, only=only)], is_down=True
        )
        self.tell(device, FrameSent(frame.kind, frame.step))
