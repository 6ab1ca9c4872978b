"""What a person sees of a site, and what a script reads."""

import json
import re

import pytest
from rich.cells import cell_len
from rich.console import Console

from edge_coordinator.monitor.json_lines import SiteLines, site_line
from edge_coordinator.monitor.screen import site_screen
from edge_coordinator.monitor.state import SiteState
from runtime.wire.published import ClusterReport, DeviceStatus
from tests.sites import EPOCH, NOW_S, TOPICS, Site, make_plan, make_round, with_shared_samples


def screen(state: SiteState, *, width: int, num_lines: int | None = None) -> list[str]:
    """The lines of a screen of this size."""
    console = Console(width=width, height=num_lines or 200, record=True, quiet=True)
    shown = site_screen(state, broker="mqtt://edge:1883", console=console, num_lines=num_lines)
    with console.capture() as capture:
        console.quiet = False
        console.print(shown)
    return capture.get().splitlines()


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
    rows = [line for line in lines if line.rstrip().endswith("idle")]
    assert len(rows) == 30
    assert sum(line.startswith("device-with-a-long-name-") for line in lines) == 30
    for figure in ("7.65G", "30s", "43.2M", "98.7M", "12ms", "4m", "1.23G", "100%", "idle"):
        assert all(figure in row for row in rows), figure
    assert "3.3 s (3 s predicted, -9.0%)" in " ".join(lines).replace("  ", " ")


def test_what_devices_drew_in_a_round_is_said() -> None:
    done = make_round(1, drawn_j={"a": 1.25, "b": 2.5})
    assert "B down, 3.75 J" in " ".join(screen(Site().hear(TOPICS.round, done).now, width=200))


def test_other_clusters_are_said_to_have_equal_mini_batches_where_the_plan_has_not() -> None:
    shared = with_shared_samples(make_plan("ab"))
    equal = shared.model_copy(update={"clusters": make_plan("ab").clusters})
    of_shared, of_equal = (
        " ".join(screen(Site().hear(TOPICS.plan, plan).now, width=200)) for plan in (shared, equal)
    )
    clusters = "6.5 s with random clusters, 7 s with equal shares too, 8 s with sorted clusters"
    assert f"{clusters} (all with equal mini-batches), 9 s cut after x" in of_shared
    assert f"{clusters}, 9 s cut after x" in of_equal


def test_short_names_stand_beside_their_figures() -> None:
    site = Site().device("pi-1").profile("pi-1").device("pi-2").profile("pi-2")
    (row, _) = [line for line in screen(site.now, width=80) if line.startswith("pi-")]
    assert row.startswith("pi-1 ")
    assert row.rstrip().endswith("idle")


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
