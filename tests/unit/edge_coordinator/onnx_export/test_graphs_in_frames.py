"""Exported graphs as the tensors of a frame, and where a device keeps them."""

import numpy as np
import pytest
import torch
from torch import nn

from device_agent.engines.graph_store import MAX_KEPT, GraphStore
from edge_coordinator.onnx_export import export_device_side
from runtime.errors import MalformedMessageError, SettingsError
from runtime.wire.device_graphs import DeviceGraphs, offered_specs, read_graphs
from runtime.wire.frames import specs_of


@pytest.fixture(scope="module")
def graphs() -> DeviceGraphs:
    torch.manual_seed(0)
    return export_device_side(nn.Sequential(nn.Linear(5, 4), nn.ReLU()), (5,), batch_size=8)


def test_graphs_come_out_of_a_frame_as_they_went_in(graphs: DeviceGraphs) -> None:
    assert specs_of(graphs.tensors()) == offered_specs(graphs.offer())
    assert read_graphs(graphs.offer(), graphs.tensors()) == graphs


@pytest.mark.parametrize("part", range(4))
def test_a_changed_byte_is_noticed_in_any_part(graphs: DeviceGraphs, part: int) -> None:
    tensors = [np.array(tensor) for tensor in graphs.tensors()]
    tensors[part][len(tensors[part]) // 2] ^= 1
    assert read_graphs(graphs.offer(), tensors) is None


def test_a_frame_that_lacks_a_graph_is_malformed(graphs: DeviceGraphs) -> None:
    with pytest.raises(MalformedMessageError, match="2 graphs came; the manifest has 3"):
        read_graphs(graphs.offer(), graphs.tensors()[:3])


def test_a_shelf_keeps_the_graphs_that_were_used_last(graphs: DeviceGraphs) -> None:
    store = GraphStore()
    with pytest.raises(SettingsError, match="no graphs"):
        _ = store.in_use
    for number in range(MAX_KEPT):
        store.keep(str(number), graphs)
    assert store.use("0")
    store.keep("another", graphs)
    assert store.use("0")
    assert not store.use("1")
    assert store.in_use is graphs
