"""What a command line imports before it has something to do; modules tell what seconds cannot."""

import json
import subprocess
import sys

import pytest

HEAVY = ("numpy", "onnxruntime", "torch", "pydantic", "rich", "matplotlib", "paho", "asyncio")
WITH_SETTINGS = ("numpy", "onnxruntime", "torch", "matplotlib", "paho")
TO_COUNT = ("onnxruntime", "torch._dynamo", "onnx", "matplotlib", "paho", "sympy")
TO_TRAIN = (
    "onnxruntime",
    "torch._dynamo",
    "onnx",
    "matplotlib",
    "PIL",
    "sympy",
    "sklearn",
    "opentelemetry",
)

_PROGRAM = """
import json, sys
from {package}.__main__ import main
try:
    code = main({arguments!r})
except SystemExit as ending:
    code = ending.code
print(json.dumps([code, sorted(sys.modules)]))
"""
_AGENT = ["--broker", "mqtt://localhost", "--id", "a", "--data", "digits"]


@pytest.mark.parametrize(
    ("package", "arguments", "expected_code", "unwanted"),
    [
        ("edge_coordinator", ["--help"], 0, (*HEAVY, "importlib.metadata")),
        ("edge_coordinator", ["local", "--help"], 0, (*HEAVY, "importlib.metadata")),
        ("edge_coordinator", ["local", "--nosuch", "3"], 2, (*HEAVY, "importlib.metadata")),
        ("edge_coordinator", ["--version"], 0, HEAVY),
        ("edge_coordinator", ["local", "--set", "training.round=3"], 1, WITH_SETTINGS),
        ("edge_coordinator", ["coordinator"], 1, WITH_SETTINGS),
        ("edge_coordinator", ["model", "lenet"], 0, TO_COUNT),
        ("device_agent", ["--help"], 0, (*HEAVY, "importlib.metadata")),
        ("device_agent", ["profile", "--help"], 0, (*HEAVY, "importlib.metadata")),
        ("device_agent", ["--nosuch"], 2, (*HEAVY, "importlib.metadata")),
        ("device_agent", [*_AGENT, "--shard", "3"], 1, ("onnxruntime", "torch", "paho")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_nothing_of_weight_is_imported_before_it_is_needed(
    package: str, arguments: list[str], expected_code: int, unwanted: tuple[str, ...]
) -> None:
    program = _PROGRAM.format(package=package, arguments=arguments)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == expected_code
    assert set(modules).isdisjoint(unwanted)


def test_a_run_begins_without_what_only_its_end_needs() -> None:
    program = (
        "import json, sys, edge_coordinator.local.run, edge_coordinator.cli.run_to_end\n"
        "print(json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert set(json.loads(done.stdout)).isdisjoint(TO_TRAIN)


def test_a_device_that_trains_on_torch_does_without_its_compiler() -> None:
    program = (
        "import sys, time\n"
        "from device_agent.engines.measurement import complete\n"
        "from device_agent.profiling.reference_network import built_in_engine\n"
        "engine = built_in_engine('lenet', batch_size=2)\n"
        "batch = engine.random_batch()\n"
        "complete(engine.measure_layers(batch, budget_s=0.0, clock=time.time).take())\n"
        "print({'sympy', 'torch._dynamo'} & set(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "set()\n"
