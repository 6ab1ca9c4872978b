"""Late devices: each is taken to be at its answer still, and is asked for nothing meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from runtime.wire.frames import Chunk, FrameKind, StepId


@dataclass(frozen=True)
class _Debt:
    kind: FrameKind
    step: StepId
    on_answer: Callable[[], None]
    timer: asyncio.TimerHandle


class Owing:
    """Who owes an answer that nobody waits for any more, until it has come."""

    def __init__(self, on_settled: Callable[[], None]) -> None:
        """`on_settled` hears whenever a device can be asked again."""
        self._on_settled = on_settled
        self._debts: dict[str, _Debt] = {}

    @property
    def reasons(self) -> dict[str, str]:
        """Device id to why it is asked for nothing."""
        return {
            device: f"was late, and is at its answer of round {debt.step.round} still"
            for device, debt in sorted(self._debts.items())
        }

    def __contains__(self, device: object) -> bool:
        return device in self._debts

    def note(
        self,
        device: str,
        kind: FrameKind,
        step: StepId,
        *,
        on_answer: Callable[[], None],
        most_s: float,
    ) -> None:
        """Ask nothing of a device until its answer has come, or for so many seconds."""
        self.settle(device)
        timer = asyncio.get_running_loop().call_later(most_s, self.settle, device)
        self._debts[device] = _Debt(kind, step, on_answer, timer)

    def receive(self, device: str, chunk: Chunk) -> None:
        """Take a part of a frame that is not asked for any more; the last one settles it."""
        debt = self._debts.get(device)
        if debt is None or (chunk.kind, chunk.step) != (debt.kind, debt.step):
            return
        if chunk.index + 1 == chunk.num_chunks:
            debt.on_answer()
            self.settle(device)

    def settle(self, device: str) -> None:
        """Let a device be asked again."""
        debt = self._debts.pop(device, None)
        if debt is not None:
            debt.timer.cancel()
            self._on_settled()
