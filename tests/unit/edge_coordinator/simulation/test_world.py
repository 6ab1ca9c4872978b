"""The devices of a simulation: what each is does not depend on who else takes part."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge_coordinator.experiments.cuts import at_costs, cut_costs
from edge_coordinator.experiments.studies import every_cut, setting_of
from edge_coordinator.job.file import load_job
from edge_coordinator.job.settings import device_names
from edge_coordinator.simulation.prepare import PreparedSimulation, prepare_simulation, settings_for
from edge_coordinator.simulation.world import drawn_states
from profiles.variation import Spread, between_devices
from runtime.datasets.samples import DataSet, Samples
from runtime.errors import SettingsError
from runtime.scenarios.files import load_scenario
from tests.noise import random_samples


def _prepared(
    exclude: Sequence[str], *, scenario: str = "heterogeneous", num_targets: int | None = None
) -> PreparedSimulation:
    overrides: dict[str, object] = {
        "devices.scenario": scenario,
        "devices.exclude": exclude,
        "data.partition": "iid",
        "plan.clusters": 2,
        "plan.mode": "auto",
    }
    test = random_samples(60, (1, 28, 28), num_classes=10, seed=1)
    if num_targets is not None:
        overrides["training.loss"] = "mse"
        test = Samples(test.x, np.zeros((len(test), num_targets), dtype=np.float32))
    settings, found = settings_for(
        lambda defaults: load_job(None, overrides, defaults=defaults),
        base_dir=Path(),
        from_file=False,
        say=print,
    )
    data = DataSet(train=test, test=test, num_classes=None if num_targets else 10, name="noise")
    return prepare_simulation(settings, found, data, run=7, base_dir=Path())


def test_excluding_devices_changes_nothing_of_those_that_are_left() -> None:
    everyone = _prepared([]).simulation.world.states(1, elapsed_s=0.0)
    rest = _prepared(device_names(30)[:10])
    states = rest.simulation.world.states(1, elapsed_s=0.0)
    assert [state.device for state in states] == device_names(30)[10:]
    assert [state.link for state in states] == [state.link for state in everyone[10:]]
    assert rest.simulation.num_devices == 20


def test_a_comparison_studies_the_devices_that_train() -> None:
    setting = setting_of(_prepared(device_names(30)[:10]))
    assert setting.chosen == tuple(range(10, 30))


def test_the_cuts_of_the_trained_network_are_priced_with_its_own_labels() -> None:
    prepared = _prepared([], scenario="paper", num_targets=10)
    setting, counted = setting_of(prepared), prepared.simulation.counted
    assert setting.workload.label_bits == 0  # The scenario's network has none.
    _, (_, _, costs) = every_cut(setting, prepared)
    assert costs == cut_costs(at_costs(setting, counted, label_bits=10 * 32.0))


def test_what_lasts_of_a_device_is_not_drawn_where_a_partition_draws() -> None:
    spread, names = Spread(rate_between_devices=0.3), device_names(8)
    scenario = load_scenario("uniform").model_copy(update={"spread": spread})
    cuts = load_scenario("paper").cut_table()
    states = drawn_states(scenario, names, cuts, seed=0, round_=1, elapsed_s=0.0)
    drawn = np.array([state.link.up_bps for state in states if state.link])
    partitions = np.random.default_rng((0, len(names)))
    theirs = between_devices(spread, count=len(names), generator=partitions).rate
    assert not np.allclose(drawn / drawn[0], theirs / theirs[0])


def test_a_job_that_excludes_everybody_is_one_sentence() -> None:
    with pytest.raises(SettingsError, match=r"devices\.exclude leaves none of 30 devices"):
        _prepared(device_names(30))


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (
            ("pool2", "pool1", "fc3"),
            "layer 'part 1' ends at pool1 of the network, and has to end after pool2",
        ),
        (
            ("pool1", "fc3", "fc3"),
            "layer 'part 2' ends at fc3 of the network, and has to end after fc3",
        ),
        (
            ("input", "fc3"),
            "layer 'part 0' ends at input of the network, and has to end after input",
        ),
    ],
)
def test_stated_layers_follow_the_order_of_the_network(
    ends: Sequence[str], sentence: str, tmp_path: Path
) -> None:
    costs = "forward_flop = 1e6\nbackward_flop = 2e6\nstate_bytes = 10\nactivation_bytes = 20\n"
    layers = [
        f'[[layers]]\nname = "part {index}"\nnetwork_layer = "{end}"\n{costs}'
        for index, end in enumerate(ends)
    ]
    devices = "[[devices]]\nflop_per_s = 1e9\nup_bps = 1e6\ndown_bps = 2e6\n"
    path = tmp_path / "odd.toml"
    path.write_text("\n".join(["server_flop_per_s = 1e9", *layers, devices]), encoding="utf-8")
    with pytest.raises(SettingsError, match=r"^scenario odd: ") as caught:
        _prepared([], scenario=str(path))
    assert sentence in str(caught.value)
