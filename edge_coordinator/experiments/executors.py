"""Where the runs of a comparison are trained: in processes here, or on a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from runtime.distribution import install_hint
from runtime.errors import EdgeError, SettingsError

DASK_SCHEME = "dask://"
DASK_PATIENCE_S = 10


def check_executor(where: str | None) -> None:
    """SettingsError unless there is such an executor, whether or not anybody answers there."""
    if where is None:
        return
    host, _, port = where.removeprefix(DASK_SCHEME).rpartition(":")
    if not where.startswith(DASK_SCHEME) or not host or not port.isdecimal():
        raise SettingsError(f"--executor {where}: it is of the form dask://HOST:PORT")
    if find_spec("distributed") is None:
        raise SettingsError(f"--executor {where} needs Dask: {install_hint('dask')}")


@contextmanager
def open_executor(where: str | None, *, workers: int, rounds: Any) -> Iterator[Executor]:  # noqa: ANN401 - a queue that only its context can name
    """Open so many processes of this machine, or the cluster of `dask://HOST:PORT`.

    An error in the block ends the processes, whatever they do. By `rounds` they `tell_round`.
    """
    if where is not None:
        with _dask(where) as executor:
            yield executor
        return
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_begin, initargs=(rounds,)
    ) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise


def tell_round(number: int, round_: int) -> None:
    """Say how far a run is, in a process that has somebody to tell."""
    if _told is not None:
        _told.put((number, round_))


_told: Any = None


def _begin(rounds: Any) -> None:  # noqa: ANN401 - as above
    global _told  # noqa: PLW0603 - an initializer has nowhere else to leave it
    _told = rounds
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear.
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever, also from a parent that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _dask(where: str) -> Iterator[Executor]:
    check_executor(where)
    from distributed import Client, KilledWorker  # noqa: PLC0415 - an extra

    address = where.removeprefix(DASK_SCHEME)
    try:
        client = Client(f"tcp://{address}", timeout=DASK_PATIENCE_S)
    except OSError as error:
        raise EdgeError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        executor: Executor = client.get_executor()
        try:
            yield executor
        except KilledWorker as error:
            raise EdgeError(
                f"the Dask workers of {address} die at it; have they memory enough? {error}"
            ) from error
