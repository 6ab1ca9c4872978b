"""Where the server side computes changes where its tensors are, and of the numbers the rounding."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

from edge_coordinator.training.computing.accelerator import (
    Accelerator,
    LossScale,
    available,
    open_accelerator,
)
from edge_coordinator.training.computing.compiled import Compiled
from edge_coordinator.training.edge_model import EdgeModel
from edge_coordinator.training.turn import Turn
from runtime.errors import SettingsError
from runtime.models.dropout import seed_dropout, set_dropout_keys
from runtime.models.graph.capture import capture
from runtime.models.load import load_network
from runtime.models.sequence import Network
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows
from tests.builders import make_job
from tests.noise import shards
from tests.unit.edge_coordinator.training.test_micro_batches import largest_error, sent, stepped
from tests.unit.runtime.models.brought_networks import BROUGHT

pytestmark = pytest.mark.numerics

SHAPE = (1, 28, 28)
WITH_DRAWS = ("attention", "lstm", "encoder", "masked")
"""Networks that make masks, positions or states of their own."""
META = Accelerator(torch.device("meta"))
"""A device of torch's without numbers, whose tensors do not mix with the processor's."""


def made_model(accelerator: Accelerator | None = None, **settings: object) -> EdgeModel:
    given = {"model.options": {"dropout": 0.3}, "training.server_optimizer.name": "adam"}
    _, model = make_job(shards([16, 10], SHAPE), given | settings)
    if accelerator is not None:
        model.training = replace(model.training, accelerator=accelerator)
    return model


def stepped_once(model: EdgeModel) -> list[Tensor]:
    """Two devices' gradients, then the weights of the server side after a step."""
    turn = model.turn(cut=3, round_=1, learning_rate=0.1)
    own = {"a": sent("a", 16), "bb": sent("bb", 10)}
    gradients = turn.step(own).gradients
    return [*(gradients[device] for device in own), *server_weights(turn)]


def server_weights(turn: Turn) -> list[Tensor]:
    tensors = turn.server_side.layers.state_dict().values()
    return [tensor.detach().cpu().numpy().copy() for tensor in tensors]


def test_a_device_that_is_not_here_is_refused_and_those_that_are_named() -> None:
    with pytest.raises(SettingsError) as refused:
        open_accelerator("cuda:63", autocast="none", compiles=False)
    there = " and ".join(available())
    assert str(refused.value) == (
        f"training.server_device = 'cuda:63' is not to be had here: there is {there}"
    )


def test_a_run_writes_down_on_what_it_computes() -> None:
    job, _ = make_job(shards([16, 10], SHAPE), {})
    assert job.settings.training.server_device == str(
        open_accelerator("auto", autocast="none", compiles=False).device
    )


class MakesPositions(nn.Module):
    """Makes tensors of its own, on a device that it names, and attends with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Embedding(5, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[sample, position, feature]."""
        positions = torch.arange(x.shape[1], device=x.device)
        causal = torch.ones(5, 5, dtype=torch.bool, device="cpu").triu(1)
        out: torch.Tensor = self.layer(x + self.place(positions), src_mask=causal.to(x.device))
        return self.head(out.mean(1))  # type: ignore[no-any-return]


def every_network() -> Iterator[tuple[Network, tuple[int, ...]]]:
    yield load_network("lenet", {"dropout": 0.3}, seed=0), SHAPE
    for made, shape in (*(BROUGHT[name] for name in WITH_DRAWS), (MakesPositions, (5, 8))):
        network = capture(made(), name="brought", input_shape=shape)
        assert network.input_shape is not None
        yield network, network.input_shape


def test_every_tensor_that_a_network_makes_is_where_it_computes() -> None:
    for (network, shape), training in product(every_network(), (True, False)):
        subject = seed_dropout(network).to("meta").train(training)
        set_dropout_keys(subject, [((0,), 4)])
        inputs = META.put(np.zeros((4, *shape), np.float32)).requires_grad_()
        with META.computing():
            outputs = subject(inputs)
            torch.autograd.backward(outputs.float().mean())
        assert outputs.device.type == "meta"


def test_a_step_in_bfloat16_is_the_step_within_its_rounding() -> None:
    exact = stepped_once(made_model())
    half = stepped_once(made_model(Accelerator(autocast=torch.bfloat16)))
    one, other = (np.concatenate([each.ravel() for each in some[:2]]) for some in (exact, half))
    assert not np.array_equal(one, other)
    assert all(each.dtype == np.float32 for each in half)
    # A chain of four products of bfloat16 (8 bits), forward and backward, turns by little.
    cosine = np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosine > 1 - 16 * 2**-8


def tiny(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Give a loss whose gradients float16 has no numbers for."""
    return 1e-6 * nn.functional.cross_entropy(outputs, labels.long())


def test_gradients_too_small_for_float16_arrive_whole_and_in_micro_batches() -> None:
    own = {"a": sent("a", 4), "bb": sent("bb", 3)}
    order = [("a", Rows(0, 2, 4)), ("bb", Rows.all(3)), ("a", Rows(2, 4, 4))]
    results = []
    for accelerator in (Accelerator(), Accelerator(autocast=torch.float16)):
        model = made_model(accelerator)
        model.training = replace(model.training, loss=tiny)
        turns = [model.turn(cut=3, round_=1, learning_rate=0.0) for _ in range(2)]
        whole = turns[0].step(own).gradients
        results.append([*(whole[device] for device in own), *stepped(turns[1], own, order)[:2]])
    for exact, half in zip(*results, strict=True):
        # Products round to 10 bits, and a maximum may be taken elsewhere; what is lost is all.
        assert np.linalg.norm(exact - half) <= 0.25 * np.linalg.norm(exact)


def test_a_gradient_that_overflows_is_computed_again_at_half_the_scale() -> None:
    weight = torch.full((4,), 2.0, requires_grad=True)
    scale = LossScale(Accelerator(autocast=torch.float16))
    loss = (weight.half() * 100).float().sum()  # Scaled by 2^16 its gradient is no float16.
    scale.backward(loss, [weight])
    assert weight.grad is not None
    assert weight.grad.tolist() == [100.0] * 4
    assert scale.scale < 2**16
    scale.backward((weight.half() * 100).float().sum(), [weight])
    assert weight.grad.tolist() == [200.0] * 4


def test_what_torch_compiles_draws_the_same_masks_and_is_compiled_once() -> None:
    counts: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        counts.append(len(list(graph.graph.nodes)))
        return graph

    network = capture(MakesPositions(), name="brought", input_shape=(5, 8)).train()
    compiled = Compiled(network, lambda layers: torch.compile(layers, backend=counting))
    num_compiled = []
    for step in range(6):
        set_dropout_keys(network, [((0, step), 4)])
        inputs = torch.randn(4, 5, 8)
        assert torch.equal(compiled(inputs), network(inputs))
        num_compiled.append(len(counts))
    assert counts
    assert num_compiled[0] == num_compiled[-1]


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuses(_: nn.Module) -> Callable[..., torch.Tensor]:
        def run(_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler\nand much more")

        return run

    layers = nn.Linear(3, 2)
    compiled = Compiled(layers, refuses)
    inputs = torch.ones(1, 3)
    with caplog.at_level(logging.WARNING):
        assert all(torch.equal(compiled(inputs), layers(inputs)) for _ in range(2))
    assert [record.message for record in caplog.records] == [
        "training.compile: torch cannot compile the server side, so it runs as it is: no compiler"
    ]


def test_samples_that_no_layers_can_take_are_not_the_compilers_fault() -> None:
    compiled = Compiled(nn.Linear(3, 2), lambda layers: layers)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compiled(torch.ones(1, 4))


@pytest.mark.skipif(len(available()) == 1, reason="torch has nothing but the processor here")
def test_an_accelerator_computes_the_step_within_rounding_and_gives_all_back() -> None:
    there = open_accelerator("auto", autocast="none", compiles=False)
    here, model = made_model(), made_model(there)
    for one, other in zip(stepped_once(here), stepped_once(model), strict=True):
        # Convolutions there may round to 10 bits; the longest sums are of 400 inputs.
        assert largest_error(one, other) <= 20 * 2**-10 * np.abs(one).max()
    before = model.snapshot()
    exact = model.evaluate(make_job(shards([16], SHAPE), {})[0].test)  # type: ignore[arg-type]
    assert np.isfinite(exact.loss)
    stepped_once(model)
    model.restore(before)
    assert all(torch.equal(each, before[name]) for name, each in model.snapshot().items())
    assert {tensor.device.type for tensor in model.network.state_dict().values()} == {"cpu"}
