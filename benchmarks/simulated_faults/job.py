"""A job of a tiny network, under faults from a seed: from the first assignment to the end."""

import hashlib
import itertools
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.simulated_faults.device import Weights, tensor
from benchmarks.simulated_faults.site import NUM_DEVICES, RUN, SimulatedSite
from runtime.protocol.coordinator_events import (
    Asked,
    AskedFor,
    Deliver,
    DeliverPart,
    FrameRequest,
)
from runtime.protocol.timers import Allowance
from runtime.wire.commands import Assignment, Join, OptimizerSpec
from runtime.wire.frames import Frame, StepId

NUM_ROUNDS, EPOCHS = 4, 2
LEARNING_RATE = np.float32(0.1)
PATIENCE = Allowance(0.0, 60.0, is_learned=False)
ASSIGNMENT = Assignment(
    run=RUN, network="tiny", options={}, loss="mse", seed=0, batch_size=1, held_out=0.0,
    max_evaluation_samples=1, num_classes=None, optimizer=OptimizerSpec(), carry_state=False,
)  # fmt: skip


class SimulatedJob(SimulatedSite):
    """One job; what goes to and fro in a turn that all have joined, somebody else says."""

    micro_batches = 1
    aggregated: int | None = None
    """Values of each device's gradient that are the same for all."""

    def __init__(self, seed: int, *, is_faulty: bool) -> None:
        super().__init__(seed, is_faulty=is_faulty)
        self._clusters = itertools.count()
        self._round, self._num_settled, self._num_joined = 1, 0, 0
        self._join: Join | None = None
        self.weights = tensor(0.5)
        self.server = tensor(0.25)
        self._before = (self.weights, self.server)

    @abstractmethod
    def begin_turn(self) -> None:
        """Send all the device-side model: each has joined."""

    @abstractmethod
    def frame_came(self, device: str, request: FrameRequest, frame: Frame) -> None:
        """Take a frame of an answer."""

    @abstractmethod
    def lost(self, device: str, request: FrameRequest, reason: str) -> None:
        """Take note that a device is out of the turn."""

    def run(self) -> str:
        """Run to the end; the hash of the weights."""
        self.begin()
        self.later(0.1, self._try_round)
        while self._round <= NUM_ROUNDS:
            self.happen()
        return hashlib.sha256(self.weights.tobytes() + self.server.tobytes()).hexdigest()

    def assign(self, device: str) -> None:
        """Give a device the job, unless it has it or is at something."""
        if not self.peers[device].is_ready and not self.peers[device].session.state.value > 1:
            self.tell(device, AskedFor(ASSIGNMENT, PATIENCE))

    def delivered(self, device: str, command: Deliver | DeliverPart) -> None:
        """Take an answer: it may be the last that the next step waits for."""
        match command.what:
            case Assignment():
                self.peers[device].is_ready = True
            case Join():
                self._num_joined += 1
                self._settle_join()
            case FrameRequest():
                assert isinstance(command.answer, Frame)
                self.frame_came(device, command.what, command.answer)

    def given_up(self, device: str, what: Asked, reason: str) -> None:
        """Try again later, or go on without the device."""
        match what:
            case Assignment():
                self.later(5.0, partial(self.assign, device))
            case Join():
                self._settle_join()
            case FrameRequest():
                self.lost(device, what, reason)

    def step(self, epoch: int) -> StepId:
        """Name a local epoch of this turn."""
        assert self._join is not None
        return StepId(RUN, self._round, self._join.cluster, epoch)

    def update_server(self, slopes: Sequence[Weights]) -> None:
        """Take a step of the server side."""
        self.server = self.server - LEARNING_RATE * _mean(slopes)

    def finish_turn(self, models: Sequence[Weights]) -> None:
        """Go on to the next round, with the average."""
        self.weights = _mean(models)
        self._round += 1
        self.later(0.1, self._try_round)

    def undo_turn(self) -> None:
        """Try it again, from what was before."""
        self.weights, self.server = self._before
        self.later(1.0, self._try_round)

    def _try_round(self) -> None:
        """Have all join, or wait until all can."""
        peers = self.peers.values()
        if not all(each.is_ready and each.session.state.name == "IDLE" for each in peers):
            self.later(1.0, self._try_round)
            return
        self._before = (self.weights, self.server)
        self._num_settled = self._num_joined = 0
        self._join = Join(
            run=RUN, round=self._round, cluster=next(self._clusters), purpose="train", cut=1,
            local_epochs=EPOCHS, learning_rate=float(LEARNING_RATE),
            micro_batches=self.micro_batches if self.micro_batches > 1 else None,
            aggregated=self.aggregated,
        )  # fmt: skip
        for device in self.peers:
            self.tell(device, AskedFor(self._join, PATIENCE))

    def _settle_join(self) -> None:
        self._num_settled += 1
        if self._num_settled < NUM_DEVICES:
            return
        if self._num_joined < NUM_DEVICES:
            self.later(1.0, self._try_round)
            return
        for peer in self.peers.values():
            peer.frames.clear()
        self.begin_turn()


def backpropagated(smashed: Weights, server: Weights) -> tuple[Weights, Weights]:
    """Give the gradient of smashed data, and of the server side."""
    error = smashed * server - 1
    return error * server, error * smashed


def float_weights(frame: Frame) -> Weights:
    """Read the only tensor of a frame."""
    return frame.tensors[0].astype(np.float32)


def _mean(tensors: Sequence[Weights]) -> Weights:
    mean: Weights = np.add.reduce(tensors) / np.float32(len(tensors))
    return mean
