"""What a fleet's folder remembers: its broker, its members and their certificates."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from runtime.errors import SettingsError

Role = Literal["broker", "coordinator", "monitor", "check", "device", "operator"]


ACCESS_FILE = "site.json"
"""In a bundle for a person, where the site is."""


class CertificateRecord(BaseModel):
    """One certificate that was issued."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: str
    """In hexadecimal digits: more than JSON's readers take for a number."""
    expires: datetime
    is_revoked: bool = False

    @property
    def number(self) -> int:
        """The serial number."""
        return int(self.serial, 16)

    def holds(self, now: datetime) -> bool:
        """Whether the broker takes it."""
        return not self.is_revoked and now < self.expires


class FleetMember(BaseModel):
    """One identity: the user name on the broker, and every certificate it ever had."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    role: Role
    certificates: tuple[CertificateRecord, ...] = ()

    @property
    def is_revoked(self) -> bool:
        """Whether none of its certificates is left."""
        return all(certificate.is_revoked for certificate in self.certificates)

    def days_left(self, now: datetime) -> int:
        """Whole days that the newest certificate holds."""
        return (self.certificates[-1].expires - now).days

    def revoked(self) -> "FleetMember":
        """Return it with every certificate taken back."""
        taken = tuple(one.model_copy(update={"is_revoked": True}) for one in self.certificates)
        return self.model_copy(update={"certificates": taken})

    def with_certificate(self, serial: int, expires: datetime) -> "FleetMember":
        """Return it with one certificate more."""
        new = CertificateRecord(serial=f"{serial:x}", expires=expires)
        return self.model_copy(update={"certificates": (*self.certificates, new)})


class FleetRecord(BaseModel):
    """A fleet, as its folder's `fleet.json` has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    hosts: tuple[str, ...]
    """Names and addresses of the broker; the first one is in every bundle."""
    port: int
    site: str
    days: int
    """That a certificate holds."""
    seen_at: Path
    """Where the broker and the coordinator see the folder."""
    members: tuple[FleetMember, ...] = ()

    @property
    def url(self) -> str:
        """The broker's address."""
        host = self.hosts[0]
        return f"mqtts://{f'[{host}]' if ':' in host else host}:{self.port}"

    def member(self, name: str) -> FleetMember:
        """Find a member; SettingsError that names those there are."""
        for member in self.members:
            if member.name == name:
                return member
        devices = ", ".join(one.name for one in self.members if one.role == "device")
        raise SettingsError(f"there is no {name!r} in this fleet; devices: {devices or 'none yet'}")

    def having(self, member: FleetMember) -> "FleetRecord":
        """Return it with this member, new or in the place of the one of its name."""
        names = [one.name for one in self.members]
        if member.name not in names:
            return self.model_copy(update={"members": (*self.members, member)})
        members = tuple(member if one.name == member.name else one for one in self.members)
        return self.model_copy(update={"members": members})

    def serials_revoked(self) -> list[int]:
        """Serial numbers of what no longer holds."""
        return [
            certificate.number
            for member in self.members
            for certificate in member.certificates
            if certificate.is_revoked
        ]


class SiteAccess(BaseModel):
    """Where a site is, for a bundle of its own: beside a certificate that it lets in."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    broker: str
    site: str


def access_in(folder: Path, *, user: str) -> tuple[SiteAccess, Path]:
    """Read how to reach a site from a fleet's folder, as `user`, or from somebody's own bundle.

    With it, the folder of the certificate to show. SettingsError if it is neither.
    """
    bundle = folder / ACCESS_FILE
    try:
        return SiteAccess.model_validate_json(bundle.read_bytes()), folder
    except FileNotFoundError:
        record = read_record(folder / "fleet.json")
        return SiteAccess(broker=record.url, site=record.site), folder / user
    except (OSError, ValidationError) as error:
        raise SettingsError(f"{bundle} cannot be read as the way to a site: {error}") from error


def read_record(path: Path) -> FleetRecord:
    """Read a fleet's record; SettingsError if there is none or it is damaged."""
    try:
        return FleetRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise SettingsError(
            f"{path.parent} is no fleet: make one with cpsl fleet init {path.parent} --host NAME"
        ) from error
    except (OSError, ValidationError) as error:
        raise SettingsError(f"{path} cannot be read as a fleet's record: {error}") from error


def now_utc() -> datetime:
    """The present time."""
    return datetime.now(UTC).replace(microsecond=0)
