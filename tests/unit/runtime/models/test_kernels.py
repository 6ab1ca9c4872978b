"""Counting and tracing leave the kernels of training alone, whoever trains at the time."""

import threading

import torch
from torch.backends import mkldnn

from edge_coordinator.onnx_export.device_side import export_device_side
from runtime.models.flop_count import count_flop
from runtime.models.kernels import usual_kernels
from runtime.models.load import load_network, split


def _settings() -> list[object]:
    """All that torch has to say of oneDNN's kernels."""
    names = ("enabled", "deterministic", "allow_tf32", "fp32_precision")
    own = [getattr(mkldnn, name, None) for name in names]
    parts = [getattr(mkldnn, name, None) for name in ("conv", "matmul", "rnn")]
    return [*own, *(getattr(part, "fp32_precision", None) for part in parts)]


def test_an_export_and_a_count_leave_the_kernels_as_they_were() -> None:
    before = _settings()
    device_side, _ = split(load_network("lenet", {}, seed=0), "pool1")
    export_device_side(device_side, (1, 28, 28), batch_size=4)
    with count_flop():
        device_side(torch.zeros(2, 1, 28, 28))
    assert _settings() == before


def test_nobody_trains_while_the_kernels_are_switched_and_two_switches_leave_them_on() -> None:
    enabled: list[bool] = []
    is_counting, may_end = threading.Event(), threading.Event()

    def count() -> None:
        with count_flop():
            is_counting.set()
            may_end.wait()

    def train() -> None:
        is_counting.wait()
        with usual_kernels():
            enabled.append(torch._C._get_mkldnn_enabled())

    threads = [threading.Thread(target=work) for work in (count, train, count)]
    for thread in threads:
        thread.start()
    is_counting.wait()
    assert not torch._C._get_mkldnn_enabled()
    assert not enabled
    may_end.set()
    for thread in threads:
        thread.join()
    assert enabled == [True]
    assert torch._C._get_mkldnn_enabled()
