"""A run that is asked from outside: paused, stopped, of some devices only; devices looked after."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from edge_coordinator.monitor.asking import ask_coordinator, forget_device, tag_device
from edge_coordinator.run.control import PAUSED, RunControl
from edge_coordinator.run.events import Progress, RoundPlanned, Stopped, Waiting
from edge_coordinator.serve.training import new_status, serve_on
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from runtime.wire.published import DeviceStatus
from runtime.wire.run_control import Action, ControlRequest, DeviceTags, WantedSettings
from tests.builders import Reports, make_job, serve_agent
from tests.noise import shards
from tests.sites import NOW_S, TOPICS, make_profile

ALL = ("d0", "d1", "d2")


class Witness(Reports):
    """Notes who takes part, and when nothing happens."""

    def __init__(self) -> None:
        super().__init__()
        self.planned: set[str] = set()
        self.stopped_by: list[str] = []
        self.begun, self.paused = asyncio.Event(), asyncio.Event()

    def tell(self, progress: Progress) -> None:
        super().tell(progress)
        match progress:
            case RoundPlanned(plan):
                self.planned |= {device for cluster in plan.clusters for device in cluster.devices}
                self.begun.set()
            case Stopped(by):
                self.stopped_by.append(by)
            case Waiting(what) if what == PAUSED:
                self.paused.set()


async def _train(broker: MemoryBroker, witness: Witness, settings: Mapping[str, object]) -> None:
    own = shards((40,) * len(ALL), (1, 28, 28))
    job, model = make_job(
        own, {"model.name": "mlp", "plan.cut": "fc1", "plan.clusters": 1, **settings}
    )
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agents = [
            asyncio.create_task(serve_agent(broker, device, samples, compute))
            for device, samples in own.items()
        ]
        try:
            async with broker.connect("coordinator") as bus:
                await serve_on(
                    bus, job, model, status=new_status(7), observers=[witness], progress=witness
                )
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)


async def test_a_run_is_paused_goes_on_and_stops_where_its_answers_say() -> None:
    broker, witness = MemoryBroker(), Witness()
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        training = tasks.create_task(_train(broker, witness, {"training.rounds": 1000}))
        await witness.begun.wait()
        for action in ("pause", "continue", "pause"):
            async with broker.connect("people") as bus:
                answer = await ask_coordinator(bus, TOPICS, action, by="anna")
            assert answer.accepted, answer
            if action == "pause":
                await witness.paused.wait()
                witness.paused.clear()
        num_rounds = len(witness.rounds)
        async with broker.connect("people") as bus:
            refused = await ask_coordinator(bus, TOPICS, "replan", by="anna")
            stopped = await ask_coordinator(bus, TOPICS, "stop", by="anna")
        await training
    assert (refused.accepted, refused.words) == (
        False, "the plans of this run are given, not made",
    )  # fmt: skip
    assert stopped.condition == "stopping"
    assert witness.stopped_by == ["anna"]
    assert len(witness.rounds) == num_rounds == stopped.round
    async with broker.connect("people") as bus:
        with pytest.raises(SettingsError, match="the coordinator of site 'default' is offline"):
            await ask_coordinator(bus, TOPICS, "stop", by="anna")


async def test_a_run_that_waits_for_devices_can_be_stopped() -> None:
    broker, witness = MemoryBroker(), Witness()
    async with (
        asyncio.timeout(60),
        broker.connect("people") as bus,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(_train(broker, witness, {"devices.where": "room=lab"}))
        while TOPICS.coordinator_status not in broker.retained:
            await bus.unsubscribe("nothing")  # Let others run.
        await ask_coordinator(bus, TOPICS, "stop", by="anna")
    assert not witness.rounds


async def test_a_job_on_tags_takes_those_who_have_them_also_if_they_get_them_later() -> None:
    broker, witness = MemoryBroker(), Witness()
    settings = {"devices.where": "room=lab", "devices.count": 2, "training.rounds": 1}
    async with (
        asyncio.timeout(60),
        broker.connect("people") as bus,
        asyncio.TaskGroup() as tasks,
    ):
        tags = DeviceTags(tags={"room": "lab", "kind": "pi"})
        await bus.publish(TOPICS.tags("d2"), tags.encode(), retain=True)
        tasks.create_task(_train(broker, witness, settings))
        while TOPICS.profile("d0") not in broker.retained:
            await bus.unsubscribe("nothing")  # Let others run.
        assert await tag_device(bus, TOPICS, "d0", {"room": "lab"}) == {"room": "lab"}
    assert witness.planned == {"d0", "d2"}


async def test_a_device_is_forgotten_once_it_is_offline() -> None:
    broker = MemoryBroker()
    status = DeviceStatus(state="online", session="s", since_unix_s=NOW_S)
    async with broker.connect("device") as device:
        await device.publish(TOPICS.status("d0"), status.encode(), retain=True)
        await device.publish(TOPICS.profile("d0"), make_profile("d0", 1).encode(), retain=True)
        wanted = WantedSettings(settings={"threads": 1})
        await device.publish(TOPICS.settings("d0"), wanted.encode(), retain=True)
        async with broker.connect("people") as bus:
            with pytest.raises(SettingsError, match="not offline; stop its agent first"):
                await forget_device(bus, TOPICS, "d0")
        gone = status.model_copy(update={"state": "offline"})
        await device.publish(TOPICS.status("d0"), gone.encode(), retain=True)
        async with broker.connect("others") as bus:
            with pytest.raises(SettingsError, match=r"no device 'd1' .* there are d0"):
                await forget_device(bus, TOPICS, "d1")
        async with broker.connect("again") as bus:
            await forget_device(bus, TOPICS, "d0")
    assert not broker.retained


def _ask(control: RunControl, action: Action, request: str, run: int | None = None) -> str:
    return control.take(ControlRequest(action=action, request=request, run=run)).words


def test_a_repeated_request_is_carried_out_once() -> None:
    control = RunControl(7)
    assert _ask(control, "replan", "a") == _ask(control, "replan", "a")
    assert control.take_replan()
    _ask(control, "replan", "a")
    assert not control.take_replan()


def test_what_cannot_be_done_is_refused_with_the_reason_and_changes_nothing() -> None:
    control = RunControl(7)
    assert _ask(control, "continue", "a") == "the run is not paused"
    assert "not at 0000000000000008" in _ask(control, "stop", "b", run=8)
    assert not control.is_stopping
    _ask(control, "stop", "c", run=7)
    assert _ask(control, "pause", "d") == "the run is stopping already"
    assert control.is_stopping
