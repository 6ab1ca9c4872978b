"""How fast a device is that has no job yet: a small network of common layers, by its own engine.

An engine that runs graphs is measured with graphs that ship with the package, written by
`python -m edge_coordinator.onnx_export`.
"""

import time
from collections.abc import Callable
from importlib.resources import files
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import Measurement, Timing
from device_agent.engines.open import open_engine
from device_agent.engines.timing import COMPUTE_PROBE_S
from runtime.distribution import install_hint
from runtime.errors import SettingsError
from runtime.offered import ENGINES
from runtime.wire.commands import Assignment, OptimizerSpec
from runtime.wire.device_graphs import (
    ENGINE,
    SHIPPED_BATCH_SIZE,
    SHIPPED_CUTS,
    SHIPPED_NETWORK,
    DeviceGraphs,
    DeviceManifest,
    shipped_folder,
)
from runtime.wire.measures import ComputeProfile, LayerWork

if TYPE_CHECKING:  # There may be no torch on the device.
    from device_agent.engines.torch_engine import TorchEngine


_LAYERS = TypeAdapter(tuple[LayerWork, ...])


def built_in_engine(name: str, *, batch_size: int) -> "TorchEngine":
    """A built-in network with plain stochastic gradient descent, for a device without a job."""
    try:
        from device_agent.engines.torch_engine import TorchEngine  # noqa: PLC0415
        from runtime.models.load import input_shape_of, load_network  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"the torch engine needs {error.name}: {install_hint('torch')}"
        ) from error
    sample_shape = input_shape_of(load_network(name, {}, seed=0))
    assignment = built_in_assignment(name, batch_size=batch_size)
    return TorchEngine(assignment, sample_shape=sample_shape)


def generic_measurement(
    engine: str, *, num_threads: int, slowdown: float
) -> Measurement[ComputeTimings]:
    """Measure a device without a job; `slowdown` is that of an emulated one, else 1."""
    clock = perf_counter if slowdown == 1 else time.thread_time
    return Measurement(
        key=("generic", engine, num_threads, clock),
        take=lambda: measure_built_in(
            engine,
            SHIPPED_NETWORK,
            batch_size=SHIPPED_BATCH_SIZE,
            num_threads=num_threads,
            clock=clock,
        ),
        read=lambda found: found.slowed(slowdown),
    )


def generic_profile(timings: ComputeTimings) -> ComputeProfile:
    """Turn a generic measurement into what is published."""
    return timings.profile(network="", batch_size=SHIPPED_BATCH_SIZE)


def measure_built_in(
    engine: str, network: str, *, batch_size: int, num_threads: int, clock: Callable[[], float]
) -> Timing[ComputeTimings]:
    """Time a built-in network with plain stochastic gradient descent, on random numbers."""
    if engine == ENGINE:
        return (
            yield from _measure_graphs(
                network, batch_size=batch_size, num_threads=num_threads, clock=clock
            )
        )
    if engine not in ENGINES:
        raise SettingsError(f"no engine named {engine!r}; there are {' and '.join(ENGINES)}")
    built = built_in_engine(network, batch_size=batch_size)
    batch = built.random_batch()
    return (yield from built.measure_layers(batch, budget_s=COMPUTE_PROBE_S, clock=clock).take())


def _measure_graphs(
    network: str, *, batch_size: int, num_threads: int, clock: Callable[[], float]
) -> Timing[ComputeTimings]:
    if network != SHIPPED_NETWORK:
        raise SettingsError(
            f"without torch only {SHIPPED_NETWORK} can be timed here, not {network!r}: graphs of "
            "other networks come from a coordinator"
        )
    layers = _LAYERS.validate_json(files("device_agent").joinpath("data/layers.json").read_bytes())
    timings = None
    store = GraphStore()
    engine = open_engine(
        ENGINE,
        built_in_assignment(network, batch_size=batch_size),
        sample_shape=_sample_shape(load_shipped(SHIPPED_CUTS[0])),
        graphs=store,
        num_threads=num_threads,
    )
    for cut in SHIPPED_CUTS:
        graphs = load_shipped(cut)
        store.keep(graphs.digest, graphs)
        store.use(graphs.digest)
        shape = (batch_size, *_sample_shape(graphs))
        batch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        budget_s = COMPUTE_PROBE_S / len(SHIPPED_CUTS)
        measurement = engine.measure_cut(
            cut, layers, batch, digest=graphs.digest, budget_s=budget_s, clock=clock
        )
        timings = measurement.read((yield from measurement.take()))
    assert timings is not None
    return timings


def load_shipped(cut: int) -> DeviceGraphs:
    """Read the graphs of a device side that ship with the package."""
    folder = files("device_agent").joinpath(f"data/{shipped_folder(cut)}")
    manifest = DeviceManifest.decode(folder.joinpath("manifest.json").read_bytes())
    names = manifest.graph_specs()
    return DeviceGraphs(
        manifest, {name: folder.joinpath(f"{name}.onnx").read_bytes() for name in names}
    )


def _sample_shape(graphs: DeviceGraphs) -> tuple[int, ...]:
    return tuple(size for size in graphs.manifest.samples.shape[1:] if size is not None)


def built_in_assignment(network: str, *, batch_size: int) -> Assignment:
    """A job without a coordinator."""
    return Assignment(
        run=0,
        network=network,
        options={},
        loss="cross_entropy",
        seed=0,
        batch_size=batch_size,
        held_out=0.0,
        max_evaluation_samples=1,
        num_classes=None,
        optimizer=OptimizerSpec(),
        carry_state=False,
    )
