"""`cpsl`: everything on the edge server, or on a laptop."""

import sys
from collections.abc import Sequence

from edge_coordinator.cli.flags import build_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    flags = build_parser().parse_args(arguments)
    # Help and a mistake in a flag need nothing of it.
    from edge_coordinator.cli.program import run_command  # noqa: PLC0415

    return run_command(flags)


if __name__ == "__main__":
    sys.exit(main())
