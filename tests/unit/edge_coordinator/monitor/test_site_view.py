"""What those who watch a site are told, whatever comes and in whatever order."""

import re
from itertools import permutations
from typing import Any

import pytest

from edge_coordinator.monitor.view import SiteView
from runtime.wire.fields import Message
from runtime.wire.published import CoordinatorStatus, DeviceStatus
from tests.root import ROOT
from tests.sites import NOW_S, TOPICS, Site, make_plan, make_profile, make_round

DOCUMENT = ROOT / "docs" / "watching.md"


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
    assert site.row("b").why == "no new profile for 3m"


def test_a_device_whose_clock_is_wrong_is_not_stale_once_it_was_heard() -> None:
    site = Site().device("a").profile("a", age_s=1e6)
    assert site.row("a").presence == "stale"
    site.profile("a", age_s=1e6, retained=False)
    assert site.row("a").presence == "online"
    assert site.row("a").ages.facts_s == 0


def test_a_device_whose_clock_was_never_set_is_there_and_its_figures_have_no_age() -> None:
    site = Site().device("a").profile("a", age_s=1e12)
    assert site.row("a").presence == "online"
    assert "clock is not set" in site.row("a").why
    assert site.row("a").ages.facts_s is None


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
    assert state.history
    assert state.coordinator
    (device,) = state.devices
    assert device.status
    assert device.profile
    assert device.metrics
