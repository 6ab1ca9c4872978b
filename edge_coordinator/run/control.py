"""A run under control from outside: paused, going on, stopped, planned anew."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from runtime.wire.run_control import Condition, ControlAnswer, ControlRequest

PAUSED = "paused; cpsl continue goes on"


class RunControl:
    """Takes requests at any time; the run asks it between rounds."""

    def __init__(self, run: int, *, why_no_replan: str = "") -> None:
        """`why_no_replan` says why no plan can be made anew, if none can."""
        self.round = 0
        """The last round that is over."""
        self._run = run
        self._why_no_replan = why_no_replan
        self._condition: Condition = "running"
        self._replan = False
        self.stopped_by = ""
        """Who had the run end, as they said themselves."""
        self._answer: ControlAnswer | None = None
        self._changed = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether the run is to end now."""
        return self._condition == "stopping"

    def take(self, request: ControlRequest) -> ControlAnswer:
        """Do what is asked, if that can be; a repeat gets the same answer."""
        if self._answer is not None and self._answer.request == request.request:
            return self._answer
        why_not = self._why_not(request)
        words = why_not or self._carry_out(request)
        self._answer = ControlAnswer(
            action=request.action,
            request=request.request,
            run=self._run,
            accepted=not why_not,
            condition=self._condition,
            round=self.round,
            words=words,
        )
        return self._answer

    def take_replan(self) -> bool:
        """Whether a new plan was asked for since the last time."""
        asked, self._replan = self._replan, False
        return asked

    async def until_continued(self, say: Callable[[str], None]) -> None:
        """Wait while the run is paused; `say` tells people."""
        if self._condition == "paused":
            say(PAUSED)
        while self._condition == "paused":
            await self._until_changed()

    async def unless_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        """Wait for something, or until the run is to end."""
        task = asyncio.ensure_future(waiting)
        stopped = asyncio.ensure_future(self._until_stopped())
        try:
            await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    def _why_not(self, request: ControlRequest) -> str:
        if request.run is not None and request.run != self._run:
            return f"it works at run {self._run:016x}, not at {request.run:016x}"
        if self.is_stopping and request.action != "stop":
            return "the run is stopping already"
        if request.action == "continue" and self._condition == "running":
            return "the run is not paused"
        return self._why_no_replan if request.action == "replan" else ""

    def _carry_out(self, request: ControlRequest) -> str:
        where = f"after round {self.round + 1}" if self._condition == "running" else "at once"
        match request.action:
            case "pause":
                self._condition = "paused"
                said = "is paused" if where == "at once" else f"pauses {where}"
            case "continue":
                self._condition = "running"
                said = f"goes on with round {self.round + 1}"
            case "stop":
                if not self.is_stopping:
                    self.stopped_by = request.by
                self._condition = "stopping"
                said = f"stops {where}"
            case "replan":
                self._replan = True
                said = "chooses the cut anew for the next round that it plans"
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return said

    async def _until_stopped(self) -> None:
        while not self.is_stopping:
            await self._until_changed()

    async def _until_changed(self) -> None:
        await self._changed.wait()
