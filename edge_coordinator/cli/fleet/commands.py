"""`cpsl fleet`: what its actions do and print."""

import argparse
import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edge_coordinator.cli.output import Output, plain_table
from runtime.errors import CheckFailedError, SettingsError
from runtime.service.arguments import parse_assignment

if TYPE_CHECKING:
    from edge_coordinator.fleet.check import Finding


def fleet_command(flags: argparse.Namespace, console: Output) -> None:
    """Do what a command line of `cpsl fleet` says."""
    if find_spec("cryptography") is None:
        raise SettingsError(
            "certificates need cryptography, not installed here: pip install 'cpsl-edge[fleet]'"
        )
    _ACTIONS[flags.action](flags, console)


def watch_fleet(flags: argparse.Namespace, *, user: str = "monitor") -> None:
    """Fill in what `cpsl monitor`, or who may do more, needs to know of a fleet."""
    from edge_coordinator.fleet.record import access_in

    access, own = access_in(flags.fleet, user=user)
    flags.broker, flags.site = access.broker, access.site
    flags.cafile, flags.certfile, flags.keyfile = (
        own / f"{name}.pem" for name in ("authority", "certificate", "key")
    )


def _init(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.files import closed_to_broker
    from edge_coordinator.fleet.fleet import FleetFolder
    from edge_coordinator.fleet.record import FleetRecord

    path = flags.folder.resolve()
    record = FleetRecord(
        hosts=tuple(flags.host),
        port=flags.port,
        site=flags.site,
        days=flags.days,
        seen_at=flags.seen_at or path,
    )
    FleetFolder.make(path, record)
    _say(console, f"{path} is a fleet; keep {path / 'authority'} to yourself")
    if closed := closed_to_broker(path):
        _say(console, f"warning: the broker's own user cannot pass {closed}; a fleet that root "
             "makes is better off in /etc/cpsl-fleet")  # fmt: skip
    _say(console, f"the broker:      mosquitto -c {record.seen_at}/broker/mosquitto.conf")
    _say(console, f"the coordinator: cpsl coordinator --config {path}/coordinator/job.toml")
    _say(console, f"to watch:        cpsl monitor --fleet {path}")
    _say(console, f"a device:        cpsl fleet add {flags.folder} pi-1 --data npz:own.npz")
    made = {
        "folder": str(path),
        "broker": record.url,
        "site": record.site,
        "closed_to_broker": str(closed) if closed else None,
    }
    _document(console, made)


def _add(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    more = dict(parse_assignment(text) for text in flags.setting)
    settings = {"data": flags.data, "engine": flags.engine, "wait": True} | more
    folders = {}
    for name in flags.names:
        folders[name] = str(fleet.add(name, settings))
        _say(console, f"{name}: copy {folders[name]} to the device, and run install.sh there as "
             "root")  # fmt: skip
    _told(console, fleet.tell_broker(), {"added": folders})


def _add_operator(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    folders = {}
    for name in flags.names:
        folders[name] = str(fleet.add_operator(name))
        _say(console, f"{name}: copy {folders[name]} to their machine; there: cpsl monitor --fleet "
             f"{name}, and cpsl pause, submit, devices the same way")  # fmt: skip
    _told(console, fleet.tell_broker(), {"added": folders})


def _revoke(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    for name in flags.names:
        fleet.revoke(name)
        _say(console, f"{name} is revoked")
    _told(console, fleet.tell_broker(), {"revoked": flags.names})


def _rotate(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    folders = {}
    for name in flags.names:
        folders[name] = str(fleet.rotate(name, keeps_old=flags.keep_old))
        _say(console, f"{name} has a new certificate in {folders[name]}")
    _told(console, fleet.tell_broker(), {"rotated": folders})


def _list(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder, members_of
    from edge_coordinator.fleet.record import now_utc

    fleet = FleetFolder.open(flags.folder)
    record = fleet.record
    members = []
    table = plain_table("who", "what", "certificates", "holds")
    for member in members_of(record):
        days = member.days_left(now_utc())
        left = f"{days} more days" if days >= 0 else "expired"
        holds = "revoked" if member.is_revoked else left
        members.append(
            {
                "name": member.name,
                "role": member.role,
                "revoked": member.is_revoked,
                "num_certificates": len(member.certificates),
                "days_left": days,
            }
        )
        table.add_row(member.name, member.role, str(len(member.certificates)), holds)
    document = {"broker": record.url, "site": record.site, "members": members}
    console.answer(document, f"{record.url}, site {record.site}", table)


def _check(flags: argparse.Namespace, console: Output) -> None:
    from edge_coordinator.fleet.check import FleetCheck
    from edge_coordinator.fleet.fleet import FleetFolder

    found: list[Finding] = []

    def say(finding: "Finding") -> None:
        found.append(finding)
        reason = f": {finding.reason}" if finding.reason else ""
        _say(console, f"{'holds' if finding.holds else 'FAILS':6}{finding.claim}{reason}")

    asyncio.run(FleetCheck(FleetFolder.open(flags.folder), say).run())
    failed = sum(not finding.holds for finding in found)
    _document(console, {"findings": [asdict(finding) for finding in found], "num_failed": failed})
    if failed:
        raise CheckFailedError(f"{failed} of {len(found)} rights are not as they should be")
    _say(console, f"all {len(found)} hold")


def _say(console: Output, text: str) -> None:
    console.say(text)


def _document(console: Output, document: dict[str, Any]) -> None:
    """Print what has been said, for programs."""
    if console.is_json:
        console.answer(document)


def _told(console: Output, broker: str, document: dict[str, Any]) -> None:
    """End with what the broker has been told."""
    console.say(broker)
    _document(console, {**document, "broker": broker})


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Output], None]] = {
    "init": _init,
    "add": _add,
    "add-operator": _add_operator,
    "revoke": _revoke,
    "rotate": _rotate,
    "list": _list,
    "check": _check,
}
