"""Turns whose mini-batches go in micro-batches: each comes, is worked with and goes by itself.

As in `edge_coordinator.rounds.overlapped_cluster`, a device is asked for its next micro-batches
with the last of its gradients, while other devices may be behind. The server side is updated once
all have come, by sums in the order of devices and micro-batches: who was first changes no bit.
"""

from collections import Counter
from functools import partial

from benchmarks.simulated_faults.device import SPEC, Weights
from benchmarks.simulated_faults.job import (
    EPOCHS,
    PATIENCE,
    SimulatedJob,
    backpropagated,
    float_weights,
)
from benchmarks.simulated_faults.site import NUM_DEVICES
from runtime.protocol.coordinator_events import Abandoned, AskedFor, FrameRequest
from runtime.wire.frames import Frame, FrameKind, StepId


class MicroBatchesJob(SimulatedJob):
    """One job whose turns hold a conversation with each device."""

    def __init__(self, seed: int, *, is_faulty: bool, micro_batches: int) -> None:
        super().__init__(seed, is_faulty=is_faulty)
        self.micro_batches = micro_batches
        self._open = False
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._epoch = 0
        self._outstanding: dict[str, FrameRequest] = {}
        self._came: dict[tuple[str, StepId], Weights] = {}
        """Micro-batches that nothing has been computed from; some are of the next local epoch."""
        self._slopes: dict[tuple[str, int], Weights] = {}
        """Of the present local epoch, by device and micro-batch."""
        self._num_returned: Counter[str] = Counter()
        self._models: dict[str, Weights] = {}

    def begin_turn(self) -> None:
        """Send all the device-side model; each answers for itself."""
        self._begin_anew()
        self._open = True
        for device in self.peers:
            self._ask(device, FrameKind.MODEL, epoch=0)
            if not self._open:
                return  # It is gone, and so the turn is undone.
            self.send(device, Frame(FrameKind.MODEL, self.step(0), (self.weights,)))

    def frame_came(self, device: str, request: FrameRequest, frame: Frame) -> None:
        """Take a micro-batch, or the device-side model at the end."""
        if self._outstanding.get(device) is not request:
            return
        if frame.kind is FrameKind.WEIGHTS:
            self._models[device] = float_weights(frame)
            if len(self._models) == NUM_DEVICES:
                self._open = False
                self.finish_turn([self._models[each] for each in sorted(self._models)])
            return
        self._came[device, frame.step] = float_weights(frame)
        if frame.step.epoch == self._epoch:
            self.later(0.1, partial(self._compute, device, frame.step))

    def lost(self, device: str, request: FrameRequest, reason: str) -> None:  # noqa: ARG002
        """Undo the turn at once: nobody's answer is wanted any more."""
        if self._outstanding.get(device) is not request:
            return
        self._open = False
        outstanding, self._outstanding, self._came = self._outstanding, {}, {}
        for other in outstanding.keys() - {device}:
            self.tell(other, Abandoned(outstanding[other]))
        self.undo_turn()

    def _compute(self, device: str, step: StepId) -> None:
        """Work with a micro-batch, unless its turn was undone; its gradient goes at once."""
        smashed = self._came.pop((device, step), None)
        if smashed is None:
            return
        gradient, slope = backpropagated(smashed, self.server)
        self._slopes[device, step.micro_batch] = slope
        self._num_returned[device] += 1
        if self._num_returned[device] == self.micro_batches:
            self._ask(device, FrameKind.GRADIENT, epoch=step.epoch + 1)
        if self._open:
            self.send(device, Frame(FrameKind.GRADIENT, step, (gradient,)))
            self._end_epoch()

    def _end_epoch(self) -> None:
        """Update the server side once all micro-batches were worked with; then the next."""
        if len(self._slopes) < NUM_DEVICES * self.micro_batches:
            return
        self.update_server([self._slopes[each] for each in sorted(self._slopes)])
        self._slopes, self._num_returned = {}, Counter()
        self._epoch += 1
        for device, step in self._came:
            self.later(0.1, partial(self._compute, device, step))

    def _ask(self, device: str, kind: FrameKind, *, epoch: int) -> None:
        """Ask for the micro-batches of a local epoch; after the last, for the model."""
        is_model, is_last = kind is FrameKind.MODEL, epoch == EPOCHS
        before = self.step(epoch if is_model else epoch - 1)
        more = 0 if is_last else self.micro_batches - 1
        request = FrameRequest(
            kind,
            before,
            FrameKind.WEIGHTS if is_last else FrameKind.SMASHED,
            before if is_last else self.step(epoch),
            (SPEC,),
            more_specs=((SPEC,),) * more,
            num_parts=1 if is_model else self.micro_batches,
        )
        self._outstanding[device] = request
        self.tell(device, AskedFor(request, PATIENCE))
