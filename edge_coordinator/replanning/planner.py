"""The plan of each round of a run: the profiles as they are now, and what rounds before taught."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.formatting import some
from edge_coordinator.job.plan_settings import PlanSettings
from edge_coordinator.planning.clusters.grouping import Grouping
from edge_coordinator.planning.fleet import PlanBasis, Workload
from edge_coordinator.planning.plan import ClusterPlan, Plan
from edge_coordinator.replanning.conditions import Conditions
from edge_coordinator.replanning.corrections import LearnedCorrections, TurnMeasured
from edge_coordinator.replanning.cut_schedule import CutSchedule, Figures, TwoTimescales, drifted
from edge_coordinator.replanning.device_states import (
    KnownDevice,
    cuts_before,
    cuts_beyond,
    known_devices,
)
from edge_coordinator.replanning.energy import power_of
from edge_coordinator.replanning.memory import PlannerMemory, copy_figures
from profiles.device import DeviceState
from profiles.link import SharedLink
from runtime.wire.names import ClassNames


@dataclass(frozen=True)
class PlannedRound:
    """A plan, and what the run knows of it besides."""

    plan: Plan
    assumed: Mapping[str, str]
    """Device id to what had to be assumed of it, and why."""
    changed: str
    """How the plan differs from the one before, and why; empty where nothing but the usual
    variation of measurements has moved a device."""
    up_share_bps: Mapping[str, float]
    """Device id to the rate that it may upload at; whoever is not in it may use its whole link."""
    resting: tuple[str, ...] = ()
    """Devices that are there and were not considered: late again and again, or to be spared."""
    is_exact: bool = False
    """Whether the round is tried again as long as anybody is lost: it has to end in given bits."""
    basis: PlanBasis | None = field(default=None, compare=False)  # Arrays have no one equality.
    """What the plan was priced by, where it rests on measurements."""

    @classmethod
    def given(cls, plan: Plan, *, is_exact: bool) -> "PlannedRound":
        """Take a plan that rests on no measurement."""
        return cls(plan, {}, "", {}, is_exact=is_exact)


@dataclass(frozen=True)
class PlanningTask:
    """What a job asks of its planner."""

    settings: PlanSettings
    grouping: Grouping
    cut: int | None
    """The cut that was given; None to choose it."""
    workload: Workload
    seed: int
    own_cuts: Mapping[str, int] = field(default_factory=dict)
    """Device id to its cut, of those that cut at another layer than was given."""
    classes: ClassNames = ()
    """Names of the job's classes; empty where devices count along the same without being told."""

    @property
    def candidate_cuts(self) -> Sequence[int]:
        """The cut that was given, or all that the method may choose from."""
        if self.cut is not None:
            return sorted({self.cut, *self.own_cuts.values()})
        return self.grouping.candidate_cuts(self.workload.cuts.num_layers)


class Planner:
    """Plans the rounds of one run, one after another, and learns from each.

    Equal profiles, and equal lessons, give equal plans.
    """

    def __init__(self, task: PlanningTask) -> None:
        self._task = task
        self._corrections = LearnedCorrections()
        self._timescales = TwoTimescales(
            task.grouping,
            cut=task.cut,
            every=task.settings.cut_every,
            seed=task.seed,
            own_cuts=task.own_cuts,
        )
        self._conditions = Conditions(task.settings)
        self._figures: Figures = {}
        self._before: Plan | None = None

    def plan(self, round_: int, records: Mapping[str, DeviceRecord]) -> PlannedRound:
        """Plan a round for these devices; takes seconds where they are many."""
        self._conditions.note(records)
        resting, news = self._conditions.resting(records), self._conditions.news
        known = known_devices(
            self._conditions.as_now(records),
            self._task.workload.cuts,
            self._corrections,
            shared_bps=self._task.settings.shared_bps,
            classes=self._task.classes,
        )
        known = [each for each in known if each.state.device not in resting]
        known = [replace(each, state=self._powered(each.state, records)) for each in known]
        states = tuple(each.state for each in known)
        workload = self._workload(states)
        plan, schedule = self._timescales.plan(
            known, workload, round_=round_, lessons=self._corrections.num_rounds
        )
        plan = replace(plan, left_out={**plan.left_out, **resting})
        now = self._conditions.assumed(records)
        said = {each.state.device: [each.assumed, now.get(each.state.device, "")] for each in known}
        assumed = {device: "; ".join(filter(None, each)) for device, each in said.items()}
        return PlannedRound(
            plan,
            assumed={device: words for device, words in assumed.items() if words},
            changed="; ".join(filter(None, [self._compare(plan, known, schedule), news])),
            up_share_bps=self._up_shares(plan, known),
            resting=tuple(resting),
            basis=PlanBasis(states, workload, self._corrections.num_rounds),
        )

    def note_energy(self, joules: Mapping[str, float]) -> None:
        """Take note of what devices have drawn in a round."""
        self._conditions.note_energy(joules)

    def choose_anew(self, why: str) -> None:
        """Choose the cut again for the next round."""
        self._timescales.chooser.asked = why

    def limit(
        self,
        *,
        known_bytes: Mapping[int, float],
        refused_cuts: Mapping[int, str],
        fixed_cuts: Collection[int],
    ) -> None:
        """Take note of what cuts need on a device, and of those that some device cannot run.

        At `fixed_cuts` the graphs take mini-batches of one size alone.
        """
        refused = {**self._task.workload.refused_cuts, **refused_cuts}
        workload = replace(
            self._task.workload,
            known_bytes=dict(known_bytes),
            refused_cuts=refused,
            fixed_cuts=frozenset(fixed_cuts),
        )
        self._task = replace(self._task, workload=workload)

    def learn(self, turns: Sequence[TurnMeasured], *, beyond_turns_s: float | None) -> None:
        """Learn from the turns of a round that nobody was lost in, if learning is wanted.

        `beyond_turns_s` is what the round took beyond all its turns, if nobody was lost in it.
        """
        if self._task.settings.learn:
            self._corrections.learn(
                turns,
                beyond_turns_s=beyond_turns_s,
                local_epochs=self._task.workload.local_epochs,
                loss_on_device=self._task.workload.loss_on_device,
            )

    def learn_late(self, device: str, plan: ClusterPlan, *, answer_s: float, late_s: float) -> None:
        """Learn that a device is slower than was predicted, if learning is wanted."""
        if self._task.settings.learn:
            self._corrections.learn_late(device, plan, answer_s=answer_s, late_s=late_s)

    def remember(self) -> PlannerMemory:
        """Give what a checkpoint keeps."""
        return PlannerMemory(
            experience=self._corrections.remember(),
            cut=self._timescales.chooser.remember(),
            figures=copy_figures(self._figures),
            before=self._before,
            traffic=dict(self._conditions.traffic),
            energy=dict(self._conditions.energy),
        )

    def recall(self, memory: PlannerMemory) -> None:
        """Take over what a checkpoint kept."""
        self._corrections.recall(memory.experience)
        self._timescales.chooser.recall(memory.cut)
        self._figures, self._before = memory.figures, memory.before
        self._conditions.traffic = dict(memory.traffic)
        self._conditions.energy = dict(memory.energy)

    def _powered(self, state: DeviceState, records: Mapping[str, DeviceRecord]) -> DeviceState:
        """Say what a device draws."""
        power = power_of(self._task.settings, records[state.device])
        return replace(state, power=power)

    def _up_shares(self, plan: Plan, known: Sequence[KnownDevice]) -> dict[str, float]:
        """Turn shares of a shared medium into rates."""
        if not isinstance(self._task.workload.medium, SharedLink):
            return {}
        links = {each.state.device: each.state.link for each in known}
        shares = {
            device: share
            for cluster in plan.clusters
            for device, share in zip(cluster.devices, cluster.shares, strict=True)
            if share < 1 or self._task.settings.shared_bps is not None
        }
        return {
            device: share * link.up_bps
            for device, share in shares.items()
            if (link := links[device]) is not None
        }

    def _workload(self, devices: Sequence[DeviceState]) -> Workload:
        """What a round takes beyond its phases; before the first, its clusters have to join."""
        links = [state.link for state in devices if state.link is not None]
        join_s = max((link.round_trip_s for link in links), default=0.0)
        candidates, to_each = self._task.candidate_cuts, self._task.workload.refused_cuts
        refused = cuts_beyond(devices, candidates) | dict(to_each)
        refused = cuts_before(devices, candidates, beyond=refused) | refused
        return replace(
            self._task.workload,
            refused_cuts=refused,
            refused_to_each=to_each,
            cluster_overhead_s=self._corrections.cluster_s,
            round_overhead_s=self._corrections.round_s if self._corrections.num_rounds else join_s,
        )

    def _compare(self, plan: Plan, known: Sequence[KnownDevice], schedule: CutSchedule) -> str:
        """Say how a plan differs from the one before, and why; then it is the one before."""
        before, self._before = self._before, plan
        figures = {each.state.device: each.figures for each in known}
        drifts, self._figures = drifted(self._figures, figures), figures
        if before is None:
            return ""
        changes = plan_changes(before, plan, self._task.workload.cuts.cut_names)
        reasons = [schedule.why] if schedule.why and (drifts or before.cut != plan.cut) else []
        if drifts and not any(drift in schedule.why for drift in drifts):
            reasons.append(some(drifts))
        reasons += _presence_changes(before, plan)
        if drifts and not changes:
            return f"same cut and clusters, although {'; '.join(reasons)}"
        return f"{changes}; because {'; '.join(reasons)}" if changes and reasons else ""


def _presence_changes(before: Plan, now: Plan) -> list[str]:
    """Say who has come and who has gone."""
    old, new = ({d for c in plan.clusters for d in c.devices} for plan in (before, now))
    came, went = sorted(new - old), sorted(old - new)
    why = {device: reason for device, reason in now.left_out.items() if device in went}
    gone = [f"{device} ({why[device]})" if device in why else device for device in went]
    return [f"{some(who)} {did}" for who, did in ((came, "came"), (gone, "went")) if who]


def plan_changes(before: Plan, now: Plan, cut_names: Sequence[str]) -> str:
    """Tell in words how two plans differ; nothing if they have the same cut and clusters."""
    changes = []
    if before.cut != now.cut:
        changes.append(f"cut after {cut_names[now.cut]} instead of {cut_names[before.cut]}")
    old_cuts, new_cuts = before.own_cuts, now.own_cuts
    if old_cuts != new_cuts:
        moved = [
            d
            for d in sorted(now.cuts.keys() & before.cuts.keys())
            if old_cuts.get(d) != new_cuts.get(d)
        ]
        changes += [f"another cut for {some(moved)}"] if moved else []
    if before.codecs != now.codecs and before.codecs and now.codecs:
        changes.append(f"as {now.codecs.smashed} instead of {before.codecs.smashed}")
    old_phi, new_phi = ({c.phi for c in p.clusters if c.phi is not None} for p in (before, now))
    if old_phi != new_phi and old_phi and new_phi:
        one, other = (" or ".join(f"{p:g}" for p in sorted(each)) for each in (new_phi, old_phi))
        changes.append(f"phi {one} instead of {other}")
    old, new = ({c.devices for c in plan.clusters} for plan in (before, now))
    if old != new:
        together = (" with ".join(_ends(devices)) for devices in sorted(new - old))
        changes.append(f"new clusters: {some(list(together))}")
    return ", ".join(changes)


def _ends(devices: tuple[str, ...], most: int = 6) -> list[str]:
    """Name the devices of a cluster, the first few where there are many."""
    more = [f"{len(devices) - most} more"] if len(devices) > most else []
    return [", ".join(devices[:most]), *more]
