"""Measuring a device without a job: the graphs that ship are those of the network they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from device_agent.engines.measurement import complete
from device_agent.engines.onnx_executor import OnnxExecutor
from device_agent.profiling.reference_network import (
    generic_measurement,
    generic_profile,
    load_shipped,
)
from edge_coordinator.onnx_export.__main__ import main as write_shipped
from runtime.models.load import input_shape_of, load_network, split
from runtime.wire.commands import OptimizerSpec
from runtime.wire.device_graphs import SHIPPED_BATCH_SIZE, SHIPPED_CUTS, SHIPPED_NETWORK
from runtime.wire.measures import ComputeProfile

pytestmark = pytest.mark.numerics


@pytest.mark.parametrize("cut", SHIPPED_CUTS)
def test_shipped_graphs_compute_what_torch_does(cut: int) -> None:
    network = load_network(SHIPPED_NETWORK, {}, seed=3)
    device_side, _ = split(network, cut)
    executor = OnnxExecutor(
        load_shipped(cut), OptimizerSpec(), carry_state=False, loss="cross_entropy", num_threads=1
    )
    executor.load([tensor.numpy() for tensor in device_side.state_dict().values()])
    shape = (SHIPPED_BATCH_SIZE, *input_shape_of(network))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = device_side(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(executor.forward(x, dropout_key=(0,)), expected, atol=1e-5)


def _rate(engine: str, slowdown: float) -> ComputeProfile:
    measurement = generic_measurement(engine, num_threads=1, slowdown=slowdown)
    timings = measurement.read(complete(measurement.take()))
    assert timings is not None
    return generic_profile(timings)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_engine_can_be_rated_without_a_job(engine: str) -> None:
    fast, slow = (_rate(engine, slowdown) for slowdown in (1.0, 1000.0))
    assert fast.network == ""
    assert fast.layers == ()
    assert slow.forward_flop_per_s < fast.forward_flop_per_s / 10


def test_the_graphs_to_ship_need_a_folder_that_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        write_shipped([])
    assert "required: folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert write_shipped([str(tmp_path / "file")]) == 1
    said = capsys.readouterr().err
    assert said == f"cannot write {tmp_path}/file/lenet-6: Not a directory\n"
