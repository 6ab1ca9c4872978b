"""How every plot looks: legible in print and for the colour-blind.

Colours are Okabe and Ito's; line styles and hatches tell apart what a grey printer makes alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
"""No divisor in common with the colours: 35 lines look different before one looks like another."""
HATCHES = ("", "//", "..", "xx", "\\\\", "++", "oo")
MARKERS = ("o", "s", "^", "D", "v", "P")
LAST_COLOUR = "#F0E442"
"""Okabe and Ito's yellow, too light for a line."""
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
}


PICTURES = (".pdf", ".png", ".svg")
"""Endings of files that a figure can be written to."""


def check_picture(path: Path) -> None:
    """SettingsError where a file's name does not say which kind of picture is wanted."""
    if path.suffix not in PICTURES:
        raise SettingsError(f"{path} is no picture: its name has to end in {', '.join(PICTURES)}")


@contextmanager
def figure(file: Path | BytesIO, *, width: float = 8.0, height: float = 3.6) -> "Iterator[Figure]":
    """Draw a figure, and write it when it is done."""
    # Drawn at the end, if at all: a run need not begin with it.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        drawn = Figure(figsize=(width, height), layout="constrained")
        yield drawn
        drawn.savefig(file, dpi=150)


def line_style(number: int, *, width: float = 1.6) -> dict[str, Any]:
    """Tell the lines of a plot apart, by colour and by style."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": STYLES[number % len(STYLES)],
        "linewidth": width,
    }
