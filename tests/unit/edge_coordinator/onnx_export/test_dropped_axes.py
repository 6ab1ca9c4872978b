"""Dropout where samples are not the first axis, share it with others, or are no axis at all."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_coordinator.onnx_export.device_side import export_device_side
from runtime.models.dropout import set_dropout_keys
from runtime.models.load import network_of
from runtime.wire.commands import OptimizerSpec
from runtime.wire.micro_batches import Rows
from tests.unit.device_agent.engines.engine_comparison import (
    KEY,
    assert_same_step,
    draw_samples,
    open_executor,
)

pytestmark = pytest.mark.numerics

SHAPE = (5, 6)


class Drops(nn.Module):
    """Drops positions that all samples share, rows of flattened samples, or along a second axis.

    Of the positions there are as many as of no mini-batch that is tried.
    """

    def __init__(self, *places: str) -> None:
        super().__init__()
        self.places = places
        self.drop = nn.Dropout(0.4)
        self.positions = nn.Parameter(torch.randn(*SHAPE))
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[sample, token, feature] to [sample, class]."""
        x = x + self._dropped("positions", self.positions)
        if "layer" in self.places:
            x = x + self.drop(self.positions)
        rows = self._dropped("rows", self.first(x.reshape(-1, 6)))
        x = self._dropped("second", rows.reshape(x.shape).transpose(0, 1)).transpose(0, 1)
        outputs: Tensor = self.second(x).mean(1)
        return outputs

    def _dropped(self, place: str, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.4, self.training) if place in self.places else x


@pytest.mark.parametrize(
    "places", [("positions",), ("layer",), ("rows",), ("second",), ("rows", "second")]
)
@pytest.mark.parametrize("num_samples", [3, 4])
def test_both_engines_drop_the_same_wherever_samples_are(
    places: tuple[str, ...], num_samples: int
) -> None:
    network = network_of(Drops(*places), name="drops", input_shape=SHAPE)
    graphs = export_device_side(network, SHAPE, batch_size=4)
    assert graphs.manifest.batch_size is None
    x = draw_samples(SHAPE, num_samples=num_samples)
    assert_same_step(network, graphs, x)
    executor = open_executor(graphs, OptimizerSpec())
    executor.load([value.numpy() for value in network.state_dict().values()])
    plain = network.eval()(torch.from_numpy(x)).detach().numpy()
    for rows in (Rows(0, num_samples, 7), Rows(2, 2 + num_samples, 7)):
        set_dropout_keys(network.train(), [(KEY, rows)])
        expected = network(torch.from_numpy(x)).detach().numpy()
        found = executor.forward(x, dropout_key=KEY, rows=rows)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        assert np.abs(expected - plain).max() > 0.01


@pytest.mark.parametrize("places", [("rows",), ("second",)])
def test_a_sample_has_its_devices_mask_whoever_is_beside_it(places: tuple[str, ...]) -> None:
    network = network_of(Drops(*places), name="drops", input_shape=SHAPE).train()
    x = torch.from_numpy(draw_samples(SHAPE, num_samples=5))
    devices = [((7, 0), slice(0, 2)), ((7, 1), slice(2, 5))]
    alone = []
    for key, rows in devices:
        set_dropout_keys(network, [(key, rows.stop - rows.start)])
        alone.append(network(x[rows]))
    set_dropout_keys(network, [(key, rows.stop - rows.start) for key, rows in devices])
    assert torch.allclose(network(x), torch.cat(alone), atol=1e-6)


def test_what_all_samples_share_is_dropped_by_the_first_ones_mask_in_a_batch_of_any_size() -> None:
    network = network_of(Drops("positions"), name="drops", input_shape=SHAPE).train()
    x = torch.from_numpy(draw_samples(SHAPE, num_samples=5))
    set_dropout_keys(network, [((7, 0), 3), ((7, 1), 2)])
    both = network(x)
    set_dropout_keys(network, [((7, 0), 3)])
    assert torch.allclose(network(x[:3]), both[:3], atol=1e-6)
