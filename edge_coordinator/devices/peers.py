"""The protocol's half for each device, driven by the event loop and its clock; decides nothing."""

import asyncio
from collections.abc import Callable, Iterator
from math import inf

from runtime.protocol.coordinator import CoordinatorSession
from runtime.protocol.coordinator_events import CoordinatorCommand, CoordinatorEvent

CarryOut = Callable[[str, CoordinatorCommand], None]


class Peers:
    """All devices that were heard of, each with its session and one timer."""

    def __init__(self, *, run: int, patience_s: float, carry_out: CarryOut) -> None:
        self._run = run
        self._patience_s = patience_s
        self._carry_out = carry_out
        self._sessions: dict[str, CoordinatorSession] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self.busy: dict[str, str] = {}
        """Device id to why it is asked for nothing."""

    def __getitem__(self, device: str) -> CoordinatorSession:
        """Give a device's session; a new one if it was not heard of."""
        if device not in self._sessions:
            self._sessions[device] = CoordinatorSession(run=self._run, patience_s=self._patience_s)
        return self._sessions[device]

    def __iter__(self) -> Iterator[str]:
        """Go through the devices that were heard of."""
        return iter(self._sessions)

    def tell(self, device: str, event: CoordinatorEvent) -> None:
        """Tell a device's session what happened, and do what it says."""
        session = self[device]
        self._do(device, session, session.handle(event, asyncio.get_running_loop().time()))

    def tell_all(self, event: CoordinatorEvent) -> None:
        """Tell every session."""
        for device in list(self._sessions):
            self.tell(device, event)

    def close(self) -> None:
        """Let no timer go off any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _do(
        self, device: str, session: CoordinatorSession, commands: list[CoordinatorCommand]
    ) -> None:
        if session.why_busy:
            self.busy[device] = session.why_busy
        else:
            self.busy.pop(device, None)
        for command in commands:
            self._carry_out(device, command)
        self._set_timer(device, session.next_timeout())

    def _set_timer(self, device: str, due_s: float) -> None:
        """Be there when a device's time comes; a timer that is too early finds nothing due."""
        timer = self._timers.get(device)
        if due_s == inf or (timer is not None and timer.when() <= due_s):
            return
        if timer is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[device] = loop.call_at(due_s, loop.call_soon, self._look, device)

    def _look(self, device: str) -> None:
        """Do what is due, one turn of the loop after: what came at the same time counts first."""
        self._timers.pop(device, None)
        session, now_s = self[device], asyncio.get_running_loop().time()
        commands = session.handle_timeout(now_s) if session.next_timeout() <= now_s else []
        self._do(device, session, commands)
