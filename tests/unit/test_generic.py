"""Measuring a device without a job: the graphs that ship are those of the network they say."""

import numpy as np
import pytest
import torch

from device_agent.generic import BATCH_SIZE, CUTS, NETWORK, load_shipped, measure_generic
from device_agent.onnx_executor import OnnxExecutor
from runtime.messages import OptimizerSpec
from runtime.models.load import input_shape_of, load_network, split


@pytest.mark.parametrize("cut", CUTS)
def test_shipped_graphs_compute_what_torch_does(cut: int) -> None:
    network = load_network(NETWORK, {}, seed=3)
    device_side, _ = split(network, cut)
    executor = OnnxExecutor(
        load_shipped(cut), OptimizerSpec(), carry_state=False, loss="cross_entropy", num_threads=1
    )
    executor.load([tensor.numpy() for tensor in device_side.state_dict().values()])
    shape = (BATCH_SIZE, *input_shape_of(network))
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = device_side(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(executor.forward(x, dropout_key=(0,)), expected, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_every_engine_can_be_rated_without_a_job(engine: str) -> None:
    fast = measure_generic(engine, num_threads=1, slowdown=1.0)
    slow = measure_generic(engine, num_threads=1, slowdown=1000.0)
    assert fast.network == ""
    assert fast.layers == ()
    assert slow.forward_flop_per_s < fast.forward_flop_per_s / 10
