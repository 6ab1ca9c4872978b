"""The metrics: a name, a help text and where the figure comes from, for each.

Names and units are by Prometheus' conventions: base units (seconds, bytes, ratios of 1), `_total`
on what only grows, `_timestamp_seconds` on times, `_info` on what is text.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from edge_coordinator.formatting import figure_of
from edge_coordinator.monitor.prometheus.totals import SiteTotals
from edge_coordinator.monitor.state import DeviceView, Presence, SiteState
from runtime.wire.measures import LinkProfile, PhaseSeconds
from runtime.wire.published import DeviceProfile, RoundReport

Of = TypeVar("Of")
_BITS = 8


@dataclass(frozen=True)
class _Gauge(Generic[Of]):
    """A figure of a site, a round or a device; None where there is none now."""

    name: str
    help: str
    of: Callable[[Of], float | None]


_SITE = (
    _Gauge[SiteState]("cpsl_broker_connected", "Whether the broker is within reach",
                      lambda site: not site.connection_lost),
    _Gauge[SiteState]("cpsl_coordinator_online", "Whether a coordinator is there",
                      lambda site: site.coordinator is not None
                      and site.coordinator.state == "online"),
    _Gauge[SiteState]("cpsl_run_rounds", "Rounds that the run is to have",
                      lambda site: site.history.num_rounds if site.history else None),
    _Gauge[SiteState]("cpsl_clusters", "Clusters of the plan",
                      lambda site: len(site.plan.clusters) if site.plan else None),
    _Gauge[SiteState]("cpsl_cut_layers", "Layers that the plan computes on the devices",
                      lambda site: site.plan.cut if site.plan else None),
    _Gauge[SiteState]("cpsl_planned_round_seconds", "What the plan says the present round takes",
                      lambda site: site.plan.predicted_s if site.plan else None),
    _Gauge[SiteState]("cpsl_test_accuracy_ratio", "Of the last evaluation",
                      lambda site: site.evaluated.test_accuracy if site.evaluated else None),
    _Gauge[SiteState]("cpsl_test_loss", "Of the last evaluation",
                      lambda site: site.evaluated.test_loss if site.evaluated else None),
)  # fmt: skip
_ROUND = (
    _Gauge[RoundReport]("cpsl_run_round", "The last round that is over", lambda r: r.round),
    _Gauge[RoundReport]("cpsl_run_elapsed_seconds", "Since training began, evaluation included",
                        lambda report: report.elapsed_s),
    _Gauge[RoundReport]("cpsl_last_round_seconds", "What the last round took",
                        lambda report: report.round_s),
    _Gauge[RoundReport]("cpsl_last_round_predicted_seconds", "What its plan said it would take",
                        lambda report: report.predicted_round_s),
    _Gauge[RoundReport]("cpsl_train_loss", "Of the last round", lambda r: r.train_loss),
    _Gauge[RoundReport]("cpsl_learning_rate", "Of the server in the last round",
                        lambda report: report.learning_rate),
)  # fmt: skip
_PROFILE = (
    _Gauge[DeviceProfile]("cpsl_device_last_seen_timestamp_seconds", "Time of its last profile",
                          lambda profile: profile.measured_at_unix_s),
    _Gauge[DeviceProfile]("cpsl_device_memory_bytes", "Physical memory",
                          lambda profile: profile.memory_bytes),
    _Gauge[DeviceProfile]("cpsl_device_memory_free_bytes", "Memory that is free",
                          lambda profile: profile.free_memory_bytes),
    _Gauge[DeviceProfile]("cpsl_device_resident_memory_bytes", "Memory that its agent holds",
                          lambda profile: profile.resident_bytes),
    _Gauge[DeviceProfile]("cpsl_device_load_ratio", "Busy part of all its cores",
                          lambda profile: profile.load_fraction),
    _Gauge[DeviceProfile]("cpsl_device_cpu_hertz", "Clock of its processor",
                          lambda profile: profile.cpu_hz),
    _Gauge[DeviceProfile]("cpsl_device_temperature_celsius", "Of its processor",
                          lambda profile: profile.temperature_c),
    _Gauge[DeviceProfile]("cpsl_device_battery_ratio", "Charge of its battery",
                          lambda profile: profile.battery_fraction),
    _Gauge[DeviceProfile]("cpsl_device_samples", "Samples of its own data",
                          lambda profile: profile.num_samples),
)  # fmt: skip
_LINK = (
    _Gauge[LinkProfile]("cpsl_device_uplink_bytes_per_second", "Device to coordinator, measured",
                        lambda link: link.up_bps / _BITS),
    _Gauge[LinkProfile]("cpsl_device_downlink_bytes_per_second", "Coordinator to device, measured",
                        lambda link: link.down_bps / _BITS),
    _Gauge[LinkProfile]("cpsl_device_round_trip_seconds", "Of an empty message and its answer",
                        lambda link: link.round_trip_s),
)  # fmt: skip


def families_of(state: SiteState, totals: SiteTotals) -> Iterator[Metric]:
    """Give all metrics of a site as it is now."""
    site = [state.site]
    for gauge in _SITE:
        yield _gauge(gauge, [(site, state)], ["site"])
    for of_round in _ROUND:
        yield _gauge(of_round, [(site, state.round)] if state.round else [], ["site"])
    yield _metrics(state)
    yield from _totals(site, totals)
    yield _presence(state)
    yield from _devices(state)


def _gauge(gauge: _Gauge[Of], of: list[tuple[list[str], Of]], labels: list[str]) -> Metric:
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=labels)
    for values, what in of:
        figure = gauge.of(what)
        if figure is not None:
            family.add_metric(values, float(figure))
    return family


def _totals(site: list[str], totals: SiteTotals) -> Iterator[Metric]:
    rounds = SummaryMetricFamily("cpsl_round_duration_seconds", "Of the rounds", labels=["site"])
    rounds.add_metric(site, totals.num_rounds, totals.round_s)
    yield rounds
    for name, help_, value in (
        ("cpsl_received_bytes", "Frames from the devices", totals.up_bytes),
        ("cpsl_sent_bytes", "Frames for the devices", totals.down_bytes),
    ):
        family = CounterMetricFamily(name, help_, labels=["site"])
        family.add_metric(site, value)
        yield family
    for name, help_, label, counts in (
        ("cpsl_device_lost", "Rounds that it fell out of", "device", totals.lost),
        ("cpsl_device_dropped_messages", "Late, repeated, unusable", "device", totals.dropped),
        ("cpsl_faults", "What went wrong beside the training", "what", totals.faults),
    ):
        family = CounterMetricFamily(name, help_, labels=["site", label])
        for which, count in sorted(counts.items()):
            family.add_metric([*site, which], count)
        yield family


def _metrics(state: SiteState) -> Metric:
    """Give every figure of the last evaluation by its name, whatever the task is."""
    family = GaugeMetricFamily(
        "cpsl_test_metric", "Of the last evaluation, by name", labels=["site", "metric"]
    )
    if (evaluated := state.evaluated) is not None:
        figure = figure_of(evaluated)
        figures = dict(evaluated.test_figures) | (dict([figure]) if figure else {})
        for name, value in sorted(figures.items()):
            family.add_metric([state.site, name], value)
    return family


def _presence(state: SiteState) -> Metric:
    family = GaugeMetricFamily("cpsl_devices", "By presence", labels=["site", "state"])
    for presence in Presence:
        family.add_metric([state.site, presence.value], state.count(presence))
    return family


def _devices(state: SiteState) -> Iterator[Metric]:
    labels = ["site", "device"]
    views = [([state.site, view.device], view) for view in state.devices]
    profiles = [(names, view.profile) for names, view in views if view.profile is not None]
    links = [(names, profile.link) for names, profile in profiles if profile.link is not None]
    for gauge in (
        _Gauge[DeviceView]("cpsl_device_up", "Whether it is there and heard of", _is_up),
        _Gauge[DeviceView]("cpsl_device_cluster", "Its cluster in the plan", lambda v: v.cluster),
    ):
        yield _gauge(gauge, views, labels)
    for of_profile in _PROFILE:
        yield _gauge(of_profile, profiles, labels)
    for of_link in _LINK:
        yield _gauge(of_link, links, labels)
    info = InfoMetricFamily("cpsl_device", "What it runs", labels=labels)
    for names, view in views:
        info.add_metric(names, _facts(view))
    yield info
    yield _compute(profiles)
    measured = [(names, view.measured) for names, view in views if view.measured is not None]
    predicted = [(names, view.predicted) for names, view in views if view.predicted is not None]
    yield _phases("cpsl_device_phase_seconds", "Measured, of a local epoch", measured)
    yield _phases("cpsl_device_predicted_phase_seconds", "As the plan says", predicted)


def _is_up(view: DeviceView) -> float:
    return view.presence is Presence.ONLINE


def _facts(view: DeviceView) -> dict[str, str]:
    return {
        "engine": view.engine,
        "version": view.status.version if view.status is not None else "",
        "machine": view.profile.machine if view.profile is not None else "",
    }


def _compute(profiles: list[tuple[list[str], DeviceProfile]]) -> Metric:
    family = GaugeMetricFamily(
        "cpsl_device_compute_flop_per_second",
        "Effective, of its engine",
        labels=["site", "device", "pass"],
    )
    for names, profile in profiles:
        if profile.compute is not None:
            family.add_metric([*names, "forward"], profile.compute.forward_flop_per_s)
            family.add_metric([*names, "backward"], profile.compute.backward_flop_per_s)
    return family


def _phases(name: str, help_: str, of: list[tuple[list[str], PhaseSeconds]]) -> Metric:
    family = GaugeMetricFamily(name, help_, labels=["site", "device", "phase"])
    for names, phases in of:
        for phase, seconds in phases.by_phase.items():
            family.add_metric([*names, phase.name.lower()], seconds)
    return family
