"""The group of processes that sum gradients, on this machine alone."""

import datetime
import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from torch import distributed

_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True)
class GroupPlace:
    """Who a process is in a group, and where its members find each other."""

    meeting: Path
    """A file in a folder that is its user's own; each group has another."""
    rank: int
    num_ranks: int
    timeout_s: float


def environment() -> dict[str, str]:
    """Variables that keep a group to this machine's loopback, and its process alive.

    What a group is told by arguments, NCCL takes from the environment alone: without the last one
    it ends the process once a sum takes too long.
    """
    name = next(
        (
            name
            for name, addresses in psutil.net_if_addrs().items()
            if any(each.address in _LOOPBACK for each in addresses)
        ),
        "lo",
    )
    return {
        "GLOO_SOCKET_IFNAME": name,
        "NCCL_SOCKET_IFNAME": name,
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "2",
    }


def make_ready() -> None:
    """Import what the first step would, which takes seconds: whoever meets waits for nobody else.

    While a group meets, nothing ends its waiting, and so not the run.
    """
    import torch._dynamo  # noqa: F401, PLC0415


def join_group(place: GroupPlace, device: torch.device) -> None:
    """Meet the others; RuntimeError if they do not come in time."""
    is_cuda = device.type == "cuda" and distributed.is_nccl_available()
    with _variables(environment()):
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo",
            init_method=place.meeting.as_uri(),
            rank=place.rank,
            world_size=place.num_ranks,
            timeout=datetime.timedelta(seconds=place.timeout_s),
            device_id=device if is_cuda else None,
        )


def leave_group() -> None:
    """End what there is of it, also if others have died in it or wait in it.

    What was made to sum in it is to be let go of before: only then are its connections closed.
    """
    if not distributed.is_initialized():
        return
    if distributed.get_backend() == "nccl":  # A sum that waits for the dead never ends by itself.
        distributed.distributed_c10d._abort_process_group()  # noqa: SLF001
    else:
        distributed.destroy_process_group()
    gc.collect()  # Torch's own parts of it hold each other.


@contextmanager
def _variables(wanted: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
