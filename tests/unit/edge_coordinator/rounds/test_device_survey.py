"""Which cuts are measured where only graphs can be."""

from edge_coordinator.rounds.device_survey import cuts_to_measure
from profiles.cuts import CutTable, LayerCost
from tests.fleets import CUTS

EVEN = CutTable(
    network="even",
    input_shape=(1,),
    input_bytes=4,
    layers=tuple(LayerCost(f"layer {i}", 1.0, 2.0, 8, (1,), 4) for i in range(10)),
)


def test_the_first_that_learns_the_middle_of_the_work_and_the_deepest_are_measured() -> None:
    inner = range(1, CUTS.num_layers)
    chosen = cuts_to_measure(CUTS, inner)
    assert chosen[0] == next(cut for cut in inner if CUTS.device_model_bits[cut])
    assert chosen[-1] == inner[-1]
    assert cuts_to_measure(EVEN, range(1, 10)) == [1, 5, 9]


def test_a_cut_that_is_given_is_all_there_is_to_measure() -> None:
    assert cuts_to_measure(CUTS, [2]) == [2]
    assert cuts_to_measure(CUTS, [0]) == []
