"""What a device refuses to run."""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from device_agent.engines.graph_check import check_graph, check_graphs
from device_agent.engines.onnx_session import Session
from runtime.errors import MalformedMessageError
from runtime.wire.device_graphs import (
    SAMPLES,
    SMASHED,
    DeviceGraphs,
    DeviceManifest,
    GraphSpec,
    GraphValue,
    MaskSpec,
    StateSpec,
)

SAMPLES_VALUE = GraphValue(name=SAMPLES, shape=(None, 3), dtype="float32")
SMASHED_VALUE = GraphValue(name=SMASHED, shape=(None, 3), dtype="float32")
BIAS_VALUE = GraphValue(name="bias", shape=(3,), dtype="float32")


def add_bias() -> onnx.ModelProto:
    def value(name: str, shape: list[Any]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    two = numpy_helper.from_array(np.array(2, np.float32), "two")
    nodes = [
        helper.make_node("Mul", ["bias", "two"], ["twice"]),
        helper.make_node("Add", [SAMPLES, "twice"], [SMASHED]),
    ]
    inputs = [value("bias", [3]), value(SAMPLES, ["batch", 3])]
    graph = helper.make_graph(nodes, "g", inputs, [value(SMASHED, ["batch", 3])], [two])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def spec_of(payload: bytes) -> GraphSpec:
    return GraphSpec(
        inputs=(BIAS_VALUE, SAMPLES_VALUE),
        outputs=(SMASHED_VALUE,),
        num_bytes=max(1, len(payload)),
        sha256=hashlib.sha256(payload).hexdigest(),
    )


def manifest_of(payload: bytes, **changes: object) -> DeviceManifest:
    spec = spec_of(payload)
    fields: dict[str, Any] = {
        "samples": SAMPLES_VALUE,
        "smashed": SMASHED_VALUE,
        "state": (StateSpec(name="bias", shape=(3,), dtype="float32", trained=True),),
        "masks": (),
        "forward": spec,
        "backward": None,
        "predict": spec,
        "saved_bytes_fixed": 0,
        "saved_bytes_per_sample": 0,
    }
    return DeviceManifest(**{**fields, **changes})


def check(model: onnx.ModelProto) -> None:
    payload = model.SerializeToString()
    check_graph(payload, spec_of(payload), opset=18)


def test_a_graph_as_promised_passes() -> None:
    check(add_bias())


def custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def operator_set_of_a_stranger(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def another_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 21


def control_flow(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [])
    node = helper.make_node("If", ["two"], ["x"], then_branch=branch, else_branch=branch)
    model.graph.node.append(node)


def hidden_subgraph(model: onnx.ModelProto) -> None:
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("body", branch))


def external_data(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def external_data_in_an_attribute(model: onnx.ModelProto) -> None:
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.external_data.add(key="location", value="weights.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def function(model: onnx.ModelProto) -> None:
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("d", "F", [], [], [], opset))


def missing_input(model: onnx.ModelProto) -> None:
    del model.graph.input[0]


def renamed_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "twice"


def larger_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 30


def another_dtype(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def input_with_a_value(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(3, np.float32), "bias"))


@pytest.mark.parametrize(
    ("tamper", "complaint"),
    [
        (custom_operator, "is not standard"),
        (operator_set_of_a_stranger, "operator sets"),
        (another_opset, "operator sets"),
        (control_flow, "is none of the plain arithmetic"),
        (hidden_subgraph, "is none of the plain arithmetic"),
        (external_data, "lies in another file"),
        (external_data_in_an_attribute, "lies in another file"),
        (function, "brings functions"),
        (missing_input, "1 inputs, not 2"),
        (renamed_output, "outputs hold 'twice'"),
        (larger_input, "of shape"),
        (another_dtype, "type 11"),
        (input_with_a_value, "has a value already"),
    ],
)
def test_a_graph_that_does_more_or_other_than_promised_is_refused(
    tamper: Callable[[onnx.ModelProto], None], complaint: str
) -> None:
    model = add_bias()
    tamper(model)
    with pytest.raises(MalformedMessageError, match=complaint):
        check(model)


def test_a_graph_of_another_digest_is_refused() -> None:
    payload = add_bias().SerializeToString()
    other = payload.replace(b"twice", b"thrice"[:5])
    with pytest.raises(MalformedMessageError, match="digest"):
        check_graph(other, spec_of(payload), opset=18)


def test_a_graph_too_large_is_refused_unread() -> None:
    payload = bytes(17_000_000)
    with pytest.raises(MalformedMessageError, match="at most 16000000"):
        check_graph(payload, spec_of(payload), opset=18)


@given(st.binary(max_size=300))
def test_bytes_that_are_no_graph_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedMessageError):
        check_graph(payload, spec_of(payload), opset=18)


@given(position=st.integers(0, 10_000), replacement=st.binary(min_size=1, max_size=8))
def test_a_damaged_graph_is_malformed_or_still_as_promised(
    position: int, replacement: bytes
) -> None:
    payload = bytearray(add_bias().SerializeToString())
    start = position % len(payload)
    payload[start : start + len(replacement)] = replacement
    spec = spec_of(bytes(payload))
    try:
        check_graph(bytes(payload), spec, opset=18)
        Session(bytes(payload), spec, num_threads=1)
    except MalformedMessageError:
        pass


@pytest.mark.parametrize(
    "changes",
    [
        {"state": ()},
        {"smashed": GraphValue(name=SMASHED, shape=(None, 4), dtype="float32")},
        {"samples": GraphValue(name=SAMPLES, shape=(None, 3), dtype="int64")},
        {"state": (StateSpec(name="bias", shape=(4,), dtype="float32", trained=True),)},
        {"masks": (MaskSpec(layer="d", shape=(3,), p=0.5, channel_wise=False),) * 2},
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    payload = add_bias().SerializeToString()
    manifest = manifest_of(payload, **changes)
    with pytest.raises(MalformedMessageError, match=r"the (forward graph|manifest)"):
        check_graphs(DeviceGraphs(manifest, {"forward": payload, "predict": payload}))


def test_every_graph_of_the_manifest_and_no_other_must_be_there() -> None:
    payload = add_bias().SerializeToString()
    manifest = manifest_of(payload)
    check_graphs(DeviceGraphs(manifest, {"forward": payload, "predict": payload}))
    with pytest.raises(MalformedMessageError, match=r"graphs \['forward'\]"):
        check_graphs(DeviceGraphs(manifest, {"forward": payload}))


def test_a_manifest_travels_as_json_under_one_digest() -> None:
    manifest = manifest_of(add_bias().SerializeToString())
    again = DeviceManifest.decode(manifest.encode())
    assert again == manifest
    assert again.digest == manifest.digest
    changed = manifest.model_copy(update={"saved_bytes_fixed": 1})
    assert changed.digest != manifest.digest
