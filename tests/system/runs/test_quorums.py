"""What becomes of a turn, a round and a device when devices fail, over the memory bus."""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from edge_coordinator.run.checkpoint import Reached
from edge_coordinator.run.events import ClusterStarted, Progress, RoundPlanned
from edge_coordinator.serve.training import new_status, serve_on
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.wire.commands import Ready
from runtime.wire.control import decode_reply
from runtime.wire.published import DeviceStatus, RoundReport
from runtime.wire.topics import Topics
from tests.builders import Reports, make_job, same_bits, serve_agent, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "plan.cut": "fc1",
    "plan.clusters": 2,
    "training.rounds": 3,
    "training.local_epochs": 2,
    "training.server_optimizer.name": "adamw",
    "training.schedule.name": "constant",  # So that a run of fewer rounds is the first of more.
    "training.schedule.warm_up": 0.0,
}


TOPICS = Topics("default")
SIZES = (40, 20, 30, 25)


@dataclass
class UnfaithfulBroker(MemoryBroker):
    """Loses what is sent on some topics, and changes what devices say of their data."""

    muted: tuple[str, ...] = ()
    says: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """By device: fields of its answer to the assignment."""

    def __post_init__(self) -> None:
        super().__init__()

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if topic not in self.muted:
            super().route(topic, self._altered(topic, payload), retain=retain)

    def _altered(self, topic: str, payload: bytes) -> bytes:
        changes = next((self.says[d] for d in self.says if topic == TOPICS.reply(d)), None)
        reply = decode_reply(payload) if changes else None
        return reply.model_copy(update=changes).encode() if isinstance(reply, Ready) else payload


@dataclass
class Disturbance:
    """Disturbs when a cluster of a round has its turn.

    Kills agents, or sends garbage in their names, or loses what is sent on topics in that turn.
    """

    at: tuple[int, int] = (0, 0)
    """Round and cluster."""
    killed: tuple[str, ...] = ()
    slandered: str = ""
    muted: tuple[str, ...] = ()
    turns: list[tuple[int, int]] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    broker: UnfaithfulBroker = field(default_factory=UnfaithfulBroker)
    agents: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def tell(self, progress: Progress) -> None:
        match progress:
            case ClusterStarted(round_, cluster):
                self.turns.append((round_, cluster))
                self.broker.muted = self.muted if (round_, cluster) == self.at else ()
                if (round_, cluster) == self.at:
                    self._disturb()
            case RoundPlanned(plan):
                self.left_out |= plan.left_out

    def _disturb(self) -> None:
        for device in self.agents.keys() & set(self.killed):
            topic = TOPICS.status(device)
            status = DeviceStatus.decode(self.broker.retained[topic])
            self.agents.pop(device).cancel()
            offline = status.model_copy(update={"state": "offline"})
            self.broker.route(topic, offline.encode(), retain=True)  # Its will.
        if self.slandered:
            for _ in range(20):
                self.broker.route(TOPICS.up(self.slandered, "smashed"), b"garbage", retain=False)


async def _train(
    disturb: Disturbance,
    sizes: tuple[int, ...] = SIZES,
    changes: Mapping[str, object] = MappingProxyType({}),
    *,
    go_on: tuple[EdgeModel, int] | None = None,
) -> tuple[EdgeModel, list[RoundReport]]:
    """Train, or go on with a model that has done so many rounds."""
    own, broker, reports = shards(sizes, SHAPE), disturb.broker, Reports()
    job, model = make_job(own, {**SETTINGS, **changes})
    if go_on is not None:
        model, reports.reached = go_on[0], Reached(go_on[1], 0.0)
    with ThreadPoolExecutor(1, "compute", torch.set_num_threads, (1,)) as compute:
        agents = [
            asyncio.create_task(serve_agent(broker, device, samples, compute), name=device)
            for device, samples in own.items()
        ]
        disturb.agents |= {agent.get_name(): agent for agent in agents}
        try:
            async with broker.connect("coordinator") as bus:
                status = new_status(job.assignment.run)
                await serve_on(
                    bus, job, model, status=status, observers=[disturb, reports], progress=reports
                )
        finally:
            for agent in agents:
                agent.cancel()
            await asyncio.gather(*agents, return_exceptions=True)
    return model, reports.rounds


async def test_a_turn_whose_cluster_dies_is_as_if_it_had_not_begun() -> None:
    # A turn has two local epochs: when the second gradient is due the server has learned already.
    disturb = Disturbance((3, 1), killed=("d2", "d3"))
    disturbed, rounds = await _train(disturb)
    assert sorted(rounds[-1].lost) == ["d2", "d3"]
    model, _ = await _train(Disturbance(), changes={"training.rounds": 2})
    alone = {"plan.clusters": 1}
    model, _ = await _train(Disturbance(), SIZES[:2], alone, go_on=(model, 2))
    assert same_bits(weights_of(disturbed), weights_of(model))


async def test_a_device_that_is_left_alone_learns_at_the_rate_of_one() -> None:
    sgd: dict[str, object] = {
        "plan.clusters": 1,
        "training.local_epochs": 1,
        "training.server_optimizer.name": "sgd",
        "training.server_optimizer.momentum": 0.0,
        "devices.margin_s": 1.0,
        "training.rounds": 2,
    }
    disturb = Disturbance((2, 0), muted=(TOPICS.up("d1", "smashed"),))
    disturbed, rounds = await _train(disturb, SIZES[:2], changes=sgd)
    assert list(rounds[1].lost) == ["d1"]
    model, _ = await _train(Disturbance(), SIZES[:2], sgd | {"training.rounds": 1})
    model, _ = await _train(Disturbance(), SIZES[:1], sgd, go_on=(model, 1))
    assert same_bits(weights_of(disturbed), weights_of(model))


async def test_a_round_below_its_quorum_is_undone_and_tried_again_with_who_is_left() -> None:
    disturb = Disturbance((2, 1), killed=("d2", "d3"))
    disturbed, rounds = await _train(disturb, changes={"devices.round_quorum": 0.75})
    assert [report.round for report in rounds] == [1, 2, 3]
    assert disturb.turns.count((2, 0)) == 2
    assert (rounds[1].num_devices, rounds[1].lost) == (2, {})
    model, _ = await _train(Disturbance(), changes={"training.rounds": 1})
    model, _ = await _train(Disturbance(), SIZES[:2], go_on=(model, 1))
    assert same_bits(weights_of(disturbed), weights_of(model))


async def test_a_device_whose_last_answer_is_late_is_lost_and_the_run_goes_on() -> None:
    disturb = Disturbance((2, 0), muted=(TOPICS.up("d0", "weights"),))
    changes = {"training.local_epochs": 1, "devices.margin_s": 1.0}
    _, rounds = await _train(disturb, changes=changes)
    assert [list(report.lost) for report in rounds] == [[], ["d0"], []]
    assert "d0" not in rounds[1].measured


async def test_a_device_with_data_of_another_kind_is_left_out_and_the_run_goes_on() -> None:
    says: Mapping[str, Mapping[str, object]] = {
        "d1": {"label_shape": (1,)},
        "d3": {"num_held_out": 2**40},
    }
    disturb = Disturbance(broker=UnfaithfulBroker(says=says))
    changes = {
        "devices.count": 2,
        "broker.url": "mqtt://here",
        "data.test": "devices",
        "data.held_out": 0.2,
    }
    _, rounds = await _train(disturb, changes=changes)
    assert [report.num_devices for report in rounds] == [2, 2, 2]
    assert "one whole number a sample" in disturb.left_out["d1"]
    assert "holds out 1099511627776 samples" in disturb.left_out["d3"]


async def test_a_device_that_keeps_sending_garbage_is_excluded_and_the_plan_says_why() -> None:
    disturb = Disturbance((1, 0), slandered="d1")
    _, rounds = await _train(disturb, changes={"devices.max_unusable": 20})
    assert [report.num_devices for report in rounds] == [4, 3, 3]
    assert rounds[0].dropped["d1"] >= 20
    assert "sent 20 messages that cannot be used" in disturb.left_out["d1"]


async def test_a_claim_of_far_more_data_than_others_have_is_worth_ten_times_theirs() -> None:
    async def claiming(num_samples: int) -> EdgeModel:
        broker = UnfaithfulBroker(says={"d1": {"num_samples": num_samples}})
        return (await _train(Disturbance(broker=broker)))[0]

    liar, rich, less = await claiming(2**62), await claiming(300), await claiming(290)
    assert same_bits(weights_of(liar), weights_of(rich))  # The median of 25, 30 and 40, times ten.
    assert not same_bits(weights_of(less), weights_of(rich))
