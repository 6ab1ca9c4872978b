"""Features at one scale on all devices, and a model that says so and brings its inputs to it."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open

from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.run.model.files import save_onnx, save_weights
from runtime.datasets.normalise import measure_features, normalised
from runtime.datasets.samples import Samples, make_data_set, make_samples
from runtime.datasets.shard import make_shard
from runtime.errors import SettingsError
from runtime.wire.commands import Assignment

RANDOM = np.random.default_rng(0)
SPREAD = np.array([1e-3, 20.0, 500.0])


def _samples(count: int, *, first: float = 0.0) -> Samples:
    x = RANDOM.normal(first, 1, (count, 3)) * SPREAD + 7
    x[:, 0] = 5  # It never varies.
    return make_samples(x=x, y=x[:, 1:2].astype(np.float32), where="own")


SETTINGS: dict[str, object] = {
    "data.normalise.by": "data",
    "model.name": "mlp",
    "model.options": {"input_shape": [3], "num_classes": 1},
    "training.loss": "mse",
    "data.partition": "iid",
}


def test_a_job_measures_its_features_once_and_every_device_takes_the_same() -> None:
    train, test = _samples(3000), _samples(40)
    job, _ = prepare_job(
        load_job(None, SETTINGS),
        run=7,
        base_dir=Path(),
        data=make_data_set(train, test, name="own"),
    )
    assignment = Assignment.decode(job.assignment.encode())
    shard = make_shard("d0", assignment, train)
    drawn = shard.samples.x_of(shard.kept).astype(np.float64)
    np.testing.assert_allclose(drawn.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(drawn.std(0), [0, 1, 1], atol=1e-3)
    other = make_shard("d1", assignment, _samples(500, first=3.0))
    assert other.samples.x_of(other.kept).mean() > 1  # Its own mean is not what it loses.
    assert job.test is not None
    assert job.test.x.std() < 2
    again = load_job(None, SETTINGS | {"data.normalise": job.settings.data.normalise.model_dump()})
    assert again.data.normalise.normalisation() == assignment.normalisation


@pytest.mark.parametrize("axis", [0, 1])
def test_features_lie_along_the_axis_that_the_source_says(axis: int) -> None:
    x = RANDOM.normal(size=(50, 2, 4)).astype(np.float32)
    by = measure_features(Samples(x, np.zeros(50), feature_axis=axis))
    expected = x.mean(axis=tuple({0, 1, 2} - {axis + 1}), dtype=np.float64)
    np.testing.assert_allclose(by.mean, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(SettingsError, match=r"d0 has samples of shape \(5,\); data\.normalise"):
        normalised(Samples(np.zeros((3, 5), np.float32), np.zeros(3)), by, where="d0")


def test_both_files_of_a_model_say_it_and_onnx_takes_inputs_as_they_are(tmp_path: Path) -> None:
    samples = _samples(100)
    by = measure_features(samples)
    network = prepare_job(
        load_job(None, SETTINGS | {"data.normalise.by": "none"}),
        run=7,
        base_dir=Path(),
        data=make_data_set(samples, samples, name="own"),
    )[1].network
    save_weights(tmp_path / "a.safetensors", network, round_=1, by=by)
    with safe_open(tmp_path / "a.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["normalisation"])["mean"] == list(by.mean)
        assert set(file.keys()) == network.state_dict().keys()
    save_onnx(tmp_path / "a.onnx", network, (3,), round_=1, by=by)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    (outputs,) = session.run(None, {"input": samples.x})
    with torch.no_grad():
        expected = network(torch.from_numpy(normalised(samples, by, where="own").x))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_figures_that_cannot_be_known_or_used_are_told() -> None:
    with pytest.raises(SettingsError, match="only the devices have any: take 'given'"):
        prepare_job(
            load_job(None, SETTINGS | {"data.test": "devices"}),
            run=7,
            base_dir=Path(),
            data=None,
        )
    with pytest.raises(SettingsError, match="one number for each feature"):
        load_job(None, {"data.normalise.by": "given", "data.normalise.mean": [1.0]})
