"""A run's plans taken again: the same bits, or one sentence on why they cannot be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_coordinator.job.file import dump_job
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.events import Progress, RoundPlanned, Waiting
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from runtime.wire.published import PlanReport, RoundReport
from runtime.wire.topics import Topics
from tests.builders import make_job, run_job, same_bits, weights_of
from tests.noise import shards
from tests.sites import make_plan, make_round

OWN = shards((40, 20, 30, 25), (1, 28, 28))
SETTINGS: dict[str, object] = {
    "plan.mode": "auto",
    "plan.profile_patience_s": 0.0,
    "training.rounds": 3,
    "training.local_epochs": 1,
    "training.schedule.name": "constant",  # So that fewer rounds are the beginning of more.
}


async def _run(
    folder: Path, changes: Mapping[str, object], *, resume: Path | None = None
) -> tuple[EdgeModel, Path, list[RoundReport]]:
    """Train over a memory bus as the commands do; the directory that was left."""
    job, model = make_job(OWN, {**SETTINGS, "output": str(folder), **changes})
    if resume is not None:
        directory = RunDirectory.resume(resume, model)
    else:
        directory = RunDirectory.make(job.settings, now=datetime.now(UTC))
    _, rounds = await run_job(
        OWN, {}, broker=MemoryBroker(), progress=directory, prepared=(job, model)
    )
    return model, directory.path, rounds


async def test_a_planned_run_that_was_resumed_is_replayed_to_the_same_bits_resumed_or_not(
    tmp_path: Path,
) -> None:
    _, run, _ = await _run(tmp_path, {"training.rounds": 2})
    planned, _, _ = await _run(tmp_path, {}, resume=run)
    replay = {"plan.mode": f"replay:{run}"}
    replayed, _, _ = await _run(tmp_path, replay)
    assert same_bits(weights_of(planned), weights_of(replayed))
    _, again, _ = await _run(tmp_path, replay | {"training.rounds": 1})
    resumed, _, _ = await _run(tmp_path, replay, resume=again)
    assert same_bits(weights_of(planned), weights_of(resumed))
    replayed_replay, _, _ = await _run(tmp_path, {"plan.mode": f"replay:{again}"})
    assert same_bits(weights_of(planned), weights_of(replayed_replay))


@dataclass
class DeafOnce(MemoryBroker):
    """Loses what a device sends in a round, until that round is tried again."""

    topic: str
    round: int
    is_deaf: bool = False
    waited: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if not (self.is_deaf and topic == self.topic):
            super().route(topic, payload, retain=retain)

    def tell(self, progress: Progress) -> None:
        match progress:
            case RoundPlanned(plan):
                self.is_deaf = plan.round == self.round and not self.waited
            case Waiting(what):
                self.waited += [what] if self.is_deaf else []
                self.is_deaf = False


async def test_a_replayed_round_that_loses_a_device_is_tried_again_until_it_has_all(
    tmp_path: Path,
) -> None:
    by_hand = {"plan.mode": "by_hand", "model.name": "mlp", "plan.cut": "fc1"}
    calm, run, _ = await _run(tmp_path, by_hand)
    broker = DeafOnce(Topics("default").up("d1", "smashed"), round=2)
    changes = {"plan.mode": f"replay:{run}", "model.name": "mlp"}
    quick = {"devices.margin_s": 0.5, "devices.patience_s": 1.0}
    model, rounds = await run_job(OWN, SETTINGS | changes | quick, broker=broker, observer=broker)
    assert "round 2 is tried again" in broker.waited[0]
    assert not any(report.lost for report in rounds)
    assert same_bits(weights_of(calm), weights_of(model))


def _record(folder: Path, *rounds: RoundReport, plan: PlanReport, **changes: object) -> None:
    """Leave the directory of a run of the job of these tests."""
    job, _ = make_job(OWN, SETTINGS | changes)
    (folder / "job.toml").write_text(dump_job(job.settings))
    lines = ({**json.loads(each.encode()), "plan": json.loads(plan.encode())} for each in rounds)
    (folder / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


ROUNDS = [make_round(number) for number in (1, 2, 3)]
PLAN = make_plan("ab", cut=3, cut_layer="pool1")
CLUSTER = PLAN.clusters[0]
GROWN = PLAN.model_copy(update={"clusters": (CLUSTER.model_copy(update={"num_samples": (12, 0)}),)})
LOST = make_round(2, lost={"d1": "was late"})


@pytest.mark.parametrize(
    ("rounds", "plan", "changes", "sentence"),
    [
        (ROUNDS[:2], PLAN, {}, "holds the plans of 2 rounds, this job has 3: take training.rounds"),
        ([ROUNDS[0], LOST, ROUNDS[2]], PLAN, {}, "since d1 fell out of it (was late); the rounds"),
        (ROUNDS, PLAN, {"seed": 7}, "seed is 7 in this job and 0 in "),
        (ROUNDS, PLAN, {"model.name": "mlp"}, "model.name is 'mlp' in this job and 'lenet' in "),
        (ROUNDS, PLAN, {"training.batch_size": 8}, "training.batch_size is 8 in this job and 16"),
        (ROUNDS, GROWN, {"devices.scenario": "mixed"}, "it says which samples came first: its"),
        (ROUNDS, make_plan("ab", cut=1, cut_layer="pool9"), {}, "round 1 of "),
    ],
)
def test_a_run_whose_bits_cannot_be_had_again_is_one_sentence(
    rounds: list[RoundReport],
    plan: PlanReport,
    changes: dict[str, object],
    sentence: str,
    tmp_path: Path,
) -> None:
    _record(tmp_path, *rounds, plan=plan)
    with pytest.raises(SettingsError) as caught:
        make_job(OWN, SETTINGS | changes | {"plan.mode": f"replay:{tmp_path}"})
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fewer_rounds_may_be_replayed_unless_the_rates_depend_on_how_many_there_are(
    tmp_path: Path,
) -> None:
    cosine = {"training.schedule.name": "cosine"}
    fewer = {"training.rounds": 2, "plan.mode": f"replay:{tmp_path}"}
    _record(tmp_path, *ROUNDS, plan=PLAN)
    make_job(OWN, SETTINGS | fewer)
    _record(tmp_path, *ROUNDS, plan=PLAN, **cosine)
    with pytest.raises(SettingsError, match="depend on how many there are"):
        make_job(OWN, SETTINGS | cosine | fewer)


def test_what_is_no_run_and_other_devices_are_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere is not the directory of a run"):
        make_job(OWN, SETTINGS | {"plan.mode": "replay:nowhere"})
    _record(tmp_path, *ROUNDS, plan=PLAN)
    job, _ = make_job(OWN, SETTINGS | {"plan.mode": f"replay:{tmp_path}"})
    job.check_devices(["a", "b", "c"])
    with pytest.raises(SettingsError, match="with devices a, c: it was trained with b"):
        job.check_devices(["a", "c"])
