"""Regression on a table: the strength of concrete by its recipe, split over six devices.

python -m examples.table_regression
"""

import csv
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import nn

from examples.beside_plain_training import compare

COLUMNS = ("water", "cement", "ash", "gravel", "age", "heat")


def network() -> nn.Module:
    """Six columns in, one number out."""
    return nn.Sequential(
        nn.Linear(len(COLUMNS), 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )


def write_table(path: Path, num_rows: int = 3000) -> None:
    """Write a csv file: more cement and age are good, too much water is not, with some noise."""
    generator = np.random.default_rng(0)
    recipe = generator.uniform(-1, 1, (num_rows, len(COLUMNS)))
    water, cement, ash, _, age, heat = recipe.T
    strength = cement + 0.8 * np.tanh(2 * age) - water**2 + 0.5 * cement * ash + 0.3 * heat
    strength += generator.normal(0, 0.1, num_rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, "strength"))
        writer.writerows(np.column_stack([recipe, strength]).round(4).tolist())


def main() -> None:
    """Write the table, train on it split and in one place, and print both."""
    with TemporaryDirectory() as folder:
        table = Path(folder) / "concrete.csv"
        write_table(table)
        compare(
            {
                "data.source": f"csv:{table}?target=strength&test=0.2",
                "data.partition": "iid",
                "model.name": "examples.table_regression:network",
                "training.loss": "mse",
                "training.rounds": "60",
            },
            flags=sys.argv[1:],
        )


if __name__ == "__main__":
    main()
