"""Runs with aggregated gradients through the bus: one frame for all, and the simulation's bits."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from device_agent.agent.own_data import OwnData
from device_agent.agent.trainer import BuildEngine, Result, Trainer
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.bus import Will
from runtime.bus.memory_bus import MemoryBroker, MemoryBus
from runtime.datasets.samples import Samples
from runtime.errors import SettingsError
from runtime.protocol.events import RunForward, Work
from runtime.scenarios.files import load_scenario
from runtime.wire.frames import CHUNK_HEADER, PARTED_HEADER, Tensor
from runtime.wire.topics import Topics
from tests.builders import Reports, largest_difference, make_job, run_job, same_bits, weights_of
from tests.noise import shards

SHAPE = (1, 28, 28)
SIZES = (40, 12, 25, 18)  # One has less than a mini-batch.
CHUNK = 2000  # As the test's agents have it.
SETTINGS: Mapping[str, object] = {
    "model.options": {"dropout": 0.2},
    "training.phi": 0.5,
    "training.rounds": 2,
    "training.local_epochs": 2,
    "plan.clusters": 2,
    "broker.chunk_bytes": CHUNK,
}


async def _simulated(
    own: Mapping[str, Samples], settings: Mapping[str, object]
) -> tuple[dict[str, Tensor], list[tuple[int, int]]]:
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, load_scenario("uniform"))
    rounds = await simulation.run(observers=[], progress=Reports())
    traffic = [(each.report.up_bytes, each.report.down_bytes) for each in rounds]
    return weights_of(model), traffic


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"training.phi": 1.0},
        {"codec.gradient": "int8"},
        {"codec.gradient": "bf16+zlib"},
        {"training.micro_batches": 4},
        {"training.micro_batches": 4, "training.phi": 1.0, "codec.gradient": "int8"},
    ],
    ids=["half", "all", "int8", "bf16+zlib", "parts", "parts of all, int8"],
)
async def test_a_run_with_aggregated_gradients_ends_in_the_weights_and_bytes_of_a_simulation(
    changed: Mapping[str, object],
) -> None:
    own, settings = shards(SIZES, SHAPE), {**SETTINGS, **changed}
    real, reports = await run_job(own, settings, broker=MemoryBroker(), own_threads=True)
    simulated, traffic = await _simulated(own, settings)
    assert not any(told.lost for told in reports)
    assert same_bits(weights_of(real), simulated)
    assert [(told.up_bytes, told.down_bytes) for told in reports] == traffic


@pytest.mark.parametrize("parts", [1, 4])
async def test_both_engines_take_aggregated_gradients_alike(parts: int) -> None:
    own, settings = shards(SIZES, SHAPE), {**SETTINGS, "training.micro_batches": parts}
    engines = ("torch", "onnxruntime")
    mixed, _ = await run_job(own, settings, broker=MemoryBroker(), engines=engines)
    simulated, _ = await _simulated(own, settings)
    assert largest_difference(weights_of(mixed), simulated) <= 1e-5
    whole, _ = await _simulated(own, SETTINGS)
    assert largest_difference(simulated, whole) <= 1e-5


def _travels(num_bytes: int, header: int = CHUNK_HEADER.size) -> int:
    """Bytes of a frame's chunks, whose body has so many."""
    return num_bytes + -(-num_bytes // CHUNK) * header


@pytest.mark.parametrize(("phi", "num_rest"), [(0.0, 16), (0.25, 12), (1.0, 0)])
async def test_an_aggregated_gradient_goes_out_once_for_all(phi: float, num_rest: int) -> None:
    own, settings = shards((40, 40, 40), SHAPE), {**SETTINGS, "training.phi": phi}
    settings |= {"training.rounds": 1, "training.local_epochs": 1, "plan.clusters": 1}
    _, (report,) = await run_job(own, settings, broker=MemoryBroker())
    # Before the tensor a body has 2 bytes, and 2 + 4 for each of its axes, padded to 8.
    sample, head, model = 4 * 6 * 14 * 14, 24, 56 + 2 * 4 * 6 * (25 + 1)
    once = _travels(head + (16 - num_rest) * sample) if phi else 0
    header = PARTED_HEADER.size if phi else CHUNK_HEADER.size
    rest = 3 * _travels(head + num_rest * sample, header) if num_rest else 0
    assert report.down_bytes == _travels(model) + once + rest


async def test_where_all_clusters_are_of_one_device_nothing_is_aggregated() -> None:
    own, alone = shards(SIZES, SHAPE), {**SETTINGS, "training.method": "sl"}
    plain, _ = await _simulated(own, {**alone, "training.phi": 0.0})
    for phi in (0.3, 1.0):
        real, _ = await run_job(own, {**alone, "training.phi": phi}, broker=MemoryBroker())
        assert same_bits(weights_of(real), plain)


class DeafTo(MemoryBroker):
    """A broker whose access list does not let one device hear aggregated gradients."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.alone: list[str] = []
        """Topics of the gradients that went to one device."""
        self._device = device

    def connect(
        self, client_id: str, *, will: Will | None = None, max_payload_bytes: int = 2**20
    ) -> MemoryBus:
        bus = super().connect(client_id, will=will, max_payload_bytes=max_payload_bytes)
        subscribe = bus.subscribe

        async def allowed(topic_filter: str) -> None:
            is_device = client_id.partition("-")[0] == self._device
            if not is_device or not topic_filter.endswith("/cluster/0/gradient"):
                await subscribe(topic_filter)

        bus.subscribe = allowed  # type: ignore[method-assign]
        return bus

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if topic.endswith("down/gradient"):
            self.alone.append(topic)
        super().route(topic, payload, retain=retain)


@pytest.mark.parametrize("parts", [1, 2])
async def test_whoever_lacks_the_gradient_for_all_asks_and_gets_it_alone(parts: int) -> None:
    own, settings = shards((40, 40, 40), SHAPE), {**SETTINGS, "training.phi": 1.0}
    settings |= {"training.rounds": 1, "training.local_epochs": 1, "plan.clusters": 1}
    settings |= {"training.micro_batches": parts}
    broker = DeafTo("d1")
    deaf, (report,) = await run_job(own, settings, broker=broker)
    plain, _ = await _simulated(own, settings)
    assert not report.lost
    assert same_bits(weights_of(deaf), plain)
    assert set(broker.alone) == {Topics("default").down("d1", "gradient")}


class Dying(Trainer):
    """The work of a device; `d1` fails at a local epoch."""

    def __init__(
        self, epoch: int, device: str, samples: OwnData, build: BuildEngine, *, probe_s: float
    ) -> None:
        super().__init__(device, samples, build, probe_s=probe_s)
        self._last = epoch if device == "d1" else None

    def run(self, work: Sequence[Work]) -> Result:
        last = work[-1]
        if isinstance(last, RunForward) and last.step.epoch == self._last:
            raise SettingsError("no more")
        return super().run(work)


async def _without(
    own: Mapping[str, Samples], phi: float, *, from_epoch: int, parts: int = 1
) -> dict[str, Tensor]:
    """Run one round, in which `d1` is lost; the weights."""
    once = {"training.rounds": 1, "plan.clusters": 1, "training.phi": phi}
    once |= {"training.micro_batches": parts}
    dying = partial(Dying, from_epoch)
    broker = MemoryBroker()
    model, [report] = await run_job(own, {**SETTINGS, **once}, broker=broker, make_trainer=dying)
    assert list(report.lost) == ["d1"]
    return weights_of(model)


async def test_whoever_is_left_alone_of_a_cluster_has_its_plain_gradients() -> None:
    pair = shards((20, 20), SHAPE)
    plain = await _without(pair, 0.0, from_epoch=0)
    for phi in (0.5, 1.0):
        assert same_bits(await _without(pair, phi, from_epoch=0), plain)


async def test_in_micro_batches_whoever_is_left_alone_has_the_same() -> None:
    pair = shards((20, 20), SHAPE)
    plain = await _without(pair, 0.0, from_epoch=0)
    parted = await _without(pair, 0.5, from_epoch=0, parts=4)
    assert largest_difference(parted, plain) <= 1e-5


@pytest.mark.parametrize("parts", [1, 4])
async def test_those_that_are_left_aggregate_among_themselves(parts: int) -> None:
    left = await _without(shards((20, 20, 20), SHAPE), 0.5, from_epoch=1, parts=parts)
    assert all(np.isfinite(each).all() for each in left.values())


@pytest.mark.parametrize(
    ("changed", "lowest"),
    [
        ({}, 0.3),
        ({"plan.batch_sizes": "by_data"}, 0.25),
        ({"plan.cuts": {"d3": "conv2"}, "plan.cut": "pool1"}, 0.0),
    ],
    ids=["equal", "by data", "a cut of its own"],
)
async def test_what_plans_chose_is_written_down_and_replayed_by_real_devices(
    changed: Mapping[str, object], lowest: float, tmp_path: Path
) -> None:
    own = shards((40, 30, 20, 35), SHAPE)
    settings = {**SETTINGS, "training.phi": "auto", "training.max_phi": 0.3}
    settings |= {"plan.mode": "auto", "plan.medium": "shared", "output": str(tmp_path)}
    settings |= changed
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, load_scenario("uniform"))
    directory = RunDirectory.make(job.settings, now=datetime.now(UTC))
    rounds = await simulation.run(observers=[directory], progress=Reports())
    chosen = {own.phi or 0.0 for done in rounds for own in done.plan.clusters}
    assert (min(chosen), max(chosen)) == (lowest, 0.3)
    replayed = {**settings, "plan.mode": f"replay:{directory.path}"}
    real, reports = await run_job(own, replayed, broker=MemoryBroker())
    assert same_bits(weights_of(real), weights_of(model))
    traffic = [(done.report.up_bytes, done.report.down_bytes) for done in rounds]
    assert [(told.up_bytes, told.down_bytes) for told in reports] == traffic


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"training.phi": "auto"}, "by hand nothing is: give a share from 0 to 1"),
        ({"training.phi": "auto", "training.method": "fl"}, "none are computed there: take phi"),
        ({"training.phi": "much"}, "training.phi"),
    ],
)
def test_a_share_that_cannot_be_is_refused_in_a_sentence(
    settings: Mapping[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_job(shards((20, 20), SHAPE), settings)
