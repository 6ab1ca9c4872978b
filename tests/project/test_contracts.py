"""Each import contract catches an import that it forbids: one is planted for each."""

import tomllib
from copy import deepcopy

import grimp
import pytest
from importlinter import Contract
from importlinter.configuration import configure
from importlinter.contracts.acyclic_siblings import AcyclicSiblingsContract
from importlinter.contracts.forbidden import ForbiddenContract
from importlinter.contracts.layers import LayersContract

from tests.root import ROOT

PLANTED = {
    "Imports point one way: programs, runtime, profiles": (
        "runtime.wire.frames",
        "device_agent.limits",
    ),
    "The edge coordinator's layers": (
        "edge_coordinator.planning.latency",
        "edge_coordinator.job.settings",
    ),
    "The device agent's layers": ("device_agent.engines.timing", "device_agent.agent.uploads"),
    "The runtime's layers": ("runtime.wire.topics", "runtime.protocol.timers"),
    "The profiles' layers": ("profiles.link", "profiles.link_estimate"),
    "No package has a circle": ("runtime.wire.fields", "runtime.wire.commands"),
    "Only the bus imports the MQTT client": ("edge_coordinator.devices.channel", "paho"),
    "Planning, profiles and the protocol are pure: no I/O, no clock, no tasks": (
        *("runtime.wire.fields", "time"),  # Which the protocol imports.
    ),
    "What a site's messages say is put together without I/O and without a clock": (
        *("edge_coordinator.monitor.view", "pathlib"),
    ),
    "A simulation has no bus": ("edge_coordinator.simulation.world", "runtime.bus.memory_bus"),
    "A simulation's clock is virtual": ("edge_coordinator.simulation.world", "time"),
    "The algorithm does not know that there is a network": (
        *("edge_coordinator.training.averaging", "edge_coordinator.devices.registry"),
    ),
}


configure()
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]
SESSION = {key: value for key, value in SETTINGS.items() if key != "contracts"}
KINDS: dict[str, type[Contract]] = {
    "layers": LayersContract,
    "forbidden": ForbiddenContract,
    "acyclic_siblings": AcyclicSiblingsContract,
}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        *SETTINGS["root_packages"], include_external_packages=True, cache_dir=None
    )


def test_a_violation_is_planted_for_each_contract() -> None:
    assert [each["name"] for each in SETTINGS["contracts"]] == list(PLANTED)


@pytest.mark.parametrize("name", PLANTED)
def test_a_contract_holds_and_catches_an_import_that_it_forbids(
    name: str, graph: grimp.ImportGraph
) -> None:
    (own,) = (each for each in SETTINGS["contracts"] if each["name"] == name)
    options = {key: str(value) if isinstance(value, bool) else value for key, value in own.items()}
    contract = KINDS[own["type"]](name, SESSION, options)
    assert contract.check(deepcopy(graph), verbose=False).kept
    planted = deepcopy(graph)
    importer, imported = PLANTED[name]
    assert importer in planted.modules
    if imported not in planted.modules:
        planted.add_module(imported, is_squashed=True)
    planted.add_import(importer=importer, imported=imported)
    assert not contract.check(planted, verbose=False).kept
