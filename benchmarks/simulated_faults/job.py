"""A job of a tiny network, under faults from a seed: from the first assignment to the end."""

import hashlib
import itertools
from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.simulated_faults.device import SPEC, Weights, tensor
from benchmarks.simulated_faults.site import NUM_DEVICES, RUN, SimulatedSite
from runtime.errors import EdgeError
from runtime.protocol.coordinator_events import Asked, AskedFor, Deliver, FrameRequest
from runtime.protocol.events import DeviceLost, FrameArrived, Gathered
from runtime.protocol.gathering import Gathering
from runtime.protocol.timers import Allowance
from runtime.wire.commands import Assignment, Join, OptimizerSpec
from runtime.wire.frames import Frame, FrameKind, StepId

NUM_ROUNDS, EPOCHS = 4, 2
PATIENCE = Allowance(0.0, 60.0, is_learned=False)
ASSIGNMENT = Assignment(
    run=RUN, network="tiny", options={}, loss="mse", seed=0, batch_size=1, held_out=0.0,
    max_evaluation_samples=1, num_classes=None, optimizer=OptimizerSpec(), carry_state=False,
)  # fmt: skip


class SimulatedJob(SimulatedSite):
    """One job, from the first assignment to the last round."""

    def __init__(self, seed: int, *, is_faulty: bool) -> None:
        super().__init__(seed, is_faulty=is_faulty)
        self._turn = itertools.count()
        self._round, self._epoch, self._asked, self._num_joined = 1, 0, 0, 0
        self._join: Join | None = None
        self._gathering: Gathering | None = None
        self.weights = tensor(0.5)
        self.server = tensor(0.25)
        self._before = (self.weights, self.server)

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

    def _try_round(self) -> None:
        """Have all join, or wait until all can."""
        peers = self.peers.values()
        if not all(each.is_ready and each.session.state.name == "IDLE" for each in peers):
            self.later(1.0, self._try_round)
            return
        self._before = (self.weights, self.server)
        self._epoch, self._asked, self._gathering = 0, NUM_DEVICES, None
        self._join = Join(
            run=RUN, round=self._round, cluster=next(self._turn), purpose="train", cut=1,
            local_epochs=EPOCHS, learning_rate=0.1,
        )  # fmt: skip
        self._num_joined = 0
        for device in self.peers:
            self.tell(device, AskedFor(self._join, PATIENCE))

    def delivered(self, device: str, command: Deliver) -> None:
        """Take an answer: it may be the last that the next step waits for."""
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

    def given_up(self, device: str, what: Asked, reason: str) -> None:
        """Try again later, or go on without the device."""
        if isinstance(what, Assignment):
            self.later(5.0, partial(self.assign, device))
        elif isinstance(what, Join):
            self._settle_join()
        elif self._gathering is not None:
            self._gathered(self._gathering.handle(DeviceLost(device, reason)))

    def _settle_join(self) -> None:
        self._asked -= 1
        if self._asked:
            return
        if self._num_joined < NUM_DEVICES:
            self.later(1.0, self._try_round)
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
            self.tell(device, AskedFor(request, PATIENCE))
            if self.peers[device].session.asked_for(answer, answer_step):
                self.send(device, ())

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
            self.later(1.0, self._try_round)
        elif kind is FrameKind.SMASHED:
            self.later(0.1, partial(self._server_step, answers))
        else:
            self.weights = _mean(list(answers.values()))
            self._round += 1
            self.later(0.1, self._try_round)

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
