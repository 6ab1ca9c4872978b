"""Devices that are one machine: what one of them measures holds for the others of its process."""

from collections.abc import Iterable

from edge_coordinator.devices.registry import Registry


def by_process(registry: Registry, devices: Iterable[str]) -> list[list[str]]:
    """Put devices of one process together, in order; one that names none is by itself."""
    groups: dict[str, list[str]] = {}
    for device in devices:
        process = registry.records[device].status.process
        groups.setdefault(process or f"device {device}", []).append(device)
    return list(groups.values())
