"""A model in two halves gives what the unsplit module gives, wherever it is cut."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_coordinator.job.file import load_job
from edge_coordinator.run.model.halves import (
    TorchHalf,
    export_halves,
    load_halves,
    server_half,
    split_saved,
)
from edge_coordinator.run.model.saved import SavedModel
from edge_coordinator.training.computing.accelerator import open_accelerator
from runtime.errors import SettingsError
from runtime.inference.half import Floats, OnnxHalf
from runtime.models.load import input_shape_of, layer_shapes, load_network, network_of, split
from runtime.models.sequence import Network, layers_of
from runtime.wire.commands import Normalisation
from tests.unit.edge_coordinator.run.model.trained import allowed_by_rounding
from tests.unit.runtime.models.brought_networks import BROUGHT

pytestmark = pytest.mark.numerics


def _network(name: str) -> Network:
    if name not in BROUGHT:
        return load_network(name, {}, seed=3).eval()
    torch.manual_seed(5)
    build, shape = BROUGHT[name]
    return network_of(build(), name=name, input_shape=shape).eval()


def _saved(network: Network, by: Normalisation | None = None) -> SavedModel:
    shape = input_shape_of(network)
    shapes = (shape, *layer_shapes(network, shape))
    settings = load_job(None, {"model.name": "mlp"})
    return SavedModel(network, shapes, settings, round=7, classes=("a", "b"), by=by)


def _samples(name: str, network: Network) -> Floats:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(5, *input_shape_of(network))).astype(np.float32)
    if name == "masked":  # Masks and token ids, which a row holds as floats.
        x = generator.integers(1, 12, x.shape).astype(np.float32)
    return x


def _assert_same(model: SavedModel, x: Floats, cuts: Iterable[int]) -> None:
    """Whichever engine the server half is on; ONNX Runtime at every fourth cut, to save time."""
    whole, allowed = TorchHalf(model.network).run(x), allowed_by_rounding(model.network, x)
    for cut in cuts:
        halves = split_saved(model, cut)
        smashed = halves.device.run(x)
        assert smashed.shape[1:] == model.shapes[cut]
        np.testing.assert_allclose(halves.server.run(smashed), whole, atol=allowed, rtol=0)
        if cut % 4 == 0:
            server = OnnxHalf(server_half(model, cut), where="it", side="server")
            np.testing.assert_allclose(server.run(smashed), whole, atol=allowed, rtol=0)


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_both_halves_give_what_the_unsplit_module_gives_at_every_cut(name: str) -> None:
    """A built-in network, and one that skips within a block."""
    model = _saved(_network(name))
    _assert_same(model, _samples(name, model.network), range(len(model.shapes)))


@pytest.mark.parametrize(("name", "cut"), [("skips", "bottom"), ("masked", "blocks.0")])
def test_several_tensors_may_cross_and_several_may_enter(name: str, cut: str) -> None:
    model = _saved(_network(name))
    index = list(layers_of(model.network)).index(cut) + 1
    _assert_same(model, _samples(name, model.network), [index])


def test_the_device_half_normalises_its_inputs() -> None:
    network, by = _network("mlp"), Normalisation(mean=(3.0,), deviation=(2.0,), axis=0)
    network.input_shape = (784,)
    model = _saved(network, by.model_copy(update={"mean": (3.0,) * 784, "deviation": (2.0,) * 784}))
    x = _samples("mlp", network)
    whole = TorchHalf(network).run(((x - 3) / 2).astype(np.float32))
    found = split_saved(model, 0).run(x)
    np.testing.assert_array_equal(found, whole)  # One engine computes all of it.


def test_the_files_say_which_halves_they_are_and_fit_no_others(tmp_path: Path) -> None:
    network = _network("mlp")
    model, x = _saved(network), _samples("mlp", network)
    export_halves(model, 1, tmp_path / "a")
    halves = load_halves(tmp_path / "a")
    whole, allowed = TorchHalf(network).run(x), allowed_by_rounding(network, x)
    np.testing.assert_allclose(halves.run(x[:3]), whole[:3], atol=allowed, rtol=0)
    assert (halves.info.cut, halves.info.round, halves.info.classes) == ("flatten", 7, ("a", "b"))
    (tmp_path / "a" / "server.onnx").write_bytes(server_half(model, 2))
    with pytest.raises(SettingsError, match="halves of two models, or of two cuts"):
        load_halves(tmp_path / "a")
    (tmp_path / "a" / "device.onnx").write_bytes(server_half(model, 2))
    with pytest.raises(SettingsError, match="is the server half of a model, and the device half"):
        load_halves(tmp_path / "a")
    (tmp_path / "a" / "device.onnx").write_bytes(b"no graph")
    with pytest.raises(SettingsError, match="is no graph that runs"):
        load_halves(tmp_path / "a")


@pytest.mark.skipif(torch.cuda.device_count() == 0, reason="torch has no CUDA device here")
def test_the_server_half_may_compute_on_an_accelerator() -> None:
    model = _saved(_network("mlp"))
    x = _samples("mlp", model.network)
    whole, allowed = TorchHalf(model.network).run(x), allowed_by_rounding(model.network, x)
    cuda = open_accelerator("cuda", autocast="none", compiles=False)
    halves = split_saved(model, 2, cuda)
    assert all(each.is_cuda for each in split(model.network, 2)[1].parameters())
    np.testing.assert_allclose(halves.run(x), whole, atol=allowed, rtol=0)
