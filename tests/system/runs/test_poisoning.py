"""What one device that sends poison can do to a run: real agents on a bus of memory."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.poisoning.poisoned_devices import ATTACKS, Attack, Tensors, Told, train
from runtime.datasets.samples import DataSet, Samples
from runtime.errors import root_cause
from tests.noise import random_samples

SHAPE = (1, 28, 28)
BATCH_SIZE = 16
POISONED = "dev-2"
SETTINGS: dict[str, object] = {
    "model.name": "mlp",
    "plan.cut": "fc1",
    "plan.clusters": 1,
    "data.partition": "iid",
    "training.rounds": 6,
    "training.schedule.name": "constant",
}


def _data() -> DataSet:
    return DataSet(
        train=random_samples(400, SHAPE, num_classes=10, seed=5),
        test=random_samples(100, SHAPE, num_classes=10, seed=1),
        num_classes=10,
        name="noise",
    )


async def _train(attack: Attack, *, folder: Path | None = None, **changes: object) -> Told:
    settings = SETTINGS | {key.replace("__", "."): value for key, value in changes.items()}
    return await train(
        _data(), settings, num_devices=5, attack=attack, attackers=[POISONED], folder=folder
    )


async def test_nobody_honest_is_touched() -> None:
    told = await _train(Attack())
    assert not told.excluded
    assert not any(report.lost for report in told.rounds)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("weights x 1e6", "sent weights whose update is of size"),
        ("weights 3e38", "sent weights whose update is of size"),
        ("weights x -1", "sent weights whose update is of size"),
        ("one value of 1e30", "sent smashed data of size"),
    ],
)
async def test_who_would_spoil_the_model_is_named_and_the_others_train_on(
    attack: str, words: str
) -> None:
    told = await _train(ATTACKS[attack])
    assert words in told.rounds[0].lost[POISONED]
    assert words in told.excluded[POISONED]
    assert "excluded up to round 11" in told.excluded[POISONED]
    assert [report.num_devices for report in told.rounds] == [5, 4, 4, 4, 4, 4]
    assert (told.rounds[-1].test_accuracy or 0.0) > 0.9


async def test_an_exclusion_ends_and_is_twice_as_long_the_next_time() -> None:
    told = await _train(
        ATTACKS["one value of 1e30"], devices__excluded_rounds=1, training__rounds=8
    )
    assert [report.round for report in told.rounds if report.lost] == [1, 3, 6]


async def test_a_loss_that_is_not_finite_names_whose_samples_it_is_and_undoes_the_turn() -> None:
    def enormous(tensors: Tensors, _: np.random.Generator) -> Tensors:
        return np.full_like(tensors[0], 3e38), tensors[1]

    told = await _train(Attack(of_smashed=enormous), devices__bounds=False)
    # The round of which nothing was left is tried again, without the culprit.
    assert "sent samples whose loss is nan" in told.excluded[POISONED]
    assert [report.num_devices for report in told.rounds] == [4, 4, 4, 4, 4, 4]
    assert (told.rounds[-1].test_accuracy or 0.0) > 0.9


def _wild(tensors: Tensors, generator: np.random.Generator) -> Tensors:
    return tuple(generator.normal(0, 100, each.shape).astype(each.dtype) for each in tensors)


SPOILT_IN_4 = Attack(of_weights=_wild, rounds=range(4, 5))


async def test_a_run_that_was_spoilt_goes_back_by_itself_and_says_so(tmp_path: Path) -> None:
    told = await _train(
        SPOILT_IN_4,
        folder=tmp_path,
        devices__bounds=False,
        training__rounds=8,
        evaluation__spoilt_evaluations=2,
    )
    assert ["the test loss is" in report.spoilt for report in told.rounds] == [
        False, False, False, True, True, False, False, False,
    ]  # fmt: skip
    assert [report.went_back_to for report in told.rounds][4:6] == [(3,), ()]
    assert (told.rounds[-1].test_accuracy or 0.0) > 0.9
    written = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert written[4]["went_back_to"] == [3]


async def test_a_run_goes_back_no_more_often_than_the_job_says(tmp_path: Path) -> None:
    always = Attack(of_weights=_wild, rounds=range(4, 9))
    settings: dict[str, object] = {
        "devices__bounds": False,
        "evaluation__spoilt_evaluations": 1,
        "evaluation__most_returns": 2,
    }
    first = await _train(always, folder=tmp_path, training__rounds=5, **settings)
    resumed = await _train(always, folder=tmp_path, training__rounds=8, **settings)
    # The first return uses up the checkpoint of round 3; then there is the best, of the same round.
    assert [report.went_back_to for report in first.rounds] == [(), (), (), (3,), ()]
    assert [report.went_back_to for report in resumed.rounds] == [(3,), (), ()]


async def test_a_model_that_is_lost_for_good_ends_the_run_in_one_sentence() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        await _train(ATTACKS["weights 3e38"], devices__bounds=False)
    assert "the loss is no longer finite in round 1: training diverged" in str(
        root_cause(caught.value)
    )


async def test_who_lies_in_an_evaluation_alone_does_not_count_in_it() -> None:
    def in_evaluation(tensors: Tensors, _: np.random.Generator) -> Tensors:
        smashed, labels = tensors
        is_training = len(smashed) == BATCH_SIZE
        return smashed if is_training else np.full_like(smashed, 1e30), labels

    told = await _train(Attack(of_smashed=in_evaluation), data__test="devices", data__held_out=0.4)
    assert not told.excluded
    assert all(report.test_loss is not None for report in told.rounds)
    assert (told.rounds[-1].test_accuracy or 0.0) > 0.9


async def test_a_round_that_cannot_be_trained_any_more_is_tried_from_older_weights(
    tmp_path: Path,
) -> None:
    fired: list[int] = []

    def once(tensors: Tensors, _: np.random.Generator) -> Tensors:
        smashed, labels = tensors
        fired.append(1)
        return smashed, np.full_like(labels, 1e18) if len(fired) == 1 else labels

    noise = random_samples(400, SHAPE, num_classes=10, seed=5)
    y = (np.arange(400) % 7).astype(np.float32)
    data = DataSet(
        train=Samples(noise.x, y), test=Samples(noise.x[:100], y[:100]), num_classes=None,
        name="numbers",
    )  # fmt: skip
    settings = SETTINGS | {
        "training.method": "cl",
        "training.loss": "mse",
        "model.options": {"num_classes": 1},
        "devices.bounds": False,
    }
    told = await train(
        data,
        settings,
        num_devices=5,
        attack=Attack(of_smashed=once, rounds=range(4, 5)),
        attackers=[POISONED],
        folder=tmp_path,
    )
    assert [report.went_back_to for report in told.rounds] == [(), (), (), (3,), (), ()]
