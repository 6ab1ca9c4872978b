"""What the page shows, in parts, for any number of watchers.

Each part is encoded once, whoever watches. A watcher gets the parts that it has not seen in their
latest form: so a slow one skips states and nothing piles up for it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

_PAUSE_S = 0.25
"""A page that changes more often than this is not read but flickers."""
_STILL_HERE_S = 15.0
"""Sooner than proxies and browsers give up a silent connection."""


class Hub:
    """Holds the latest of each part as JSON, and passes it on as server-sent events."""

    def __init__(self) -> None:
        self._parts: dict[str, str] = {}
        self._versions: dict[str, int] = {}
        self._version = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def put(self, parts: Mapping[str, str]) -> None:
        """Take new parts; one that says the same as before is no change."""
        fresh = {name: part for name, part in parts.items() if self._parts.get(name) != part}
        if not fresh:
            return
        self._version += 1
        self._parts |= fresh
        self._versions |= dict.fromkeys(fresh, self._version)
        self._wake()

    def close(self) -> None:
        """End every stream of events, once it has told the last."""
        self._is_closed = True
        self._wake()

    async def events(self) -> AsyncIterator[str]:
        """Give all parts, then what changes, until closed."""
        seen = 0
        while not (self._is_closed and self._version == seen):
            if self._version == seen:
                if not await _happens(self._changed):
                    yield ": still here\n\n"
                continue
            fresh = [name for name, version in self._versions.items() if version > seen]
            seen = self._version
            yield f"data: {self._joined(fresh)}\n\n"
            await asyncio.sleep(_PAUSE_S)

    def _joined(self, names: list[str]) -> str:
        return "{" + ",".join(f"{json.dumps(name)}:{self._parts[name]}" for name in names) + "}"

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


async def _happens(changed: asyncio.Event) -> bool:
    """Wait for a change; whether it came, for long enough."""
    try:
        async with asyncio.timeout(_STILL_HERE_S):
            await changed.wait()
    except TimeoutError:
        return False
    return True
