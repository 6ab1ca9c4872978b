"""Who serves the server half on a site: one program, which says so in a retained status."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from runtime.bus.broker_url import TlsFiles
from runtime.bus.bus import Bus, BusEvent, Delivery, Will
from runtime.bus.mqtt_bus import MqttBus
from runtime.errors import BusError, MalformedMessageError
from runtime.inference.half import HalfInfo, Shape
from runtime.wire.commands import Challenge
from runtime.wire.ownership import Claim, Tenure, Verdict, clock_s, keep_alive, new_session
from runtime.wire.published import InferenceStatus
from runtime.wire.topics import Topics

_GOODBYE_S = 2.0


def new_inference_status(
    info: HalfInfo, *, smashed_shape: Shape, output_shape: Shape
) -> InferenceStatus:
    """Begin a session of a server half."""
    return InferenceStatus(
        state="online",
        session=new_session(),
        since_unix_s=time.time(),
        network=info.network,
        cut=info.cut,
        pair=info.pair,
        smashed_shape=smashed_shape,
        output_shape=output_shape,
    )


class InferenceSite:
    """Claims the site's server half, says what it is, and says goodbye."""

    def __init__(self, bus: Bus, topics: Topics, status: InferenceStatus) -> None:
        self.topics, self.status = topics, status
        self._bus = bus
        self._tenure = Tenure(now_s=clock_s())
        self._claim = Claim(
            what=f"server half of site {topics.site!r}",
            status_topic=topics.inference_status,
            challenge_topic=topics.inference_challenge,
            own=status,
            decode=InferenceStatus.decode,
        )

    async def claim(self, events: AsyncIterator[BusEvent]) -> None:
        """Own it, or raise TakenError because another program does."""
        await self._claim.make(self._bus, events)
        self._tenure = Tenure(now_s=clock_s())

    async def hold(self) -> None:
        """Take note that it is looked after, until cancelled."""
        await keep_alive(self._tenure)

    async def publish(self) -> None:
        """Say what is served."""
        await self._bus.publish(self.topics.inference_status, self.status.encode(), retain=True)

    async def come_back(self) -> None:
        """Say so again, after the broker came back."""
        self._tenure.note_return(clock_s())
        await self.publish()

    async def receive(self, delivery: Delivery) -> None:
        """Answer a challenger; TakenError if another program turns out to own the site."""
        with suppress(MalformedMessageError):  # Nobody of ours wrote that.
            if delivery.topic == self.topics.inference_challenge:
                if Challenge.decode(delivery.payload).session != self.status.session:
                    await self.publish()
            elif delivery.topic == self.topics.inference_status and delivery.payload:
                await self._compare(delivery)

    async def _compare(self, delivery: Delivery) -> None:
        seen = InferenceStatus.decode(delivery.payload)
        now_s, retained = clock_s(), delivery.retained
        match self._tenure.judge(self.status, seen, retained=retained, now_s=now_s):
            case Verdict.REASSERT:
                await self.publish()
            case Verdict.YIELD:
                raise self._claim.taken_by(seen)

    async def leave(self) -> None:
        """Say goodbye, if the broker is there."""
        offline = self.status.model_copy(update={"state": "offline"})
        with suppress(BusError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                topic = self.topics.inference_status
                await self._bus.publish(topic, offline.encode(), retain=True)


async def connect_server(
    url: str,
    topics: Topics,
    status: InferenceStatus,
    *,
    wait: bool,
    on_waiting: Callable[[str], None],
    tls: TlsFiles,
) -> MqttBus:
    """Connect to a broker, which says for us that we are gone when we are."""
    offline = status.model_copy(update={"state": "offline"})
    return await MqttBus.connect(
        url,
        client_id=f"inference-{new_session()}",  # Who knows it could take it over.
        will=Will(topics.inference_status, offline.encode()),
        wait=wait,
        on_waiting=on_waiting,
        tls=tls,
    )
