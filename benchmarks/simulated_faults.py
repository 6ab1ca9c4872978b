"""Simulated jobs under faults: `python -m benchmarks.simulated_faults --seeds N`.

Both halves of the protocol as they are, for several devices; the broker, the lines, the clock and a
network of four weights are simulated, so that a seed is a run and a run is some milliseconds.
Faults strike for a while: messages are lost, come twice or overtake each other, devices die and
come back, connections break on either side. A turn that loses somebody is undone and tried again,
so every run has to end in the bits of the undisturbed one. Ends with 1 and the seeds that failed.
"""

import argparse
import hashlib
import heapq
import itertools
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.simulated_device import SPEC, Item, SimulatedDevice, Weights, tensor
from runtime.errors import EdgeError
from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import (
    Arrived,
    AskedFor,
    BusBack,
    BusLost,
    CoordinatorCommand,
    CoordinatorEvent,
    Deliver,
    FrameRequest,
    GiveUp,
    NoteReady,
    PartArrived,
    ReplyArrived,
    Returned,
    SendCommand,
    SendParts,
    Went,
)
from runtime.protocol.events import DeviceLost, FrameArrived, FrameSent, Gathered
from runtime.protocol.gathering import Gathering
from runtime.protocol.timers import Allowance
from runtime.wire.commands import Assignment, Join, OptimizerSpec
from runtime.wire.fields import Message
from runtime.wire.frames import Frame, FrameKind, StepId, decode_chunk, encode_chunks
from runtime.wire.reassembly import numbers_of

RUN, NUM_ROUNDS, EPOCHS, NUM_DEVICES = 7, 4, 2, 3
FAULTY_S = 200.0
"""Nothing goes wrong after that."""
MOST_S = 5000.0
"""A run that has not come to its end by then does not."""
MOST_WAITING = 2000
CHUNK_BYTES = 16
PATIENCE = Allowance(0.0, 60.0, is_learned=False)
ASSIGNMENT = Assignment(
    run=RUN, network="tiny", options={}, loss="mse", seed=0, batch_size=1, held_out=0.0,
    max_evaluation_samples=1, num_classes=None, optimizer=OptimizerSpec(), carry_state=False,
)  # fmt: skip


class SimulationError(EdgeError):
    """What must hold did not."""


@dataclass
class Peer:
    """A device as the simulation has it: both halves, the line between, and what is known."""

    session: CoordinatorSession
    device: SimulatedDevice
    is_ready: bool = False
    is_away: bool = False
    frame: Frame | None = None
    line_s: tuple[float, float] = (0.0, 0.0)
    """When the line down and the line up are free."""
    epoch: int = 0
    """Counts broken connections: what was on its way before one is lost."""


class SimulatedJob:
    """One job, from the first assignment to the last round."""

    def __init__(self, seed: int, *, is_faulty: bool) -> None:
        self._rng = np.random.default_rng(seed)
        self._is_faulty = is_faulty
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._sessions = itertools.count()
        self._is_cut = False
        self._turn = itertools.count()
        self._round, self._epoch, self._asked = 1, 0, 0
        self._join: Join | None = None
        self._gathering: Gathering | None = None
        self._requests: dict[str, FrameRequest] = {}
        self.weights = tensor(0.5)
        self.server = tensor(0.25)
        self._before = (self.weights, self.server)
        self.peers = {
            f"d{index}": Peer(
                CoordinatorSession(run=RUN, patience_s=60.0), SimulatedDevice(f"d{index}")
            )
            for index in range(NUM_DEVICES)
        }

    def run(self) -> str:
        """Run to the end; the hash of the weights."""
        for device in self.peers:
            self._start(device)
            if self._is_faulty:
                self._later(self._rng.exponential(40.0), partial(self._strike, device))
        if self._is_faulty:
            self._later(self._rng.exponential(80.0), self._cut)
        self._later(0.1, self._try_round)
        while self._round <= NUM_ROUNDS:
            if not self._heap:
                raise SimulationError(f"nothing happens any more in round {self._round}")
            self.now_s, _, happen = heapq.heappop(self._heap)
            if self.now_s > MOST_S or len(self._heap) > MOST_WAITING:
                raise SimulationError(
                    f"round {self._round} at {self.now_s:.0f} s, {len(self._heap)} events wait"
                )
            happen()
        return hashlib.sha256(self.weights.tobytes() + self.server.tobytes()).hexdigest()

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
            self._later(back_s, partial(self._start, device))
        else:
            self._later(back_s, partial(self._return, device, peer.device))
        peer.is_away = True
        self._tell(device, Went())
        self._later(back_s + self._rng.exponential(40.0), partial(self._strike, device))

    def _return(self, device: str, same: SimulatedDevice) -> None:
        peer = self.peers[device]
        if peer.is_away and peer.device is same:
            peer.is_away = False
            self._tell(device, Returned())

    def _start(self, device: str) -> None:
        peer = self.peers[device]
        peer.device, peer.is_ready, peer.is_away = SimulatedDevice(device), False, False
        self._tell(device, Arrived(str(next(self._sessions))))
        self._assign(device)

    def _cut(self) -> None:
        """The coordinator's own connection breaks, or is there again."""
        if self._is_cut or self.now_s < FAULTY_S:
            self._is_cut = not self._is_cut
            for device, peer in self.peers.items():
                peer.epoch += 1
                self._tell(device, BusLost() if self._is_cut else BusBack())
            self._later(self._rng.exponential(8.0 if self._is_cut else 80.0), self._cut)

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
                self._later(due_s, arrive)
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
            self._tell(device, ReplyArrived(item))  # type: ignore[arg-type]
        else:
            chunk = decode_chunk(memoryview(item))
            frame = peer.session.frames.add(chunk)
            is_last = chunk.index + 1 == chunk.num_chunks
            part = PartArrived(chunk.kind, chunk.step, is_last=is_last)
            self._tell(device, FrameArrived(device, frame) if frame else part)

    def _serve(self, device: str) -> None:
        """Let a device compute and send."""
        peer = self.peers[device]
        replies, frames, has_work = peer.device.take()
        self._carry(device, replies, is_down=False)
        for frame, chunks in frames:
            sent_s = self._carry(device, chunks, is_down=False)
            done = partial(self._then, device, peer.device, partial(peer.device.note_sent, frame))
            self._later(sent_s, done)
        if has_work:
            work = partial(self._then, device, peer.device, peer.device.compute)
            self._later(self._rng.exponential(0.5), work)

    def _then(self, device: str, same: SimulatedDevice, act: Callable[[], None]) -> None:
        if self.peers[device].device is same:
            act()
            self._serve(device)

    # The coordinator

    def _later(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now_s + seconds, next(self._order), happen))

    def _tell(self, device: str, event: CoordinatorEvent) -> None:
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
                case SendParts(missing=missing):
                    self._send(device, missing)
                case Deliver():
                    self._delivered(device, command)
                case NoteReady():
                    self.peers[device].is_ready = True
                case GiveUp(what, reason):
                    self._given_up(device, what, reason)
        due_s = self.peers[device].session.next_timeout()
        if due_s < MOST_S:
            self._later(max(due_s - self.now_s, 0.0), partial(self._look, device))

    def _send(self, device: str, missing: tuple[tuple[int, int], ...]) -> None:
        frame = self.peers[device].frame
        assert frame is not None
        only = numbers_of(missing) if missing else None
        self._carry(
            device, [*encode_chunks(frame, chunk_bytes=CHUNK_BYTES, only=only)], is_down=True
        )
        self._tell(device, FrameSent(frame.kind, frame.step))

    def _assign(self, device: str) -> None:
        if not self.peers[device].is_ready and not self.peers[device].session.state.value > 1:
            self._tell(device, AskedFor(ASSIGNMENT, PATIENCE))

    def _try_round(self) -> None:
        """Have all join, or wait until all can."""
        peers = self.peers.values()
        if not all(each.is_ready and each.session.state.name == "IDLE" for each in peers):
            self._later(1.0, self._try_round)
            return
        self._before = (self.weights, self.server)
        self._epoch, self._asked, self._gathering = 0, NUM_DEVICES, None
        self._join = Join(
            run=RUN, round=self._round, cluster=next(self._turn), purpose="train", cut=1,
            local_epochs=EPOCHS, learning_rate=0.1,
        )  # fmt: skip
        self._num_joined = 0
        for device in self.peers:
            self._tell(device, AskedFor(self._join, PATIENCE))

    def _delivered(self, device: str, command: Deliver) -> None:
        match command.what:
            case Assignment():
                self.peers[device].is_ready = True
            case Join():
                self._num_joined += 1
                self._settle_join()
            case FrameRequest():
                assert isinstance(command.answer, Frame)
                assert self._gathering is not None
                self._gathered(self._gathering.handle(FrameArrived(device, command.answer)))

    def _given_up(self, device: str, what: object, reason: str) -> None:
        if isinstance(what, Assignment):
            self._later(5.0, partial(self._assign, device))
        elif isinstance(what, Join):
            self._settle_join()
        elif self._gathering is not None:
            self._gathered(self._gathering.handle(DeviceLost(device, reason)))

    def _settle_join(self) -> None:
        self._asked -= 1
        if self._asked:
            return
        if self._num_joined < NUM_DEVICES:
            self._later(1.0, self._try_round)
        else:
            self._ask_all(FrameKind.MODEL, dict.fromkeys(self.peers, self.weights))

    def _ask_all(self, kind: FrameKind, tensors: dict[str, Weights]) -> None:
        assert self._join is not None
        is_last = kind is FrameKind.GRADIENT and self._epoch + 1 == EPOCHS
        step = StepId(RUN, self._round, self._join.cluster, self._epoch)
        self._epoch += kind is FrameKind.GRADIENT and not is_last
        answer = FrameKind.WEIGHTS if is_last else FrameKind.SMASHED
        answer_step = StepId(RUN, self._round, self._join.cluster, self._epoch)
        request = FrameRequest(kind, step, answer, answer_step, (SPEC,))
        self._gathering = Gathering(answer, answer_step, dict.fromkeys(tensors, (SPEC,)))
        for device, each in tensors.items():
            self.peers[device].frame = Frame(kind, step, (each,))
            self._tell(device, AskedFor(request, PATIENCE))
            if self.peers[device].session.asked_for(answer, answer_step):
                self._send(device, ())

    def _gathered(self, gathered: list[Gathered]) -> None:
        """Take a server step, or the average; or undo the turn that has lost somebody."""
        if not gathered:
            return
        kind = self._gathering.kind if self._gathering else FrameKind.SMASHED
        self._gathering = None
        answers = {
            device: tensors[0].astype(np.float32) for device, tensors in gathered[0].answers.items()
        }
        if gathered[0].lost:
            self.weights, self.server = self._before
            self._later(1.0, self._try_round)
        elif kind is FrameKind.SMASHED:
            self._later(0.1, partial(self._server_step, answers))
        else:
            self.weights = _mean(list(answers.values()))
            self._round += 1
            self._later(0.1, self._try_round)

    def _server_step(self, smashed: dict[str, Weights]) -> None:
        errors = {device: each * self.server - 1 for device, each in smashed.items()}
        gradients = {device: error * self.server for device, error in errors.items()}
        slopes = [errors[device] * smashed[device] for device in sorted(errors)]
        self.server = self.server - np.float32(0.1) * _mean(slopes)
        self._ask_all(FrameKind.GRADIENT, gradients)


def _mean(tensors: Sequence[Weights]) -> Weights:
    mean: Weights = np.add.reduce(tensors) / np.float32(len(tensors))
    return mean


def undisturbed() -> str:
    """Give the hash of the run that nothing happens to."""
    return SimulatedJob(0, is_faulty=False).run()


def why_wrong(seed: int, expected: str) -> str:
    """Say what is wrong with a seed's run; nothing if all is as it should be."""
    try:
        ended = SimulatedJob(seed, is_faulty=True).run()
    except (EdgeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"
    return "" if ended == expected else f"ended in {ended[:12]}, undisturbed is {expected[:12]}"


def main() -> int:
    """Run the seeds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="how many (1000)")
    parser.add_argument(
        "--first", type=int, default=0, metavar="SEED", help="the first of them (0)"
    )
    arguments = parser.parse_args()
    expected, num_wrong = undisturbed(), 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        if wrong := why_wrong(seed, expected):
            num_wrong += 1
            print(f"seed {seed}: {wrong}", flush=True)
    print(f"{arguments.seeds - num_wrong} of {arguments.seeds} seeds ended in {expected[:12]}")
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
