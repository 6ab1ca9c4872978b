"""`cpsl-agent`: run one device, or host several, until stopped; measure one; or predict."""

import sys
from collections.abc import Sequence

from device_agent.command_line import ACTIONS, PARSERS, Action, build_parser
from device_agent.settings_file import with_file
from runtime.errors import SettingsError
from runtime.service.process import printable_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    printable_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    action: Action = next((each for each in ACTIONS if words[:1] == [each]), "serve")
    is_other = action != "serve"
    parser = PARSERS[action]()
    other = build_parser() if is_other else None  # One file for all.
    try:
        flags = parser.parse_args(with_file(words[is_other:], parser, other=other))
    except SettingsError as error:
        parser.error(str(error))
    # Help and a mistake in a flag need nothing of it.
    from device_agent.program import run_program  # noqa: PLC0415

    return run_program(flags, action)


if __name__ == "__main__":
    sys.exit(main())
