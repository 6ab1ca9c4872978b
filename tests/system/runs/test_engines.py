"""Devices without torch, through the bus: the same run, and graphs that are sent just once."""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from runtime.bus.memory_bus import MemoryBroker
from runtime.errors import SettingsError, root_cause
from runtime.wire.frames import CHUNK_HEADER, FrameKind, Tensor, decode_chunk
from runtime.wire.published import RoundReport
from tests.builders import largest_difference, run_job, same_bits, weights_of
from tests.noise import shards
from tests.rounding import ALLOWED, nudged

LENET, RESNET, SERIES = (1, 28, 28), (3, 32, 32), (9, 128)
SIZES = (40, 12, 25, 33)  # One device has less than a mini-batch.
ONNX, MIXED = ("onnxruntime",), ("torch", "onnxruntime")
MOMENTUM = {"name": "sgd", "momentum": 0.9, "learning_rate": 0.02}
# Biases before batch norm have gradients of rounding noise alone, and Adam makes whole steps of
# whatever is larger than its epsilon.
ADAMW = {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01, "epsilon": 1e-4}

NETWORKS = {
    "lenet": ("lenet", LENET, "pool2", {"dropout": 0.3}),
    "resnet8": ("resnet8", RESNET, "block1", {}),
    "cnn1d": ("cnn1d", SERIES, "pool1", {"num_classes": 10}),
}


def _settings(
    network: str, optimizer: Mapping[str, object], **changes: object
) -> dict[str, object]:
    name, _, cut, options = NETWORKS[network]
    settings: dict[str, object] = {
        "model.name": name,
        "model.options": options,
        "plan.cut": cut,
        "plan.clusters": 2,
        "training.rounds": 2,
        "training.local_epochs": 2,
        "training.server_optimizer": optimizer,
    }
    return settings | {key.replace("__", "."): value for key, value in changes.items()}


async def _weights(
    network: str,
    settings: Mapping[str, object],
    engines: Sequence[str],
    broker: MemoryBroker | None = None,
    *,
    is_nudged: bool = False,
) -> dict[str, Tensor]:
    own = shards(SIZES, NETWORKS[network][1])
    own = nudged(own) if is_nudged else own
    model, reports = await run_job(own, settings, broker=broker or MemoryBroker(), engines=engines)
    assert len(reports) == settings["training.rounds"]
    assert not any(report.lost for report in reports)
    return weights_of(model)


@pytest.mark.parametrize(
    ("network", "optimizer"),
    [
        pytest.param("lenet", MOMENTUM, id="lenet-momentum"),
        pytest.param("lenet", ADAMW, id="lenet-adamw"),
        pytest.param("resnet8", ADAMW, id="resnet8-adamw"),
        pytest.param("cnn1d", ADAMW, id="cnn1d-adamw"),
    ],
)
@pytest.mark.numerics
async def test_a_run_without_torch_on_the_devices_ends_in_the_same_weights(
    network: str, optimizer: Mapping[str, object]
) -> None:
    settings = _settings(network, optimizer)
    on_torch = await _weights(network, settings, ("torch",))
    rounding = largest_difference(
        on_torch, await _weights(network, settings, ("torch",), is_nudged=True)
    )
    before = await _weights(network, settings | {"training.rounds": 1}, ("torch",))
    assert largest_difference(on_torch, before) > 50 * ALLOWED * rounding
    for engines in (ONNX, MIXED):
        difference = largest_difference(on_torch, await _weights(network, settings, engines))
        assert difference <= ALLOWED * rounding, engines


@pytest.mark.parametrize(
    "changes",
    [
        {"training__method": "fl"},
        {"training__method": "sl"},
        {"training__method": "cl"},
        {"plan__cut": 0},
        {"data__test": "devices", "data__held_out": 0.25},
        {"training__carry_optimizer_state": False},
    ],
    ids=str,
)
@pytest.mark.numerics
async def test_every_method_and_evaluation_is_the_same_without_torch(
    changes: Mapping[str, object],
) -> None:
    settings = _settings("lenet", MOMENTUM, **changes)
    own = shards(SIZES, LENET)
    torch_model, torch_reports = await run_job(own, settings, broker=MemoryBroker())
    other_model, other_reports = await run_job(nudged(own), settings, broker=MemoryBroker())
    onnx_model, onnx_reports = await run_job(own, settings, broker=MemoryBroker(), engines=ONNX)
    rounding = largest_difference(weights_of(torch_model), weights_of(other_model))
    difference = largest_difference(weights_of(torch_model), weights_of(onnx_model))
    assert difference <= ALLOWED * rounding
    for theirs, other, ours in zip(torch_reports, other_reports, onnx_reports, strict=True):
        assert abs(_loss(ours) - _loss(theirs)) <= ALLOWED * max(
            abs(_loss(other) - _loss(theirs)), np.spacing(np.float32(_loss(theirs)))
        )
        assert ours.evaluated_on == theirs.evaluated_on


def _loss(report: RoundReport) -> float:
    """Of training and test together."""
    return (report.train_loss or 0.0) + (report.test_loss or 0.0)


async def test_layers_without_weights_take_no_gradient_and_change_nothing() -> None:
    own, results = shards(SIZES, LENET), []
    for cut, engines in ((0, ("torch",)), ("flatten", ("torch",)), ("flatten", ONNX)):
        settings = {"model.name": "mlp", "plan.cut": cut, "training.rounds": 2}
        model, _ = await run_job(own, settings, broker=MemoryBroker(), engines=engines)
        results.append(weights_of(model))
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


async def test_a_run_repeats_itself_also_when_all_arrives_twice_and_shuffled() -> None:
    settings = _settings("lenet", MOMENTUM)
    once = await _weights("lenet", settings, MIXED)
    disturbed = MemoryBroker(duplicate=True, shuffle=np.random.default_rng(3))
    assert same_bits(once, await _weights("lenet", settings, MIXED, disturbed))


class WatchedBroker(MemoryBroker):
    """Notes every frame of graphs on its way, and may damage the first one of a device."""

    def __init__(self, *, damaged: Mapping[str, int] = MappingProxyType({})) -> None:
        super().__init__()
        self.sent: list[tuple[str, int]] = []
        """Device and round of each."""
        self._damaged = damaged

    def route(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Deliver a message, unless it is to be damaged on the way."""
        if topic.endswith("/down/graphs"):
            chunk = decode_chunk(memoryview(payload))
            assert chunk.kind is FrameKind.GRAPHS
            device = topic.split("/")[3]
            if chunk.index == 0:
                self.sent.append((device, chunk.step.round))
            is_first = self.sent.count((device, chunk.step.round)) == 1
            wanted = self._damaged.get(device)
            if is_first and wanted is not None and chunk.index == wanted % chunk.num_chunks:
                payload = _damaged(payload)
        super().route(topic, payload, retain=retain)


def _damaged(payload: bytes) -> bytes:
    """Change a byte in the middle and make the checksum fit."""
    head, data = payload[: CHUNK_HEADER.size - 4], bytearray(payload[CHUNK_HEADER.size :])
    data[len(data) // 2] ^= 1
    return head + zlib.crc32(data, zlib.crc32(head)).to_bytes(4, "little") + bytes(data)


async def test_a_device_that_has_the_graphs_is_not_sent_them_again() -> None:
    broker = WatchedBroker()
    settings = _settings("lenet", MOMENTUM, training__rounds=3, data__test="devices")
    await _weights("lenet", settings, MIXED, broker)
    assert sorted(broker.sent) == [("d1", 1), ("d3", 1)]


async def test_graphs_that_are_not_those_offered_are_refused_and_asked_for_again() -> None:
    broker = WatchedBroker(damaged={"d0": 0, "d2": -1})  # The manifest; a graph.
    settings = _settings("lenet", MOMENTUM)
    weights = await _weights("lenet", settings, ONNX, broker)
    assert sorted(broker.sent) == [(device, 1) for device in ("d0", "d0", "d1", "d2", "d2", "d3")]
    assert same_bits(weights, await _weights("lenet", settings, ONNX))


NETWORK_WITHOUT_EXPORT = """
import torch
from torch import nn

class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x.squeeze(1) + 100 * torch.eye(28)).unsqueeze(1)

def build():
    return nn.Sequential(Inverse(), nn.Flatten(), nn.Linear(784, 10))
"""


LOSS = """
from torch.nn import functional

def focal(outputs, labels):
    return functional.cross_entropy(outputs, labels.long())
"""


async def test_a_network_that_cannot_be_exported_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "mine_without_export.py"
    source.write_text(NETWORK_WITHOUT_EXPORT, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings = {
        "model.name": "mine_without_export:build",
        "model.options": {"input_shape": [1, 28, 28]},
        "plan.cut": 1,
    }
    with pytest.raises(BaseExceptionGroup) as caught:
        await run_job(shards((20, 20), LENET), settings, broker=MemoryBroker(), engines=ONNX)
    error = root_cause(caught.value)
    assert isinstance(error, SettingsError)
    sentence = str(error)
    assert "layer 0" in sentence
    assert "operator" in sentence
    assert "use --engine torch on the devices" in sentence


async def test_a_loss_that_needs_torch_is_refused_where_the_devices_compute_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine_loss.py").write_text(LOSS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    settings = _settings("lenet", MOMENTUM, training__method="fl", training__loss="mine_loss:focal")
    own = shards((20, 20), LENET)
    _, reports = await run_job(own, settings, broker=MemoryBroker(), engines=MIXED)
    assert reports[0].lost.keys() == {"d1"}
    assert "cannot run without torch" in reports[0].lost["d1"]
