"""The ONNX file of a trained model: the network in evaluation, its weights inside."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from edge_coordinator.run.model.files import save_onnx
from runtime.models.load import input_shape_of, load_network, network_of
from runtime.models.sequence import Network


class _Named(nn.Module):
    """A layer has a name that our own tracing cannot reach, and torch's exporter can."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(functional.relu(self.layers(x)))
        return outputs


def _network(name: str) -> Network:
    if name == "named":
        return network_of(_Named(), name=name, input_shape=(4,))
    network = load_network(name, {"width": 4} if name == "resnet8" else {"dropout": 0.5}, seed=3)
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = torch.randn(layer.num_features, generator=generator)
    return network


@pytest.mark.parametrize("name", ["lenet", "resnet8", "named"])
def test_it_gives_what_the_network_gives_for_any_number_of_samples(
    name: str, tmp_path: Path
) -> None:
    network, path = _network(name), tmp_path / "model.onnx"
    shape = input_shape_of(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    save_onnx(path, network, shape, round_=7)
    session, network = onnxruntime.InferenceSession(path), network.eval()
    assert [session.get_inputs()[0].name, session.get_outputs()[0].name] == ["input", "output"]
    for num_samples in (1, 5):
        x = np.random.default_rng(0).normal(size=(num_samples, *shape)).astype(np.float32)
        with torch.no_grad():
            expected = network(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=1e-4)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def test_its_weights_have_their_own_names_and_say_their_round(tmp_path: Path) -> None:
    network = _network("lenet")
    save_onnx(tmp_path / "model.onnx", network, (1, 28, 28), round_=7)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model)
    found = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, tensor in network.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor)
    assert {each.key: each.value for each in model.metadata_props} == {"round": "7"}
