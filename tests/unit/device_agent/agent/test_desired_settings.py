"""Settings by topic: what people may want of a device, and what its owner's start allows of it."""

import pytest

from device_agent.agent.desired import (
    Applied,
    DesiredSettings,
    ProcessSettings,
    Started,
    judge,
)
from runtime.wire.run_control import WantedSettings
from tests.turn import TOPICS

STARTED = Started(threads=4, min_cut="3")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("threads", 5, "started with --threads 4, and no message raises that"),
        ("threads", 0, "a whole number from 1"),
        ("threads", "1e9", "a whole number from 1"),
        ("min_cut", 2, "started with --min-cut 3, and no message lowers that"),
        ("min_cut", "0", "a layer's name or its number from 1"),
        ("min_cut", "a\nb", "a layer's name or its number from 1"),
        ("log_level", "all", "one of debug, info, warning, error"),
        ("max_memory", "9GB", "no such setting; there are log_level, threads, min_cut"),
    ],
)
def test_what_would_widen_the_owners_bounds_or_is_no_setting_is_refused_in_a_sentence(
    name: str, value: str | int, why: str
) -> None:
    applied, refused = judge({name: value, "log_level": "error"} | {name: value}, STARTED)
    assert applied == ({} if name == "log_level" else {"log_level": "error"})
    assert list(refused) == [name]
    assert refused[name].startswith(f"{name} = {value!r}: ")
    assert why in refused[name]


def test_what_narrows_them_holds_and_names_of_layers_need_their_network() -> None:
    narrower = {"log_level": "debug", "threads": "1", "min_cut": "pool1"}
    assert judge(narrower, STARTED) == (narrower, {})
    applied, refused = judge(narrower, Started(threads=4, knows_layers=False))
    assert "min_cut" not in applied
    assert "min_cut = 3" in refused["min_cut"]


def _desired() -> tuple[DesiredSettings, list[Applied]]:
    heard: list[Applied] = []
    return DesiredSettings("d0", TOPICS, STARTED, on_change=heard.append), heard


def _wanted(**settings: str | int) -> bytes:
    return WantedSettings(settings=settings, request="r", by="anna@lab").encode()


def test_what_cannot_be_read_changes_nothing_and_nothing_takes_all_back() -> None:
    desired, heard = _desired()
    desired.take(_wanted(threads=2, nonsense="x"))
    assert desired.report
    assert (desired.report.request, desired.report.applied) == ("r", {"threads": "2"})
    desired.take(b"{")
    assert desired.report.applied == {"threads": "2"}
    assert list(desired.report.refused) == ["message"]
    desired.take(b"")
    assert (desired.report.applied, desired.report.refused) == ({}, {})
    assert heard == [{"threads": "2"}, {"threads": "2"}, {}]


def test_a_level_that_hides_the_change_is_told_before_it(caplog: pytest.LogCaptureFixture) -> None:
    def note(_: Applied) -> None:
        assert "log_level = error, wanted by anna@lab" in caplog.text

    DesiredSettings("d0", TOPICS, STARTED, on_change=note).take(_wanted(log_level="error"))


def test_devices_of_one_process_have_the_fewest_threads_and_the_most_talkative_log() -> None:
    levels: list[str] = []
    process = ProcessSettings(log_level="info", threads=4, set_log_level=levels.append)
    process.note("a", {"threads": "3", "log_level": "error"})
    process.note("b", {"threads": "2", "log_level": "debug"})
    assert (process.threads, levels) == (2, ["error", "debug"])
    process.note("b", {})
    assert process.threads == 3
    process.note("a", {})
    assert (process.threads, levels[2:]) == (4, ["error", "info"])
