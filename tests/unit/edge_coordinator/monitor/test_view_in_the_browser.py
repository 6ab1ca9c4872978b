"""What the page works out of a site by itself: the same as the programs work out."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pytest

from edge_coordinator.monitor.view import SiteView
from edge_coordinator.monitor.web.app import broker_app
from edge_coordinator.monitor.web.direct import DirectSource
from edge_coordinator.monitor.web.hub import Hub
from edge_coordinator.monitor.web.parts import SiteParts
from edge_coordinator.monitor.web.serving import Address, served
from runtime.wire.fields import Message
from runtime.wire.history import History
from runtime.wire.measures import LayerTiming
from runtime.wire.published import CoordinatorStatus, DeviceMetrics, DeviceStatus
from runtime.wire.run_control import DeviceTags, SettingsReport, WantedSettings
from tests.outside.browser import browser_page, find_browser
from tests.sites import EPOCH, NOW_S, TOPICS, make_plan, make_profile, make_round

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium here (Debian's package `chromium`)"
)
BROKER = "ws://edge:9001/mqtt"
IN_THE_PAGE = """
(async (source, steps) => {
  const { SiteView } = await import("/static/view.js");
  const view = new SiteView(source);
  const news = steps.map(({ topic, payload, retained, now_s, event }) => {
    if (event === "connected") view.connected();
    else if (event) view.disconnected(event);
    else view.receive(topic, new TextEncoder().encode(payload), { retained, now_s });
    return view.parts(now_s);
  });
  return { filters: view.filters, news };
})
"""
Parts = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """A message, or (with `event`) what befell the connection."""

    topic: str = ""
    payload: str = ""
    retained: bool = True
    now_s: float = NOW_S
    event: str = ""


class _Told(Hub):
    """What of a site was told last."""

    def __init__(self) -> None:
        super().__init__()
        self.news: Parts = {}

    def put(self, parts: Mapping[str, str]) -> None:
        """Take what is new."""
        self.news = {name: json.loads(text) for name, text in parts.items()}


def _by_the_programs(steps: Sequence[Step]) -> Iterator[Parts]:
    view, told = SiteView(TOPICS), _Told()
    parts = SiteParts(told, broker=BROKER)
    for step in steps:
        if step.event == "connected":
            view.connected()
        elif step.event:
            view.disconnected(step.event)
        else:
            payload = step.payload.encode()
            view.receive(step.topic, payload, retained=step.retained, now_s=step.now_s)
        parts.show(view.state(step.now_s))
        yield told.news


async def _by_the_page(scripts: Sequence[Sequence[Step]]) -> list[list[Parts]]:
    source = DirectSource.of(BROKER, TOPICS.site).as_json()
    app = broker_app(source, may_connect_to="", bound_to="127.0.0.1")
    told = []
    async with served(app, Address(port=0).listen()) as url, browser_page() as page:
        await page.open(f"{url}static/view.js")
        for steps in scripts:
            given = f"({json.dumps(source)}, {json.dumps([asdict(step) for step in steps])})"
            found = await page.evaluate(IN_THE_PAGE + given)
            assert sorted(found["filters"]) == sorted(SiteView(TOPICS).topic_filters())
            told.append(found["news"])
    return told


def _shown(told: Iterable[Parts]) -> Iterator[Parts]:
    """All parts after each step; what is malformed each says in its own words."""
    parts: Parts = {}
    for news in told:
        parts |= news
        parts = {name: part for name, part in parts.items() if part or "device/" not in name}
        said = parts["site"]["last_malformed"]
        site = parts["site"] | {"last_malformed": said and said.partition(": ")[0]}
        # A browser has no integers of 64 bits.
        yield json.loads(json.dumps(parts | {"site": site}), parse_int=float)


def _status(device: str, **changes: object) -> Step:
    fields = {"state": "online", "session": "s", "since_unix_s": NOW_S - 900, "engine": "torch"}
    return _said(TOPICS.status(device), DeviceStatus.model_validate(fields | changes))


def _said(topic: str, message: Message | None, **changes: Any) -> Step:  # noqa: ANN401
    return Step(topic, "" if message is None else message.encode().decode(), **changes)


def _metrics(device: str, cluster: int, **changes: int) -> Step:
    numbers = {"run": 7, "round": 3, "cluster": cluster, "up_bytes": 1, "down_bytes": 1} | changes
    seconds = {"forward_s": 1, "backward_s": 1, "upload_s": 1.5, "waiting_s": 0.25}
    metrics = DeviceMetrics.model_validate(numbers | seconds | {"phases": EPOCH})
    return _said(TOPICS.metrics(device), metrics, retained=False)


def _coordinator(**changes: object) -> Step:
    fields = {"state": "online", "session": "c", "since_unix_s": NOW_S, "run": 7, "phase": "trains"}
    return _said(TOPICS.coordinator_status, CoordinatorStatus.model_validate(fields | changes))


def _profile(device: str, age_s: float, *, retained: bool = True, now_s: float = NOW_S) -> Step:
    profile = make_profile(device, age_s)
    assert profile.compute is not None
    layers = (LayerTiming(name="conv1", forward_s=0.1, backward_s=0.2),)
    changes = {
        "compute": profile.compute.model_copy(update={"layers": layers}),
        "label_counts": (3, 4),
        "settings": SettingsReport(applied={"threads": "1"}, refused={"min_cut": "no"}),
    }
    return _said(
        TOPICS.profile(device), profile.model_copy(update=changes), retained=retained, now_s=now_s
    )


def _run() -> list[Step]:
    """A run with what can befall one: who is late, lost, back, left out, gone, forgotten, told."""
    return [*_a_round(), *_rounds_with_losses(), *_what_devices_do(), *_an_end()]


def _a_round() -> list[Step]:
    history = History()
    history.plan(make_plan("ab", "c", left_out={"d": "too slow"}, changed="of c"), 9)
    history.add(make_round(2, lost={"a": "silent"}, test_accuracy=0.5))
    return [
        Step(event="connected"),
        *(_profile(device, age_s) for device, age_s in (("a", 1.0), ("b", 5.0), ("c", 400.0))),
        *(_status(device) for device in "abcd"),
        _coordinator(),
        _said(TOPICS.plan, make_plan("ab", "c", predicted={"a": EPOCH, "c": EPOCH})),
        _metrics("a", 0, round=2),
        _metrics("a", 0),
        _metrics("c", 1, run=2**63 + 9),
        _status("b", state="offline"),
        _metrics("c", 1),
        _said(TOPICS.round, make_round(3, measured={"a": EPOCH}, test_loss=0.25)),
        _said(TOPICS.history, history.report(7)),
    ]


def _rounds_with_losses() -> list[Step]:
    later = {"round": 4, "predicted": {"a": EPOCH}, "left_out": {"b": "no memory\u202e\n"}}
    return [
        _said(TOPICS.round, make_round(4, lost={"a": "late\u0007"}, metric="iou", run=7)),
        _said(TOPICS.plan, make_plan("ac", "b", **later), retained=False),
        _said(TOPICS.plan, make_plan("ac", "b", **{**later, "round": 5}), retained=False),
        _said(
            TOPICS.round,
            make_round(5, lost={"a": "late", "d": "gone"}, metric="iou", test_metric=0.5),
        ),
        _said(TOPICS.plan, make_plan("a", "b", round=6)),  # Without d.
        _said(TOPICS.plan, make_plan("a", "b", round=1, run=8)),
        _said(TOPICS.round, make_round(6, metric="iou", test_accuracy=0.5)),
        _said(TOPICS.round, make_round(5, run=8, test_accuracy=0.5)),
        _coordinator(run=8),
    ]


def _what_devices_do() -> list[Step]:
    return [
        _status("b", session="t"),
        _status("b", state="offline"),  # The will of the session before.
        _status("b", state="offline", session="t", engine=""),
        _profile("c", 4000.0, retained=False),  # Its clock is behind.
        _profile("c", 1.0, now_s=NOW_S + 100_000.0),
        _profile("a", 1.0, now_s=NOW_S + 500.0),
        _profile("d", NOW_S - 100.0),  # Its clock begins in 1970.
        _said(TOPICS.tags("a"), DeviceTags(tags={"room": "lab"})),
        _said(TOPICS.settings("e"), WantedSettings(settings={"threads": 2, "log_level": "info"})),
        *(Step(f"cpsl/default/device/e/{leaf}") for leaf in ("settings", "metrics", "tags")),
    ]


def _an_end() -> list[Step]:
    return [
        Step(TOPICS.profile("a"), make_profile("b", 1.0).encode().decode()),
        Step("cpsl/default/device/-e/status", "{}"),
        Step(event="the cable was pulled\n"),
        Step(event="connected"),
        _coordinator(state="offline", classes=["cat", "dog"]),
        _said(TOPICS.round, None),
        _said(TOPICS.coordinator_status, None),
    ]


WRONG: list[Any] = [None, -1, 0.5, 1e30, "x" * 65, "*", [], {}, [[]], {"x": None}]


def _damaged(step: Step, chance: np.random.Generator) -> Step:
    """Cut a message short, or change a field somewhere within it."""
    tree = json.loads(step.payload)
    places = list(_places(tree))
    node, key = places[chance.integers(len(places))]
    wrong = WRONG[chance.integers(len(WRONG))]
    match chance.integers(6):
        case 0:
            return replace(step, payload=step.payload[: chance.integers(len(step.payload))])
        case 1 if isinstance(node, dict):
            del node[key]
        case 2 if isinstance(node, dict):
            node["newer"] = wrong
        case _:
            node[key] = wrong
    return replace(step, payload=json.dumps(tree))


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Every place in a message, by what holds it and its key or index there."""
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


async def test_the_page_makes_the_same_parts_of_messages_as_the_programs() -> None:
    run, chance = _run(), np.random.default_rng(5)
    told = [step for step in run if len(step.payload) > 2]
    scripts = [run, [_damaged(told[chance.integers(len(told))], chance) for _ in range(500)]]
    for steps, news in zip(scripts, await _by_the_page(scripts), strict=True):
        both = zip(_shown(_by_the_programs(steps)), _shown(news), strict=True)
        for number, (here, there) in enumerate(both):
            assert there == here, (number, steps[number])
    assert here["site"]["num_malformed"] > 100
