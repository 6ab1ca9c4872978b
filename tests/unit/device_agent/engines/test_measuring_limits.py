"""A device that cannot run the upper layers: it measures the others, and is planned for those."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.graph_store import GraphStore
from device_agent.engines.measurement import complete
from device_agent.engines.onnx_engine import OnnxEngine
from device_agent.limits import Limits
from device_agent.profiling.reference_network import built_in_assignment, load_shipped
from edge_coordinator.planning.fleet import leave_out
from edge_coordinator.replanning.device_states import cuts_beyond
from profiles.link import IndependentLinks
from runtime.errors import MalformedMessageError
from runtime.wire.device_graphs import SHIPPED_CUTS, SHIPPED_NETWORK
from runtime.wire.measures import LayerWork
from tests.fleets import device, workload

BATCH = np.zeros((2, 4), np.float32)


def onnx_engine(store: GraphStore) -> OnnxEngine:
    assignment = built_in_assignment(SHIPPED_NETWORK, batch_size=2)
    return OnnxEngine(
        assignment, sample_shape=(1, 28, 28), graphs=store, num_threads=1, limits=Limits()
    )


def test_graphs_that_do_not_run_end_the_measurement_and_not_the_job() -> None:
    store = GraphStore()
    engine = onnx_engine(store)
    shallow, deep = SHIPPED_CUTS[0], SHIPPED_CUTS[-1] + 1
    assert measured_graphs(engine, store, shallow, broken=False).deepest_cut is None
    found = measured_graphs(engine, store, deep, broken=True)
    assert found.deepest_cut == deep - 1
    assert found.why_no_deeper.startswith("the forward graph: ")


def test_the_first_graphs_that_are_measured_have_to_run() -> None:
    store = GraphStore()
    engine = onnx_engine(store)
    with pytest.raises(MalformedMessageError):
        measured_graphs(engine, store, SHIPPED_CUTS[0], broken=True)


def test_cuts_that_a_device_cannot_run_are_refused_with_its_reason() -> None:
    weak = replace(device("weak"), deepest_cut=2, why_no_deeper="no such kernel")
    weaker = replace(device("none"), deepest_cut=0, why_no_deeper="nothing runs")
    states = [device("able"), weak, weaker]
    assert cuts_beyond(states, range(1, 4)) == {3: "weak cannot run it: no such kernel"}
    assert cuts_beyond(states, [3]) == {}
    left_out = leave_out(states, workload(IndependentLinks()), candidates=[3])
    assert left_out == {
        "weak": "cannot run 3 layers: no such kernel",
        "none": "cannot run 3 layers: nothing runs",
    }


def measured_graphs(
    engine: OnnxEngine, store: GraphStore, cut: int, *, broken: bool
) -> ComputeTimings:
    """Measure a cut by graphs that ship, or by what is left of them."""
    graphs = load_shipped(SHIPPED_CUTS[0])
    digest = "broken" if broken else graphs.digest
    if broken:
        graphs = replace(graphs, payloads=dict.fromkeys(graphs.payloads, b"broken"))
    store.keep(digest, graphs)
    assert store.use(digest)
    layers = [LayerWork(name=str(each), forward_flop=1, backward_flop=1) for each in range(12)]
    measurement = engine.measure_cut(
        cut,
        layers,
        np.zeros((2, 1, 28, 28), np.float32),
        digest=digest,
        budget_s=0.01,
        clock=count(step=1.0).__next__,
    )
    timings = measurement.read(complete(measurement.take(), sleep=lambda _: None))
    assert timings is not None
    return timings
