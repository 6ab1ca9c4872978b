"""What devices measure of themselves: their links and compute before a plan, and each round.

Devices without torch time graphs of a few cuts; the others know their compute already.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest

import numpy as np

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.devices.link_survey import LinkSurvey
from edge_coordinator.devices.machines import by_process
from edge_coordinator.devices.requests import DeviceGoneError
from edge_coordinator.replanning.device_states import MAX_NAME_LETTERS, is_complete
from edge_coordinator.rounds.device_graphs import GraphExports
from edge_coordinator.rounds.server_thread import EdgeWorker
from profiles.cuts import CutTable
from runtime.errors import SettingsError
from runtime.wire.commands import MAX_LAYERS, Join
from runtime.wire.measures import LayerWork
from runtime.wire.published import DeviceMetrics

log = logging.getLogger(__name__)


class DeviceSurvey:
    """Has devices measure, and waits for what they publish of it: each wait has an end."""

    def __init__(self, channel: DeviceChannel, exports: GraphExports, links: LinkSurvey) -> None:
        self.registry = channel.registry
        """What the devices said of themselves so far."""
        self._channel = channel
        self._compute = ComputeSurvey(channel, exports)
        self._links = links

    def begin(self) -> list[str]:
        """Have whoever is ready and new measure its link, in the background; which are new."""
        return self._links.survey()

    async def compute(
        self, table: CutTable, worker: EdgeWorker, *, round_: int, cuts: Sequence[int]
    ) -> None:
        """Have every ready device that runs graphs time these cuts, if it has not."""
        await self._compute.measure(table, worker, round_=round_, cuts=cuts)

    async def until_complete(
        self, new: Sequence[str], table: CutTable, *, patience_s: float
    ) -> None:
        """Give new devices a moment to publish all that they measure."""

        def is_known(device: str) -> bool:
            return is_complete(self.registry.records[device].profile, table)

        measured = await self._links.until_measured(new)
        await self._until_each(is_known, measured, timeout_s=patience_s)

    async def metrics(
        self, round_: int, devices: Sequence[str], *, patience_s: float
    ) -> Mapping[str, DeviceMetrics]:
        """Collect what a round's devices say of it; not all may, in time."""

        def has_said(device: str) -> bool:
            metrics = self.registry.records[device].metrics
            return metrics is not None and (metrics.run, metrics.round) == (run, round_)

        run = self._channel.run
        await self._until_each(has_said, devices, timeout_s=patience_s)
        records = {device: self.registry.records[device] for device in devices}
        return {d: each.metrics for d, each in records.items() if has_said(d) and each.metrics}

    async def _until_each(
        self, is_true: Callable[[str], bool], devices: Sequence[str], *, timeout_s: float
    ) -> None:
        """Wait until something is known of one device after the other, or for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                for device in devices:
                    while not is_true(device):
                        self._channel.learnt.clear()
                        await self._channel.learnt.wait()


class ComputeSurvey:
    """Exports the device side at some cuts and has it timed wherever graphs are run."""

    def __init__(self, channel: DeviceChannel, exports: GraphExports) -> None:
        self._channel = channel
        self._exports = exports
        self._asked: dict[int, dict[str, str]] = {}
        """Cut to the devices that were asked for it, each with its session at that time."""

    async def measure(
        self, table: CutTable, worker: EdgeWorker, *, round_: int, cuts: Sequence[int]
    ) -> None:
        """Have every ready device that runs graphs time these cuts, if it has not.

        A cut that cannot be exported is passed over: it is known from then on.
        """
        if table.num_layers > MAX_LAYERS:
            return
        new_by_cut = {cut: new for cut in cuts if (new := self._not_asked(cut))}
        await self._export(next(iter(new_by_cut), None), worker)
        for cut, later in zip_longest(new_by_cut, [*new_by_cut][1:]):
            # The next graphs are made while these are measured.
            await asyncio.gather(
                self._measure_cut(self._join(table, round_, cut), new_by_cut[cut]),
                self._export(later, worker),
            )

    def _not_asked(self, cut: int) -> list[str]:
        """Devices that have not been asked to measure a cut and now will be."""
        if not cut or cut in self._exports.refused:
            return []
        asked = self._asked.setdefault(cut, {})
        sessions = {device: self._session(device) for device in self._exports.devices}
        new = [device for device in sessions if asked.get(device) != sessions[device]]
        asked |= sessions
        return new

    async def _export(self, cut: int | None, worker: EdgeWorker) -> None:
        if cut is None:
            return
        try:
            await self._exports.prepare(cut, worker)
        except SettingsError as error:
            log.warning("%s", error)

    async def _measure_cut(self, join: Join, devices: Sequence[str]) -> None:
        if join.cut in self._exports.refused:
            return
        groups = by_process(self._channel.registry, devices)
        await asyncio.gather(*(self._measure_machine(group, join) for group in groups))

    def _join(self, table: CutTable, round_: int, cut: int) -> Join:
        return Join(
            run=self._channel.run,
            round=round_,
            cluster=self._channel.next_turn(round_),
            purpose="measure",
            cut=cut,
            local_epochs=1,
            learning_rate=0.0,
            layers=tuple(
                LayerWork(
                    name=layer.name[:MAX_NAME_LETTERS],
                    forward_flop=layer.forward_flop,
                    backward_flop=layer.backward_flop,
                )
                for layer in table.layers
            ),
        )

    async def _measure_machine(self, devices: Sequence[str], join: Join) -> None:
        """Have one device of a process measure, and then the others, who share what it found."""
        first, *others = devices
        await self._measure_one(first, join)
        await asyncio.gather(*(self._measure_one(device, join) for device in others))

    async def _measure_one(self, device: str, join: Join) -> None:
        graphs = self._exports.offer(device, join.cut)
        try:
            await self._channel.measure(device, join.model_copy(update={"graphs": graphs}))
        except DeviceGoneError as error:
            log.warning("%s did not measure its compute: %s", device, error)

    def _session(self, device: str) -> str:
        return self._channel.registry.records[device].status.session


def cuts_to_measure(cuts: CutTable, candidates: Sequence[int]) -> list[int]:
    """The shallowest candidate that learns, one at half the work of the deepest, the deepest."""
    usable = [cut for cut in sorted(candidates) if cut > 0]
    if not usable:
        return []
    learning = [cut for cut in usable if cuts.learns[cut]]
    work_flop = cuts.device_forward_flop + cuts.device_backward_flop
    middle = int(np.searchsorted(work_flop, work_flop[usable[-1]] / 2))
    middle = min(usable, key=lambda cut: (abs(cut - middle), cut))
    return sorted({(learning or usable)[0], middle, usable[-1]})
