"""Waiting for what several ranks answer, but not for ever."""

import time
from collections.abc import Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass, field

from edge_coordinator.training.computing.messages import RankMessage
from edge_coordinator.training.computing.worker_process import RankFailedError, WorkerProcess

Asked = Mapping[WorkerProcess, "Future[RankMessage]"]

_LOOK_EVERY_S = 0.2
"""How often a thread that waits can be told to end."""


@dataclass
class RankAnswers:
    """What came of a request to all ranks."""

    given: dict[WorkerProcess, RankMessage] = field(default_factory=dict)
    silent: dict[WorkerProcess, str] = field(default_factory=dict)
    """Those that are gone or hang, to what they did."""
    failed: dict[WorkerProcess, str] = field(default_factory=dict)
    """Those that say what went wrong."""

    @property
    def are_whole(self) -> bool:
        """Whether all have answered."""
        return not self.silent and not self.failed

    @property
    def in_order(self) -> list[RankMessage]:
        """Those that were given, in the order of the ranks."""
        return list(self.given.values())


def gather(asked: Asked, *, within_s: float, others_s: float) -> RankAnswers:
    """Wait so long, and once one has failed only so long for the others: they may wait for it."""
    answers, pending = RankAnswers(), set(asked.values())
    start_s = time.monotonic()
    end_s = start_s + within_s
    while pending and time.monotonic() < end_s:
        done, pending = wait(pending, timeout=_LOOK_EVERY_S, return_when=FIRST_EXCEPTION)
        if any(each.cancelled() or each.exception() for each in done):
            end_s = min(end_s, time.monotonic() + others_s)
    for worker, future in asked.items():
        if not future.done():
            waited_s = time.monotonic() - start_s
            answers.silent[worker] = f"has not answered for {waited_s:.0f} s"
        elif future.cancelled():
            answers.silent[worker] = "was ended"
        elif error := future.exception():
            known = isinstance(error, RankFailedError)
            (answers.failed if known else answers.silent)[worker] = (
                f"says: {error}" if known else "has ended"
            )
        else:
            answers.given[worker] = future.result()
    return answers
