"""The version of the wire, and whether two programs can work together.

The promise is in docs/compatibility.md. What stands here stays as it is in all versions: how a
device says its versions in its status, and the two messages.
"""

import re
from dataclasses import dataclass
from typing import Literal

from runtime.distribution import DISTRIBUTION, own_version
from runtime.wire.fields import Message, Token, Words

WIRE = 3
"""The version that this program speaks: another for each kind of message that is added."""
OLDEST_WIRE = 2
"""The oldest that it speaks as well."""
_VERSIONS = re.compile(r"(?P<software>.*); wire (?P<oldest>\d{1,4})(-(?P<newest>\d{1,4}))?")


class Incompatible(Message):
    """Coordinator to device: the two cannot work together."""

    kind: Literal["incompatible"] = "incompatible"
    version: Token = ""


class UnknownCommand(Message):
    """Device to coordinator: it does not know a command of this kind."""

    kind: Literal["unknown_command"] = "unknown_command"
    command: Words


@dataclass(frozen=True)
class Versions:
    """Of one program: its distribution's, and the versions of the wire that it speaks."""

    software: str
    oldest: int
    newest: int

    @classmethod
    def own(cls) -> "Versions":
        """Give this program's."""
        return cls(own_version(), OLDEST_WIRE, WIRE)

    @classmethod
    def read(cls, text: str) -> "Versions":
        """Read what a peer says; up to 0.2 none said which wire, and it was the first."""
        said = _VERSIONS.fullmatch(text)
        if said is None:
            return cls(text, 1, 1)
        return cls(said["software"], int(said["oldest"]), int(said["newest"] or said["oldest"]))

    def __str__(self) -> str:
        """Write it as a peer says it."""
        return f"{self.software}; wire {self._wires('-')}"

    def in_words(self) -> str:
        """Write it for people."""
        several = "s" if self.oldest < self.newest else ""
        wires = f"version{several} {self._wires(' to ')} of the wire"
        return f"{wires} ({DISTRIBUTION} {self.software})"

    def _wires(self, to: str) -> str:
        return f"{self.oldest}{to}{self.newest}" if self.oldest < self.newest else f"{self.newest}"


@dataclass(frozen=True)
class Feature:
    """What only some versions of the wire have."""

    name: str
    wire: int
    """The first that has it."""
    instead: str
    """What the job would take without it."""


AGGREGATED = Feature("aggregated gradients (training.phi)", 3, "training.phi = 0")
NESTED_OPTIONS = Feature(
    "options of the network that are tables or lists of more than whole numbers (model.options)",
    3,
    "a factory that says them itself, as by an attribute input_shape",
)

LAST_OF_WIRE_1 = Versions("0.2 or older", 1, 1)


def why_incompatible(version: str, *, here: str) -> str:
    """Say why a peer of this version and this program, which is `here`, cannot work together.

    Nothing if they can, as far as the peer says anything.
    """
    own, peer = Versions.own(), Versions.read(version)
    if not version or (peer.oldest <= own.newest and own.oldest <= peer.newest):
        return ""
    return cannot_work(peer, own, here=here)


def why_without(version: str, feature: Feature) -> str:
    """Say why a device of this version cannot take part where a job has this.

    Nothing if it can, as far as it says anything.
    """
    peer = Versions.read(version)
    if not version or peer.newest >= feature.wire:
        return ""
    return (
        f"speaks {peer.in_words()}, and {feature.name} are of version {feature.wire}: bring it up "
        f"to date, or take {feature.instead}"
    )


def cannot_work(peer: Versions, own: Versions, *, here: str) -> str:
    """Say to a program of these versions of its own, which is `here`, what a peer speaks."""
    older = "it" if peer.newest < own.newest else here
    return f"speaks {peer.in_words()}, {here} {own.in_words()}: bring {older} up to date"
