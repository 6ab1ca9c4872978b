"""What the coordinator waits for: one exchange of frames, and inquiries of each device."""

from edge_coordinator.exchange import Exchange
from edge_coordinator.inquiry import Inquiry, Request
from edge_coordinator.link_echo import LinkEcho
from runtime.protocol.events import DeviceLost
from runtime.wire.commands import AnyReply, LinkMeasured, MeasureLink


class Pending:
    """Answers that are awaited now."""

    def __init__(self) -> None:
        self.exchange: Exchange | None = None
        self.inquiries: dict[str, Inquiry] = {}
        self.link_inquiries: dict[str, Inquiry] = {}
        """Of devices that measure their links, while they train for all that is known."""
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
        for inquiry in self._of(device):
            inquiry.note_return()

    def note_sign(self, device: str) -> None:
        """Ask a device again that says it is there, if it has not since our connection broke."""
        if self.exchange is not None and self.exchange.vigil.is_away(device):
            self.exchange.note_return(device)
        for inquiry in self._of(device):
            if inquiry.vigil.is_away(device):
                inquiry.note_return()

    def lose(self, device: str, reason: str) -> None:
        """Wait no longer for a device."""
        for inquiry in self._of(device):
            inquiry.lose(reason)
        if self.exchange is not None and device in self.exchange.gathering.missing:
            self.exchange.post(DeviceLost(device, reason))

    def inquiries_like(self, request: Request) -> dict[str, Inquiry]:
        """Where a request's inquiry has its place: a device answers one of each kind at a time."""
        return self.link_inquiries if isinstance(request, MeasureLink) else self.inquiries

    def asked(self, device: str, reply: AnyReply) -> Inquiry | None:
        """Find the inquiry that a reply may belong to."""
        is_of_link = isinstance(reply, LinkMeasured)
        return (self.link_inquiries if is_of_link else self.inquiries).get(device)

    def _of(self, device: str) -> list[Inquiry]:
        both = (self.inquiries.get(device), self.link_inquiries.get(device))
        return [inquiry for inquiry in both if inquiry is not None]

    def _all(self) -> list[Exchange | Inquiry]:
        exchanges = [self.exchange] if self.exchange is not None else []
        return [*exchanges, *self.inquiries.values(), *self.link_inquiries.values()]
