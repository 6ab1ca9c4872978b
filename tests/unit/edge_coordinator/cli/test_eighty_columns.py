"""Every table that is printed fits a terminal of eighty columns, with nothing cut off."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console, RenderableType

from device_agent.profile_command import profile_text
from edge_coordinator.cli.control.devices import devices_table
from edge_coordinator.cli.control.serving import queue_table
from edge_coordinator.cli.tables.model import model_tables
from edge_coordinator.cli.tables.shards import data_table
from edge_coordinator.experiments.results import RoundRow, TrainedRun
from edge_coordinator.experiments.show import shown_methods, shown_table
from edge_coordinator.monitor.asking_queue import QueueView
from edge_coordinator.monitor.screen import site_screen
from profiles.cuts import CutTable, LayerCost
from profiles.link_estimate import LinkFigures
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import load_network
from runtime.models.zoo import BUILT_IN
from runtime.wire.measures import LayerTiming
from runtime.wire.published import ClusterReport
from runtime.wire.run_control import QueuedJob, SettingsReport, WantedSettings
from tests.sites import EPOCH, TOPICS, Site, make_plan, make_profile, make_round

WIDTH, MUCH_WIDER = 80, 1000
LONG = "a.long.name.of.more.than.forty.characters.{}"
BOX = frozenset("─━ \n")


def _built_in(name: str, _: int) -> RenderableType:
    network = load_network(name, {}, seed=0)
    assert network.input_shape is not None
    table = measure_cut_table(network, name=name, input_shape=network.input_shape)
    return model_tables(table, batch_size=16, local_epochs=1)


def _long_layers(_: int) -> RenderableType:
    layer = LayerCost(
        name=LONG.format("layer"),
        kind="AnotherKindOfAdaptiveAveragePool2d",
        forward_flop=123.4e9,
        backward_flop=123.4e9,
        state_bytes=123_400_000,
        activation_shape=(1024, 112, 112),
        activation_bytes=51_400_000,
    )
    table = CutTable("own", (3, 1024, 1024), 12_600_000, (layer, layer))
    return model_tables(table, batch_size=1024, local_epochs=100)


def _shards(num_devices: int, num_classes: int, class_name: str, width: int) -> RenderableType:
    counts = np.random.default_rng(0).integers(0, 2000, (num_devices, num_classes))
    names = [class_name.format(number) for number in range(num_classes)]
    devices = [f"dev-{number:02}" for number in range(num_devices)]
    return data_table(counts, devices=devices, class_names=names, width=width)


def _site(num_devices: int, name: str, width: int) -> RenderableType:
    names = [name.format(number) for number in range(num_devices)]
    share = ClusterReport(devices=tuple(names), shares=(1.0,) * num_devices)
    plan = make_plan("x").model_copy(
        update={
            "clusters": (share,),
            "reason": "because " * 60,
            "changed": "a link got slower",
            "predicted_s": 3.12,
            "predicted": dict.fromkeys(names, EPOCH.model_copy(update={"forward_s": 4321.0})),
        }
    )
    measured = dict.fromkeys(names, EPOCH)
    report = make_round(3, predicted_round_s=3.0, relative_error=-0.09, measured=measured)
    site = Site().coordinator().hear(TOPICS.plan, plan).hear(TOPICS.round, report)
    for each in names:
        site.device(each, state="offline").profile(each)
    return site_screen(
        site.now, broker="mqtt://edge:1883", console=Console(width=width), num_lines=None
    )


def _methods(_: int) -> RenderableType:
    labels = ("CPSL", "CPSL at SL's rate", "SL", "FL, L = 20", "CL")
    runs = {label: [_run(label, 0.94 + number / 100) for number in range(3)] for label in labels}
    return shown_methods(runs, target=0.95)


def _run(label: str, accuracy: float) -> TrainedRun:
    size = 10**9
    row = RoundRow(150, 5e3, 33.4, 1.0, 1.0, accuracy, size, size, 1.0, 1.0, 1e12, 30, (33.4,))
    return TrainedRun(label, 0, (row,), accuracy)


def _published(_: int) -> RenderableType:
    ours = "≥ 411 (318, ≥ 567, 348; not yet by 1 of 3)"
    row = ["bytes of a device: whole model, at POOL1", "16.49 to 0.35 MB (-97.9 %)", ours, ours]
    return shown_table(("figure", "published", "ours", "difference"), [row])


def _profile(device: str, layer: str, width: int) -> RenderableType:
    profile = make_profile(device, age_s=1.0)
    assert profile.compute is not None
    layers = (LayerTiming(name=layer, forward_s=0.0123456, backward_s=0.0123456),)
    compute = profile.compute.model_copy(update={"layers": layers})
    figures = LinkFigures(43.2e6, 1e5, 98.7e6, 1e5, 0.012, 0.001, 0.001, 5)
    how = "frames to a topic of its own, retained ones back: to the broker alone, no coordinator"
    return profile_text(
        profile.model_copy(update={"compute": compute}), figures, link_how=how, width=width
    )


def _devices(name: str, _: int) -> RenderableType:
    site = Site().device(name).profile(name)
    tags = {LONG.format("tag"): LONG.format("value"), "room": "lab"}
    report = SettingsReport(applied={"min_cut": LONG.format("layer")}, refused={"threads": "no"})
    wanted = WantedSettings(settings={"threads": 8, "log_level": "debug"})
    views = tuple(
        replace(
            view,
            tags=tags,
            wanted=wanted,
            profile=make_profile(name, 1.0).model_copy(update={"settings": report}),
        )
        for view in site.now.devices
    )
    return devices_table(views)


def _queue(_: int) -> RenderableType:
    job = QueuedJob(
        number=1234,
        name="night",
        state="cancelled",
        by="anna@a.laptop.of.a.long.name",
        submitted_at_unix_s=0.0,
        directory=f"runs/{LONG}",
        words="because " * 20,
        metric="accuracy",
        test_metric=0.9765,
    )
    return queue_table(QueueView("online", (job, job)))


RENDERERS: Mapping[str, Callable[[int], RenderableType]] = {
    **{f"model {name}": partial(_built_in, name) for name in BUILT_IN},
    "model with long names": _long_layers,
    "shards of 6": partial(_shards, 6, 10, "{}"),
    "shards of 30": partial(_shards, 30, 10, "{}"),
    "shards of 40 classes": partial(_shards, 30, 40, "{}"),
    "shards of long classes": partial(_shards, 6, 10, LONG),
    "site of 3": partial(_site, 3, "pi-{}"),
    "site of 30": partial(_site, 30, "dev-{:02}"),
    "site of long names": partial(_site, 30, LONG),
    "devices": partial(_devices, "pi-1"),
    "devices of long names": partial(_devices, LONG.format("device")),
    "queue": _queue,
    "methods compared": _methods,
    "published figures": _published,
    "profile": partial(_profile, "pi-1", "conv1"),
    "profile of long names": partial(_profile, LONG.format("device"), LONG.format("layer")),
}
"""What is printed as a table, as it is laid out for so many columns."""


@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("name", RENDERERS)
def test_eighty_columns_show_all_that_a_wide_terminal_shows(name: str, is_terminal: bool) -> None:  # noqa: FBT001
    laid_out = RENDERERS[name](WIDTH)
    narrow = _printed(laid_out, width=WIDTH, is_terminal=is_terminal)
    wide = _printed(laid_out, width=MUCH_WIDER, is_terminal=is_terminal)
    assert "…" not in narrow
    assert max(cell_len(line) for line in narrow.splitlines()) <= WIDTH
    assert _characters(narrow) == _characters(wide)


def _printed(shown: RenderableType, *, width: int, is_terminal: bool) -> str:
    console = Console(width=width, force_terminal=is_terminal, color_system=None, markup=False)
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def _characters(text: str) -> Counter[str]:
    """What is written, wherever it was wrapped."""
    return Counter(character for character in text if character not in BOX)
