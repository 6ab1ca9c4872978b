"""The server half of a trained model over a bus: devices send smashed data, and get outputs."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from edge_coordinator.serve.inference_site import InferenceSite
from runtime.bus.bus import Bus, BusEvent, Connected, Delivery
from runtime.errors import BusError, EdgeError, ProtocolError, SettingsError
from runtime.inference.half import Floats, Half
from runtime.inference.travel import decode_smashed, smashed_specs, step_of, why_too_large
from runtime.offered import DEFAULT_CHUNK_BYTES
from runtime.protocol.inference import Command, Forget, InferenceTurns, Repeat, Send, Wait
from runtime.service.process import COMPUTE_THREAD
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import InferenceAnswer, InferenceRequest
from runtime.wire.chunks.transfer import ChunkSize, send_frame
from runtime.wire.frames import Frame, FrameKind, StepId, Tensor, TensorSpec, body_bytes

MOST_AT_ONCE = 4
"""Devices that may be sending: so many batches are in memory, whatever devices do."""
MOST_DEVICES = 1000
"""That may wait."""
MOST_KEPT, KEPT_BYTES = 64, 1_000_000
"""Outputs that are kept in case they are lost, and the most that each may have."""
PATIENCE_S, LEAST_BYTES_PER_S = 30.0, 100_000
"""With a device that was told to send, and how fast the links have to carry it beyond that."""
TICK_S = 1.0
MOST_TOLD = 20
"""So many senders of unusable messages are named: whoever forges can make up many."""

log = logging.getLogger(__name__)


class InferenceServer:
    """Serves one server half on one site, until cancelled."""

    def __init__(
        self, bus: Bus, site: InferenceSite, half: Half, *, say: Callable[[str], None]
    ) -> None:
        self._bus, self._site, self._half, self._say = bus, site, half, say
        self._topics, self._status = site.topics, site.status
        self._turns = InferenceTurns(most_at_once=MOST_AT_ONCE, most_waiting=MOST_DEVICES)
        self._asked: dict[str, InferenceRequest] = {}
        self._inboxes: dict[str, FrameInbox] = {}
        self._kept: OrderedDict[str, Frame] = OrderedDict()
        self._sizes: dict[str, ChunkSize] = {}
        self._told: set[str] = set()
        self._thread = ThreadPoolExecutor(1, COMPUTE_THREAD)
        self.num_batches = self.num_samples = 0

    async def serve(self, events: AsyncIterator[BusEvent]) -> None:
        """Answer whoever asks, until cancelled."""
        topics = self._topics
        for topic in (topics.inference_request("+"), topics.inference_smashed("+")):
            await self._bus.subscribe(topic)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._tick(), name="turns")
                tasks.create_task(self._site.hold(), name="hold")
                await self._site.publish()
                async for event in events:
                    await self._take(event)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _take(self, event: BusEvent) -> None:
        match event:
            case Connected():
                await self._site.come_back()
            case Delivery():
                device = self._topics.parse_inference(event.topic)
                if device is None:
                    await self._site.receive(event)
                    return
                try:
                    if device.leaf == "request":
                        self._ask(device.device, InferenceRequest.decode(event.payload))
                    else:
                        self._arrive(device.device, event.payload)
                except ProtocolError as error:
                    self._note(device.device, error)

    def _ask(self, device: str, request: InferenceRequest) -> None:
        if reason := self._why_not(device, request):
            self._answer(device, request, "refused", reason=reason)
            return
        if device not in self._asked:
            self._forget_idle()
            self._say(f"{device} asks")
        self._asked[device] = request
        num_bytes = body_bytes(smashed_specs(request, self._status.smashed_shape))
        patience_s = PATIENCE_S + num_bytes / LEAST_BYTES_PER_S
        now_s = time.monotonic()
        self._do(self._turns.ask(device, step_of(request), patience_s=patience_s, now_s=now_s))

    def _forget_idle(self) -> None:
        """Keep no more of devices than may be there: names cost nothing."""
        if len(self._asked) >= 2 * MOST_DEVICES:
            for device in [each for each in self._asked if not self._turns.knows(each)]:
                del self._asked[device]
                self._sizes.pop(device, None)

    def _why_not(self, device: str, request: InferenceRequest) -> str:
        status = self._status
        if request.pair != status.pair:
            return (
                "its device half is of another model or of another cut than the server half that "
                f"is served, {status.network} cut after {status.cut}; export both together"
            )
        if device not in self._asked and self._turns.is_full:
            return f"{MOST_DEVICES} devices wait already"
        try:
            smashed_specs(request, status.smashed_shape)
        except SettingsError as error:
            return str(error)
        return why_too_large(request, status.smashed_shape, status.output_shape)

    def _arrive(self, device: str, payload: memoryview) -> None:
        step = self._turns.expected(device)
        if step is None:
            return  # Late, or a repeat.
        inbox = self._inboxes.setdefault(device, FrameInbox(self._specs_of(device)))
        frame = inbox.feed(payload, kind=FrameKind.SMASHED)
        self._turns.moved(device, now_s=time.monotonic())
        if frame is None:
            return
        del self._inboxes[device]
        self._turns.arrived(device, step)
        self._start(self._compute(device, self._asked[device], frame.tensors))

    def _specs_of(
        self, device: str
    ) -> Callable[[FrameKind, StepId], tuple[TensorSpec, ...] | None]:
        def specs(kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
            if kind is not FrameKind.SMASHED or step != self._turns.expected(device):
                return None
            return smashed_specs(self._asked[device], self._status.smashed_shape)

        return specs

    async def _compute(
        self, device: str, request: InferenceRequest, parts: tuple[Tensor, ...]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            outputs = await loop.run_in_executor(self._thread, self._outputs, request, parts)
        except Exception as error:  # The network may be the user's own.
            reason = str(error).partition("\n")[0] or type(error).__name__
            self._do(self._finish(device, request, is_kept=False))
            self._answer(device, request, "refused", reason=f"it cannot be computed: {reason}")
            return
        frame = Frame(FrameKind.OUTPUTS, step_of(request), (outputs,))
        is_kept = outputs.nbytes <= KEPT_BYTES
        if is_kept:
            self._keep(device, frame)
        self.num_batches, self.num_samples = (
            self.num_batches + 1,
            self.num_samples + request.num_samples,
        )
        self._do(self._finish(device, request, is_kept=is_kept))
        await self._send(device, frame)

    def _outputs(self, request: InferenceRequest, parts: tuple[Tensor, ...]) -> Floats:
        shape = self._status.smashed_shape
        outputs = self._half.run(decode_smashed(request, parts, shape))
        if outputs.shape != (request.num_samples, *self._status.output_shape):
            raise SettingsError(f"the server half gave outputs of shape {outputs.shape}")
        if not np.isfinite(outputs).all():
            raise SettingsError("outputs are not finite numbers")
        return np.ascontiguousarray(outputs, np.float32)

    def _finish(self, device: str, request: InferenceRequest, *, is_kept: bool) -> list[Command]:
        now_s = time.monotonic()
        return self._turns.computed(device, step_of(request), is_kept=is_kept, now_s=now_s)

    def _keep(self, device: str, frame: Frame) -> None:
        self._kept[device] = frame
        self._kept.move_to_end(device)
        if len(self._kept) > MOST_KEPT:
            forgotten, _ = self._kept.popitem(last=False)
            self._turns.dropped(forgotten)

    def _do(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Wait(device, _, num_before):
                    self._answer(device, self._asked[device], "waiting", num_before=num_before)
                case Send(device):
                    self._answer(device, self._asked[device], "send")
                case Repeat(device):
                    self._start(self._send(device, self._kept[device]))
                case Forget(device):
                    self._inboxes.pop(device, None)

    def _answer(
        self,
        device: str,
        request: InferenceRequest,
        state: str,
        *,
        num_before: int = 0,
        reason: str = "",
    ) -> None:
        answer = InferenceAnswer.model_validate(
            {
                "request": request.request,
                "batch": request.batch,
                "state": state,
                "num_before": num_before,
                "reason": reason,
            }
        )
        topic = self._topics.inference_answer(device)
        self._start(self._bus.publish(topic, answer.encode(), retain=False))

    async def _send(self, device: str, frame: Frame) -> None:
        size = self._sizes.setdefault(device, ChunkSize(DEFAULT_CHUNK_BYTES))
        began_s = time.monotonic()
        topic = self._topics.inference_outputs(device)
        num_bytes = await send_frame(self._bus, topic, frame, chunk_bytes=size.of(frame))
        size.learn(num_bytes=num_bytes, seconds=time.monotonic() - began_s)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(self._logged(work), name="answer")

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it; what one device's message meets on its way is no reason to end."""
        try:
            await work
        except BusError as error:
            log.warning("a device is not answered: %s", error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._do(self._turns.tick(now_s=time.monotonic()))

    def _note(self, device: str, error: EdgeError) -> None:
        if device not in self._told and len(self._told) < MOST_TOLD:
            self._told.add(device)
            log.warning("dropped a message of %s for inference: %s", device, error)
