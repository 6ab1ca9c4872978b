"""Who takes part in a run: from the first that are admitted until all are let go."""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping

from edge_coordinator.devices.admission import Admission
from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.stragglers import Stragglers
from edge_coordinator.job.job import Job
from edge_coordinator.job.labels import label_form
from edge_coordinator.planning.plan import Plan
from edge_coordinator.replanning.memory import PlannerMemory, RunMemory, TrustMemory
from edge_coordinator.replanning.suspensions import Suspensions
from edge_coordinator.training.bounds import Bounds
from runtime.wire.names import ClassNames

ALL_EXCLUDED_S = 10.0
"""How long others are waited for when all that are there are excluded."""


class Participation:
    """Devices are admitted as they come, excluded if caught, and rest if late again and again."""

    def __init__(
        self, job: Job, channel: DeviceChannel, memory: RunMemory, say: Callable[[str], None]
    ) -> None:
        """`memory` is what the run knew when it was interrupted; `say` tells people of waits."""
        trust, rules = memory.trust, job.settings.devices
        self._channel = channel
        self._registry = channel.registry
        self._registry.labels = label_form(job)
        self.learnt = channel.learnt
        """Set when anything is learnt of a device."""
        self._say = say
        self._num_devices = rules.count
        past = (trust.largest, trust.cut, trust.own_cuts)
        self.bounds = Bounds(*past) if rules.bounds else None
        """Of what devices send; None if whatever they send is taken."""
        self._suspensions = Suspensions(rules.excluded_rounds, trust.suspensions)
        self._stragglers = Stragglers(memory.num_tries, memory.attendance)
        self._admission = Admission(job, channel, say)
        channel.answer_times.usual.update(memory.answer_times)

    async def admit(self) -> None:
        """Admit whoever comes, until cancelled."""
        await self._admission.keep_open()

    async def until_enough(self) -> ClassNames:
        """Wait for as many as the job asks for; the classes they agreed on, if it names none."""
        await self._admission.until_there(self._num_devices)
        return await self._admission.agree_on_classes()

    async def until_anyone(self) -> None:
        """Wait until a round can be tried again."""
        await self._admission.until_there(1, others_s=0.0)

    async def let_go(self) -> None:
        """Tell all that the run is over."""
        await asyncio.gather(*(self._channel.stop(device) for device in self._registry.assigned))

    def are_ready(self, plan: Plan) -> bool:
        """Whether everybody is still there that a plan is for."""
        devices = (device for cluster in plan.clusters for device in cluster.devices)
        return all(self._registry.is_ready(device) for device in devices)

    def resting(self, excluded: Mapping[str, str]) -> dict[str, str]:
        """Say who has been late again and again and rests, of those that are not excluded."""
        return self._stragglers.resting(self._registry.ready.keys() - excluded)

    def barred(self, resting: Mapping[str, str]) -> dict[str, str]:
        """Say who is there and not even considered, and why."""
        return self._registry.barred | dict(resting) | self._channel.busy

    async def excluded(self, round_: int) -> dict[str, str]:
        """Who is out for what it sent; if all are, wait for others, and then give them a try."""
        excluded = self._suspensions.out(round_, self._registry.ready)
        if not excluded or len(excluded) < len(self._registry.ready):
            return excluded
        reasons = "; ".join(f"{device} {why}" for device, why in excluded.items())
        self._say(f"all devices are excluded: {reasons}")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ALL_EXCLUDED_S):
                while len(self._registry.ready) <= len(excluded):
                    self._channel.changed.clear()
                    await self._channel.changed.wait()
        ready = self._registry.ready
        excluded = self._suspensions.out(round_, ready)
        return excluded if len(excluded) < len(ready) else {}

    def note(
        self,
        round_: int,
        plan: Plan,
        *,
        lost: Collection[str],
        late: Collection[str],
        caught: Mapping[str, str],
    ) -> None:
        """Take in who was lost, late or caught spoiling the model in a round of a plan."""
        planned = {device for cluster in plan.clusters for device in cluster.devices}
        gone = set(lost) - set(late)  # They have shown nothing of their pace.
        self._stragglers.note(present=planned - gone, late=late)
        self._suspensions.note(round_, caught)

    def remember(self, planner: PlannerMemory | None) -> RunMemory:
        """Give what a checkpoint keeps of the devices, beside what the planner knows."""
        bounds = self.bounds
        return RunMemory(
            answer_times=self._channel.answer_times.usual,
            num_tries=self._stragglers.num_tries,
            attendance=self._stragglers.records,
            planner=planner,
            trust=TrustMemory(
                largest=bounds.largest if bounds else {},
                cut=bounds.cut if bounds else None,
                own_cuts=bounds.own_cuts if bounds else {},
                suspensions=self._suspensions.records,
            ),
        )
