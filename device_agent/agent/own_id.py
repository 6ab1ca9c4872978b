"""That a device's id is this agent's: claimed at the start, and held against others."""

from collections.abc import AsyncIterator

from device_agent.agent.endpoint import DeviceEndpoint
from device_agent.agent.publisher import Publisher
from runtime.bus.bus import BusEvent
from runtime.wire.ownership import Claim, Tenure, Verdict, clock_s, keep_alive
from runtime.wire.published import DeviceStatus


class OwnId:
    """One device's id, and who else wants it; see `runtime.wire.ownership`."""

    def __init__(
        self, endpoint: DeviceEndpoint, status: DeviceStatus, publisher: Publisher
    ) -> None:
        device, topics = endpoint.device, endpoint.topics
        self._bus = endpoint.bus
        self._status = status
        self._publisher = publisher
        self._is_ours = False
        self._claim = Claim(
            what=f"device id {device!r} on site {topics.site!r}",
            status_topic=topics.status(device),
            challenge_topic=topics.command(device),
            own=status,
            decode=DeviceStatus.decode,
        )

    async def claim(self, events: AsyncIterator[BusEvent]) -> None:
        """Own the id; TakenError if another program answers for it."""
        await self._claim.make(self._bus, events)
        self._tenure = Tenure(now_s=clock_s())
        self._is_ours = True

    async def hold(self) -> None:
        """Take note that this program runs, until cancelled."""
        await keep_alive(self._tenure)

    def note_return(self) -> None:
        """Take note that the connection is back."""
        self._tenure.note_return(clock_s())

    def is_to_be_told(self, seen: DeviceStatus, *, retained: bool) -> bool:
        """Judge what was seen: whether others have to hear whose it is; TakenError if theirs."""
        verdict = self._tenure.judge(self._status, seen, retained=retained, now_s=clock_s())
        if verdict is Verdict.YIELD:
            self._is_ours = False
            raise self._claim.taken_by(seen)
        return verdict is Verdict.REASSERT

    async def leave(self) -> None:
        """Say goodbye: the retained status becomes offline, unless it is another's."""
        if self._is_ours:
            await self._publisher.say_offline()
