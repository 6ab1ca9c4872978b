"""The graphs that the coordinator sent: kept, so that they are not sent again."""

from collections import OrderedDict

from runtime.errors import SettingsError
from runtime.wire.device_graphs import DeviceGraphs

MAX_KEPT = 8
"""Graphs of so many cuts stay; they are small, and cuts change slowly."""


class GraphStore:
    """Graphs by their digest, those used last at the end; also which of them are in use."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, DeviceGraphs] = OrderedDict()
        self._in_use: DeviceGraphs | None = None

    def keep(self, digest: str, graphs: DeviceGraphs) -> None:
        """Take graphs that have been checked; those unused for longest go."""
        self._kept[digest] = graphs
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    def use(self, digest: str) -> bool:
        """Have the graphs of this digest in use from now on; False if they are not here."""
        if digest not in self._kept:
            return False
        self._kept.move_to_end(digest)
        self._in_use = self._kept[digest]
        return True

    @property
    def in_use(self) -> DeviceGraphs:
        """The graphs of the present turn."""
        if self._in_use is None:
            raise SettingsError("the coordinator offered no graphs to a device without torch")
        return self._in_use
