"""The seconds of a turn in micro-batches, by the latency model and event by event."""

from dataclasses import replace

import numpy as np
import pytest

from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Fleet, Workload
from edge_coordinator.planning.latency import PhasesByShare, cluster_latency_s, phase_seconds
from edge_coordinator.planning.planner import plan_round
from edge_coordinator.simulation.world import drawn_states
from profiles.link import IndependentLinks, LinkState
from profiles.phases import Phase
from profiles.units import Floats
from profiles.variation import Spread
from runtime.scenarios.files import load_scenario
from runtime.wire.micro_batches import parted
from tests.fleets import device, random_devices, workload

PAPER = load_scenario("paper")


class Pieces:
    """What each part of a mini-batch of 16 takes; the first of them may be aggregated."""

    def __init__(self, seconds: PhasesByShare, shares: Floats, parts: int) -> None:
        self.busy = seconds.fixed_s - seconds.delay_s + seconds.link_s / shares
        apart, self.num_devices = seconds.aggregated, len(shares)
        self.rows = parted(16, parts) if apart is None else tuple(apart.rows)
        self.first = 0 if apart is None else apart.first.micro_batches
        num_first = self.rows[self.first - 1].stop if self.first else 0
        once_s = np.zeros((2, len(shares))) if apart is None else apart.server_s
        for_all_s = np.zeros(len(shares)) if apart is None else apart.broadcast_s
        forward_s, down_s = once_s[0] - once_s[1], self.busy[Phase.DOWNLOAD]
        for_all_s = down_s if num_first == 16 else for_all_s
        self._num = {True: num_first, False: 16 - num_first}
        self._server_s = {
            True: forward_s + once_s[0] / len(shares),
            False: self.busy[Phase.SERVER] - forward_s,
        }
        self._down_s = {True: for_all_s, False: down_s - for_all_s}

    def server_s(self, k: int, part: int) -> float:
        is_first = part < self.first
        return float(self._server_s[is_first][k]) * len(self.rows[part]) / self._num[is_first]

    def down_s(self, k: int, part: int) -> float:
        is_first = part < self.first
        return float(self._down_s[is_first][k]) * len(self.rows[part]) / self._num[is_first]

    def back_s(
        self, there: dict[tuple[int, int], float], server_s: float
    ) -> dict[tuple[int, int], float]:
        """When the server gives each back; what is aggregated waits for that of all devices."""
        jobs = [(at_s, [k], part) for (k, part), at_s in there.items() if part >= self.first]
        devices = list(range(self.num_devices))
        jobs += [
            (max(there[k, part] for k in devices), devices, part) for part in range(self.first)
        ]
        back = dict[tuple[int, int], float]()
        for at_s, own, part in sorted(jobs):
            server_s = max(server_s, at_s) + sum(self.server_s(k, part) for k in own)
            back |= {(k, part): server_s for k in own}
        return back


def event_by_event_s(seconds: PhasesByShare, shares: Floats, parts: int) -> float:
    """The oracle: one queue for each processor and link, served in the order of arrival."""
    pieces = Pieces(seconds, shares, parts)
    busy, rows, delay = pieces.busy, pieces.rows, seconds.delay_s
    start_s = (seconds.fixed_s + seconds.link_s)[Phase.DISTRIBUTE].max()
    free_s, updated_s = [start_s] * len(shares), 0.0
    for _ in range(seconds.local_epochs):
        there = {}
        for k, at_s in enumerate(free_s):
            line_s = 0.0
            for part, each in enumerate(rows):
                done_s = at_s + each.stop / 16 * busy[Phase.FORWARD, k]
                line_s = max(line_s, done_s) + len(each) / 16 * busy[Phase.UPLOAD, k]
                there[k, part] = line_s + delay[Phase.UPLOAD, k]
        back = pieces.back_s(there, updated_s)
        updated_s, before_s, free_s = max(back.values()), free_s, []
        for k, at_s in enumerate(before_s):
            line_s, cpu_s, got = 0.0, at_s + busy[Phase.FORWARD, k], {}
            for part in sorted(range(len(rows)), key=lambda each: back[k, each]):
                line_s = max(line_s, back[k, part]) + pieces.down_s(k, part)
                got[part] = line_s + delay[Phase.DOWNLOAD, k]
            for part, each in enumerate(rows):
                cpu_s = max(cpu_s, got[part]) + len(each) / 16 * busy[Phase.BACKWARD, k]
            free_s.append(cpu_s)
    model = busy[Phase.MODEL_UPLOAD] + delay[Phase.MODEL_UPLOAD]
    return float(max(at_s + model[k] for k, at_s in enumerate(free_s)))


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize(("epochs", "phi"), [(1, 0.0), (3, 0.0), (3, 0.3), (2, 1.0)])
def test_the_seconds_are_those_of_the_events(parts: int, epochs: int, phi: float) -> None:
    states = random_devices(np.random.default_rng(parts), 4)
    links = [LinkState(s.link.up_bps, s.link.down_bps, 0.02, 0.001) for s in states if s.link]
    states = [replace(s, link=link) for s, link in zip(states, links, strict=True)]
    work = replace(workload(IndependentLinks(), local_epochs=epochs), phi=phi)
    seconds = phase_seconds(Fleet.of(states), work, cut=1, micro_batches=parts)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    latency_s = cluster_latency_s(seconds, members=np.arange(4), shares=shares)
    assert float(latency_s) == pytest.approx(event_by_event_s(seconds, shares, parts))


@pytest.mark.parametrize("phi", [0.0, 0.4])
def test_clusters_cost_the_same_alone_as_beside_others_and_padded(phi: float) -> None:
    fleet = Fleet.of(random_devices(np.random.default_rng(1), 6))
    work = replace(workload(IndependentLinks()), phi=phi)
    seconds = phase_seconds(fleet, work, cut=2, micro_batches=3)
    together = cluster_latency_s(
        seconds, members=np.array([[0, 1, 2], [3, 4, -1], [5, -1, -1]]), shares=np.ones((3, 3))
    )
    alone = [
        cluster_latency_s(seconds, members=np.array(each), shares=np.ones(len(each)))
        for each in ([0, 1, 2], [3, 4], [5])
    ]
    assert together.tolist() == pytest.approx([float(each) for each in alone])
    plain = phase_seconds(fleet, replace(work, phi=0.0), cut=2, micro_batches=3)
    single_s = cluster_latency_s(plain, members=np.array([5]), shares=np.ones(1))
    assert alone[-1] == pytest.approx(float(single_s))


@pytest.mark.parametrize(("spread", "times"), [(None, 1.4), (0.5, 1.3)])
def test_four_micro_batches_shorten_the_papers_round(spread: float | None, times: float) -> None:
    whole_s, parted_s = list[float](), list[float]()
    scenario = PAPER
    if spread is not None:
        scenario = PAPER.model_copy(update={"spread": Spread.between_rounds(spread)})
    names, work = PAPER.names(), Workload.of_scenario(PAPER, loss_on_device=False)
    for round_ in range(1, 4):
        states = drawn_states(scenario, names, work.cuts, seed=0, round_=round_, elapsed_s=0.0)
        for seconds, counts in ((whole_s, (1,)), (parted_s, (4,))):
            made = plan_round(
                states,
                replace(work, micro_batches=counts),
                grouping=Grouping("cpsl", num_clusters=PAPER.num_clusters),
                cut=PAPER.cut,
                generator=np.random.default_rng(round_),
            )
            seconds.append(made.predicted_s or 0.0)
    assert sum(whole_s) / sum(parted_s) >= times


def test_a_plan_parts_mini_batches_where_that_gains_and_says_what_it_saves() -> None:
    states = random_devices(np.random.default_rng(2), 4)
    work = replace(workload(IndependentLinks()), micro_batches=(1, 2, 4, 8))
    grouping, generator = Grouping("cpsl", num_clusters=1), np.random.default_rng(0)
    plan = plan_round(states, work, grouping=grouping, cut=1, generator=generator)
    (cluster,) = plan.clusters
    assert cluster.micro_batches > 1
    assert cluster.whole_batches_s is not None
    assert cluster.predicted_s is not None
    assert cluster.whole_batches_s > cluster.predicted_s
    assert plan.reason.count(f"{cluster.micro_batches} micro-batches save") == 1
    assert plan.predicted_s is not None
    assert plan.lower_bound_s is not None
    assert cluster.whole_batches_s > plan.predicted_s >= plan.lower_bound_s > 0
    dear = replace(work, server_part_s=10.0)  # Each micro-batch costs the server that much.
    plan = plan_round(states, dear, grouping=grouping, cut=1, generator=generator)
    assert plan.clusters[0].micro_batches == 1


def test_each_further_micro_batch_takes_the_server_what_was_measured() -> None:
    fleet, work = Fleet.of([device("a")]), workload(IndependentLinks())
    dear = replace(work, server_device_s=0.5, server_part_s=0.25)
    taken_s = [
        phase_seconds(fleet, each, cut=1, micro_batches=count).fixed_s[Phase.SERVER, 0]
        for count in (1, 4)
        for each in (work, dear)
    ]
    assert taken_s[1] - taken_s[0] == pytest.approx(0.5)
    assert taken_s[3] - taken_s[2] == pytest.approx(0.5 + 3 * 0.25)
