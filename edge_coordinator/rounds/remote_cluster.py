"""A cluster reached over the bus: what `algorithm.Cluster` promises, as frames."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.deadlines import Answer, Question
from edge_coordinator.devices.requests import DeviceGoneError, Exchange, LateError
from edge_coordinator.rounds.members import Late, Member, Members
from edge_coordinator.training.algorithm import ClusterLostError, Collected, Smashed
from edge_coordinator.training.cuts import DeviceParts
from runtime.protocol.coordinator_events import FrameRequest
from runtime.protocol.events import Gathered
from runtime.wire.codecs.turn import TurnCoder, together
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, TensorSpec, specs_of

_LOSS = TensorSpec("<f4", ())
_FIRST_ANSWER = {
    "train": Answer.FIRST,
    "train_locally": Answer.WHOLE,
    "evaluate": Answer.EVALUATION,
}
"""What is answered to the device-side model, by the purpose of the turn."""


class RemoteCluster:
    """One cluster's turn: a model goes to all, then smashed data and gradients to and fro."""

    def __init__(
        self,
        channel: DeviceChannel,
        members: Members,
        *,
        parts: DeviceParts,
        num_classes: int | None,
        rate_by_size: bool,
        seed: int,
    ) -> None:
        """`parts` has whose the tensors of the device-side model are.

        With `rate_by_size` the rate of the turn is |K_m| times another: gradients make up for
        members that are lost.
        """
        self._channel = channel
        self._members, self._turn = members, members.turn
        self.parts, self._num_classes = parts, num_classes
        self.local_epochs = self._turn.local_epochs
        self._coder = TurnCoder(self._turn.codecs, seed=seed, round_=self._turn.round)
        self._exchange: Exchange | None = None
        self._question: Question | None = None
        self._device_side: Sequence[Tensor] = ()
        self._rate_by_size, self._epoch, self._asked_at_s = rate_by_size, 0, 0.0
        self.late, self.lost = members.late, members.lost
        self.answers_s: dict[str, list[float]] = {}
        """Device id to seconds from each request to its answer: the model, then every gradient."""
        self.finished: tuple[str, ...] = ()
        """Those that came to the turn's end."""
        self.arrived_at_s: list[float] = []
        """When the smashed data of each local epoch were all there, by the monotonic clock."""

    @property
    def learning_rate(self) -> float:
        """Of the devices."""
        return self._turn.learning_rate

    @property
    def aggregated(self) -> int:
        """Samples of each device whose gradient is the same for all."""
        return self._turn.aggregated or 0

    @property
    def sample_counts(self) -> Mapping[str, int]:
        """|D_k| of each device."""
        return self._members.sample_counts

    async def join(self) -> None:
        """Have every member listen; those that do not are out of this turn."""
        devices = sorted(self._members)
        answers = await asyncio.gather(*(self._join_one(device) for device in devices))
        for device, reason in zip(devices, answers, strict=True):
            if reason:
                self._members.drop({device: reason})

    async def load(self, device_side: Sequence[Tensor]) -> None:
        """Distribute the device-side model, one publish for all."""
        self._asked_at_s = time.monotonic()
        self._require_quorum()
        self._device_side = device_side
        groups = {together(group): group for group in self.parts.groups(self._members.joins)}
        model = await self._encoded(
            FrameKind.MODEL, {n: self._model_of(group[0]) for n, group in groups.items()}
        )
        frames = {
            device: Frame(FrameKind.MODEL, self._step(0), model[name])
            for name, group in groups.items()
            for device in group
            if device in self._members
        }
        kind = FrameKind.WEIGHTS if self._trains_locally else FrameKind.SMASHED
        self._expect(
            kind, _FIRST_ANSWER[self._turn.purpose], {d: [own] for d, own in frames.items()}
        )
        if len(groups) == 1:
            await self._channel.publish(self._members, next(iter(frames.values())))
        else:
            await self._send_each(frames)

    async def forward(self) -> Mapping[str, Smashed]:
        """Smashed data of every device that is still there, in device-id order."""
        smashed = await self._decoded(FrameKind.SMASHED, await self._gathered())
        self.arrived_at_s.append(time.monotonic())
        return {device: Smashed(*tensors) for device, tensors in smashed.items()}

    async def backward(self, gradients: Mapping[str, Tensor], aggregated: Tensor | None) -> None:
        """Return its gradient to each device; where nothing learns, an empty frame."""
        assert aggregated is None, "it is for `AggregatedCluster`"
        self._asked_at_s = time.monotonic()
        step = self._step(self._epoch)
        scaled = {device: self._scaled(gradients.get(device)) for device in self._members}
        encoded = await self._encoded(FrameKind.GRADIENT, scaled)
        frames = {d: Frame(FrameKind.GRADIENT, step, encoded[d]) for d in self._members}
        self._expect_next({device: [frame] for device, frame in frames.items()})
        await self._send_each(frames)

    def _expect_next(self, requests: Mapping[str, Sequence[Frame]]) -> None:
        """Gather what is answered to gradients from now on."""
        is_last = self._epoch + 1 == self.local_epochs
        self._epoch += not is_last
        kind = FrameKind.WEIGHTS if is_last else FrameKind.SMASHED
        self._expect(kind, Answer.LAST if is_last else Answer.NEXT, requests)

    async def weights(self) -> Collected:
        """The device-side models after the last local epoch."""
        gathered = await self._gathered()
        self.finished = tuple(gathered.answers)
        answers = await self._decoded(FrameKind.WEIGHTS, gathered)
        if not self._trains_locally:
            return Collected(answers)
        return Collected(
            {device: tensors[:-1] for device, tensors in answers.items()},
            [float(tensors[-1]) for tensors in answers.values()],
        )

    def drop(self, reasons: Mapping[str, str]) -> None:
        """Go on without some devices; ClusterLostError if too few are left."""
        self._members.drop(reasons)
        self._require_quorum()

    def _scaled(
        self, gradient: Tensor | None, num_present: int | None = None
    ) -> tuple[Tensor, ...]:
        """Make up for a rate that is that of more devices than the gradient is a mean over."""
        part = (num_present or len(self._members)) / self._members.num_planned
        if gradient is None:
            return ()
        is_right = not self._rate_by_size or part == 1
        return (gradient if is_right else np.multiply(gradient, part, dtype=np.float32),)

    async def _send_each(self, frames: Mapping[str, Frame]) -> None:
        """Send each device its own, all at a time."""
        async with asyncio.TaskGroup() as tasks:
            for device, frame in frames.items():
                send = self._channel.send(device, frame)
                tasks.create_task(send, name=f"{frame.kind.name.lower()} {device}")

    def _model_of(self, device: str) -> Sequence[Tensor]:
        """What a device has of the device-side model that was distributed."""
        return self.parts.of(device, self._device_side)

    async def _join_one(self, device: str) -> str:
        try:
            await self._channel.join(device, self._members.joins[device])
        except LateError as error:
            self.late[device] = Late(Answer.JOINED, error.waited_s)
            return str(error)
        except DeviceGoneError as error:
            return str(error)
        return ""

    def _expect(
        self, kind: FrameKind, answer: Answer, requests: Mapping[str, Sequence[Frame]]
    ) -> None:
        """Gather answers to these requests from now on."""
        last = kind is FrameKind.WEIGHTS
        step = self._step(self.local_epochs - 1 if last else self._epoch)
        asked = {
            device: FrameRequest(
                *(first.kind, first.step, kind, step),
                self._coder.specs(kind, self._specs(kind, self._members[device])),
                num_parts=1 + len(more),
            )
            for device, (first, *more) in requests.items()
        }
        self._question = self._question_of(answer)
        self._exchange = self._channel.exchange(asked, self._question)

    def _question_of(self, answer: Answer) -> Question:
        predicted_s = {
            device: member.predicted_s[answer]
            for device, member in self._members.items()
            if answer in member.predicted_s
        }
        return Question(answer, predicted_s, num_devices=len(self._members))

    def _specs(self, kind: FrameKind, member: Member) -> tuple[TensorSpec, ...]:
        if kind is FrameKind.SMASHED:
            smashed = TensorSpec("<f4", (member.batch_size, *member.smashed_shape))
            labels = (member.batch_size, *member.ready.label_shape)
            return smashed, TensorSpec(member.ready.label_dtype, labels, self._num_classes)
        model = specs_of(self._model_of(member.device))
        return (*model, _LOSS) if self._trains_locally else model

    async def _encoded(
        self, kind: FrameKind, tensors: Mapping[str, Sequence[Tensor]], *, part: int = 0
    ) -> dict[str, tuple[Tensor, ...]]:
        """Give what travels to each device; off the event loop if that has to be computed."""
        encode_one = partial(self._coder.encode, kind, epoch=self._epoch, micro_batch=part)

        def encode() -> dict[str, tuple[Tensor, ...]]:
            return {device: encode_one(own, device=device) for device, own in tensors.items()}

        return encode() if self._coder.is_raw(kind) else await asyncio.to_thread(encode)

    async def _decoded(self, kind: FrameKind, gathered: Gathered) -> dict[str, tuple[Tensor, ...]]:
        """Give what each device means by its answer."""
        coder, answers = self._coder, gathered.answers
        specs = {device: self._specs(kind, self._members[device]) for device in answers}

        def decode() -> dict[str, tuple[Tensor, ...]]:
            return {
                d: coder.decode(kind, parts, specs[d], before=self._model_of(d))
                for d, parts in answers.items()
            }

        return decode() if coder.is_raw(kind) else await asyncio.to_thread(decode)

    async def _gathered(self) -> Gathered:
        assert self._exchange is not None
        assert self._question is not None
        self._require_quorum()
        gathered = await self._exchange.gathered()
        self._channel.learn(self._exchange, self._question)
        for device, waited_s in self._exchange.late.items():
            self.late[device] = Late(self._question.answer, waited_s)
        self._members.drop(gathered.lost)
        self._require_quorum()
        for device, at_s in self._exchange.answered_at_s.items():
            self.answers_s.setdefault(device, []).append(at_s - self._asked_at_s)
        return gathered

    def _require_quorum(self) -> None:
        """ClusterLostError if too few are left for the turn to count."""
        if why := self._members.why_too_few:
            self._channel.abandon()
            raise ClusterLostError(why)

    @property
    def first_step(self) -> StepId:
        """The step that the turn begins with."""
        return self._step(0)

    def _step(self, epoch: int) -> StepId:
        return StepId(self._turn.run, self._turn.round, self._turn.cluster, epoch)

    @property
    def _trains_locally(self) -> bool:
        return self._turn.purpose == "train_locally"
