"""A readable choice of a network's cuts, and their picture."""

from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.replanning.cut_choice import choose_cuts, plot_cuts
from edge_coordinator.run.plot_style import check_picture
from profiles.cuts import CutTable, LayerCost, device_round_bytes
from runtime.errors import SettingsError
from tests.fleets import CUTS

NAMES = [
    "stem",
    *(f"body.{block}.{part}" for block in range(3) for part in ("conv", "norm", "relu")),
    "body",
    "head",
]
"""The last ReLU of the last block ends nothing by itself; the body ends after it."""
BYTES = np.array([9.0, 8, 7, 3, 7, 7, 7, 7, 7, 7, 2, 7, 6])


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (12, NAMES),
        (4, ["stem", "body.2.relu", "body", "head"]),
        (7, ["stem", "body.0.norm", "body.0.relu", "body.1.relu", "body.2.relu", "body", "head"]),
    ],
)
def test_the_ends_of_modules_are_shown_and_the_cheapest_cut_within_each(
    most: int, expected: list[str]
) -> None:
    chosen = choose_cuts(NAMES, BYTES, most=most)
    shown = [NAMES[cut - 1] for cut in chosen]
    assert shown == expected


def test_a_flat_network_is_shown_in_even_stretches() -> None:
    names = [f"step{index}" for index in range(200)]
    chosen = choose_cuts(names, np.linspace(2, 1, 201), most=20)
    assert len(chosen) == 10
    assert chosen[-1] == 200


def test_what_lies_between_two_cuts_is_counted_at_the_second() -> None:
    layers = tuple(
        LayerCost(
            name=str(index),
            forward_flop=1.0,
            backward_flop=2.0,
            state_bytes=4,
            activation_shape=(index,),
            activation_bytes=4 * index,
            state_shapes=((1,),),
            frozen_bytes=1,
        )
        for index in range(1, 6)
    )
    table = CutTable("five", (3,), 12, layers)
    coarse = table.at([2, 5])
    for whole, some in (
        (table.device_model_bits, coarse.device_model_bits),
        (table.device_backward_flop, coarse.device_backward_flop),
        (table.device_frozen_bytes, coarse.device_frozen_bytes),
        (table.smashed_bits, coarse.smashed_bits),
    ):
        assert whole[[0, 2, 5]].tolist() == some.tolist()


def test_a_picture_has_the_cuts_by_name_and_other_endings_are_refused(tmp_path: Path) -> None:
    picture = tmp_path / "cuts.svg"
    round_bytes = device_round_bytes(CUTS, batch_size=16, local_epochs=1)
    plot_cuts(picture, CUTS, round_bytes, named=[1, 3], batch_size=16)
    assert "wide -->" in picture.read_text(encoding="utf-8")
    with pytest.raises(SettingsError, match=r"cuts\.doc is no picture: .* \.pdf, \.png, \.svg"):
        check_picture(Path("cuts.doc"))
