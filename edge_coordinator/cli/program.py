"""One command of `cpsl` as a program: its log, and its exit code."""

import argparse
import asyncio
import logging
import sys
from typing import IO, cast

from rich.console import Console
from rich.logging import RichHandler

from edge_coordinator.cli.commands import COMMANDS
from runtime.errors import EdgeError, root_cause
from runtime.service.exit_codes import ExitCode
from runtime.service.logs import JsonLines, log_handler
from runtime.service.process import keep_freed_memory, until_reader_leaves


def run_command(flags: argparse.Namespace) -> int:
    """Do what a command line says; the program's exit code."""
    console = _console(as_json=flags.log_format == "json")
    keep_freed_memory()
    try:
        with until_reader_leaves():
            COMMANDS[flags.command](flags, console)
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


def _console(*, as_json: bool) -> Console:
    """Begin the log, and give what commands print to; paths and names may look like markup."""
    if as_json:
        lines = cast(IO[str], JsonLines(sys.stdout, logger="cpsl"))
        console = Console(file=lines, markup=False, emoji=False, width=1000)
        handler = log_handler("json")
    else:
        console = Console(markup=False, emoji=False)
        handler = RichHandler(console=console, show_path=False, log_time_format="%Y-%m-%d %H:%M:%S")
    handler.setLevel(logging.WARNING)  # Traces are for the file in a run's directory.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    return console
