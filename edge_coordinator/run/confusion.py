"""Which classes a run's model takes for which, as a picture."""

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edge_coordinator.run.plot_style import figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NUMBERED = 20
"""Classes with their numbers in the picture; more would not be legible."""
MOST_LETTERS = 12


def plot_confusion(confusion: NDArray[np.float64], names: Sequence[str], *, title: str) -> bytes:
    """Draw how many samples of a class, a row, were taken for which, a column; a PNG file.

    Shades are fractions of the row, so that rare classes show as well.
    """
    num_classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(1.5 + 0.42 * num_classes, 4.0, 9.0))
    picture = BytesIO()
    with figure(picture, width=side + 0.6, height=side) as drawn:
        axes = drawn.subplots()
        image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        drawn.colorbar(image, ax=axes, shrink=0.7, label="fraction of the class")
        axes.set(xlabel="taken for", ylabel="class", title=title)
        if num_classes <= MOST_NUMBERED:
            _name(axes, [name[:MOST_LETTERS] for name in names])
            _number(axes, confusion, shares)
    return picture.getvalue()


def _name(axes: "Axes", names: Sequence[str]) -> None:
    places = range(len(names))
    rotation = 0 if max(map(len, names)) <= 3 else 45
    axes.set_xticks(places, names, rotation=rotation, ha="right" if rotation else "center")
    axes.set_yticks(places, names)


def _number(axes: "Axes", confusion: NDArray[np.float64], shares: NDArray[np.float64]) -> None:
    for (row, column), count in np.ndenumerate(confusion):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(
                column, row, f"{count:.0f}", ha="center", va="center", color=colour, fontsize=7
            )
