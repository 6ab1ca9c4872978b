"""A site as one line of JSON, for scripts."""

import json
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from edge_coordinator.formatting import figure_of
from edge_coordinator.monitor.state import DeviceView, SiteState

_TOO_LONG: dict[str, Any] = {"compute": {"layers"}, "label_counts": True}


class SiteLines:
    """Writes a line for every state that differs from the one before by more than its age."""

    def __init__(self, write: Callable[[str], None], *, broker: str) -> None:
        self._write = write
        self._broker = broker
        self._written: SiteState | None = None

    def show(self, state: SiteState) -> None:
        """Write a state, if something happened."""
        if state != self._written:
            self._written = state
            self._write(site_line(state, broker=self._broker))


def site_line(state: SiteState, *, broker: str) -> str:
    """Write all that `cpsl monitor` shows on one line; times are seconds since 1970.

    A profile's layers and label counts are left out: they are on the device's own topic.
    """
    figure = figure_of(state.evaluated) if state.evaluated is not None else None
    metric, value = figure or (None, None)
    line = {
        "at_unix_s": state.at_unix_s,
        "broker": broker,
        "site": state.site,
        "connection_lost": state.connection_lost or None,
        "coordinator": plain(state.coordinator),
        "plan": plain(state.plan),
        "round": plain(state.round),
        "evaluated_round": state.evaluated.round if state.evaluated is not None else None,
        "metric": metric,
        "test_metric": value,
        "test_accuracy": state.evaluated.test_accuracy if state.evaluated is not None else None,
        "devices": [device_fields(view) for view in state.devices],
        "num_malformed": state.num_malformed,
        "last_malformed": state.last_malformed or None,
    }
    return json.dumps(line, allow_nan=False)


def device_fields(view: DeviceView) -> dict[str, Any]:
    """Give what is known of a device, by the names that `docs/watching.md` explains."""
    return {
        "device": view.device,
        "state": view.presence,
        "why": view.why or None,
        "engine": view.engine or None,
        "tags": dict(view.tags),
        "wanted_settings": dict(view.wanted.settings) if view.wanted is not None else None,
        "since_unix_s": view.status.since_unix_s if view.status is not None else None,
        "facts_age_s": view.ages.facts_s,
        "compute_age_s": view.ages.compute_s,
        "link_age_s": view.ages.link_s,
        "cluster": view.cluster,
        "share": view.share,
        "phase": view.activity,
        "profile": plain(view.profile, exclude=_TOO_LONG),
        "metrics": plain(view.metrics),
        "predicted": plain(view.predicted),
        "measured": plain(view.measured),
    }


def plain(
    message: BaseModel | None, exclude: dict[str, Any] | None = None
) -> dict[str, Any] | None:
    """Give a message as JSON has it."""
    return None if message is None else message.model_dump(mode="json", exclude=exclude)
