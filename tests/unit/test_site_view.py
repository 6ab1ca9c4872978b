"""What those who watch a site are told, whatever comes and in whatever order."""

import json
import re
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from edge_coordinator.show_site import site_screen
from edge_coordinator.site_line import SiteLines, site_line
from edge_coordinator.site_state import DeviceView, SiteState
from edge_coordinator.site_view import SiteView
from runtime.messages import (
    ClusterReport,
    ComputeProfile,
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    LinkProfile,
    Message,
    PhaseSeconds,
    PlanReport,
    RoundReport,
)
from runtime.topics import Topics

NOW_S = 1_800_000_000.0
TOPICS = Topics("default")
DOCUMENT = Path(__file__).parents[2] / "docs" / "watching.md"
EPOCH = PhaseSeconds(
    distribute_s=0.1,
    forward_s=0.2,
    upload_s=0.3,
    server_s=0.01,
    download_s=0.3,
    backward_s=0.4,
    model_upload_s=0.1,
)


class Site:
    """A view, and short ways to tell it things."""

    def __init__(self) -> None:
        self.view = SiteView(TOPICS)

    def hear(self, topic: str, message: Message, *, retained: bool = True) -> "Site":
        payload = message.encode()
        self.view.receive(topic, memoryview(payload), retained=retained, now_s=NOW_S)
        return self

    def device(self, device: str, *, state: str = "online", session: str = "s") -> "Site":
        status = DeviceStatus.model_validate(
            {"state": state, "session": session, "since_unix_s": NOW_S - 900, "engine": "torch"}
        )
        return self.hear(TOPICS.status(device), status)

    def profile(self, device: str, *, age_s: float = 1.0, retained: bool = True) -> "Site":
        return self.hear(TOPICS.profile(device), make_profile(device, age_s), retained=retained)

    def coordinator(self, *, state: str = "online", run: int = 7) -> "Site":
        status = CoordinatorStatus.model_validate(
            {"state": state, "session": "c", "since_unix_s": NOW_S - 60, "run": run}
            | {"phase": "round 3 of 9"}
        )
        return self.hear(TOPICS.coordinator_status, status)

    def plan(self, *clusters: str, retained: bool = True, **changes: object) -> "Site":
        """Plan round 3 for clusters of devices with names of one letter."""
        return self.hear(TOPICS.plan, make_plan(*clusters, **changes), retained=retained)

    def round(self, number: int, **changes: object) -> "Site":
        return self.hear(TOPICS.round, make_round(number, **changes))

    def finished(self, *devices: str, cluster: int = 0) -> "Site":
        for device in devices:
            metrics = DeviceMetrics(
                run=7, round=3, cluster=cluster, forward_s=1, backward_s=1, upload_s=1,
                waiting_s=1, up_bytes=1, down_bytes=1, phases=EPOCH,
            )  # fmt: skip
            self.hear(TOPICS.metrics(device), metrics, retained=False)
        return self

    @property
    def now(self) -> SiteState:
        return self.view.state(NOW_S)

    def row(self, device: str) -> DeviceView:
        return next(view for view in self.now.devices if view.device == device)

    def phases(self) -> str:
        return " ".join(view.activity for view in self.now.devices)


def make_profile(device: str, age_s: float) -> DeviceProfile:
    return DeviceProfile(
        device=device,
        engine="onnxruntime",
        machine="aarch64",
        num_cores=4,
        memory_bytes=4_000_000_000,
        free_memory_bytes=1_230_000_000,
        num_samples=100,
        sample_shape=(1, 8, 8),
        compute=ComputeProfile(
            network="lenet",
            batch_size=16,
            forward_flop_per_s=7.65e9,
            backward_flop_per_s=4e9,
            relative_deviation=0.02,
            measured_at_unix_s=NOW_S - 30,
        ),
        link=LinkProfile(
            up_bps=43.2e6,
            up_deviation_bps=1e5,
            down_bps=98.7e6,
            down_deviation_bps=1e5,
            round_trip_s=0.012,
            round_trip_deviation_s=0.001,
            message_s=0.001,
            num_transfers=5,
            measured_at_unix_s=NOW_S - 240,
        ),
        measured_at_unix_s=NOW_S - age_s,
    )


def make_plan(*clusters: str, **changes: object) -> PlanReport:
    reports = tuple(
        ClusterReport(devices=tuple(names), shares=(1 / len(names),) * len(names))
        for names in clusters
    )
    plan = PlanReport(
        run=7, round=3, method="cpsl", cut=2, cut_layer="pool1", clusters=reports, left_out={},
        reason="given by hand",
    )  # fmt: skip
    return plan.model_copy(update=changes)


def make_round(number: int, **changes: object) -> RoundReport:
    report = RoundReport(
        run=7, round=number, cut_layer="pool1", num_clusters=2, num_devices=4,
        learning_rate=0.02, train_loss=0.5, round_s=3.3, elapsed_s=10, up_bytes=1000,
        down_bytes=2000,
    )  # fmt: skip
    return report.model_copy(update=changes)


def screen(state: SiteState, *, width: int, num_lines: int | None = None) -> list[str]:
    """The lines of a screen of this size."""
    console = Console(width=width, height=num_lines or 200, record=True, quiet=True)
    shown = site_screen(state, broker="mqtt://edge:1883", console=console, num_lines=num_lines)
    with console.capture() as capture:
        console.quiet = False
        console.print(shown)
    return capture.get().splitlines()


def test_each_figure_of_a_device_has_its_own_age() -> None:
    ages = Site().device("a").profile("a", age_s=5).row("a").ages
    assert (ages.facts_s, ages.compute_s, ages.link_s) == (5, 30, 240)


def test_the_order_of_what_is_retained_makes_no_difference() -> None:
    messages: list[tuple[str, Message]] = [
        (TOPICS.plan, make_plan("ab", "c")),
        (TOPICS.round, make_round(2, test_accuracy=0.9)),
        (TOPICS.status("a"), DeviceStatus(state="online", session="s", since_unix_s=1)),
        (TOPICS.profile("a"), make_profile("a", 4)),
        (TOPICS.coordinator_status, CoordinatorStatus(state="online", session="c", since_unix_s=1)),
    ]
    states = []
    for order in permutations(messages):
        site = Site()
        for topic, message in order:
            site.hear(topic, message)
        states.append(site.now)
    assert all(state == states[0] for state in states)


def test_a_device_without_a_new_profile_for_three_minutes_is_stale() -> None:
    site = Site().device("a").profile("a", age_s=170).device("b").profile("b", age_s=200)
    assert (site.row("a").presence, site.row("b").presence) == ("online", "stale")
    assert site.row("b").why == "no new profile for 3 minutes"


def test_a_device_whose_clock_is_wrong_is_not_stale_once_it_was_heard() -> None:
    site = Site().device("a").profile("a", age_s=1e6)
    assert site.row("a").presence == "stale"
    site.profile("a", age_s=1e6, retained=False)
    assert site.row("a").presence == "online"
    assert site.row("a").ages.facts_s == 0


def test_a_device_that_the_coordinator_lost_is_stale_until_a_plan_has_it_again() -> None:
    site = Site().coordinator().device("a").device("b").plan("ab").round(3, lost={"a": "silent"})
    assert (site.row("a").presence, site.row("a").why) == ("stale", "lost in round 3: silent")
    assert site.row("b").presence == "online"
    site.plan("b", round=4)
    assert site.row("a").presence == "stale"
    site.plan("ab", round=5)
    assert site.row("a").presence == "online"


def test_what_another_run_lost_says_nothing_about_now() -> None:
    site = Site().coordinator(run=8).device("a").round(3, lost={"a": "silent"})
    assert site.row("a").presence == "online"


def test_an_offline_device_is_shown_as_such() -> None:
    site = Site().coordinator().plan("ab", retained=False).device("a", state="offline").device("b")
    assert [(view.presence, view.activity) for view in site.now.devices] == [
        ("offline", "idle"),
        ("online", "trains"),
    ]


def test_the_last_will_of_an_earlier_session_changes_nothing() -> None:
    site = Site().device("a", session="new").device("a", state="offline", session="old")
    assert site.row("a").presence == "online"


def test_a_device_that_was_left_out_says_why() -> None:
    site = Site().device("a").plan("b", left_out={"a": "nothing is known of its link"})
    assert site.row("a").why == "left out: nothing is known of its link"


def test_the_phase_follows_the_turns_of_the_clusters() -> None:
    site = Site().coordinator().plan("ab", "cd", retained=False)
    for device in "abcd":
        site.device(device)
    assert site.phases() == "trains trains waits waits"
    site.finished("a")
    assert site.phases() == "done trains waits waits"
    site.finished("b")
    assert site.phases() == "done done trains trains"
    site.finished("c", "d", cluster=1)
    assert site.phases() == "done done done done"
    site.round(3)
    assert site.phases() == "idle idle idle idle"


def test_nobody_waits_for_an_offline_device() -> None:
    site = Site().coordinator().plan("ab", "c", retained=False)
    site.device("a", state="offline").device("b").device("c").finished("b")
    assert site.phases() == "idle done trains"


def test_the_phase_is_unknown_until_a_round_that_had_begun_tells() -> None:
    site = Site().coordinator().plan("a", "b", "c")
    for device in "abc":
        site.device(device)
    assert site.phases() == "? ? ?"
    site.finished("b", cluster=1)
    assert site.phases() == "done done trains"


@pytest.mark.parametrize("changes", [{"state": "offline"}, {"run": 8}])
def test_nobody_trains_by_a_plan_that_nobody_works_at(changes: dict[str, Any]) -> None:
    site = Site().device("a").plan("a", retained=False).coordinator(**changes)
    assert site.phases() == "idle"


def test_the_last_accuracy_stays_while_later_rounds_have_none() -> None:
    site = Site().coordinator().round(1, test_accuracy=0.8).round(2)
    assert site.now.evaluated is not None
    assert site.now.evaluated.test_accuracy == 0.8
    assert site.round(1, run=8).now.evaluated is None


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        (TOPICS.status("a"), b"not JSON"),
        (TOPICS.status("a"), b'{"state": "elsewhere"}'),
        (TOPICS.profile("a"), make_profile("b", 1).encode()),
        (TOPICS.profile("a"), b"\xff" * 100_000),
        (TOPICS.metrics("a"), b""),
        (TOPICS.plan, b"[]"),
        (TOPICS.round, b'{"run": NaN}'),
        (TOPICS.coordinator_status, b"{}"),
        ("cpsl/default/device/-not-an-id/status", b"{}"),
    ],
)
def test_a_malformed_message_is_counted_and_changes_nothing_else(
    topic: str, payload: bytes
) -> None:
    site = Site().device("a").profile("a")
    before = site.now
    site.view.receive(topic, memoryview(payload), retained=True, now_s=NOW_S)
    after = site.now
    assert (after.num_malformed, after.devices) == (1, before.devices)
    assert topic in after.last_malformed


def test_an_empty_message_takes_back_what_was_retained() -> None:
    site = Site().coordinator().device("a").profile("a").plan("a").round(3)
    for topic in (TOPICS.status("a"), TOPICS.profile("a"), TOPICS.plan, TOPICS.round):
        assert not site.now.is_empty
        site.view.receive(topic, b"", retained=False, now_s=NOW_S)
    site.view.receive(TOPICS.coordinator_status, b"", retained=False, now_s=NOW_S)
    assert site.now.is_empty
    assert site.now.num_malformed == 0


def test_a_new_connection_begins_anew_and_a_lost_one_keeps_what_was_known() -> None:
    site = Site().device("a")
    site.view.disconnected("the cable was pulled")
    assert site.now.connection_lost == "the cable was pulled"
    assert site.row("a").presence == "online"
    site.view.connected()
    assert site.now.is_empty
    assert site.now.connection_lost == ""


def make_site(num_devices: int) -> Site:
    """A site with as much to show as there can be."""
    names = [f"device-with-a-long-name-{number:02}" for number in range(num_devices)]
    clusters = [names[start::6] for start in range(6)]
    plan = make_plan(*(["x"] * 6)).model_copy(
        update={
            "clusters": tuple(
                ClusterReport(devices=tuple(c), shares=(1.0,) * len(c)) for c in clusters
            ),
            "reason": "because " * 60,
            "changed": "a link got slower",
            "predicted_s": 3.12,
            "predicted": dict.fromkeys(names, EPOCH),
        }
    )
    measured = dict.fromkeys(names, EPOCH)
    report = make_round(3, predicted_round_s=3.0, relative_error=-0.09, measured=measured)
    site = Site().coordinator().hear(TOPICS.plan, plan).hear(TOPICS.round, report)
    for name in names:
        site.device(name).profile(name)
    site.view.receive(TOPICS.plan + "x", b"", retained=True, now_s=NOW_S)
    return site


@pytest.mark.parametrize("width", [80, 120])
def test_thirty_devices_fit_the_width_with_every_figure(width: int) -> None:
    lines = screen(make_site(30).now, width=width)
    assert max(cell_len(line) for line in lines) <= width
    rows = [line for line in lines if line.startswith("devi") and "online" in line][1:]
    assert len(rows) == 30
    for figure in ("7.65G", "30s", "43.2M", "98.7M", "12ms", "4m", "1.23G", "100%", "idle"):
        assert all(figure in row for row in rows), figure
    assert "3.3 s (3 s predicted, -9.0%)" in " ".join(lines).replace("  ", " ")


@pytest.mark.parametrize("num_lines", [24, 30, 45])
def test_a_screen_that_is_too_low_shows_the_plan_and_says_what_is_missing(num_lines: int) -> None:
    lines = screen(make_site(40).now, width=80, num_lines=num_lines)
    assert len(lines) <= num_lines
    text = "\n".join(lines)
    assert "plan of round 3" in text
    assert re.search(r"and \d+ more \(\d+ online\)", text)


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    site = Site().device("a").plan("a", reason="\x1b[2Jgone [bold]", method="\x07", cut_layer="\r")
    status = DeviceStatus(state="online", session="s", since_unix_s=1, engine="\x1b[31m")
    text = "".join(screen(site.hear(TOPICS.status("a"), status).now, width=80))
    assert text.isprintable()
    assert "[bold]" in text


def test_a_line_for_scripts_holds_all_that_is_shown() -> None:
    site = Site().coordinator().device("a").profile("a").plan("a", predicted={"a": EPOCH})
    text = site_line(site.now, broker="mqtt://edge:1883")
    line = json.loads(text)
    (device,) = line["devices"]
    assert "\n" not in text
    assert (device["device"], device["state"], device["cluster"]) == ("a", "online", 0)
    assert device["profile"]["link"]["up_bps"] == 43.2e6
    assert device["link_age_s"] == 240
    assert device["predicted"] == EPOCH.model_dump()
    assert line["plan"]["reason"] == "given by hand"


def test_time_alone_writes_no_line_until_a_device_turns_stale() -> None:
    site = Site().device("a").profile("a")
    lines: list[str] = []
    writer = SiteLines(lines.append, broker="mqtt://edge:1883")
    for seconds in (0, 1, 100, 190, 191):
        writer.show(site.view.state(NOW_S + seconds))
    assert [json.loads(line)["devices"][0]["state"] for line in lines] == ["online", "stale"]


def test_the_messages_in_the_documentation_are_such_messages() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    examples = re.findall(r"(?ms)^`(cpsl/default/[^`]+)`.+?```json\n(.+?)```", text)
    view = SiteView(TOPICS)
    for topic, payload in examples:
        view.receive(topic, payload.encode(), retained=True, now_s=NOW_S)
    state = view.state(NOW_S)
    assert state.last_malformed == ""
    assert state.plan
    assert state.round
    assert state.coordinator
    (device,) = state.devices
    assert device.status
    assert device.profile
    assert device.metrics
