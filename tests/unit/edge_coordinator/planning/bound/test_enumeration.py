"""The cheapest sets in boxes, against all sets of all devices."""

from itertools import combinations

import numpy as np
import pytest

from edge_coordinator.planning.bound.enumeration import NUM_TRIED, lowest_sets
from edge_coordinator.planning.bound.relaxation import ROUNDING, Boxes, PairedWaits
from profiles.link import Medium, SharedLink, Subcarriers
from tests.fleets import random_pricer


@pytest.mark.parametrize("medium", [Subcarriers(12), SharedLink()])
@pytest.mark.parametrize("num_devices", [5, NUM_TRIED, NUM_TRIED + 4])
def test_no_set_that_fits_into_a_box_costs_less_than_is_said_and_those_tried_cost_no_more(
    medium: Medium, num_devices: int
) -> None:
    generator = np.random.default_rng(num_devices)
    pricer = random_pricer(generator, num_devices, medium=medium)
    waits = PairedWaits.of(pricer.seconds, medium, least_size=3)
    boxes = Boxes.grid(waits, most_s=4 * waits.least_s.max(axis=1))
    prices = waits.least_s.sum(axis=0) * generator.uniform(0.5, 1.5, num_devices)
    found = lowest_sets(boxes, prices, size=3)

    sets = np.array(list(combinations(range(num_devices), 3)))
    fits = boxes.needed[:, sets].sum(axis=-1) <= 1 + ROUNDING
    fits &= ~boxes.impossible[:, sets].any(axis=-1)
    costs_s = boxes.low_s.sum(axis=-1, keepdims=True) - prices[sets].sum(axis=-1)
    best_s = np.where(fits, costs_s, np.inf).min(axis=-1)
    slack_s = 1e-9 * prices.sum()
    assert (found.values_s <= best_s + slack_s).all()
    if num_devices <= NUM_TRIED:
        tried = (found.devices[:, 0] >= 0) & np.isfinite(best_s)
        assert tried.any()
        assert found.values_s[tried] == pytest.approx(best_s[tried])
