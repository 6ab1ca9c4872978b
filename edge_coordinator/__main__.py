"""`cpsl`: everything on the edge server, or on a laptop."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.logging import RichHandler

from edge_coordinator.command_line import build_parser
from edge_coordinator.commands import COMMANDS
from runtime.allocator import keep_freed_memory
from runtime.errors import EdgeError, root_cause
from runtime.output import until_reader_leaves


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    flags = build_parser().parse_args(arguments)
    console = Console()
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


if __name__ == "__main__":
    sys.exit(main())
