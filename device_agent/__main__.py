"""`cpsl-agent`: run one device, or host several, until stopped."""

import sys
from collections.abc import Sequence

from device_agent.command_line import build_parser, build_profile_parser
from device_agent.settings_file import with_file
from runtime.errors import SettingsError
from runtime.service.process import printable_streams


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    printable_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_profile = words[:1] == ["profile"]
    parser = build_profile_parser() if is_profile else build_parser()
    other = build_parser() if is_profile else None  # One file for both.
    try:
        flags = parser.parse_args(with_file(words[is_profile:], parser, other=other))
    except SettingsError as error:
        parser.error(str(error))
    # Help and a mistake in a flag need nothing of it.
    from device_agent.program import run_program  # noqa: PLC0415

    return run_program(flags, is_profile=is_profile)


if __name__ == "__main__":
    sys.exit(main())
