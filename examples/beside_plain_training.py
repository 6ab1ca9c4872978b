"""Train a job by `cpsl local`, and the same network in one place on as many samples; print both.

The other examples use it. In one place, a step takes the samples that a cluster's step takes of all
its devices, there are as many steps, and the server's optimiser and schedule are those of the job.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edge_coordinator.formatting import figure_in_words
from edge_coordinator.job.file import load_job
from edge_coordinator.job.prepare import prepare_job
from edge_coordinator.job.settings import JobSettings
from edge_coordinator.training.algorithm import Smashed
from edge_coordinator.training.evaluation import Evaluation
from runtime.datasets.sources import load_source
from runtime.wire.published import RoundReport


def compare(settings: Mapping[str, str], *, flags: Sequence[str]) -> None:
    """Train both ways and print what each ends with; `flags` are those of `cpsl local`."""
    words = [f"--set={key}={value}" for key, value in settings.items()]
    with TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "edge_coordinator", "local", "--output", folder]
        subprocess.run([*program, *words, *flags], check=True)  # noqa: S603
        (run,) = (path.parent for path in Path().joinpath(folder).glob("*/result.json"))
        report = json.loads((run / "rounds.jsonl").read_text(encoding="utf-8").splitlines()[-1])
        for added in ("plan", "clock"):
            report.pop(added, None)
        split = RoundReport.model_validate(report)
        plain = train_in_one_place(load_job(run / "job.toml", {}), num_rounds=split.round)
    lines = ["              split     in one place"]
    for name, value in plain.figures.items():
        both = [figure_in_words(name, each) for each in (split.test_figures[name], value)]
        lines.append(f"{name:10}{both[0]:>9} {both[1]:>16}")
    sys.stdout.write("\n".join(lines) + "\n")


def train_in_one_place(settings: JobSettings, *, num_rounds: int) -> Evaluation:
    """Train the whole network on all samples, on the server alone, and evaluate it."""
    data = load_source(settings.data.source, base_dir=Path())
    job, model = prepare_job(settings, run=0, base_dir=Path(), data=data)
    clusters = settings.plan.clusters or 1
    size = settings.training.batch_size * settings.devices.count // clusters
    generator = np.random.default_rng(settings.seed)
    for round_ in range(1, num_rounds + 1):
        for _ in range(clusters):
            turn = model.turn(cut=0, round_=round_, learning_rate=job.server_rate(round_))
            for _ in range(job.local_epochs):
                chosen = generator.choice(len(data.train), size=size, replace=False)
                batch = Smashed(data.train.x_of(chosen), data.train.y[chosen])
                turn.step({"all": batch})
    assert job.test is not None
    return model.evaluate(job.test)
