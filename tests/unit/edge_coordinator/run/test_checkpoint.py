"""What a checkpoint keeps, and what a broken one does not break."""

import json
from pathlib import Path

import pytest

from edge_coordinator.run.checkpoint import START, Reached, load_checkpoint, save_checkpoint
from edge_coordinator.run.directory import RunDirectory
from edge_coordinator.run.sound_checkpoints import kept_rounds
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError
from tests.builders import make_job, run_job, same_bits, weights_of
from tests.noise import shards
from tests.sites import make_round

SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "plan.cut": "relu1",
    "plan.clusters": 2,
    "training.server_optimizer.name": "adamw",
    "training.schedule.name": "constant",  # So that two rounds of two are the first of four.
}


async def _trained(path: Path, *, rounds: int, resume: bool) -> EdgeModel:
    """Train up to a round, from the start or from the directory's checkpoint."""
    own, settings = shards((40, 20, 30), (1, 28, 28)), SETTINGS | {"training.rounds": rounds}
    if not resume:
        model, _ = await run_job(own, settings, broker=MemoryBroker(), progress=RunDirectory(path))
        return model
    job, model = make_job(own, settings)
    directory = RunDirectory.resume(path, model)
    await run_job(own, settings, broker=MemoryBroker(), progress=directory, prepared=(job, model))
    return model


async def test_a_run_resumed_from_a_checkpoint_ends_in_the_same_bits(tmp_path: Path) -> None:
    undisturbed = await _trained(tmp_path, rounds=4, resume=False)
    (tmp_path / "two").mkdir()
    await _trained(tmp_path / "two", rounds=2, resume=False)
    resumed = await _trained(tmp_path / "two", rounds=4, resume=True)
    assert same_bits(weights_of(undisturbed), weights_of(resumed))
    assert (tmp_path / "two" / "rounds.jsonl").read_text().count("\n") == 4


def test_a_checkpoint_cut_short_leaves_the_one_before_usable(tmp_path: Path) -> None:
    _, model = make_job(shards((40,), (1, 28, 28)), SETTINGS | {"plan.clusters": 1})
    save_checkpoint(tmp_path, model, Reached(3, 1.5))
    draft = tmp_path / "checkpoint.safetensors.new"
    draft.write_bytes((tmp_path / "checkpoint.safetensors").read_bytes()[:1000])
    assert load_checkpoint(tmp_path, model) == Reached(3, 1.5)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path) -> None:
    _, model = make_job(shards((40,), (1, 28, 28)), SETTINGS | {"plan.clusters": 1})
    (tmp_path / "rounds.jsonl").write_text('{"a line that was cut sh')
    directory = RunDirectory.resume(tmp_path, model)
    assert (directory.reached, directory.reports) == (START, [])
    assert (tmp_path / "rounds.jsonl").read_text() == ""


def test_rounds_after_the_checkpoint_are_forgotten_by_their_number(tmp_path: Path) -> None:
    """A power cut may have lost a line that was not on the disk yet, and cut another short."""
    _, model = make_job(shards((40,), (1, 28, 28)), SETTINGS | {"plan.clusters": 1})
    save_checkpoint(tmp_path, model, Reached(3, 1.5))
    lines = [{**json.loads(make_round(n).encode()), "plan": None} for n in (1, 3, 4)]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "rounds.jsonl").write_text(text + '{"round": 5, "ru')
    directory = RunDirectory.resume(tmp_path, model)
    assert [point.round for point in directory.reports] == [1, 3]
    assert (tmp_path / "rounds.jsonl").read_text() == "".join(text.splitlines(keepends=True)[:2])


@pytest.mark.parametrize("content", [b"", b"garbage" * 100])
def test_a_checkpoint_that_cannot_be_used_is_one_sentence(content: bytes, tmp_path: Path) -> None:
    _, model = make_job(shards((40,), (1, 28, 28)), SETTINGS | {"plan.clusters": 1})
    (tmp_path / "checkpoint.safetensors").write_bytes(content)
    with pytest.raises(SettingsError, match=r"checkpoint\.safetensors"):
        load_checkpoint(tmp_path, model)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    _, lenet = make_job(shards((40,), (1, 28, 28)), {"plan.clusters": 1})
    _, mlp = make_job(shards((40,), (1, 28, 28)), SETTINGS | {"plan.clusters": 1})
    save_checkpoint(tmp_path, lenet, START)
    with pytest.raises(SettingsError, match="another network"):
        load_checkpoint(tmp_path, mlp)


@pytest.mark.parametrize(
    ("every", "most", "kept"),
    [(1, 1, {70}), (1, 3, {70, 68, 64}), (5, 3, {70, 60, 0}), (1, 2, {70, 68}), (1, 0, set[int]())],
)
def test_older_checkpoints_are_further_and_further_apart(
    every: int, most: int, kept: set[int]
) -> None:
    assert kept_rounds(range(0, 71, every), every=every, most=most) == kept
