"""A device that has the rest of a model computed: it asks, sends when its turn comes, and waits.

One batch is in flight. What is lost is asked again: a request that the server half knows gets the
same answer, so nothing is computed twice, and no loss needs a rule of its own.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable

from device_agent.agent.endpoint import DeviceEndpoint
from runtime.bus.bus import BusEvent, Delivery
from runtime.errors import EdgeError, ProtocolError
from runtime.inference.half import Floats, HalfInfo
from runtime.inference.travel import encode_smashed, spec, step_of
from runtime.wire.chunks.inbox import FrameInbox
from runtime.wire.chunks.questions import InferenceAnswer, InferenceRequest
from runtime.wire.chunks.transfer import ChunkSize, send_frame
from runtime.wire.frames import Frame, FrameKind, StepId, TensorSpec
from runtime.wire.published import InferenceStatus

ASK_AGAIN_S, ASK_SELDOM_S = 1.0, 8.0
"""How long nothing may come of a request before it is repeated: at first, and at most."""
SAY_AFTER_S = 2.0

log = logging.getLogger(__name__)


class NotServedError(EdgeError):
    """The server half is not there, or does not answer; trying again later may help."""


class RefusedError(EdgeError):
    """The server half does not compute what it was asked for."""


class InferenceClient:
    """One device; arrays are [sample, ...]."""

    def __init__(
        self,
        endpoint: DeviceEndpoint,
        info: HalfInfo,
        *,
        codec: str,
        timeout_s: float,
        say: Callable[[str], None],
    ) -> None:
        """`info` is of the device half; `say` hears what is waited for."""
        self._endpoint, self._info = endpoint, info
        self._bus, self._topics, self._device = endpoint.bus, endpoint.topics, endpoint.device
        self._codec, self._timeout_s, self._say = codec, timeout_s, say
        self._run, self._batch = secrets.randbits(64), 0
        self._status: InferenceStatus | None = None
        self._status_came = asyncio.Event()
        self._came: asyncio.Queue[InferenceAnswer | Frame] = asyncio.Queue()
        self._request: InferenceRequest | None = None
        self._inbox = FrameInbox(self._asked_for)
        self._size = ChunkSize(endpoint.chunk_bytes)
        self._said = ""
        self.sent_bytes = self.received_bytes = 0

    async def listen(self, events: AsyncIterator[BusEvent]) -> None:
        """Take in what the bus brings, until cancelled."""
        async for event in events:
            if isinstance(event, Delivery):
                try:
                    self._take(event)
                except ProtocolError as error:
                    log.warning("dropped a message on %s: %s", event.topic, error)

    async def open(self) -> None:
        """Wait until our server half is served; NotServedError if it is not in time."""
        topics = self._topics
        for topic in (
            topics.inference_status,
            topics.inference_answer(self._device),
            topics.inference_outputs(self._device),
        ):
            await self._bus.subscribe(topic)
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._until_served()
        except TimeoutError:
            raise NotServedError(self._nobody()) from None
        assert self._status is not None
        if self._status.pair != self._info.pair:
            raise RefusedError(
                f"the device half is {self._info.network} cut after {self._info.cut} (round "
                f"{self._info.round}), and the server half that is served on site "
                f"{topics.site!r} belongs to another, {self._status.network} cut after "
                f"{self._status.cut}: export both together"
            )

    async def predict(self, smashed: Floats) -> Floats:
        """Have the outputs of a batch computed; NotServedError where they do not come in time."""
        self._batch += 1
        request = InferenceRequest(
            request=self._run,
            batch=self._batch,
            num_samples=len(smashed),
            codec=self._codec,
            pair=self._info.pair,
        )
        tensors = encode_smashed(request, smashed, self._device)
        frame = Frame(FrameKind.SMASHED, step_of(request), tensors)
        self._request, self._came = request, asyncio.Queue()  # Without repeats for the last one.
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._until_outputs(request, frame)
        except TimeoutError:
            raise NotServedError(self._silent()) from None
        finally:
            self._request = None

    async def _until_outputs(self, request: InferenceRequest, frame: Frame) -> Floats:
        """Ask, send when told to, and ask again where nothing comes of it."""
        patience_s = ASK_AGAIN_S
        while True:
            await self._ask(request)
            try:
                while True:
                    came = await asyncio.wait_for(self._came.get(), patience_s)
                    if isinstance(came, Frame):
                        outputs: Floats = came.tensors[0]  # type: ignore[assignment]
                        return outputs
                    await self._heed(came, frame)
            except TimeoutError:
                patience_s = min(2 * patience_s, ASK_SELDOM_S)

    async def _heed(self, answer: InferenceAnswer, frame: Frame) -> None:
        if answer.state == "refused":
            raise RefusedError(f"the server half refuses: {answer.reason}")
        if answer.state == "waiting" and answer.num_before:
            others = "another device" if answer.num_before == 1 else f"{answer.num_before} devices"
            self._tell(f"waiting: {others} first")
        if answer.state == "send":
            began_s, topic = time.monotonic(), self._topics.inference_smashed(self._device)
            num_bytes = await send_frame(self._bus, topic, frame, chunk_bytes=self._size.of(frame))
            self._size.learn(num_bytes=num_bytes, seconds=time.monotonic() - began_s)
            self.sent_bytes += num_bytes

    async def _ask(self, request: InferenceRequest) -> None:
        topic = self._topics.inference_request(self._device)
        await self._endpoint.publish(topic, request)

    async def _until_served(self) -> None:
        began_s = time.monotonic()
        while self._status is None or self._status.state == "offline":
            self._status_came.clear()
            left_s = max(0.0, began_s + SAY_AFTER_S - time.monotonic()) or None
            try:
                await asyncio.wait_for(self._status_came.wait(), left_s)
            except TimeoutError:
                self._tell(f"waiting: {self._nobody()}")

    def _take(self, delivery: Delivery) -> None:
        topics, topic = self._topics, delivery.topic
        if topic == topics.inference_status:
            if delivery.payload:
                self._status = InferenceStatus.decode(delivery.payload)
                self._status_came.set()
        elif topic == topics.inference_answer(self._device):
            answer = InferenceAnswer.decode(delivery.payload)
            if self._request is not None and (answer.request, answer.batch) == (
                self._request.request,
                self._request.batch,
            ):
                self._came.put_nowait(answer)
        elif topic == topics.inference_outputs(self._device):
            self.received_bytes += len(delivery.payload)
            frame = self._inbox.feed(delivery.payload, kind=FrameKind.OUTPUTS)
            if frame is not None:
                self._came.put_nowait(frame)

    def _asked_for(self, kind: FrameKind, step: StepId) -> tuple[TensorSpec, ...] | None:
        request, status = self._request, self._status
        if request is None or status is None:
            return None
        if kind is not FrameKind.OUTPUTS or step != step_of(request):
            return None
        return (spec(request.num_samples, status.output_shape),)

    def _tell(self, words: str) -> None:
        """Say what is waited for, once."""
        if words != self._said:
            self._said = words
            self._say(words)

    def _nobody(self) -> str:
        return (
            f"nobody serves a server half on site {self._topics.site!r}; on the edge server: "
            "cpsl infer RUNDIR --serve --broker URL"
        )

    def _silent(self) -> str:
        if self._status is None or self._status.state == "offline":
            return f"the server half has gone, and was not back in {self._timeout_s:g} s"
        return (
            f"the server half is there, and did not answer in {self._timeout_s:g} s; give it more "
            "by --timeout, or take a smaller --batch-size"
        )
