"""The mathematics, proven through the bus: what a run over messages must equal."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edge_coordinator.job.training_settings import ScheduleSettings
from edge_coordinator.training.schedule import Schedule
from runtime.bus.memory_bus import MemoryBroker
from runtime.datasets.samples import Samples
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.load import load_network, split
from runtime.models.sequence import layers_of
from runtime.seeding import Purpose, draw_batch, step_key
from runtime.wire.frames import Tensor
from tests.builders import as_torch, largest_difference, run_job, same_bits, weights_of
from tests.noise import shards

pytestmark = pytest.mark.numerics

LENET, RESNET = (1, 28, 28), (3, 32, 32)
RATE = 0.05

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def _batch(own: Samples, device: str, *, round_: int, epoch: int) -> tuple[Tensor, Tensor]:
    chosen = draw_batch(len(own), 16, seed=0, device=device, round_=round_, epoch=epoch)
    return own.x[chosen], own.y[chosen]


def _plain_training(
    own: Samples,
    model: str,
    options: Mapping[str, object],
    make_optimizer: MakeOptimizer,
    *,
    rounds: int,
    local_epochs: int,
) -> dict[str, Tensor]:
    """The same mini-batches and rates on the unsplit network: no cut, no bus, no cluster."""
    schedule = Schedule(**ScheduleSettings().model_dump(), num_rounds=rounds)
    torch.set_num_threads(1)  # As both sides have it: another number sums in another order.
    network = seed_dropout(load_network(model, options, seed=0)).train()
    optimizer = make_optimizer(network.parameters())
    for round_ in range(1, rounds + 1):
        for group in optimizer.param_groups:
            group["lr"] = RATE * schedule.rate_factor(round_)
        for epoch in range(local_epochs):
            x, y = _batch(own, "d0", round_=round_, epoch=epoch)
            key = step_key(Purpose.DROPOUT, seed=0, device="d0", round_=round_, epoch=epoch)
            set_dropout_keys(network, [(key, len(x))])
            loss = functional.cross_entropy(network(as_torch(x)), as_torch(y))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    return {name: np.array(t.numpy()) for name, t in network.state_dict().items()}


@pytest.mark.parametrize(
    ("model", "cut", "options"),
    [
        ("lenet", "pool1", {"dropout": 0.3}),
        ("lenet", "fc2", {}),
        ("lenet", 0, {}),
        ("resnet8", 3, {}),
    ],
)
@pytest.mark.parametrize(
    ("optimizer", "make_optimizer"),
    [
        ({"name": "sgd", "momentum": 0.0}, lambda p: torch.optim.SGD(p, lr=RATE)),
        ({"name": "sgd", "momentum": 0.9}, lambda p: torch.optim.SGD(p, lr=RATE, momentum=0.9)),
        ({"name": "adamw"}, lambda p: torch.optim.AdamW(p, lr=RATE, weight_decay=0.0)),
    ],
    ids=["sgd", "momentum", "adamw"],
)
async def test_one_device_is_plain_training_bit_for_bit(
    model: str,
    cut: str | int,
    options: Mapping[str, object],
    optimizer: Mapping[str, object],
    make_optimizer: MakeOptimizer,
) -> None:
    own = shards([40], LENET if model == "lenet" else RESNET)
    trained, _ = await run_job(
        own,
        {
            "model.name": model,
            "model.options": options,
            "plan.cut": cut,
            "training.rounds": 3,
            "training.local_epochs": 2,
            "training.server_optimizer": {**optimizer, "learning_rate": RATE},
        },
        broker=MemoryBroker(),
    )
    plain = _plain_training(own["d0"], model, options, make_optimizer, rounds=3, local_epochs=2)
    assert same_bits(weights_of(trained), plain)


@pytest.mark.parametrize("cut", [0, "pool1", "fc2"])
async def test_one_device_that_clips_each_tensor_and_spares_norms_decay_is_plain_training(
    cut: str | int,
) -> None:
    def clip(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                nn.utils.clip_grad_norm_([parameter], 0.02)

    def make_optimizer(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        every = list(parameters)
        groups = [
            {"params": [p for p in every if p.dim() > 1], "weight_decay": 0.1},
            {"params": [p for p in every if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=RATE)
        optimizer.register_step_pre_hook(clip)
        return optimizer

    own = shards([40], LENET)
    trained, _ = await run_job(
        own,
        {
            "plan.cut": cut,
            "training.rounds": 2,
            "training.local_epochs": 2,
            "training.clip": {"norm": 0.02, "each": "tensor"},
            "training.server_optimizer": {
                "name": "adamw",
                "learning_rate": RATE,
                "weight_decay": 0.1,
                "no_decay": ["<vectors>"],
            },
        },
        broker=MemoryBroker(),
    )
    plain = _plain_training(own["d0"], "lenet", {}, make_optimizer, rounds=2, local_epochs=2)
    assert same_bits(weights_of(trained), plain)


def _every_cut(model: str) -> Sequence[object]:
    return [
        pytest.param(model, cut, id=f"{model}-{cut}")
        for cut in range(len(layers_of(load_network(model, {}, seed=0))))
    ]


@pytest.mark.parametrize(("model", "cut"), [*_every_cut("lenet"), *_every_cut("resnet8")])
async def test_a_cluster_turn_is_one_step_on_the_concatenated_batch(model: str, cut: int) -> None:
    own = shards([40, 40, 40], LENET if model == "lenet" else RESNET)
    trained, _ = await run_job(
        own,
        {
            "model.name": model,
            "plan.cut": cut,
            "plan.clusters": 1,
            "training.rounds": 1,
            "training.local_epochs": 1,
            "training.server_optimizer": {"momentum": 0.0, "learning_rate": RATE},
        },
        broker=MemoryBroker(),
    )
    # Batch norm below the cut sees one device's samples at a time, above it the whole cluster's.
    network = load_network(model, {}, seed=0).train()
    device_side, server_side = split(network, cut)
    batches = [_batch(own[device], device, round_=1, epoch=0) for device in sorted(own)]
    initial = {name: np.array(t.numpy()) for name, t in network.state_dict().items()}
    smashed = torch.cat([device_side(as_torch(x)) for x, _ in batches])
    labels = torch.cat([as_torch(y) for _, y in batches])
    torch.autograd.backward(functional.cross_entropy(server_side(smashed), labels))
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE)
    optimizer.step()
    expected = dict(network.named_parameters())
    ours = {name: w for name, w in weights_of(trained).items() if name in expected}
    difference = largest_difference(ours, {n: p.detach().numpy() for n, p in expected.items()})
    moved = largest_difference(ours, {name: initial[name] for name in ours})
    assert difference < 1e-6
    assert moved > 1e-4
