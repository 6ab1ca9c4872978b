"""A further rank: a process that computes its share of each step, and has no bus.

    python -m edge_coordinator.training.computing.worker SOCKET PARENT FOLDER

It is started by rank 0 and does what that asks for: it builds the network by its name, as a device
does, takes the weights as tensors, and updates them as rank 0 does. It ends once rank 0 is gone,
whatever it is at.
"""

import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from edge_coordinator.training.computing.accelerator import open_accelerator, place
from edge_coordinator.training.computing.group import (
    GroupPlace,
    join_group,
    leave_group,
    make_ready,
)
from edge_coordinator.training.computing.messages import RankMessage, receive, send
from edge_coordinator.training.computing.share import Share
from edge_coordinator.training.computing.task import WorkerTask
from runtime.models.dropout import seed_dropout
from runtime.models.frozen import freeze
from runtime.models.load import load_network, split
from runtime.models.side import Side, empty_state
from runtime.wire.commands import Clip
from runtime.wire.frames import Tensor
from runtime.wire.micro_batches import Rows

_LOOK_EVERY_S = 0.5


class Worker:
    """The network as one further rank has it."""

    def __init__(self, task: WorkerTask) -> None:
        torch.set_num_threads(task.num_threads)
        make_ready()
        self._task = task
        self._accelerator = open_accelerator(task.device, autocast=task.autocast, compiles=False)
        self._network = seed_dropout(
            load_network(
                task.network,
                task.options,
                seed=task.seed,
                sample_shape=task.sample_shape,
                base_dir=task.base_dir,
            )
        )
        freeze(self._network, task.frozen)
        self._state = empty_state()
        self._at: tuple[int, Side, Share] | None = None
        self._outputs = torch.empty(0)

    def group(self, asked: RankMessage) -> None:
        """Meet the others, anew where some were lost."""
        self._leave()
        fields = {**asked.fields, "meeting": Path(asked.fields["meeting"])}
        join_group(GroupPlace(**fields), self._accelerator.device)

    def forward(self, asked: RankMessage) -> RankMessage:
        """Take over what has changed, and go forward."""
        fields, (inputs, *tensors) = asked.fields, asked.arrays
        side, share = self._side(fields["cut"])
        self._take(side, fields["names"], tensors, gone=fields["gone"])
        slices = [(tuple(key), Rows(*rows)) for key, rows in fields["slices"]]
        self._outputs = share.forward(self._accelerator.put(inputs), slices, back=fields["back"])
        return RankMessage("outputs", {}, [self._outputs.cpu().numpy()])

    def backward(self, asked: RankMessage) -> RankMessage:
        """Go back; what was only computed along gives nothing to the sum."""
        _, _, share = self._there()
        if asked.arrays:
            gradient = self._accelerator.put(asked.arrays[0])
        else:
            gradient = torch.zeros_like(self._outputs)
        try:
            found = share.backward(gradient)
        except Exception:
            share.close()
            self._leave()  # Nobody is to wait for this rank.
            raise
        return RankMessage("gradients", {}, [] if found is None else [found.cpu().numpy()])

    def update(self, asked: RankMessage) -> None:
        """Update as rank 0 does."""
        _, side, _ = self._there()
        clip = asked.fields["clip"]
        for parameter in side.trainable:
            if parameter.grad is not None:
                parameter.grad /= asked.fields["scale"]
        side.step(asked.fields["learning_rate"], None if clip is None else Clip(**clip))

    def _leave(self) -> None:
        self._at = None
        leave_group()

    def _there(self) -> tuple[int, Side, Share]:
        assert self._at is not None, "nothing has gone forward"
        return self._at

    def _side(self, cut: int) -> tuple[Side, Share]:
        if self._at is None or self._at[0] != cut:
            _, layers = split(self._network, cut)
            place(layers, self._accelerator.device)
            side = Side(layers, self._task.optimizer, carry_state=True, state=self._state)
            self._at = cut, side, Share(layers, self._accelerator)
        return self._at[1:]

    def _take(
        self, side: Side, names: Sequence[str], tensors: Sequence[Tensor], *, gone: Sequence[str]
    ) -> None:
        """Have these weights, buffers and slots of the optimiser, and no longer those."""
        own = {
            **dict(side.layers.named_parameters(remove_duplicate=False)),
            **dict(side.layers.named_buffers(remove_duplicate=False)),
        }
        slots, device = side.slots(), self._accelerator.device
        with torch.no_grad():
            for name, array in zip(names, tensors, strict=True):
                parameter, _, slot = name.partition("/")
                tensor = torch.from_numpy(array)
                if not slot:
                    own[parameter].copy_(tensor)
                else:
                    slots[parameter][slot] = tensor if slot == "step" else tensor.to(device)
        for name in gone:
            parameter, _, slot = name.partition("/")
            slots.get(parameter, {}).pop(slot, None)


def serve(connection: Connection) -> None:
    """Do what rank 0 asks for until it is gone; whatever goes wrong is an answer."""
    workers: list[Worker] = []
    fault = ""
    while True:
        asked = receive(connection)
        is_told = asked.kind == "update"
        try:
            answer = RankMessage("failed", {"reason": fault}) if fault else _answer(workers, asked)
            fault = ""
        except Exception as error:  # The network may be the user's own.
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            answer = RankMessage("failed", {"reason": reason})
            fault = reason if is_told else ""  # What is told has no answer, but the next has.
        if not is_told:
            send(connection, answer)


def _answer(workers: list[Worker], asked: RankMessage) -> RankMessage:
    match asked.kind, workers:
        case "open", _:
            workers.append(Worker(WorkerTask.model_validate(asked.fields)))
        case "group", [worker]:
            worker.group(asked)
        case "forward", [worker]:
            return worker.forward(asked)
        case "backward", [worker]:
            return worker.backward(asked)
        case "update", [worker]:
            worker.update(asked)
        case _:
            raise ValueError(f"there is nothing to {asked.kind} yet")
    return RankMessage("done", {})


def end_with(parent: int, folder: Path) -> None:
    """End once the process that started this one is gone, whatever this one is at.

    Nobody else clears the folder then; as long as rank 0 is there, it is that of all ranks.
    """
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


def main() -> None:
    """Serve until rank 0 is gone; end at once, since what waits for others in torch would not."""
    socket, parent, folder = sys.argv[1:]
    # Rank 0 is to notice that this one has ended, whatever it had started itself.
    os.set_inheritable(int(socket), False)  # noqa: FBT003 - it takes no names
    watch = threading.Thread(target=end_with, args=(int(parent), Path(folder)), daemon=True)
    watch.start()
    try:
        serve(Connection(int(socket)))
    except Exception:
        traceback.print_exc()
    watch.join(2 * _LOOK_EVERY_S)
    os._exit(1)


if __name__ == "__main__":
    main()
