"""A server side that computes in several processes: the step of one, whoever dies meanwhile."""

import os
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from edge_coordinator.training.algorithm import ServerStep, Smashed
from edge_coordinator.training.computing.ranks import LOST, Patience
from edge_coordinator.training.edge_model import EdgeModel
from runtime.bus.memory_bus import MemoryBroker
from runtime.models.load import cut_index, layer_shapes
from tests.builders import make_job, run_job
from tests.noise import random_samples, shards
from tests.system.programs.networks_of_ranks import SHAPE
from tests.unit.edge_coordinator.training.test_micro_batches import largest_error

NETWORKS = "tests.system.programs.networks_of_ranks"
CLUSTERS = ({"a": 16, "b": 10, "c": 5}, {"a": 7, "d": 3}, {"b": 4})
"""Unequal devices; fewer than three ranks; one alone."""
IMAGES = (1, 28, 28)
LENET: Mapping[str, object] = {
    "model.options": {"dropout": 0.3},
    "model.freeze": ["conv2.*"],
    "training.server_optimizer.name": "adam",
    "training.clip.norm": 0.5,
    "training.class_weights": [1.0, 3.0] * 5,
    "training.label_smoothing": 0.1,
}
ATTENDS: Mapping[str, object] = {
    "model.name": f"{NETWORKS}:Attends",
    "training.server_optimizer.nesterov": True,
    "training.server_optimizer.weight_decay": 0.01,
}


def made(settings: Mapping[str, object], shape: tuple[int, ...], device: object) -> EdgeModel:
    given = {"plan.cut": "input", **settings, "training.server_device": device}
    return make_job(shards([16, 10], shape), given)[1]


def sent(model: EdgeModel, cut: int, sizes: Mapping[str, int], round_: int) -> dict[str, Smashed]:
    """What devices send at a cut; the same for all models."""
    generator = np.random.default_rng((cut, len(sizes), round_))
    shape = model.network.input_shape
    assert shape is not None
    smashed = (shape, *layer_shapes(model.network, shape))[cut]
    return {
        device: Smashed(
            generator.standard_normal((size, *smashed)).astype(np.float32),
            generator.integers(0, 10, size),
        )
        for device, size in sizes.items()
    }


def trained(model: EdgeModel, *cuts: str) -> list[ServerStep]:
    """Turns of clusters at several cuts; the first round is undone, and amid them is evaluated."""
    steps, before = [], model.snapshot()
    assert model.network.input_shape is not None
    test = random_samples(8, model.network.input_shape, num_classes=10, seed=1)
    for round_ in (1, 2):
        for cut in (cut_index(model.network, name) for name in cuts):
            for sizes in CLUSTERS:
                turn = model.turn(cut=cut, round_=round_, learning_rate=0.01)
                steps += [turn.step(sent(model, cut, sizes, round_)) for _ in range(2)]
            model.evaluate(test)
        if round_ == 1:
            model.restore(before)
    return steps


def largest_differences(
    model: EdgeModel,
    steps: list[ServerStep],
    other: EdgeModel,
    others: list[ServerStep],
    *,
    loss: float = 1e-5,
) -> tuple[float, float]:
    """Of gradients that devices get, beside the largest of a step; and of all weights and slots."""
    gradients = 0.0
    for step, same in zip(steps, others, strict=True):
        assert same.loss == pytest.approx(step.loss, abs=loss)
        assert step.gradients.keys() == same.gradients.keys()
        if not step.gradients:  # Nothing learns below this cut.
            continue
        whole, again = (np.concatenate([*each.gradients.values()]) for each in (step, same))
        gradients = max(gradients, largest_error(again, whole) / float(np.abs(whole).max()))
    one, two = model.snapshot(), other.snapshot()
    assert one.keys() == two.keys()
    return gradients, max(float((one[name] - two[name]).abs().max()) for name in one)


def are_gone(pids: list[int]) -> bool:
    """Whether no such process is left, not even one that nobody has waited for."""
    return not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("settings", "shape", "cuts"),
    [(LENET, IMAGES, ("pool1", "fc1")), (ATTENDS, SHAPE, ("enter", "input"))],
    ids=["a sequence", "a recorded graph"],
)
def test_three_processes_take_the_steps_of_one(
    settings: Mapping[str, object], shape: tuple[int, ...], cuts: tuple[str, ...]
) -> None:
    one, three = made(settings, shape, "cpu"), made(settings, shape, ["cpu"] * 3)
    with three.on_all_devices(pytest.fail):
        ranks = three.ranks
        assert ranks is not None
        pids = ranks.pids
        steps = trained(three, *cuts)
        assert ranks.pids == pids
    assert are_gone(pids)
    gradients, weights = largest_differences(one, trained(one, *cuts), three, steps)
    # Sums of some hundred products in another order, over twelve steps that each rest on the last.
    assert gradients <= 1e-4
    assert weights <= 1e-4


def test_a_step_whose_ranks_die_is_computed_all_the_same_and_said_once_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order, lost = tmp_path / "die", list[str]()
    settings = {"model.name": f"{NETWORKS}:dying", "model.options": {"order": str(order)}}
    one, three = made(settings, SHAPE, "cpu"), made(settings, SHAPE, ["cpu"] * 3)
    sizes, steps = {"a": 16, "b": 10, "c": 12}, list[ServerStep]()

    def stepped(model: EdgeModel) -> ServerStep:
        turn = model.turn(cut=2, round_=1, learning_rate=0.01)
        return turn.step(sent(model, 2, sizes, 1))

    with three.on_all_devices(lost.append):
        assert three.ranks is not None
        pids = three.ranks.pids
        steps.append(stepped(three))
        order.touch()
        steps.append(stepped(three))  # One of the two dies amid the sum.
        assert not order.exists()
        steps.append(stepped(three))
        (left,) = three.ranks.pids
        os.kill(left, signal.SIGKILL)
        steps += [stepped(three), stepped(three)]
        assert three.ranks.pids == []
    assert are_gone(pids)
    gradients, weights = largest_differences(one, [stepped(one) for _ in steps], three, steps)
    assert gradients <= 1e-5
    assert weights <= 1e-5
    assert lost == [LOST, LOST]
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert [each.partition("(cpu)")[2] for each in said] == [
        ", which was killed by SIGKILL: it computes on cpu and cpu",
        ", which was killed by SIGKILL: it computes on cpu",
    ]


@pytest.mark.parametrize(
    ("when", "said"),
    [
        (
            "built",
            f"says: model {NETWORKS}:failing cannot be built with when='built': no such file",
        ),
        ("run", "says: out of memory"),
        ("back", "says: no such gradient here"),
    ],
)
def test_a_rank_that_cannot_compute_along_says_why_and_the_step_is_computed_without_it(
    when: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"model.name": f"{NETWORKS}:failing", "model.options": {"when": when}}
    one, two = made(settings, SHAPE, "cpu"), made(settings, SHAPE, ["cpu", "cpu"])
    lost = list[str]()
    with two.on_all_devices(lost.append):
        steps = trained(two, "fc1")
    assert max(largest_differences(one, trained(one, "fc1"), two, steps)) <= 1e-6
    assert lost == [LOST]
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"the server side goes on without rank 1 (cpu), which {said}: it computes on cpu"
    ]


def test_rank_0_that_fails_amid_the_sum_says_so_and_computes_the_step_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    order, lost = tmp_path / "fail", list[str]()
    settings = {"model.name": f"{NETWORKS}:failing", "model.options": {"order": str(order)}}
    one, two = made(settings, SHAPE, "cpu"), made(settings, SHAPE, ["cpu", "cpu"])
    with two.on_all_devices(lost.append):
        order.touch()
        steps = trained(two, "flatten")
    assert max(largest_differences(one, trained(one, "flatten"), two, steps)) <= 1e-6
    assert (lost, order.exists()) == ([LOST], False)
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "the server side goes on without rank 1 (cpu), which cannot be computed with: rank 0 says "
        "of its own share: no such gradient: it computes on cpu"
    ]


def test_a_rank_that_hangs_is_killed_and_the_step_is_computed_without_it() -> None:
    settings = {"model.name": "mlp", "training.autocast": "float16"}
    one, two = made(settings, IMAGES, "cpu"), made(settings, IMAGES, ["cpu", "cpu"])
    assert two.ranks is not None
    lost = list[str]()
    with two.on_all_devices(lost.append):
        first = trained(two, "fc1")
        assert not lost
        (pid,) = two.ranks.pids
        os.kill(pid, signal.SIGSTOP)
        two.ranks.patience = Patience(step_s=1.0, others_s=1.0)
        second = trained(two, "fc1")
        assert lost == [LOST]
    assert are_gone([pid])
    expected = trained(one, "fc1") + trained(one, "fc1")
    # Sums of shares are of what was rounded to 10 bits before.
    gradients, weights = largest_differences(one, expected, two, first + second, loss=1e-3)
    assert gradients <= 20 * 2**-10
    assert weights <= 2**-10


@pytest.mark.timeout(120)
def test_a_run_that_ends_while_its_ranks_meet_waits_for_none_of_them() -> None:
    two = made({"model.name": "mlp"}, IMAGES, ["cpu", "cpu"])
    assert two.ranks is not None
    two.ranks.patience = Patience(step_s=600.0)
    with ThreadPoolExecutor(1) as pool, two.on_all_devices(pytest.fail):
        meets = pool.submit(two.meet)
        while not meets.done() and not two.ranks.meeting.locked():
            time.sleep(0.0002)
    assert not two.ranks.pids


async def test_a_run_over_a_bus_ends_in_the_weights_of_one_process() -> None:
    own = shards([16, 10, 13], IMAGES)
    ended = []
    for device in ("cpu", ["cpu", "cpu"]):
        settings = {
            "training.rounds": 2,
            "training.server_device": device,
            "plan.cut": "pool1",
            "plan.cuts": {"d1": "conv1"},
        }
        model, reports = await run_job(own, settings, broker=MemoryBroker())
        assert [report.faults for report in reports] == [{}, {}]
        ended.append(model.snapshot())
    one, two = ended
    assert max(float((one[name] - two[name]).abs().max()) for name in one) <= 1e-4


@pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="torch has fewer than two CUDA devices here"
)
def test_two_accelerators_take_the_steps_of_one_and_a_rank_that_dies_ends_nothing() -> None:
    one = made(LENET, IMAGES, "cuda:0")
    two = made(LENET, IMAGES, ["cuda:0", "cuda:1"])
    lost = list[str]()
    with two.on_all_devices(lost.append):
        assert two.ranks is not None
        steps = trained(two, "pool1", "fc1")
        assert not lost
        os.kill(two.ranks.pids[0], signal.SIGKILL)
        steps += trained(two, "pool1", "fc1")
        assert lost == [LOST]
    expected = trained(one, "pool1", "fc1") + trained(one, "pool1", "fc1")
    # Convolutions there may round to 10 bits.
    assert max(largest_differences(one, expected, two, steps)) <= 20 * 2**-10
