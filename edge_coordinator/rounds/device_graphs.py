"""Graphs of the device side for devices without torch: exported once a cut, offered in joins."""

from collections.abc import Callable, Collection
from functools import partial

from edge_coordinator.devices.channel import DeviceChannel
from edge_coordinator.job.job import Job
from edge_coordinator.planning.plan import Plan
from edge_coordinator.rounds.server_thread import EdgeWorker
from edge_coordinator.training.edge_model import EdgeModel
from runtime.errors import SettingsError
from runtime.models.load import split
from runtime.models.side import frozen_of
from runtime.wire.commands import MAX_GRAPHS_BYTES, FrozenOffer, GraphsOffer
from runtime.wire.device_graphs import (
    ENGINE,
    DeviceGraphs,
    DeviceManifest,
    frozen_offer,
    pack_frozen,
)


class GraphExports:
    """What has been exported, by cut."""

    def __init__(
        self,
        job: Job,
        model: EdgeModel,
        channel: DeviceChannel,
        say: Callable[[str], None],
    ) -> None:
        """`say` hears what takes a while."""
        self._job = job
        self.model = model
        self._channel = channel
        self._say = say
        self._offers: dict[int, GraphsOffer] = {}
        self._frozen: dict[int, FrozenOffer | None] = {}
        self.refused: dict[int, str] = {}
        """Cut to why it cannot be exported."""
        self.fixed: set[int] = set()
        """Cuts whose graphs take mini-batches of one size alone."""
        self.needed_bytes: dict[int, float] = {}
        """Cut to the memory that training its device side takes, as the graphs say."""

    @property
    def devices(self) -> list[str]:
        """Ids of the ready devices that need graphs, in order."""
        return [device for device in self._channel.registry.ready if self._needs(device)]

    def offer(self, device: str, cut: int) -> GraphsOffer | None:
        """Say what to offer a device with its join; None if it needs nothing."""
        return self._offers.get(cut) if self._needs(device) else None

    def frozen(self, cut: int) -> FrozenOffer | None:
        """Name what does not learn below a cut; None if all of it does."""
        return self._frozen.get(cut)

    def devices_by_cut(self, plan: Plan) -> dict[int, list[str]]:
        """Devices that need graphs by where a plan cuts them; all of its cuts, in order."""
        cuts = sorted({plan.cut, *plan.cuts.values()})
        at = {device: plan.cuts.get(device, plan.cut) for device in self.devices}
        return {cut: [device for device in at if at[device] == cut] for cut in cuts}

    async def prepare(
        self, cut: int, worker: EdgeWorker, *, beside: Collection[int] = (), is_run: bool = True
    ) -> None:
        """Have what a device may ask for at a cut: what does not learn, and graphs if they are run.

        What was prepared for the cuts `beside` stays. SettingsError names the layer and operator
        that cannot be exported, and what to do.
        """
        if cut not in self._frozen:
            await self._prepare_frozen(cut, worker, beside)
        if not cut or cut in self._offers or not (is_run and self.devices):
            return
        self._say(f"exporting the layers up to {self._job.cut_name(cut)} for devices without torch")
        try:
            graphs = await worker.do(lambda: self._export(cut))
        except SettingsError as error:
            self.refused[cut] = str(error)
            raise
        if graphs.manifest.batch_size is not None:
            self.fixed.add(cut)
        self.needed_bytes[cut] = self._training_bytes(graphs.manifest)
        self._offers[cut] = offer = graphs.offer()
        self._channel.graphs[offer.digest] = graphs.tensors()

    async def _prepare_frozen(self, cut: int, worker: EdgeWorker, beside: Collection[int]) -> None:
        """Keep what does not learn below a cut to be sent: of one plan's cuts, for it is large."""
        tensors = frozen_of(split(self.model.network, cut)[0])
        offer = await worker.do(partial(frozen_offer, tensors))
        if offer is not None:
            kept = {offer, *(self._frozen.get(other) for other in beside)}
            for other in [other for other, own in self._frozen.items() if own not in kept]:
                gone = self._frozen.pop(other)
                self._channel.graphs.pop(gone.digest if gone else "", None)
            self._channel.graphs[offer.digest] = (await worker.do(partial(pack_frozen, tensors)),)
        self._frozen[cut] = offer

    def _training_bytes(self, manifest: DeviceManifest) -> float:
        """Weights, gradients and the optimiser's slots, and what forward keeps for backward."""
        training = self._job.settings.training
        state = sum(spec.num_bytes for spec in manifest.state)
        trained = sum(spec.num_bytes for spec in manifest.state if spec.trained)
        slots = len(self._job.assignment.optimizer.slots)
        saved = manifest.saved_bytes_fixed + training.batch_size * manifest.saved_bytes_per_sample
        return state + (1 + slots) * trained + saved

    def _needs(self, device: str) -> bool:
        return self._channel.registry.records[device].status.engine == ENGINE

    def _export(self, cut: int) -> DeviceGraphs:
        # It needs onnx, and its imports take a second.
        from edge_coordinator.onnx_export import export_device_side  # noqa: PLC0415

        device_side, _ = split(self.model.network, cut)
        batch_size = self._job.settings.training.batch_size
        graphs = export_device_side(device_side, self._job.shapes[0], batch_size=batch_size)
        num_bytes = sum(len(tensor) for tensor in graphs.tensors())
        if num_bytes > MAX_GRAPHS_BYTES:
            raise SettingsError(
                f"the graphs of the layers up to {self._job.cut_name(cut)} have {num_bytes} bytes, "
                f"more than {MAX_GRAPHS_BYTES}: the network holds large constants; make them "
                "buffers, use --engine torch on the devices, or cut earlier"
            )
        return graphs
