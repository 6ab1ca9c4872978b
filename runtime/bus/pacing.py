"""Pacing: a sender keeps to its share of a link that others use too.

Bytes leave as from a line of the given rate: a chunk is sent once the line would have carried
it. Nothing is saved up while the sender is silent, so that no share is exceeded afterwards.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from profiles.units import BITS_PER_BYTE

BURST_S = 0.05
"""A paced sender's chunks are about as long as this."""
MIN_CHUNK_BYTES = 4096

Sleep = Callable[[float], Awaitable[None]]


class Pacer:
    """A line of a certain rate; whoever sends on it waits for its turn."""

    def __init__(
        self,
        rate_bps: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.rate_bps = rate_bps
        self._clock = clock
        self._sleep = sleep
        self._free_at_s = clock()

    @property
    def chunk_bytes(self) -> int:
        """The largest chunk that does not hold the link for long."""
        return max(MIN_CHUNK_BYTES, int(self.rate_bps * BURST_S / BITS_PER_BYTE))

    async def take(self, num_bytes: int) -> None:
        """Return when the line has carried so many more bytes."""
        start_s = max(self._clock(), self._free_at_s)
        self._free_at_s = start_s + num_bytes * BITS_PER_BYTE / self.rate_bps
        await self._sleep(self._free_at_s - self._clock())
