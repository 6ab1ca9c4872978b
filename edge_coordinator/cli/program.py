"""One command of `cpsl` as a program: its log, and its exit code."""

import argparse
import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO, cast

from rich.logging import RichHandler

from edge_coordinator.cli.commands import COMMANDS
from edge_coordinator.cli.output import Output
from runtime.errors import EdgeError, root_cause
from runtime.service.exit_codes import ExitCode
from runtime.service.logs import JsonLines, log_handler
from runtime.service.process import keep_freed_memory, until_reader_leaves
from runtime.service.span_target import spans_to


def run_command(flags: argparse.Namespace) -> int:
    """Do what a command line says; the program's exit code."""
    output = _output(flags)
    keep_freed_memory(of_clusters=True)
    try:
        spans = spans_to(getattr(flags, "spans", None), program="cpsl")
        with cancelled_by_sigterm(), until_reader_leaves(), spans:
            COMMANDS[flags.command](flags, output)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except asyncio.CancelledError:
        return ExitCode.TERMINATED
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl {flags.command}: {cause}", file=sys.stderr)
        return ExitCode.FAILED
    return ExitCode.DONE


@contextmanager
def cancelled_by_sigterm() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does, in order, by CancelledError.

    For what a program does before it has an event loop, which takes the signal over. Of the first
    process of a container the system would take no notice of it otherwise.
    """

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise asyncio.CancelledError("told to end")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _output(flags: argparse.Namespace) -> Output:
    """Begin the log, and give what commands print to."""
    as_lines = flags.log_format == "json"
    if flags.json or flags.quiet:
        output = Output("json" if flags.json else "quiet")
        handler = log_handler(flags.log_format)
    elif as_lines:
        output = Output(file=cast(IO[str], JsonLines(sys.stdout, logger="cpsl")), width=1000)
        handler = log_handler("json")
    else:
        output = Output()
        handler = RichHandler(console=output, show_path=False, log_time_format="%Y-%m-%d %H:%M:%S")
    handler.setLevel(logging.WARNING)  # Traces are for the file in a run's directory.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    return output
