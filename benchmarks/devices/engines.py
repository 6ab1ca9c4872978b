"""The device side on torch and on ONNX Runtime: time of a step, memory and time to start.

    python -m benchmarks.devices.engines [--rounds 30]

A step is forward, backward and update by SGD with momentum, on one thread. The engines take
turns, so that whatever else the machine does meets both; of all rounds the fastest counts.
Memory is the peak resident size of a process that trains LeNet cut at pool1 and does nothing
else. Start-up is counted from the start of that process: until the engine is imported, and until
its first step is done.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from runtime.wire.device_graphs import DeviceGraphs, DeviceManifest

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]
Step = Callable[[], object]

CASES = (
    ("lenet", "pool1"),
    ("lenet", "pool2"),
    ("lenet", "fc3"),
    ("cnn1d", "pool1"),
    ("resnet8", "relu1"),
    ("resnet8", "block1"),
    ("resnet8", "fc"),
)
MEMORY_CASE = ("lenet", "pool1")
BATCH_SIZES = (16, 32)
STEPS_PER_ROUND = 5
LEARNING_RATE = 0.01
MOMENTUM = 0.9


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description="time and memory of the two device engines")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--child", choices=CHILDREN, help="what the benchmark calls itself with")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--started-s", type=float)
    arguments = parser.parse_args()
    if arguments.child:
        figures = run_child(CHILDREN[arguments.child], arguments.folder, arguments.started_s)
        print(json.dumps(figures))
        return
    print_times(arguments.rounds)
    print_processes()


def print_times(rounds: int) -> None:
    """Milliseconds of a step on each engine, and their ratio."""
    print(f"{'network':10}{'cut':9}{'batch':>6}{'torch ms':>10}{'onnx ms':>10}{'ratio':>8}")
    for model, cut in CASES:
        for batch_size in BATCH_SIZES:
            torch_s, onnx_s = measure(model, cut, batch_size=batch_size, rounds=rounds)
            times = f"{1e3 * torch_s:10.2f}{1e3 * onnx_s:10.2f}{onnx_s / torch_s:8.2f}"
            print(f"{model:10}{cut:9}{batch_size:6}{times}", flush=True)


def measure(model: str, cut: str, *, batch_size: int, rounds: int) -> tuple[float, float]:
    """Seconds of the fastest step on torch and on ONNX Runtime."""
    device_side, graphs = export(model, cut, batch_size=batch_size)
    x, gradient = draw_step(graphs.manifest, batch_size)
    state = [value.numpy().copy() for value in device_side.state_dict().values()]
    steps = (torch_step(device_side, x, gradient), onnx_step(graphs, state, x, gradient))
    fastest_s = [float("inf"), float("inf")]
    for _ in range(rounds):
        for index, step in enumerate(steps):
            fastest_s[index] = min(fastest_s[index], time_of(step))
    return fastest_s[0], fastest_s[1]


def time_of(step: Step) -> float:
    """Mean seconds of a few steps."""
    start_s = time.perf_counter()
    for _ in range(STEPS_PER_ROUND):
        step()
    return (time.perf_counter() - start_s) / STEPS_PER_ROUND


def export(model: str, cut: str, *, batch_size: int) -> "tuple[nn.Sequential, DeviceGraphs]":
    """The device side of a built-in network, and its graphs."""
    # Imported here because the child without torch reads this file too.
    import torch  # noqa: PLC0415

    from edge_coordinator.onnx_export import export_device_side  # noqa: PLC0415
    from runtime.models.load import input_shape_of, load_network, split  # noqa: PLC0415

    torch.set_num_threads(1)
    device_side, _ = split(load_network(model, {}, seed=0), cut)
    shape = input_shape_of(device_side)
    return device_side, export_device_side(device_side, shape, batch_size=batch_size)


def draw_step(manifest: DeviceManifest, batch_size: int) -> tuple[Floats, Floats]:
    """A random mini-batch and a random gradient."""
    random = np.random.default_rng(0)
    shape = [size for size in manifest.samples.shape[1:] if size is not None]
    x = random.standard_normal((batch_size, *shape))
    gradient = random.standard_normal((batch_size, *manifest.smashed_shape)) / batch_size
    return x.astype(np.float32), gradient.astype(np.float32)


def torch_step(module: "nn.Sequential", x: Floats, gradient: Floats) -> Step:
    """A step of torch, eagerly."""
    import torch  # noqa: PLC0415

    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)

    def step() -> None:
        optimizer.zero_grad()
        module(torch.from_numpy(x)).backward(torch.from_numpy(gradient))
        optimizer.step()

    return step


def onnx_step(graphs: DeviceGraphs, state: list[Floats], x: Floats, gradient: Floats) -> Step:
    """A step of the executor on ONNX Runtime."""
    from device_agent.engines.onnx_executor import OnnxExecutor  # noqa: PLC0415
    from runtime.wire.commands import OptimizerSpec  # noqa: PLC0415

    optimizer = OptimizerSpec(momentum=MOMENTUM)
    executor = OnnxExecutor(graphs, optimizer, carry_state=False, loss="mse", num_threads=1)
    executor.load(state)

    def step() -> None:
        executor.forward(x, dropout_key=())
        executor.backward(gradient, learning_rate=LEARNING_RATE)

    return step


def print_processes() -> None:
    """Peak memory and start-up of a process of each engine."""
    print(f"\n{'engine':8}{'batch':>6}{'peak MB':>9}{'imported s':>12}{'first step s':>14}")
    for batch_size in BATCH_SIZES:
        _, graphs = export(*MEMORY_CASE, batch_size=batch_size)
        with tempfile.TemporaryDirectory() as folder:
            save(graphs, Path(folder), batch_size)
            for child in CHILDREN:
                arguments = ["--child", child, "--folder", folder, "--started-s"]
                command = [sys.executable, __file__, *arguments, str(time.time())]
                output = subprocess.run(command, check=True, capture_output=True).stdout
                peak_mb, imported_s, first_step_s = json.loads(output)
                print(
                    f"{child:8}{batch_size:6}{peak_mb:9.1f}{imported_s:12.2f}{first_step_s:14.2f}"
                )


def save(graphs: DeviceGraphs, folder: Path, batch_size: int) -> None:
    """Leave the graphs to a child."""
    (folder / "manifest.json").write_bytes(graphs.manifest.encode())
    (folder / "batch_size").write_text(str(batch_size))
    for graph, payload in graphs.payloads.items():
        (folder / graph).write_bytes(payload)


def run_child(
    start: Callable[[Path, DeviceManifest, Floats, Floats], tuple[float, Step]],
    folder: Path,
    started_s: float,
) -> tuple[float, float, float]:
    """Train for a hundred steps; peak MB, seconds until imported and until the first step."""
    manifest = DeviceManifest.decode((folder / "manifest.json").read_bytes())
    x, gradient = draw_step(manifest, int((folder / "batch_size").read_text()))
    imported_at_s, step = start(folder, manifest, x, gradient)
    step()
    first_step_s = time.time() - started_s
    for _ in range(100):
        step()
    return peak_memory_mb(), imported_at_s - started_s, first_step_s


def peak_memory_mb() -> float:
    """Peak resident memory of this process alone: getrusage counts its parent's, too."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024 / 1e6


def start_onnxruntime(
    folder: Path, manifest: DeviceManifest, x: Floats, gradient: Floats
) -> tuple[float, Step]:
    """Prepare to train as an agent without torch does."""
    import device_agent.engines.onnx_executor  # noqa: F401, PLC0415

    imported_at_s = time.time()
    payloads = {name: (folder / name).read_bytes() for name in manifest.graph_specs()}
    state = [np.zeros(spec.shape, np.float32) for spec in manifest.state]
    return imported_at_s, onnx_step(DeviceGraphs(manifest, payloads), state, x, gradient)


def start_torch(
    _folder: Path, _manifest: DeviceManifest, x: Floats, gradient: Floats
) -> tuple[float, Step]:
    """Prepare to train as an agent with torch does."""
    import torch  # noqa: PLC0415

    from runtime.models.load import load_network, split  # noqa: PLC0415

    imported_at_s = time.time()
    torch.set_num_threads(1)
    model, cut = MEMORY_CASE
    device_side, _ = split(load_network(model, {}, seed=0), cut)
    return imported_at_s, torch_step(device_side, x, gradient)


CHILDREN = {"torch": start_torch, "onnx": start_onnxruntime}


if __name__ == "__main__":
    main()
