"""Rank 0's side of the processes that compute along: they are started, asked, lost and ended.

A rank that has died, or does not answer in time, is killed and said once; those that are left meet
anew. A run never waits for a rank longer than for a step, and never ends because of one.
"""

import copy
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import distributed, nn

from edge_coordinator.training.computing.accelerator import Accelerator
from edge_coordinator.training.computing.answers import Asked, RankAnswers, gather
from edge_coordinator.training.computing.group import (
    GroupPlace,
    join_group,
    leave_group,
    make_ready,
)
from edge_coordinator.training.computing.messages import Fields, RankMessage
from edge_coordinator.training.computing.sent import SentTensors
from edge_coordinator.training.computing.share import Share
from edge_coordinator.training.computing.task import WorkerTask
from edge_coordinator.training.computing.worker_process import WorkerProcess
from runtime.errors import SettingsError
from runtime.wire.frames import Tensor

log = logging.getLogger(__name__)

LOST = "computing on all devices of the server side"
"""What went wrong, where faults are counted."""
Request = tuple[Fields, Sequence[Tensor]]


@dataclass(frozen=True)
class Patience:
    """Seconds after which a rank is given up."""

    start_s: float = 120.0
    """Until it has imported torch and built the network."""
    step_s: float = 60.0
    """Beyond ten times what rank 0 took for its own share: all are to take as long as it."""
    others_s: float = 5.0
    """For the others, once one is known to be gone."""


class Ranks:
    """The processes of all devices but the first, which is rank 0's own."""

    def __init__(self, task: WorkerTask, devices: Sequence[str]) -> None:
        """`task` is theirs but for the device, of which there is one each."""
        if os.name == "nt":
            raise SettingsError(
                f"training.server_device = {list(devices)} hands sockets to processes, as Windows "
                "does not: take one device"
            )
        if not distributed.is_available():
            raise SettingsError(
                f"training.server_device = {list(devices)} needs torch.distributed, and torch "
                f"{torch.__version__} here is built without it: take one device"
            )
        self._task = task
        self._devices = tuple(devices)
        self.patience = Patience()
        """How long they are waited for."""
        self._workers: tuple[WorkerProcess, ...] = ()
        self._opening: dict[WorkerProcess, Future[RankMessage]] = {}
        self._folder = Path()
        self._num_groups = 0
        self._is_formed = self._has_group = False
        self._is_over = True
        self._on_loss: Callable[[str], None] = log.debug
        self._share: tuple[int, Share, nn.Module] | None = None
        self.meeting = threading.Lock()
        """Held while gradients are summed: a group is not to be taken down meanwhile."""
        self.sent = SentTensors()
        """What the other ranks have."""

    @contextmanager
    def started(self, on_loss: Callable[[str], None]) -> Iterator[None]:
        """Have the processes for the length of the block; nobody waits until they are there.

        `on_loss` is told of each that is lost.
        """
        self._on_loss = on_loss
        self._folder = Path(tempfile.mkdtemp(prefix="cpsl-ranks-"))
        self._is_over = False
        try:
            for number, device in enumerate(self._devices[1:], start=1):
                worker = WorkerProcess(device, number, self._folder)
                self._workers = (*self._workers, worker)
                own = self._task.model_copy(update={"device": device})
                self._opening[worker] = worker.ask("open", own.model_dump(mode="json"))
            yield
        finally:
            self._end()

    @property
    def pids(self) -> list[int]:
        """The processes that are left."""
        return [worker.pid for worker in self._workers]

    @property
    def num_ranks(self) -> int:
        """How many compute, rank 0 among them."""
        return 1 + len(self._workers)

    @property
    def num_threads(self) -> int:
        """Of each rank, where they compute on the processor."""
        return self._task.num_threads

    def are_there(self) -> bool:
        """Whether anybody computes along; those who are to meet do so first."""
        while self._workers and not self._is_formed and not self._is_over:
            self._form()
        return bool(self._workers) and not self._is_over

    def share(self, cut: int, layers: nn.Module, accelerator: Accelerator) -> Share:
        """Rank 0's own share at a cut: other layers, whose numbers are those of the given."""
        if self._share is None or self._share[0] != cut:
            own = copy.deepcopy(layers)
            self._share = cut, Share(own, accelerator), own
        _, share, own = self._share
        for copied, original in zip(_tensors(own), _tensors(layers), strict=True):
            if copied.data_ptr() != original.data_ptr():
                copied.data = original.data
        return share

    def ask(self, kind: str, requests: Sequence[Request]) -> Asked:
        """Ask each rank for its own, [rank - 1]."""
        return {
            worker: worker.ask(kind, *request)
            for worker, request in zip(self._workers, requests, strict=True)
        }

    def tell(self, kind: str, fields: Fields) -> None:
        """Tell all ranks the same."""
        for worker in self._workers:
            worker.tell(kind, fields)

    def answers(self, asked: Asked, *, own_s: float = 0.0) -> RankAnswers:
        """Wait for the answers, but not for ever; `own_s` is what rank 0 took for its own."""
        within_s = self.patience.step_s + 10 * own_s
        return gather(asked, within_s=within_s, others_s=self.patience.others_s)

    def drop(self, answers: RankAnswers, *, why: str) -> None:
        """Go on without those who did not answer, or where nobody is silent, who failed.

        Where it is nobody's fault that they do not work together, nobody is left; `why` says more.
        """
        gone = answers.silent or answers.failed or dict.fromkeys(self._workers, why)
        self._is_formed = False
        for worker, what in gone.items():
            self._lose(worker, what)

    def break_off(self) -> None:
        """Leave the group amid a step, so that nobody waits in it; it has to meet anew."""
        self._is_formed = False
        with self.meeting:
            self._leave()

    def _form(self) -> None:
        make_ready()
        start_s = self.patience.start_s
        opened = gather(self._opening, within_s=start_s, others_s=start_s)
        self._opening = {}
        for worker, what in (opened.silent | opened.failed).items():
            self._lose(worker, what)
        if not self._workers or self._is_over:
            return
        if not self._has_group and distributed.is_initialized():
            self.drop(RankAnswers(), why="cannot be met: this process is in a group of another's")
            return
        self.sent.forget()
        self._num_groups += 1
        file, limit_s = self._folder / f"meeting-{self._num_groups}", self.patience.step_s
        places = [GroupPlace(file, rank, self.num_ranks, limit_s) for rank in range(self.num_ranks)]
        asked = self.ask("group", [(_fields(place), ()) for place in places[1:]])
        why = self._meet(places[0])
        answers = self.answers(asked)
        self._is_formed = not why and answers.are_whole
        if not self._is_formed:
            self.drop(answers, why=f"cannot be met: {why}")

    def _meet(self, place: GroupPlace) -> str:
        """Meet the others; what went wrong, if it did."""
        with self.meeting:
            if self._is_over:
                return "is over"
            self._leave()
            try:
                join_group(place, torch.device(self._devices[0]))
            except RuntimeError as error:
                return str(error).strip().partition("\n")[0]
            self._has_group = True
        return ""

    def _leave(self) -> None:
        self._share = None
        if self._has_group:
            self._has_group = False
            leave_group()

    def _lose(self, worker: WorkerProcess, what: str) -> None:
        what = worker.why_ended() or what
        self._workers = tuple(each for each in self._workers if each is not worker)
        worker.end()
        if not self._is_over:
            self._on_loss(LOST)
            left = [self._devices[0], *(each.device for each in self._workers)]
            log.warning(
                "the server side goes on without %s, which %s: it computes on %s",
                worker.name,
                what,
                " and ".join(left),
            )

    def _end(self) -> None:
        self._is_over = True
        # Who is killed amid a meeting is waited for by the others, so it may come to its end first.
        is_free = self.meeting.acquire(timeout=self.patience.others_s)
        for worker in self._workers:
            worker.end()
        if not is_free:
            self.meeting.acquire()
        self._leave()
        self.meeting.release()
        self._workers, self._opening, self._share = (), {}, None
        self._is_formed = False
        shutil.rmtree(self._folder, ignore_errors=True)


def _fields(place: GroupPlace) -> Fields:
    return {**asdict(place), "meeting": str(place.meeting)}


def _tensors(layers: nn.Module) -> list[torch.Tensor]:
    named = (layers.named_parameters, layers.named_buffers)
    return [each for find in named for _, each in find(remove_duplicate=False)]
