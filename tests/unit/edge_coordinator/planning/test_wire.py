"""What plans know of encoded frames: their bytes, and which codec makes the shortest round."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.planning.wire import WireTable
from edge_coordinator.replanning.task import job_cut_table
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.simulation.simulation import Simulation
from profiles.link import IndependentLinks
from profiles.phases import Phase
from runtime.errors import SettingsError
from runtime.scenarios.files import load_scenario
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.codecs.turn import TurnCoder
from runtime.wire.frames import FrameKind, encode_body
from runtime.wire.micro_batches import parted
from tests.builders import Reports, make_job, same_bits, weights_of
from tests.fleets import CUTS, device, workload
from tests.noise import shards

OWN = shards((20, 20, 20), (1, 28, 28))
CODECS = TurnCodecs(model="int8", smashed="int8", gradient="topk:0.1", weights="int4")


@pytest.mark.parametrize("network", ["lenet", "resnet8"])
def test_a_plan_knows_the_bytes_of_encoded_frames_at_every_cut(network: str) -> None:
    own = shards((20,), (1, 28, 28) if network == "lenet" else (3, 32, 32))
    settings = {"model.name": network, "plan.clusters": 1, "plan.cut": 1}
    job, model = make_job(own, settings)
    wire = WireTable.of(job_cut_table(job, model), CODECS, batch_size=16)
    coder = TurnCoder(CODECS, seed=0, round_=1)
    for cut in range(1, model.num_layers):
        side = model.turn(cut=cut, round_=1, learning_rate=0.0).device_side()
        smashed = [np.ones((16, *job.smashed_shape(cut)), np.float32)]
        for kind, tensors, bits in (
            (FrameKind.MODEL, side, wire.model_bits[cut]),
            (FrameKind.WEIGHTS, side, wire.weights_bits[cut]),
            (FrameKind.SMASHED, smashed, wire.smashed_bits[cut]),
            (FrameKind.GRADIENT, smashed, wire.gradient_bits[cut]),
        ):
            parts = coder.encode(kind, tensors, device="pi-1", epoch=0, before=side)
            others = sum(t.nbytes for t in side if t.dtype != np.float32)
            slack = 16 + 10 * others  # Of tensors that are not float32, each has a header more.
            assert len(encode_body(parts)) * 8 == pytest.approx(bits, abs=8 * slack)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 8])
def test_a_plan_knows_the_bytes_of_a_mini_batch_in_micro_batches(count: int) -> None:
    job, model = make_job(shards((20,), (1, 28, 28)), {"plan.clusters": 1, "plan.cut": 1})
    wire = WireTable.of(job_cut_table(job, model), CODECS, batch_size=16)
    coder = TurnCoder(CODECS, seed=0, round_=1)
    for cut in range(1, model.num_layers):
        num_bytes = {Phase.UPLOAD: 0, Phase.DOWNLOAD: 0}
        for rows in parted(16, count):
            tensors = [np.ones((len(rows), *job.smashed_shape(cut)), np.float32)]
            for phase, kind in (
                (Phase.UPLOAD, FrameKind.SMASHED),
                (Phase.DOWNLOAD, FrameKind.GRADIENT),
            ):
                num_bytes[phase] += len(
                    encode_body(coder.encode(kind, tensors, device="pi-1", epoch=0))
                )
        bits = wire.transfer_bits(
            cut=cut, label_bits=0.0, loss_on_device=False, micro_batches=count
        )
        assert {phase: bits[phase] / 8 for phase in num_bytes} == num_bytes


@pytest.mark.parametrize(
    ("bps", "chosen"), [(1e5, "int8"), (1e6, "int8"), (1e12, "fp32")], ids=["thin", "usual", "fast"]
)
def test_a_plan_takes_the_codec_of_the_shortest_round(bps: float, chosen: str) -> None:
    names = ("fp32", "bf16", "int8")
    wires = tuple(
        WireTable.of(CUTS, TurnCodecs(**dict.fromkeys(TurnCodecs.model_fields, n)), batch_size=16)
        for n in names
    )
    work = replace(workload(IndependentLinks()), wires=wires)
    devices = [device(f"d{k}", up_bps=bps, down_bps=bps) for k in range(4)]
    plan = plan_round(
        devices,
        work,
        grouping=Grouping("cpsl", num_clusters=2),
        cut=2,
        generator=np.random.default_rng(0),
    )
    assert plan.codecs is not None
    assert plan.codecs.smashed == chosen
    assert f"travel as {chosen}" in plan.reason
    fixed = replace(work, wires=(wires[names.index(chosen)],))
    alone = plan_round(
        devices,
        fixed,
        grouping=Grouping("cpsl", num_clusters=2),
        cut=2,
        generator=np.random.default_rng(0),
    )
    assert plan.predicted_s == alone.predicted_s


async def _simulated(
    settings: Mapping[str, object], directory: Path | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Weights at the end, and the codec of smashed data in each round's plan."""
    job, model = make_job(OWN, {"training.rounds": 2, **settings})
    observers = [RunDirectory.make(job.settings, now=datetime.now(UTC))] if directory else []
    simulation = Simulation(job, model, OWN, load_scenario("uniform"))
    rounds = await simulation.run(observers=observers, progress=Reports())
    codecs = [job.codecs_of(done.plan) for done in rounds]
    return weights_of(model), [each.smashed if each else "fp32" for each in codecs]


def _only(folder: Path) -> Path:
    """The one run that was written down."""
    [run] = folder.iterdir()
    return run


async def test_what_a_plan_chose_is_replayed_and_is_what_it_would_have_been_if_given(
    tmp_path: Path,
) -> None:
    auto = {"plan.mode": "auto", "codec.name": "auto", "output": str(tmp_path)}
    planned, codecs = await _simulated(auto, tmp_path)
    assert codecs == ["int8", "int8"]
    given, _ = await _simulated({**auto, "codec.name": "int8"})
    replayed, again = await _simulated({**auto, "plan.mode": f"replay:{_only(tmp_path)}"})
    assert again == codecs
    assert same_bits(planned, replayed)
    assert same_bits(planned, given)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codec.name": "auto"}, "by hand nothing is"),
        ({"codec.name": "int3"}, "no codec is named 'int3'"),
        ({"codec.model": "topk:0.1"}, "models do not travel as 'topk:0.1'"),
        ({"codec.gradient": "auto"}, "set codec.name"),
        (
            {"codec.weights": "int8", "training.server_optimizer.name": "adam"},
            "take fp32 or bf16, or training.carry_optimizer_state = false",
        ),
    ],
)
def test_a_codec_that_cannot_be_is_refused_in_a_sentence(
    settings: Mapping[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        make_job(OWN, settings)
