"""One command of `cpsl` as a program: its log, and its exit code."""

import argparse
import asyncio
import logging
import sys

from rich.console import Console
from rich.logging import RichHandler

from edge_coordinator.cli.commands import COMMANDS
from runtime.errors import EdgeError, root_cause
from runtime.process import keep_freed_memory, until_reader_leaves


def run_command(flags: argparse.Namespace) -> int:
    """Do what a command line says; the program's exit code."""
    console = Console(markup=False, emoji=False)  # Paths and names may look like either.
    handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%X")
    handler.setLevel(logging.WARNING)  # Traces are for the file in a run's directory.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    keep_freed_memory()
    try:
        with until_reader_leaves():
            COMMANDS[flags.command](flags, console)
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return 143  # Terminated, as a shell says it.
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl {flags.command}: {cause}", file=sys.stderr)
        return 1
    return 0
