"""What the coordinator waits for: one exchange of frames, and an inquiry of each device."""

from edge_coordinator.exchange import Exchange
from edge_coordinator.inquiry import Inquiry
from edge_coordinator.link_echo import LinkEcho
from runtime.protocol.events import DeviceLost


class Pending:
    """Answers that are awaited now."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.inquiries: dict[str, Inquiry] = {}
        self.echoes: dict[str, LinkEcho] = {}

    def pause(self) -> None:
        """Give nobody up while our own connection is down."""
        for waiting in self._all():
            waiting.pause()

    def resume(self) -> None:
        """Ask again for all that is missing: our connection is back."""
        for waiting in self._all():
            waiting.resume()

    def note_return(self, device: str) -> None:
        """Ask a device again that has found its connection again."""
        if self.exchange is not None:
            self.exchange.note_return(device)
        if device in self.inquiries:
            self.inquiries[device].note_return()

    def note_sign(self, device: str) -> None:
        """Ask a device again that says it is there, if it has not since our connection broke."""
        if self.exchange is not None and self.exchange.vigil.is_away(device):
            self.exchange.note_return(device)
        if device in self.inquiries and self.inquiries[device].vigil.is_away(device):
            self.inquiries[device].note_return()

    def lose(self, device: str, reason: str) -> None:
        """Wait no longer for a device."""
        if device in self.inquiries:
            self.inquiries[device].lose(reason)
        if self.exchange is not None and device in self.exchange.gathering.missing:
            self.exchange.post(DeviceLost(device, reason))

    def _all(self) -> list[Exchange | Inquiry]:
        exchanges = [self.exchange] if self.exchange is not None else []
        return [*exchanges, *self.inquiries.values()]
