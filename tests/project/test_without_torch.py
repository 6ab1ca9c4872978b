"""What tests code that needs no PyTorch needs none itself, as on a device that lacks it.

`pytest --without-torch` runs these tests with PyTorch hidden.
"""

from tests.project.torch_needs import module_of, needs_torch, users_of_torch
from tests.root import ROOT

PARTS = ("unit", "contract", "project")
"""Tests of parts; those of whole systems train with PyTorch."""
FILES = [file for part in PARTS for file in sorted((ROOT / "tests" / part).rglob("test_*.py"))]


def test_a_file_that_needs_torch_is_about_it() -> None:
    """At least half of its tests use it: others stand where they can be run without."""
    strays = {}
    for file in FILES:
        if needs_torch(module_of(file)):
            users, names = (
                [n for n in each if n.startswith("test_")] for each in users_of_torch(file)
            )
            if 2 * len(users) < len(names):
                strays[module_of(file)] = sorted(set(names) - set(users))
    assert strays == {}


def test_what_needs_torch_is_told_from_what_does_not() -> None:
    assert needs_torch("torch.nn")
    assert needs_torch("runtime.models.zoo")
    assert needs_torch("tests.builders")
    assert not needs_torch("device_agent.agent.agent")
    assert not needs_torch("edge_coordinator.planning.planner")
    assert not needs_torch("tests.serving")
    users, names = users_of_torch(ROOT / "tests" / "builders.py")
    assert "make_job" in users
    assert "same_bits" in set(names) - set(users)
