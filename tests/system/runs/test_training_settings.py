"""What a job says of training: the same bits in a real run and a simulated one, and other ones."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch.nn import functional

from device_agent.engines.numpy_training import load_loss as load_numpy_loss
from edge_coordinator.simulation.simulation import Simulation
from runtime.bus.memory_bus import MemoryBroker
from runtime.models.losses import load_loss
from runtime.scenarios.files import load_scenario
from runtime.wire.commands import LossOptions
from runtime.wire.frames import Tensor
from tests.builders import Reports, largest_difference, make_job, run_job, same_bits, weights_of
from tests.noise import shards
from tests.rounding import ALLOWED, nudged

pytestmark = pytest.mark.numerics

SIZES = (40, 12, 25)  # One device has less than a mini-batch.
ADAMW = {"name": "adamw", "learning_rate": 0.01, "weight_decay": 0.2}
SMOOTH = {"training.class_weights": [0.2, *[1.5] * 9], "training.label_smoothing": 0.1}
SETTINGS: list[dict[str, object]] = [
    {"training.clip.norm": 0.1},
    {"training.clip": {"norm": 0.05, "each": "tensor"}, "training.micro_batches": 2},
    {"training.clip.norm": 0.1, "training.method": "fl"},
    {"training.server_optimizer": {**ADAMW, "no_decay": ["<vectors>", "fc*"]}},
    {"training.device_schedule.name": "constant"},
    SMOOTH,
    {**SMOOTH, "training.method": "fl"},
    {"training.class_weights": "balanced"},
    {"model.freeze": ["conv1.*", "fc1.bias"]},
]


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    """The same without what is tried."""
    if "training.server_optimizer" in settings:
        return {"training.server_optimizer": ADAMW}
    return {k: v for k, v in settings.items() if k in ("training.method", "training.micro_batches")}


async def _simulated(
    settings: Mapping[str, object], *, is_nudged: bool = False
) -> dict[str, Tensor]:
    own = shards(SIZES, (1, 28, 28))
    own = nudged(own) if is_nudged else own
    job, model = make_job(own, settings)
    simulation = Simulation(job, model, own, load_scenario("mixed"))
    await simulation.run(observers=[], progress=Reports())
    return weights_of(model)


@pytest.mark.parametrize("settings", SETTINGS, ids="-".join)
async def test_a_simulation_ends_in_the_weights_of_the_real_run_and_the_setting_in_others(
    settings: Mapping[str, object],
) -> None:
    few: dict[str, object] = {"training.rounds": 2, "training.local_epochs": 2}
    real, _ = await run_job(shards(SIZES, (1, 28, 28)), few | dict(settings), broker=MemoryBroker())
    assert same_bits(weights_of(real), await _simulated(few | dict(settings)))
    assert not same_bits(weights_of(real), await _simulated(few | _plain(settings)))


@pytest.mark.parametrize(
    "settings",
    [
        {"training.clip.norm": 0.02, **SMOOTH, "training.method": "fl"},
        {
            "training.clip": {"norm": 0.02, "each": "tensor"},
            "training.server_optimizer": {**ADAMW, "no_decay": ["<vectors>"]},
            "model.freeze": ["conv1.bias"],
            "training.micro_batches": 2,
        },
    ],
    ids=["federated", "split"],
)
async def test_devices_without_torch_train_alike(settings: Mapping[str, object]) -> None:
    settings = {"training.rounds": 1, **settings}
    own = shards(SIZES, (1, 28, 28))
    mixed, (report,) = await run_job(
        own, settings, broker=MemoryBroker(), engines=("onnxruntime", "torch")
    )
    assert not report.lost
    expected = await _simulated(settings)
    rounding = largest_difference(expected, await _simulated(settings, is_nudged=True))
    assert largest_difference(weights_of(mixed), expected) <= ALLOWED * rounding


async def test_what_is_frozen_stays_and_the_rest_learns() -> None:
    settings = {"training.rounds": 1, "model.freeze": ["conv1.*", "fc1.bias"]}
    _, begun = make_job(shards(SIZES, (1, 28, 28)), settings)
    before, after = weights_of(begun), await _simulated(settings)
    stayed = {name for name in before if np.array_equal(before[name], after[name])}
    assert stayed == {"conv1.weight", "conv1.bias", "fc1.bias"}


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)])
def test_a_weighed_and_smoothed_cross_entropy_is_torchs_over_the_samples(
    shape: tuple[int, ...],
) -> None:
    generator = torch.Generator().manual_seed(1)
    outputs = torch.randn(shape, generator=generator, requires_grad=True)
    labels = torch.randint(5, (shape[0], *shape[2:]), generator=generator)
    weights = (0.5, 1.0, 2.0, 0.0, 3.0)
    options = LossOptions(class_weights=weights, label_smoothing=0.2)
    loss = load_loss("cross_entropy", options=options)(outputs, labels)
    torch.autograd.backward(loss)
    per_sample = functional.cross_entropy(
        outputs, labels, weight=torch.tensor(weights), label_smoothing=0.2, reduction="none"
    )
    value, gradient = load_numpy_loss("cross_entropy", options)(
        outputs.detach().numpy(), labels.numpy()
    )
    assert outputs.grad is not None
    assert loss.item() == pytest.approx(per_sample.mean().item(), rel=1e-6)
    assert value == pytest.approx(loss.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, outputs.grad.numpy(), atol=1e-7)
