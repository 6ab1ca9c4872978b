"""What Mosquitto is given, and how it is told that this has changed."""

import signal
from pathlib import Path

import psutil

from edge_coordinator.fleet.files import give_to_broker, write_files
from edge_coordinator.fleet.record import FleetRecord
from edge_coordinator.fleet.rights import (
    Rights,
    access_list,
    coordinator_rights,
    device_rights,
    monitor_rights,
    operator_rights,
)
from edge_coordinator.fleet.template import filled
from runtime.wire.topics import Topics


def write_rules(folder: Path, record: FleetRecord, revoked: bytes) -> None:
    """Write the access list and the list of what is revoked."""
    rules = {"access-list": rights_text(record).encode(), "revoked.pem": revoked}
    write_files(folder, rules)
    give_to_broker(folder)


def write_configuration(folder: Path, record: FleetRecord) -> None:
    """Write Mosquitto's configuration and its unit."""
    at = record.seen_at / "broker"
    values = {"PORT": str(record.port), "FOLDER": str(at)}
    names = ("mosquitto.conf", "cpsl-broker.service")
    write_files(folder, {name: filled(name, values) for name in names})


def rights_text(record: FleetRecord) -> str:
    """Write the access list of everybody who is not revoked."""
    topics = Topics(record.site)
    users: dict[str, Rights] = {}
    for member in record.members:
        if member.role == "broker" or member.is_revoked:
            continue
        match member.role:
            case "coordinator":
                users[member.name] = coordinator_rights(topics)
            case "monitor":
                users[member.name] = monitor_rights(topics)
            case "operator":
                users[member.name] = operator_rights(topics)
            case _:
                users[member.name] = device_rights(topics, member.name)
    return access_list(users)


def tell_broker(configuration: Path) -> str:
    """Have the Mosquitto of this configuration read its files again; the sentence that says so."""
    running = [process for process in psutil.process_iter() if _runs(process, configuration)]
    if not running:
        return (
            f"no broker of this machine runs with {configuration}: if it runs elsewhere, copy "
            "the folder broker/ there and send Mosquitto a SIGHUP"
        )
    for process in running:
        try:
            process.send_signal(signal.SIGHUP)
        except psutil.AccessDenied:
            return f"the broker has to be told by its owner: sudo kill -HUP {process.pid}"
        except psutil.NoSuchProcess:
            continue
    return "the running broker was told, and takes it up at once"


def _runs(process: psutil.Process, configuration: Path) -> bool:
    try:
        words = process.cmdline() if process.name() == "mosquitto" else []
    except (psutil.Error, OSError):
        return False
    return any(Path(_folder_of(process), word).resolve() == configuration for word in words[1:])


def _folder_of(process: psutil.Process) -> str:
    """Where a process's relative paths begin; another user's is not ours to know."""
    try:
        return process.cwd()
    except (psutil.Error, OSError):
        return "/"
