"""`cpsl fleet`: what its actions do and print."""

import argparse
import asyncio
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

from rich.console import Console

from edge_coordinator.cli.tables import plain_table
from runtime.errors import CheckFailedError, SettingsError

if TYPE_CHECKING:
    from edge_coordinator.fleet.check import Finding


def fleet_command(flags: argparse.Namespace, console: Console) -> None:
    """Do what a command line of `cpsl fleet` says."""
    if find_spec("cryptography") is None:
        raise SettingsError(
            "certificates need cryptography, not installed here: pip install 'cpsl-edge[fleet]'"
        )
    _ACTIONS[flags.action](flags, console)


def watch_fleet(flags: argparse.Namespace, *, user: str = "monitor") -> None:
    """Fill in what `cpsl monitor`, or who may do more, needs to know of a fleet."""
    from edge_coordinator.fleet.record import read_record

    record = read_record(flags.fleet / "fleet.json")
    flags.broker, flags.site = record.url, record.site
    own = flags.fleet / user
    flags.cafile, flags.certfile, flags.keyfile = (
        own / f"{name}.pem" for name in ("authority", "certificate", "key")
    )


def _init(flags: argparse.Namespace, console: Console) -> None:
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


def _add(flags: argparse.Namespace, console: Console) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder
    from edge_coordinator.job.file import parse_assignment

    fleet = FleetFolder.open(flags.folder)
    more = dict(parse_assignment(text) for text in flags.setting)
    settings = {"data": flags.data, "engine": flags.engine, "wait": True} | more
    for name in flags.names:
        folder = fleet.add(name, settings)
        _say(console, f"{name}: copy {folder} to the device, and run install.sh there as root")
    _say(console, fleet.tell_broker())


def _revoke(flags: argparse.Namespace, console: Console) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    for name in flags.names:
        fleet.revoke(name)
        _say(console, f"{name} is revoked")
    _say(console, fleet.tell_broker())


def _rotate(flags: argparse.Namespace, console: Console) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder

    fleet = FleetFolder.open(flags.folder)
    for name in flags.names:
        folder = fleet.rotate(name, keeps_old=flags.keep_old)
        _say(console, f"{name} has a new certificate in {folder}")
    _say(console, fleet.tell_broker())


def _list(flags: argparse.Namespace, console: Console) -> None:
    from edge_coordinator.fleet.fleet import FleetFolder, members_of
    from edge_coordinator.fleet.record import now_utc

    fleet = FleetFolder.open(flags.folder)
    record = fleet.record
    _say(console, f"{record.url}, site {record.site}")
    table = plain_table("who", "what", "certificates", "holds")
    for member in members_of(record):
        days = member.days_left(now_utc())
        left = f"{days} more days" if days >= 0 else "expired"
        holds = "revoked" if member.is_revoked else left
        table.add_row(member.name, member.role, str(len(member.certificates)), holds)
    console.print(table)


def _check(flags: argparse.Namespace, console: Console) -> None:
    from edge_coordinator.fleet.check import FleetCheck
    from edge_coordinator.fleet.fleet import FleetFolder

    found: list[Finding] = []

    def say(finding: "Finding") -> None:
        found.append(finding)
        reason = f": {finding.reason}" if finding.reason else ""
        _say(console, f"{'holds' if finding.holds else 'FAILS':6}{finding.claim}{reason}")

    asyncio.run(FleetCheck(FleetFolder.open(flags.folder), say).run())
    failed = sum(not finding.holds for finding in found)
    if failed:
        raise CheckFailedError(f"{failed} of {len(found)} rights are not as they should be")
    _say(console, f"all {len(found)} hold")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


_ACTIONS: Mapping[str, Callable[[argparse.Namespace, Console], None]] = {
    "init": _init,
    "add": _add,
    "revoke": _revoke,
    "rotate": _rotate,
    "list": _list,
    "check": _check,
}
