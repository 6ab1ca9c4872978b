"""`cpsl`: everything on the edge server, or on a laptop."""

import sys
from collections.abc import Sequence

from edge_coordinator.cli.flags import build_parser
from runtime.distribution import install_hint
from runtime.errors import root_cause
from runtime.service.process import printable_streams

OF_EDGE = ("torch", "rich", "onnx", "onnxscript", "matplotlib", "safetensors", "tomli_w")
"""What devices have no need of; the extra `edge` brings it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    printable_streams()
    flags = build_parser().parse_args(arguments)
    try:
        # Help and a mistake in a flag need nothing of it.
        from edge_coordinator.cli.program import run_command  # noqa: PLC0415

        return run_command(flags)
    except (ModuleNotFoundError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        package = str(getattr(cause, "name", "")).partition(".")[0]
        if not isinstance(cause, ModuleNotFoundError) or package not in OF_EDGE:
            raise
        print(f"cpsl {flags.command} needs {package}: {install_hint('edge')}", file=sys.stderr)
        return 1


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
