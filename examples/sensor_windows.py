"""An LSTM on windows of a motion sensor: walking, sitting or climbing, split over six devices.

python -m examples.sensor_windows
"""

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

from examples.beside_plain_training import compare

ACTIVITIES = ("climbing", "sitting", "walking")
NUM_AXES, NUM_READINGS = 3, 32


class Recurrent(nn.Module):
    """The last state of an LSTM, and a classifier on it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(NUM_AXES, 16)
        self.lstm = nn.LSTM(16, 32, batch_first=True)
        self.head = nn.Linear(32, len(ACTIVITIES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Windows [window, reading, axis] to [window, activity]."""
        states, _ = self.lstm(torch.relu(self.embed(x)))
        classes: torch.Tensor = self.head(states[:, -1])
        return classes


def network() -> nn.Module:
    """The network, with weights of its own each time."""
    return Recurrent()


def write_series(folder: Path, num_people: int = 6, minutes: int = 4) -> None:
    """Write a csv file for each person: a reading a row, with what the person was doing."""
    generator = np.random.default_rng(0)
    for person in range(num_people):
        with (folder / f"person-{person}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("x", "y", "z", "activity"))
            for _ in range(minutes * 6):
                activity = str(generator.choice(ACTIVITIES))
                for reading in _readings(activity, generator):
                    writer.writerow((*reading.round(3).tolist(), activity))


def _readings(activity: str, generator: np.random.Generator) -> np.ndarray:
    """Ten seconds, ten readings a second."""
    seconds = np.arange(100) / 10
    pace = {"sitting": 0.0, "walking": 2.0, "climbing": 1.2}[activity] * generator.uniform(0.9, 1.1)
    swing = np.sin(2 * np.pi * (pace * seconds + generator.uniform()))
    lift = 0.8 if activity == "climbing" else 0.0
    axes = np.column_stack([swing, 0.5 * np.abs(swing), lift * swing**2])
    return np.asarray(axes + generator.normal(0, 0.3, axes.shape))


def main() -> None:
    """Write the series, train on their windows split and in one place, and print both."""
    with TemporaryDirectory() as folder:
        write_series(Path(folder))
        windows = f"length={NUM_READINGS}&stride=8&target=activity&label=most&test=0.2"
        compare(
            {
                "data.source": f"windows:{folder}?{windows}",
                "data.partition": "iid",
                "model.name": "examples.sensor_windows:network",
                "training.server_optimizer.name": "adam",
                "training.server_optimizer.learning_rate": "0.003",
                "training.device_optimizer.name": "adam",
                "training.device_optimizer.learning_rate": "0.003",
                # Enough to be past the plateaus on which an LSTM rests, in as many turns each time.
                "training.rounds": "150",
                "plan.clusters": "2",
            },
            flags=sys.argv[1:],
        )


if __name__ == "__main__":
    main()
