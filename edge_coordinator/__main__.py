"""`cpsl`: everything on the edge server, or on a laptop."""

import sys
from collections.abc import Sequence

from edge_coordinator.cli.flags import build_parser
from runtime.service.process import printable_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    printable_streams()
    flags = build_parser().parse_args(arguments)
    # Help and a mistake in a flag need nothing of it.
    from edge_coordinator.cli.program import run_command  # noqa: PLC0415

    return run_command(flags)


def main_by_input() -> int:
    """Run the command that the first line of the input names, as JSON; its exit code.

    So a broker's password is no argument. The program ends when its input does, which is when
    whoever started it has ended, however that was.
    """
    import json  # noqa: PLC0415
    import os  # noqa: PLC0415
    import signal  # noqa: PLC0415
    import threading  # noqa: PLC0415

    def end_with_input() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    words = json.loads(sys.stdin.readline())
    threading.Thread(target=end_with_input, daemon=True).start()
    return main(words)


if __name__ == "__main__":
    sys.exit(main())
