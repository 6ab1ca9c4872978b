"""A further rank as rank 0 has it: a process, and a thread that talks to it."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe
from pathlib import Path

from edge_coordinator.training.computing.group import environment
from edge_coordinator.training.computing.messages import Fields, RankMessage, receive, send
from runtime.wire.frames import Tensor

_MODULE = "edge_coordinator.training.computing.worker"


class RankFailedError(Exception):
    """A rank says what went wrong in it."""


class WorkerProcess:
    """Asks and is answered in a thread of its own, so that nobody waits for it but who wants to."""

    def __init__(self, device: str, number: int, folder: Path) -> None:
        self.device = device
        self.name = f"rank {number} ({device})"
        self._log = folder / f"rank-{number}.log"
        self._thread = ThreadPoolExecutor(1, f"rank-{number}")
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", _MODULE, str(theirs.fileno()), str(os.getpid())]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - this program's own module
                [*command, str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # An interrupt of the terminal is rank 0's to hear.
            )
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def ask(
        self, kind: str, fields: Fields, arrays: Sequence[Tensor] = ()
    ) -> "Future[RankMessage]":
        """Ask, once what was asked before is answered."""
        return self._thread.submit(self._answer, RankMessage(kind, fields, arrays))

    def tell(self, kind: str, fields: Fields) -> None:
        """Tell what there is no answer to; what goes wrong is the next answer."""
        self._thread.submit(send, self._connection, RankMessage(kind, fields))

    def why_ended(self) -> str:
        """Say how the process ended; nothing if it has not."""
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return ""
        if code < 0:
            return f"was killed by {_signal_name(-code)}"
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"ended by itself: {lines[-1] if lines else f'its exit status is {code}'}"

    def end(self) -> None:
        """Kill the process: it keeps nothing. Whoever waits for an answer gets an error."""
        self._process.kill()
        self._process.wait()
        self._thread.shutdown(cancel_futures=True)
        self._connection.close()

    def _answer(self, asked: RankMessage) -> RankMessage:
        send(self._connection, asked)
        answer = receive(self._connection)
        if answer.kind == "failed":
            raise RankFailedError(answer.fields["reason"])
        return answer


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Of the real-time signals only the first and the last have names.
        return f"signal {number}"
