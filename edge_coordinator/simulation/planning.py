"""The plan of each simulated round, by the code that plans real ones.

The planner knows the states of the round that begins, as in the paper; the cut follows on the
slower timescale, over recent states, unless the job gives it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from edge_coordinator.formatting import some
from edge_coordinator.job.given_plans import GivenPlans, num_clusters
from edge_coordinator.job.job import Job
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import Workload
from edge_coordinator.planning.plan import InfeasiblePlanError, Plan
from edge_coordinator.planning.planner import price_plan
from edge_coordinator.planning.unplanned import as_before, dealt
from edge_coordinator.replanning.cut_schedule import TwoTimescales
from edge_coordinator.replanning.device_states import KnownDevice
from edge_coordinator.replanning.memory import SimulatedMemory
from edge_coordinator.replanning.task import grouping_of, wire_tables
from edge_coordinator.run.faults import Faults
from edge_coordinator.simulation.costs import Costs
from edge_coordinator.simulation.world import World
from profiles.device import DeviceState
from profiles.link import SharedLink, Subcarriers
from profiles.scenario import Scenario
from runtime.errors import CannotTrainError, SettingsError


@dataclass(frozen=True)
class SimulatedPlan:
    """A plan with the network's own cuts, and as it was priced: with those of the cost table."""

    plan: Plan
    priced: Plan
    changed: str

    @property
    def round_s(self) -> float:
        """What the round takes by the virtual clock."""
        assert self.plan.predicted_s is not None
        return self.plan.predicted_s


class PlanSource(Protocol):
    """Plans the rounds of one simulation."""

    @property
    def faults(self) -> Faults:
        """What went wrong and was gone on from."""
        ...

    def plan(self, round_: int, *, elapsed_s: float) -> SimulatedPlan:
        """Plan the round that begins at this moment; CannotTrainError if there is no plan."""
        ...

    def remember(self) -> SimulatedMemory | None:
        """Give what a checkpoint keeps."""
        ...

    def recall(self, memory: SimulatedMemory) -> None:
        """Take over what a checkpoint kept."""
        ...


def make_workload(job: Job, scenario: Scenario, costs: Costs, *, own_label_bits: float) -> Workload:
    """Bring together what the job asks for and what the scenario says it costs.

    `own_label_bits` are those of a label of the data.
    """
    settings = job.settings
    shared = settings.plan.medium == "shared"
    return Workload(
        cuts=costs.table,
        batch_size=settings.training.batch_size,
        local_epochs=job.local_epochs,
        label_bits=scenario.label_bits if costs.is_stated else own_label_bits,
        message_bytes=np.inf,
        server=scenario.server(costs.table),
        medium=SharedLink() if shared else scenario.medium(),
        loss_on_device=job.loss_on_device,
        wires=wire_tables(job, costs.table),
        refused_cuts={costs.table_cut(cut): why for cut, why in job.refused_cuts.items()},
        micro_batches=job.micro_batches,
        whole_batches=job.whole_batches,
        phi=settings.training.given_phi,
        phis=settings.training.phis,
        plain_cuts={
            costs.table_cut(cut): why
            for cut, why in job.plain_cuts.items()
            if cut in costs.network_cuts
        },
        batch_sizes=settings.plan.batch_sizes,
        energy_weight=settings.plan.energy_weight,
        equal_batches=job.equal_batches,
    )


def _check_shares(grouping: Grouping, workload: Workload, *, num_devices: int) -> None:
    """SettingsError if a cluster has more devices than the link has subcarriers."""
    most = int(grouping.sizes(num_devices).max())
    medium = workload.medium
    if isinstance(medium, Subcarriers) and most > medium.num_subcarriers:
        more = " or more clusters" if grouping.method == "cpsl" else ""  # Else it has one.
        raise SettingsError(
            f"{most} devices in a cluster, {medium.num_subcarriers} subcarriers in the scenario; "
            f"take fewer devices{more}"
        )


class SimulatedPlanning:
    """Plans the rounds of one simulation."""

    def __init__(
        self, job: Job, world: World, costs: Costs, workload: Workload, *, num_devices: int
    ) -> None:
        self._world = world
        self._costs = costs
        self._workload = workload
        self._grouping = grouping_of(job.settings, num_devices, job.own_planning)
        _check_shares(self._grouping, workload, num_devices=num_devices)
        given = None if job.cut is None else costs.table_cut(job.cut)
        candidates = self._grouping.candidate_cuts(workload.cuts.num_layers)
        self._candidates = [each for each in candidates if each not in workload.refused_cuts]
        if given is not None:
            self._candidates = [given]
        self._timescales = TwoTimescales(
            self._grouping,
            cut=given,
            own_cuts={device: costs.table_cut(own) for device, own in job.own_cuts.items()},
            every=job.settings.plan.cut_every,
            seed=job.settings.seed,
        )
        self._before: int | None = None
        self._settings = job.settings
        self._last: Plan | None = None
        self.faults = Faults()

    def plan(self, round_: int, *, elapsed_s: float) -> SimulatedPlan:
        """Plan the round that begins at this moment; CannotTrainError if there is no plan."""
        states = self._world.states(
            round_, elapsed_s=elapsed_s, with_labels=self._grouping.balance_weight > 0
        )
        known = [KnownDevice(state, "", {}) for state in states]
        plan, why = None, ""
        try:
            with self.faults.gone_on_from("planning", instead="rounds go on without a new plan"):
                plan, schedule = self._timescales.plan(
                    known, self._workload, round_=round_, lessons=0
                )
                why = schedule.why
            plan = plan or self._unplanned(states)
        except InfeasiblePlanError as error:
            raise CannotTrainError(f"no plan for round {round_}: {error}") from error
        if not plan.clusters:
            reasons = some([f"{device}: {why}" for device, why in plan.left_out.items()], most=2)
            raise CannotTrainError(f"no plan for round {round_}: {plan.reason}: {reasons}")
        before, self._before, self._last = self._before, plan.cut, plan
        changed = why if before is not None and before != plan.cut else ""
        counts = self._world.grown(round_, elapsed_s=elapsed_s)
        trained = _with_cuts(plan, self._costs.network_cuts).with_samples(counts)
        return SimulatedPlan(trained, plan, changed)

    def remember(self) -> SimulatedMemory:
        """Give what a checkpoint keeps."""
        return SimulatedMemory(
            cut=self._timescales.chooser.remember(), before=self._before, last=self._last
        )

    def recall(self, memory: SimulatedMemory) -> None:
        """Take over what a checkpoint kept."""
        self._timescales.chooser.recall(memory.cut)
        self._before, self._last = memory.before, memory.last

    def _unplanned(self, states: Sequence[DeviceState]) -> Plan:
        """Go on as in the round before, or by hand at the first cut, and say what that takes."""
        devices = [state.device for state in states]
        reason = "as in the round before: planning went wrong"
        plan = as_before(self._last, devices, reason=reason) if self._last else None
        if plan is None:
            plan = dealt(
                devices,
                cut=next(iter(self._candidates)),
                num_clusters=num_clusters(self._settings, len(devices)),
                reason="neighbours by id: planning went wrong",
            )
        return price_plan(states, self._workload, plan)


class ReplayedSimulation:
    """Takes the plans that are given; of the scenario it has what they cost."""

    def __init__(
        self, given: GivenPlans, world: World, costs: Costs, workload: Workload, devices: list[str]
    ) -> None:
        self._given = given
        self._world = world
        self._costs = costs
        self._workload = workload
        self._devices = devices
        self.faults = Faults()

    def plan(self, round_: int, *, elapsed_s: float) -> SimulatedPlan:
        """Price the plan of the round that begins at this moment."""
        given = self._given.plan(round_, self._devices)
        table = {cut: self._costs.table_cut(cut) for cut in {given.cut, *given.cuts.values()}}
        states = self._world.states(round_, elapsed_s=elapsed_s)
        try:
            priced = price_plan(states, self._workload, _with_cuts(given, table))
        except InfeasiblePlanError as error:
            raise CannotTrainError(f"round {round_} cannot be replayed here: {error}") from error
        plan = _with_cuts(priced, self._costs.network_cuts).with_samples(given.counts)
        return SimulatedPlan(plan, priced, "")

    def remember(self) -> None:
        """Nothing: what is given does not depend on what was."""

    def recall(self, memory: SimulatedMemory) -> None:
        """Nothing is asked for."""


def _with_cuts(plan: Plan, cuts: Mapping[int, int] | Sequence[int]) -> Plan:
    """Take for each of a plan's cuts another."""
    clusters = tuple(replace(c, cuts=tuple(cuts[own] for own in c.cuts)) for c in plan.clusters)
    return replace(plan, cut=cuts[plan.cut], clusters=clusters)


def plan_source(
    job: Job, world: World, costs: Costs, workload: Workload, *, devices: Sequence[str]
) -> PlanSource:
    """Open the source of a simulation's plans; by hand, cut and grouping are the planner's task."""
    given = job.given_plans
    if given is not None and given.is_exact:
        return ReplayedSimulation(given, world, costs, workload, list(devices))
    return SimulatedPlanning(job, world, costs, workload, num_devices=len(devices))
