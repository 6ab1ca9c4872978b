"""Other readings of the published bytes, the rates that go with them, and what hangs on them.

Three rates are fitted to three latencies, so any reading of the bytes can be met by some rates. A
device's speed is the same by all of them: it follows from the latencies of CPSL and SL alone. The
rate of a subcarrier follows from what FL moves, and the server's speed from what is left then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_coordinator.experiments.latencies import Setting, grouping_latencies, method_latency
from edge_coordinator.experiments.tables import seconds, table
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.form import Method
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.simulation.costs import RoundCosts, round_costs
from profiles.phases import Phase
from profiles.scenario import Scenario

METHODS: Sequence[Method] = ("cpsl", "sl", "fl")
GROUPING_SPREAD = 0.3


@dataclass(frozen=True)
class Reading:
    """One way to read what is published of the bytes, with the rates that go with it."""

    name: str
    scenario: Scenario


def readings(paper: Scenario) -> list[Reading]:
    """Read the bytes in three ways; the first is the scenario's own."""
    step_bytes = paper.published["cut_bytes_per_step"] / paper.batch_size
    model_bytes = paper.published["whole_model_bytes_per_step"]
    # The model as a broadcast takes 1/n of its upload's seconds on n subcarriers: as so many
    # bytes more, both ways take what two uploads take.
    subcarriers = _num_subcarriers(paper)
    alone_bytes = model_bytes * subcarriers / (subcarriers + 1)
    return [
        Reading("both ways together", _calibrated(paper)),
        Reading(
            "each way",
            _calibrated(_with_bytes(paper, smashed_bytes=step_bytes, model_bytes=model_bytes)),
        ),
        Reading(
            "together, no broadcast",
            _calibrated(_with_bytes(paper, smashed_bytes=step_bytes / 2, model_bytes=alone_bytes)),
        ),
    ]


def readings_part(setting: Setting, *, spread: float, draws: int) -> str:
    """What depends on how the bytes are read, and what does not."""
    every = readings(setting.scenario)
    columns = [_column(setting, each, spread=spread, draws=draws) for each in every]
    rows = [[name, *(column[name] for column in columns)] for name in columns[0]]
    return (
        "## Other readings of the published bytes\n\n"
        "Of the three calibrated rates, a device's speed follows from the published latencies of "
        "CPSL and SL alone. The other two hang on how 16.49 MB (the whole model) and 0.35 MB (a "
        "device's step) are read: as both ways together, with the model to the devices as one "
        "broadcast (ours); as that each way; or together, with a model for each device on its own "
        "subcarrier. Each reading with the rates that give the published latencies:\n\n"
        + table(("", *(each.name for each in every)), rows)
        + "\nThe seconds of a round are the same by all three, and so are all seconds to an "
        "accuracy, but CL's. Where bytes and rates are doubled, no second of CPSL, SL and FL "
        "changes. Where the link is faster and the server slower, other parts of a round are the "
        "link's, and so planning and allocating it are worth something else.\n"
    )


def _column(setting: Setting, reading: Reading, *, spread: float, draws: int) -> dict[str, str]:
    """All figures of one reading, by name."""
    scenario = reading.scenario
    here = replace(
        setting,
        scenario=scenario,
        workload=Workload.of_scenario(scenario, loss_on_device=False),
    )
    rounds_s = {m: method_latency(here, m, spread=0.0, draws=1).mean_s for m in (*METHODS, "cl")}
    spread_s = {m: method_latency(here, m, spread=spread, draws=draws).mean_s for m in METHODS}
    grouped = grouping_latencies(here, spread=GROUPING_SPREAD, draws=draws)
    planned_s = grouped["planned"].mean_s
    costs = _costs(here)
    compute_s = costs.phase_s[Phase.FORWARD] + costs.phase_s[Phase.BACKWARD]
    server_s = costs.phase_s[Phase.SERVER]
    num_bytes = costs.table_up_bytes + costs.table_down_bytes
    at = f"at a spread of {spread:.0%}"
    grouped_at = f"at a spread of {GROUPING_SPREAD:.0%}"
    return {
        "Mbit/s a subcarrier, each way": f"{scenario.devices[0].up_bps / 1e6:.2f}",
        "GFLOP/s of the server": f"{scenario.server_flop_per_s / 1e9:.0f}",
        "MFLOP/s of a device": f"{scenario.devices[0].flop_per_s / 1e6:.1f}",
        "round of CPSL, SL, FL (s)": ", ".join(f"{rounds_s[m]:.2f}" for m in METHODS),
        "round of CL (s)": seconds(rounds_s["cl"]),
        "MB of a CPSL round, by the cost table": f"{num_bytes / 1e6:.1f}",
        "CPSL's round: devices, link, server (s)": ", ".join(
            f"{each:.2f}"
            for each in (compute_s, costs.phase_s.sum() - compute_s - server_s, server_s)
        ),
        f"SL's, FL's times CPSL's, {at}": ", ".join(
            f"{spread_s[m] / spread_s['cpsl']:.2f}" for m in ("sl", "fl")
        ),
        f"random clusters over planned, {grouped_at}": _over(grouped["random"].mean_s, planned_s),
        f"and equal shares over planned, {grouped_at}": _over(
            grouped["random, equal shares"].mean_s, planned_s
        ),
    }


def _costs(setting: Setting) -> RoundCosts:
    """Where the seconds and bytes of a CPSL round go, with identical devices."""
    plan = plan_round(
        setting.states(1, spread=0.0),
        setting.workload,
        grouping=Grouping("cpsl", num_clusters=setting.num_clusters),
        cut=setting.cut,
        generator=np.random.default_rng(0),
    )
    return round_costs(plan, setting.workload)


def _with_bytes(paper: Scenario, *, smashed_bytes: float, model_bytes: float) -> Scenario:
    """Change what the cut moves of a sample each way, and what the whole model weighs."""
    first, rest = paper.layers
    layers = (
        first.model_copy(update={"activation_bytes": round(smashed_bytes)}),
        rest.model_copy(update={"state_bytes": round(model_bytes)}),
    )
    return paper.model_copy(update={"layers": layers})


def _calibrated(scenario: Scenario) -> Scenario:
    """Solve the latencies of CPSL, SL and FL, with identical devices, for the three rates."""
    published, cuts, cut = scenario.published, scenario.cut_table(), scenario.cut
    num_devices, batch = scenario.num_devices, scenario.batch_size
    subcarriers = _num_subcarriers(scenario)
    flop = cuts.device_forward_flop + cuts.device_backward_flop  # [cut]
    turns = num_devices - scenario.num_clusters  # SL computes on devices so much more often.
    flop_per_s = turns * batch * flop[cut] / (published["sl_round_s"] - published["cpsl_round_s"])
    model_s = published["fl_round_s"] - batch * flop[-1] / flop_per_s
    bps = cuts.device_model_bits[-1] * (1 + 1 / subcarriers) / model_s
    link_s = 2 * batch * cuts.smashed_bits[cut] * num_devices / subcarriers / bps
    device_s = scenario.num_clusters * batch * flop[cut] / flop_per_s
    server_s = published["cpsl_round_s"] - device_s - link_s
    (devices,) = scenario.devices
    fitted = devices.model_copy(
        update={"flop_per_s": float(flop_per_s), "up_bps": float(bps), "down_bps": float(bps)}
    )
    server_flop_per_s = float(num_devices * batch * (flop[-1] - flop[cut]) / server_s)
    return scenario.model_copy(
        update={"devices": (fitted,), "server_flop_per_s": server_flop_per_s}
    )


def _num_subcarriers(scenario: Scenario) -> int:
    assert scenario.num_subcarriers is not None
    return scenario.num_subcarriers


def _over(seconds_: float, planned_s: float) -> str:
    return f"{100 * (seconds_ / planned_s - 1):+.1f} %"
