"""What a comparison makes of a job for each of its methods."""

from typing import get_args

from edge_coordinator.experiments.studies import left_aside, with_method
from edge_coordinator.job.file import load_job
from edge_coordinator.planning.form import Method


def test_a_method_is_compared_without_what_it_cannot_have() -> None:
    wanted = {
        "plan.cuts": "by_device",
        "plan.batch_sizes": "auto",
        "training.phi": "auto",
        "evaluation.target_accuracy": 0.9,
    }
    settings = load_job(None, wanted)
    left = {
        method: (own.plan.cuts, own.plan.batch_sizes, own.training.phi)
        for method in get_args(Method)
        if (own := with_method(settings, method)).training.method == method
    }
    whole = ("by_device", "auto", "auto")
    assert left == {
        "cpsl": whole,
        "sl": whole,
        "cl": ({}, "auto", "auto"),
        "fl": ({}, "equal", 0.0),
    }
    assert left_aside(settings, "fl") == ["plan.cuts", "plan.batch_sizes", "training.phi"]
    assert left_aside(settings, "cl") == ["plan.cuts"]
    assert not left_aside(settings, "cpsl")
    assert with_method(settings, "sl").evaluation.target_accuracy is None
