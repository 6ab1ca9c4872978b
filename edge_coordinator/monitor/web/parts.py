"""A site as the parts of the page; of what did not change, nothing is encoded again."""

import json
from typing import Any

from edge_coordinator.monitor.json_lines import device_fields, plain
from edge_coordinator.monitor.state import DeviceView, SiteState
from edge_coordinator.monitor.web.hub import Hub
from runtime.wire.fields import Message

GONE = "null"
"""Of a part that is there no more."""


class SiteParts:
    """Takes states of a site, and puts what is new of them into the hub."""

    def __init__(self, hub: Hub, *, broker: str) -> None:
        self._hub = hub
        self._broker = broker
        self._devices: dict[str, DeviceView] = {}
        self._messages: dict[str, Message | None] = {}

    def show(self, state: SiteState) -> None:
        """Put a state in the place of the one before."""
        reports = {"plan": state.plan, "round": state.round, "history": state.history}
        parts = {"site": _dumped(self._site(state))}
        parts |= {
            name: _dumped(plain(message))
            for name, message in reports.items()
            if name not in self._messages or self._messages[name] is not message
        }
        self._messages |= reports
        self._hub.put(parts | self._changed_devices(state))

    def _changed_devices(self, state: SiteState) -> dict[str, str]:
        before, self._devices = self._devices, {view.device: view for view in state.devices}
        changed = {
            f"device/{device}": _dumped(device_fields(view) | {"at_unix_s": state.at_unix_s})
            for device, view in self._devices.items()
            if before.get(device) != view
        }
        return changed | {f"device/{d}": GONE for d in before.keys() - self._devices.keys()}

    def _site(self, state: SiteState) -> dict[str, Any]:
        return {
            "site": state.site,
            "broker": self._broker,
            "connection_lost": state.connection_lost or None,
            "coordinator": plain(state.coordinator),
            "evaluated": plain(state.evaluated, exclude={"measured": True}),
            "num_malformed": state.num_malformed,
            "last_malformed": state.last_malformed or None,
        }


def _dumped(tree: Any) -> str:  # noqa: ANN401 - whatever JSON can say
    return json.dumps(tree, allow_nan=False, separators=(",", ":"))
