"""The whole network on the edge server, cut anew for each cluster's turn.

Between turns the server holds every layer with its optimiser state, so a change of the cut moves
layers between two halves of one network and nothing else.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from torch import nn

from edge_coordinator.training.algorithm import Smashed, joined
from edge_coordinator.training.computing.accelerator import CPU, place
from edge_coordinator.training.computing.compiled import Compiled, ServerSide
from edge_coordinator.training.computing.ranks import Ranks
from edge_coordinator.training.computing.shared_layers import SharedLayers
from edge_coordinator.training.cuts import ALIKE, CutsOfTurn, DeviceParts, device_parts
from edge_coordinator.training.evaluation import Evaluation, evaluate_layers
from edge_coordinator.training.middle_layers import DeviceSideModel, MiddleLayers
from edge_coordinator.training.turn import Training, Turn
from runtime.datasets.samples import Samples
from runtime.models.dropout import seed_dropout
from runtime.models.kernels import usual_kernels
from runtime.models.load import split
from runtime.models.sequence import Network, layers_of
from runtime.models.side import Side, empty_state, frozen_of
from runtime.wire.frames import Tensor

WEIGHTS = "weights/"
"""What the names of weights and buffers begin with in a snapshot."""


class EdgeModel:
    """The joint network with the optimiser state of every layer.

    Between turns its layers are wherever they computed last; `network` brings them all home.
    """

    def __init__(self, network: Network, training: Training, ranks: Ranks | None = None) -> None:
        """`ranks` compute the server side of turns together, while they are started."""
        seed_dropout(network)
        self.ranks = ranks
        """What computes along; None if one device computes."""
        self._network = network
        self.training = training
        self._state = empty_state()
        self._compiled: tuple[int, Network, Compiled] | None = None
        """The server side at one cut: what torch compiles is kept."""

    @property
    def network(self) -> Network:
        """The joint network, on the processor."""
        place(self._network, CPU)
        return self._network

    @property
    def num_layers(self) -> int:
        """How many layers there are to cut between."""
        return len(layers_of(self._network))

    def on_all_devices(self, on_loss: Callable[[str], None]) -> AbstractContextManager[None]:
        """Have the server side compute on all of its devices inside, if it has several.

        `on_loss` is told what went wrong, in words for counting, when it goes on without one.
        """
        return nullcontext() if self.ranks is None else self.ranks.started(on_loss)

    def meet(self) -> None:
        """Wait until all devices are there, so that no step has to."""
        if self.ranks is not None:
            self.ranks.are_there()

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Every weight and buffer, and the optimiser state of every parameter, by name."""
        tensors = {f"{WEIGHTS}{name}": t for name, t in self._network.state_dict().items()}
        for name, parameter in self._network.named_parameters():
            for slot, tensor in self._state.get(parameter, {}).items():
                tensors[f"state/{name}/{slot}"] = tensor
        # Files hold tensors as rows after rows, whatever the network's own order in memory.
        as_rows = torch.contiguous_format
        return {name: t.detach().clone(memory_format=as_rows) for name, t in tensors.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over a snapshot; KeyError or RuntimeError if it is of another network."""
        weights = _below(WEIGHTS, tensors)
        self._network.load_state_dict(weights)
        parameters = dict(self._network.named_parameters())
        self._state.clear()
        for slot_name, tensor in _below("state/", tensors).items():
            name, _, slot = slot_name.rpartition("/")
            self._state[parameters[name]][slot] = tensor.clone()

    def turn(
        self,
        *,
        cut: int | CutsOfTurn,
        round_: int,
        learning_rate: float,
        aggregated: int = 0,
    ) -> "Turn":
        """Cut the network for one cluster's turn; `learning_rate` is the server's.

        `aggregated` samples of each device are given one gradient for all, where all cut alike.
        """
        by_device, cut = (None, cut) if isinstance(cut, int) else (cut, cut.deepest)
        device_layers, server_layers = split(self._network, cut)
        training, compiled = self.training, None
        if training.accelerator.compiles and len(server_layers):
            server_layers, compiled = self._compiled_at(cut, server_layers)
        self._place(device_layers, CPU)
        self._place(server_layers, training.accelerator.device)
        device_side = self._device_side(device_layers)
        is_mixed = by_device is not None and len(by_device.in_order) > 1
        middle = self._middle(by_device, device_side) if by_device and is_mixed else None
        server_side = ServerSide(
            server_layers,
            training.server_optimizer,
            state=self._state,
            compiled=compiled,
            shared=None
            if self.ranks is None
            else SharedLayers(self.ranks, cut, training.accelerator),
        )
        return Turn(
            DeviceSideModel(device_side, middle),
            server_side,
            training,
            round_=round_,
            learning_rate=learning_rate,
            aggregated=aggregated,
        )

    def frozen(self, cut: int) -> list[Tensor]:
        """Parameters below a cut that do not learn; lent, not copied."""
        return frozen_of(split(self.network, cut)[0])

    def device_parts(self, cuts: Mapping[str, int]) -> DeviceParts:
        """Which tensors of a cluster's device-side model are whose; all of them if cuts are one."""
        if len(set(cuts.values())) < 2:
            return ALIKE
        return device_parts(cuts, self._names_below)

    def _names_below(self, cut: int) -> list[str]:
        training, (layers, _) = self.training, split(self._network, cut)
        side = Side(
            layers,
            training.device_optimizer,
            carry_state=training.carry_state,
            state=empty_state(),  # Nobody's is to be forgotten for it.
        )
        return side.names()

    def _device_side(self, layers: Network) -> Side:
        """Have layers learn as on a device."""
        training = self.training
        return Side(
            layers, training.device_optimizer, carry_state=training.carry_state, state=self._state
        )

    def _middle(self, task: CutsOfTurn, device_side: Side) -> MiddleLayers:
        """Have the server train what some devices leave to it, from what all devices are given."""
        before = device_side.tensors()
        device_side.load(before)  # State that does not travel is forgotten here, too.
        middle = MiddleLayers(
            self._network,
            task,
            side_of=self._device_side,
            parts=self.device_parts(task.cuts),
            before=before,
            bring_home=lambda: self._place(device_side.layers, CPU),
        )
        for side in middle.sides.values():
            self._place(side.layers, self.training.accelerator.device)
        return middle

    def _compiled_at(self, cut: int, layers: Network) -> tuple[Network, Compiled]:
        if self._compiled is None or self._compiled[0] != cut:
            self._compiled = (cut, layers, Compiled(layers))
        return self._compiled[1:]

    def _place(self, layers: nn.Module, device: torch.device) -> None:
        """Put layers on a device, with what their optimiser keeps, but for its count of steps."""
        place(layers, device)
        for parameter in layers.parameters():
            slots = self._state.get(parameter, {})
            slots |= {slot: each.to(device) for slot, each in slots.items() if slot != "step"}

    def evaluate(self, test: Samples) -> Evaluation:
        """Evaluate the joint network."""
        return self._evaluate(self._network, test)

    def evaluate_smashed(
        self, cuts: Mapping[str, int], smashed: Mapping[str, Smashed]
    ) -> Evaluation:
        """Evaluate the layers above each device's cut on what its layers gave."""
        deepest = max(cuts[device] for device in smashed)
        lifted = {
            device: replace(own, data=self._lifted(own.data, cuts[device], deepest))
            for device, own in smashed.items()
        }
        _, server_layers = split(self._network, deepest)
        return self._evaluate(server_layers, Samples(*joined(lifted)))

    @usual_kernels()
    def _lifted(self, data: Tensor, start: int, stop: int) -> Tensor:
        """Run smashed data from one cut up to another, in evaluation mode."""
        if start == stop:
            return data
        layers, accelerator = self._network.part(start, stop), self.training.accelerator
        place(layers, accelerator.device)
        with torch.no_grad(), accelerator.computing():
            outputs: Tensor = layers.eval()(accelerator.put(data)).cpu().numpy()
        return outputs

    def _evaluate(self, layers: Network, test: Samples) -> Evaluation:
        loss = self.training.evaluated_by or self.training.loss
        accelerator = self.training.accelerator
        place(layers, accelerator.device)
        return evaluate_layers(
            layers, test, loss, metric=self.training.metric, accelerator=accelerator
        )


def _below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
