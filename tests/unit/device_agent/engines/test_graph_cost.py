"""What a device refuses to run since it would take too much of it."""

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from device_agent.engines.graph_check import check_graphs
from device_agent.engines.graph_cost import Cost, check_cost, cost_of
from device_agent.engines.graph_shapes import forms_of
from device_agent.limits import Limits
from device_agent.profiling.reference_network import load_shipped
from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.device_graphs import (
    SAMPLES,
    SHIPPED_CUTS,
    SMASHED,
    DeviceGraphs,
    DeviceManifest,
    GraphSpec,
    GraphValue,
    MaskSpec,
    StateSpec,
)

WIDTH = 8
VALUES = (
    GraphValue(name=SAMPLES, shape=(None, WIDTH), dtype="float32"),
    GraphValue(name=SMASHED, shape=(None, WIDTH), dtype="float32"),
)


def graphs_of(
    nodes: Sequence[onnx.NodeProto],
    constants: Sequence[onnx.TensorProto] = (),
    *,
    state: tuple[StateSpec, ...] = (),
    masks: tuple[MaskSpec, ...] = (),
) -> DeviceGraphs:
    """Graphs that every check of form lets through."""
    samples, smashed = (
        helper.make_tensor_value_info(value.name, TensorProto.FLOAT, ["batch", WIDTH])
        for value in VALUES
    )
    graph = helper.make_graph(list(nodes), "g", [samples], [smashed], list(constants))
    opset = helper.make_opsetid("", 18)
    payload = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    spec = GraphSpec(
        inputs=VALUES[:1],
        outputs=VALUES[1:],
        num_bytes=len(payload),
        sha256=hashlib.sha256(payload).hexdigest(),
    )
    manifest = DeviceManifest(
        samples=VALUES[0],
        smashed=VALUES[1],
        state=state,
        masks=masks,
        forward=spec,
        backward=None,
        predict=spec,
        saved_bytes_fixed=0,
        saved_bytes_per_sample=0,
    )
    graphs = DeviceGraphs(manifest, {"forward": payload, "predict": payload})
    check_graphs(graphs)
    return graphs


def filled(side: int) -> DeviceGraphs:
    """A constant of side x side values, from two numbers."""
    shape = numpy_helper.from_array(np.array([side, side], np.int64), "shape")
    return graphs_of(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
            helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0),
            helper.make_node("Add", [SAMPLES, "sum"], [SMASHED]),
        ],
        [shape],
    )


def products(number: int, side: int) -> DeviceGraphs:
    """Products of one square matrix with itself, again and again."""
    shape = numpy_helper.from_array(np.array([side, side], np.int64), "shape")
    names = ["m0", *(f"m{i}" for i in range(1, number + 1))]
    return graphs_of(
        [
            helper.make_node("ConstantOfShape", ["shape"], ["m0"]),
            *(helper.make_node("MatMul", [a, "m0"], [b]) for a, b in pairwise(names)),
            helper.make_node("ReduceSum", [names[-1]], ["sum"], keepdims=0),
            helper.make_node("Add", [SAMPLES, "sum"], [SMASHED]),
        ],
        [shape],
    )


def plain(**fields: object) -> DeviceGraphs:
    return graphs_of([helper.make_node("Relu", [SAMPLES], [SMASHED])], **fields)  # type: ignore[arg-type]


def forward_cost(graphs: DeviceGraphs, batch_size: int) -> Cost:
    payload = graphs.payloads["forward"]
    return cost_of(payload, forms_of(payload, batch_size))


def test_a_device_may_take_the_graphs_that_ship_with_it() -> None:
    for cut in SHIPPED_CUTS:
        check_cost(load_shipped(cut), batch_size=16, limits=Limits(memory_bytes=100_000_000))


@pytest.mark.parametrize(
    "graphs",
    [
        filled(30_000),
        plain(state=(StateSpec(name="w", shape=(2**20, 2**12), dtype="float32", trained=True),)),
        plain(masks=(MaskSpec(layer="d", shape=(2**30,), p=0.5, channel_wise=False),)),
    ],
    ids=["a filled constant", "weights that no graph takes", "a mask that no graph takes"],
)
def test_a_few_bytes_that_stand_for_gigabytes_are_refused_before_they_are_there(
    graphs: DeviceGraphs,
) -> None:
    assert sum(map(len, graphs.payloads.values())) < 1000
    with pytest.raises(SettingsError, match=r"takes \d+ MB here, and may take 500; --max-memory"):
        check_cost(graphs, batch_size=16, limits=Limits(memory_bytes=500_000_000))


def test_graphs_that_compute_for_minutes_are_refused_by_their_arithmetic() -> None:
    graphs = products(600, 1000)
    assert forward_cost(graphs, 16).flop == pytest.approx(600 * 2e9, rel=0.01)
    with pytest.raises(SettingsError, match=r"takes 1\.2e\+12 floating-point operations"):
        check_cost(graphs, batch_size=16, limits=Limits(memory_bytes=2**40))


def test_a_batch_counts_as_often_as_it_has_samples() -> None:
    graphs = plain()
    one, many = (forward_cost(graphs, size) for size in (1, 1000))
    assert (many.num_bytes, many.flop) == (1000 * one.num_bytes, 1000 * one.flop)
    assert one.num_bytes == 2 * WIDTH * 4


def test_a_shape_that_hangs_on_values_is_refused() -> None:
    graphs = graphs_of(
        [
            helper.make_node("Cast", [SAMPLES], ["sizes"], to=TensorProto.INT64),
            helper.make_node("Reshape", ["sizes", "flat"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
            helper.make_node("ReduceSum", ["filled"], ["sum"], keepdims=0),
            helper.make_node("Add", [SAMPLES, "sum"], [SMASHED]),
        ],
        [numpy_helper.from_array(np.array([-1], np.int64), "flat")],
    )
    with pytest.raises(MalformedMessageError, match="'filled' of a graph has no fixed shape"):
        check_cost(graphs, batch_size=16, limits=Limits())


def test_a_process_ends_although_a_thread_of_it_computes_on() -> None:
    program = (
        "import time; from concurrent.futures import ThreadPoolExecutor as Pool\n"
        "from runtime.service.process import COMPUTE_THREAD, end_despite_threads\n"
        "Pool(1, COMPUTE_THREAD).submit(time.sleep, 600)\n"
        "end_despite_threads(COMPUTE_THREAD, 3, patience_s=0.1)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=300)
    assert ended.returncode == 3
