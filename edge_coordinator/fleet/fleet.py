"""A fleet in a folder: made once, then devices come, go and get new certificates."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import tomli_w

from edge_coordinator.fleet.authority import Authority, Identity
from edge_coordinator.fleet.broker import tell_broker, write_configuration, write_rules
from edge_coordinator.fleet.files import give_to_broker, in_one_sentence, write_files
from edge_coordinator.fleet.record import (
    ACCESS_FILE,
    FleetMember,
    FleetRecord,
    Role,
    SiteAccess,
    now_utc,
    read_record,
)
from edge_coordinator.fleet.template import filled
from runtime.errors import SettingsError
from runtime.wire.topics import check_name

CHECKS = ("check-a", "check-b")
"""Identities like those of devices, which `check` tries the rights with: it disturbs nobody."""
_OWN_NAMES: dict[str, Role] = {
    "broker": "broker",
    "coordinator": "coordinator",
    "monitor": "monitor",
    **dict.fromkeys(CHECKS, "check"),
}


class FleetFolder:
    """A fleet's folder: the authority, the broker, and one folder for each member.

    What changes is on the disk when a method returns; `tell_broker` makes a running broker see it.
    """

    def __init__(self, path: Path, record: FleetRecord, authority: Authority) -> None:
        self.path = path
        self.record = record
        self._authority = authority

    @classmethod
    def make(cls, path: Path, record: FleetRecord) -> Self:
        """Make the folder with everything but devices; SettingsError if it has something in it."""
        check_name("site", record.site)
        with in_one_sentence(path):
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise SettingsError(f"{path} is not empty: a new fleet needs a folder of its own")
            path.chmod(0o711)  # The broker's user passes through to its own folder.
        authority = Authority.make(f"cpsl fleet {record.site}", now=now_utc())
        own = authority.identity
        write_files(path / "authority", {"certificate.pem": own.certificate, "key.pem": own.key})
        fleet = cls(path, record, authority)
        for name, role in _OWN_NAMES.items():
            fleet._certify(FleetMember(name=name, role=role))
        write_configuration(path / "broker", record)
        fleet._write_coordinator()
        fleet._save()
        return fleet

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a fleet's folder."""
        path = path.resolve()
        record = read_record(path / "fleet.json")
        with in_one_sentence(path):
            certificate = (path / "authority" / "certificate.pem").read_bytes()
            key = (path / "authority" / "key.pem").read_bytes()
        return cls(path, record, Authority.load(certificate, key))

    def add(self, device: str, settings: Mapping[str, object]) -> Path:
        """Make the bundle of a new device; the folder that it is in."""
        member = self._newcomer(device, "device")
        self._certify(member)
        named = {"id": device, "broker": self.record.url, "site": self.record.site}
        files = {"cafile": "authority.pem", "certfile": "certificate.pem", "keyfile": "key.pem"}
        text = tomli_w.dumps({**named, **files, **settings})
        text = f"# The flags of cpsl-agent, as a file; --help tells them.\n{text}"
        bundle = {
            "agent.toml": text.encode(),
            "cpsl-agent.service": filled("cpsl-agent.service"),
            "install.sh": filled("install.sh"),
        }
        write_files(self.folder(member), bundle)
        self._save()
        return self.folder(member)

    def add_operator(self, name: str) -> Path:
        """Make the bundle of a person who may ask runs and devices; the folder that it is in."""
        member = self._newcomer(name, "operator")
        self._certify(member)
        access = SiteAccess(broker=self.record.url, site=self.record.site)
        write_files(self.folder(member), {ACCESS_FILE: access.model_dump_json().encode()})
        self._save()
        return self.folder(member)

    def _newcomer(self, name: str, role: Role) -> FleetMember:
        """Check a name that is to be let in, for the first time or again."""
        check_name("device id" if role == "device" else role, name)
        if name in _OWN_NAMES:
            raise SettingsError(f"{name!r} is a name of the fleet's own; take another")
        if all(one.name != name for one in self.record.members):
            return FleetMember(name=name, role=role)
        member = self.record.member(name)
        if not member.is_revoked:
            raise SettingsError(
                f"{name!r} has a certificate already; a new one: cpsl fleet rotate "
                f"{self.path} {name}"
            )
        if member.role != role:
            raise SettingsError(f"{name!r} was an {member.role}; take another name for the {role}")
        return member

    def revoke(self, name: str) -> None:
        """Take every certificate of a member back, and its rights."""
        member = self.record.member(name)
        if member.is_revoked:
            raise SettingsError(f"{name!r} is revoked already")
        if member.role == "broker":
            raise SettingsError(
                f"{name!r} cannot be revoked, only rotated: devices trust it by the authority"
            )
        old = self.path / "revoked" / f"{name}-{member.certificates[-1].serial[:8]}"
        with in_one_sentence(old):
            old.parent.mkdir(mode=0o700, exist_ok=True)
            shutil.move(self.folder(member), old)
        self.record = self.record.having(member.revoked())
        self._save()

    def rotate(self, name: str, *, keeps_old: bool) -> Path:
        """Give a member a new key and certificate; the old ones hold on only if they are kept."""
        member = self.record.member(name)
        if member.is_revoked:
            raise SettingsError(f"{name!r} is revoked; let it in again by cpsl fleet add")
        self._certify(member if keeps_old else member.revoked())
        self._save()
        return self.folder(member)

    def tell_broker(self) -> str:
        """Have a broker that runs take up what has changed; the sentence that says so."""
        return tell_broker((self.path / "broker" / "mosquitto.conf").resolve())

    def folder(self, member: FleetMember) -> Path:
        """Where a member's certificate and key are."""
        of_many = {"device": "devices", "check": "checks", "operator": "operators"}
        return self.path / of_many.get(member.role, "") / member.name

    def _certify(self, member: FleetMember) -> None:
        """Issue a certificate, and put it with its key and the authority's into the folder."""
        identity = self._issue(member)
        folder = self.folder(member)
        with in_one_sentence(folder):
            folder.parent.mkdir(mode=0o700, exist_ok=True)
        files = {
            "authority.pem": self._authority.identity.certificate,
            "certificate.pem": identity.certificate,
            "key.pem": identity.key,
        }
        write_files(folder, files)
        self.record = self.record.having(member.with_certificate(identity.serial, identity.expires))

    def _issue(self, member: FleetMember) -> Identity:
        days, now = self.record.days, now_utc()
        if member.role == "broker":
            return self._authority.issue_server(self.record.hosts, days=days, now=now)
        return self._authority.issue_client(member.name, days=days, now=now)

    def _write_coordinator(self) -> None:
        folder = self.path / "coordinator"
        at = self.record.seen_at / "coordinator"
        broker = {
            "url": self.record.url,
            "cafile": str(at / "authority.pem"),
            "certfile": str(at / "certificate.pem"),
            "keyfile": str(at / "key.pem"),
        }
        text = tomli_w.dumps({"site": self.record.site, "broker": broker})
        job = f"# A job file that knows the broker: add what is to be trained.\n{text}"
        unit = filled("cpsl-coordinator.service", {"FOLDER": str(at)})
        write_files(folder, {"job.toml": job.encode(), "cpsl-coordinator.service": unit})

    def _save(self) -> None:
        revoked = self.path / "broker" / "revoked.pem"
        before = revoked.read_bytes() if revoked.exists() else None
        serials = self.record.serials_revoked()
        write_rules(
            self.path / "broker",
            self.record,
            self._authority.revocation_list(serials, newer_than=before),
        )
        give_to_broker(self.path / "broker")
        write_files(self.path, {"fleet.json": self.record.model_dump_json(indent=1).encode()})


def members_of(record: FleetRecord) -> Sequence[FleetMember]:
    """Who may connect to the broker, revoked ones included, without those of `check`."""
    return [one for one in record.members if one.role not in {"broker", "check"}]
