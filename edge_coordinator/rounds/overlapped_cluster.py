"""A cluster reached over the bus whose mini-batches go in micro-batches.

Each device has a conversation of its own: it is asked for its next micro-batches once it has been
given all its gradients, while others may be behind. Micro-batches of one device are taken in order.
Of several devices the one goes first that has the most to do after, by the plan: so the last of
them is done as early as can be (Jackson's rule). Whatever goes first, the sums are the same.

Where the first samples are aggregated they are micro-batches of their own. Each of these is taken
once that of all devices is there, and its gradient is published once, on the cluster's topic.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from edge_coordinator.devices.deadlines import Answer
from edge_coordinator.devices.turn_answers import AnswerTaken, TurnAnswers
from edge_coordinator.rounds.members import Late
from edge_coordinator.rounds.remote_cluster import RemoteCluster
from edge_coordinator.training.algorithm import Collected, Smashed
from edge_coordinator.training.overlapped_turn import AggregatedMicroBatch, MicroBatch
from runtime.protocol.coordinator_events import FrameRequest
from runtime.protocol.events import Gathered
from runtime.wire.codecs.turn import together
from runtime.wire.frames import Frame, FrameKind, Tensor, TensorSpec
from runtime.wire.micro_batches import FirstSamples, Rows, parted

SMALL_BYTES = 32_000
"""A thread takes longer to wake up than to encode or decode as much."""


class OverlappedCluster(RemoteCluster):
    """One cluster's turn, as `overlapped_turn.OverlappingCluster` has it; close it after."""

    _rows: Mapping[str, tuple[Rows, ...]]

    def open(self, tails_s: Mapping[str, float], *, batch_size: int) -> None:
        """Begin; `tails_s` is what each device has to do with its gradients, as far as known.

        `batch_size` is the job's.
        """
        micro_batches, count = self._turn.micro_batches or 1, self.aggregated
        first = FirstSamples.of(count, micro_batches=micro_batches, batch_size=batch_size)
        self._rows = {
            device: parted(member.batch_size, micro_batches, first if count else None)
            for device, member in self._members.items()
        }
        self._num_first = first.micro_batches if count else 0
        self._num_together: Counter[int] = Counter()
        """By local epoch, micro-batches that were taken of all devices at once."""
        self._tails_s = tails_s
        self._answers = TurnAnswers()
        self._asked: dict[str, tuple[Answer, float]] = {}
        """By device, what it was asked for last, and when."""
        self._came: dict[tuple[str, int, int], Frame] = {}
        """By device, local epoch and micro-batch."""
        self._models: dict[str, tuple[Tensor, ...]] = {}
        self._num_taken: Counter[str] = Counter()
        self._num_returned: Counter[str] = Counter()
        self._num_present = len(self._members)
        self._sending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Send nothing any more."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    @property
    def batch_sizes(self) -> Mapping[str, int]:
        """Samples that each device that is left sends in a local epoch."""
        return {device: self._rows[device][0].of for device in self._members}

    async def micro_batches(self) -> AsyncIterator[MicroBatch | AggregatedMicroBatch]:
        """Those of the next local epoch as they come, until all have that are to come."""
        self._num_taken.clear()
        self._num_returned.clear()
        self._num_present = len(self._members)
        while any(self._num_taken[d] < len(self._rows[d]) for d in self._members):
            taken = await self._take_next()
            if taken is None:
                await self._answers.until_news()
            else:
                yield taken
            self._take_news()
        self.arrived_at_s.append(time.monotonic())
        self._epoch += 1

    async def give_back(self, micro_batch: MicroBatch, gradient: Tensor | None) -> None:
        """Return its gradient to the device, without waiting until it is there."""
        device, index = micro_batch.device, micro_batch.index
        if device not in self._members:
            return
        tensors = await self._encoded_part(gradient, device=device, index=index)
        self._note_returned(device)
        if device not in self._answers.gone:
            step = self._step(self._epoch).part(index)
            self._start(self._channel.send(device, Frame(FrameKind.GRADIENT, step, tensors)))

    async def give_to_all(self, batch: AggregatedMicroBatch, gradient: Tensor | None) -> None:
        """Return one gradient to all devices, without waiting until it is there."""
        if gradient is None:  # Nothing learns on the devices.
            for each in batch.parts.values():
                await self.give_back(each, None)
            return
        all_of_them = together(self._members)
        tensors = await self._encoded_part(gradient, device=all_of_them, index=batch.index)
        for device in self._members:
            self._note_returned(device)
        present = dict.fromkeys(d for d in self._members if d not in self._answers.gone)
        frame = Frame(FrameKind.GRADIENT, self._step(self._epoch).part(batch.index), tensors)
        self._start(self._channel.publish(present, frame))

    async def _encoded_part(
        self, gradient: Tensor | None, *, device: str, index: int
    ) -> tuple[Tensor, ...]:
        plain, kind = self._scaled(gradient, self._num_present), FrameKind.GRADIENT
        encode = partial(self._coder.encode, kind, plain, device=device, epoch=self._epoch)
        return await self._coded(plain, kind, partial(encode, micro_batch=index))

    async def _coded(
        self, tensors: Sequence[Tensor], kind: FrameKind, code: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Encode or decode; in a thread if that takes longer than to get there."""
        is_small = sum(tensor.nbytes for tensor in tensors) <= SMALL_BYTES
        is_at_once = is_small or self._coder.is_raw(kind)
        return code() if is_at_once else await asyncio.to_thread(code)

    def _note_returned(self, device: str) -> None:
        """Ask a device for what follows as the last of its gradients goes out."""
        self._num_returned[device] += 1
        if self._num_returned[device] == len(self._rows[device]):
            self._ask(device, self._next_request(device))

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        while self._members.keys() - self._models.keys():
            await self._answers.until_news()
            self._take_news()
        gathered = {device: self._models[device] for device in sorted(self._members)}
        self.finished = tuple(gathered)
        self._epoch = self.local_epochs - 1
        return Collected(await self._decoded(FrameKind.WEIGHTS, Gathered(gathered, {})))

    def _expect(
        self,
        kind: FrameKind,  # noqa: ARG002
        answer: Answer,  # noqa: ARG002
        requests: Mapping[str, Sequence[Frame]],
    ) -> None:
        """Ask all for their first micro-batches: the model is on its way."""
        self._channel.listen_for(self._answers)
        for device, frames in requests.items():
            self._ask(device, self._smashed_request(device, frames[0].kind, epoch=0))

    def _next_request(self, device: str) -> FrameRequest:
        """What follows from the gradients of the present local epoch."""
        if self._epoch + 1 < self.local_epochs:
            return self._smashed_request(device, FrameKind.GRADIENT, epoch=self._epoch + 1)
        step, kind = self._step(self._epoch), FrameKind.WEIGHTS
        specs = self._coder.specs(kind, self._specs(kind, self._members[device]))
        parts = len(self._rows[device])
        return FrameRequest(FrameKind.GRADIENT, step, kind, step, specs, num_parts=parts)

    def _smashed_request(self, device: str, kind: FrameKind, *, epoch: int) -> FrameRequest:
        rows, is_model = self._rows[device], kind is FrameKind.MODEL
        specs, *more = (
            self._coder.specs(FrameKind.SMASHED, self._part_specs(device, each)) for each in rows
        )
        return FrameRequest(
            kind,
            self._step(0 if is_model else epoch - 1),
            FrameKind.SMASHED,
            self._step(epoch),
            specs,
            more_specs=tuple(more),
            num_parts=1 if is_model else len(rows),
        )

    def _part_specs(self, device: str, rows: Rows) -> tuple[TensorSpec, ...]:
        member = self._members[device]
        return self._specs(FrameKind.SMASHED, replace(member, batch_size=len(rows)))

    def _ask(self, device: str, request: FrameRequest) -> None:
        answer = Answer.LAST if request.answer_kind is FrameKind.WEIGHTS else Answer.NEXT
        answer = Answer.FIRST if request.kind is FrameKind.MODEL else answer
        self._asked[device] = (answer, time.monotonic())
        self._answers.outstanding[device] = request
        self._channel.ask(device, request, self._question_of(answer))

    async def _take_next(self) -> MicroBatch | AggregatedMicroBatch | None:
        """Take what is there of all devices, or whose turn it is; None while nothing is there."""
        index = self._num_together[self._epoch]
        if index < self._num_first and all(
            (device, self._epoch, index) in self._came for device in self._members
        ):
            self._num_together[self._epoch] += 1
            parts = {device: await self._take(device, index) for device in sorted(self._members)}
            return AggregatedMicroBatch(index, parts)
        device = self._next_device()
        return None if device is None else await self._take(device, self._next_of(device)[2])

    def _next_device(self) -> str | None:
        """Whose micro-batch to compute next: who has the most to do with what is left."""
        ready = [device for device in self._members if self._next_of(device) in self._came]
        return min(ready, key=lambda device: (-self._tail_s(device), device), default=None)

    def _next_of(self, device: str) -> tuple[str, int, int]:
        """Which of those that it does not share."""
        own = self._num_taken[device] - self._num_together[self._epoch]
        return (device, self._epoch, self._num_first + own)

    def _tail_s(self, device: str) -> float:
        rows = self._rows[device]
        left = (len(rows) - self._num_taken[device]) / len(rows)
        return self._tails_s.get(device, 0.0) * left

    async def _take(self, device: str, index: int) -> MicroBatch:
        frame = self._came.pop((device, self._epoch, index))
        self._num_taken[device] += 1
        rows = self._rows[device][index]
        kind, specs = FrameKind.SMASHED, self._part_specs(device, rows)
        decode = partial(self._coder.decode, kind, frame.tensors, specs)
        tensors = await self._coded(frame.tensors, kind, decode)
        return MicroBatch(device, index, rows, Smashed(*tensors))

    def _take_news(self) -> None:
        """Take in what has come and who is gone; ClusterLostError if too few are left."""
        for task in [task for task in self._sending if task.done()]:
            self._sending.discard(task)
            task.result()
        while self._answers.whole:
            self._note_time(self._answers.whole.popleft())
        while self._answers.frames:
            device, frame = self._answers.frames.popleft()
            if frame.kind is FrameKind.WEIGHTS:
                self._models[device] = frame.tensors
            else:
                self._came[device, frame.step.epoch, frame.step.micro_batch] = frame
        lost = {d: why for d, (why, _) in self._answers.gone.items() if d in self._members}
        for device in lost:
            self._note_late(device, self._answers.gone[device][1])
        self._members.drop(lost)
        self._require_quorum()

    def _note_time(self, taken: AnswerTaken) -> None:
        answer, asked_at_s = self._asked[taken.device]
        self.answers_s.setdefault(taken.device, []).append(taken.at_s - asked_at_s)
        seconds = {} if taken.took_s is None else {taken.device: taken.took_s}
        self._channel.answer_times.learn(self._question_of(answer), seconds=seconds, waited_s={})

    def _note_late(self, device: str, waited_s: float | None) -> None:
        if waited_s is None:
            return
        answer, _ = self._asked[device]
        self.late[device] = Late(answer, waited_s)
        waited = {device: waited_s}
        self._channel.answer_times.learn(self._question_of(answer), seconds={}, waited_s=waited)

    def _start(self, sending: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(sending, name="gradient")
        self._sending.add(task)
        task.add_done_callback(lambda _: self._answers.wake())
