"""`cpsl-agent`: run one device, or host several, until stopped."""

import asyncio
import logging
import sys
from collections.abc import Sequence

from device_agent.command_line import (
    agent_settings,
    build_parser,
    build_profile_parser,
    profile_settings,
)
from device_agent.host import serve_devices
from device_agent.memory import memory_sentence
from device_agent.profile_command import measure_device
from device_agent.settings import load_samples
from runtime.allocator import keep_freed_memory
from runtime.errors import EdgeError, root_cause
from runtime.output import until_reader_leaves

log = logging.getLogger("cpsl-agent")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    is_profile = words[:1] == ["profile"]
    parser = build_profile_parser() if is_profile else build_parser()
    flags = parser.parse_args(words[is_profile:])
    logging.basicConfig(
        level=flags.log_level.upper(), format="%(asctime)s %(message)s", datefmt="%H:%M:%S"
    )
    keep_freed_memory()
    try:
        if is_profile:
            text, as_json = asyncio.run(measure_device(profile_settings(flags)))
            with until_reader_leaves():
                print(as_json if flags.json else text)
            return 0
        settings = agent_settings(flags)
        samples = load_samples(settings)
        asyncio.run(serve_devices(settings, samples))
        log.info("%s", memory_sentence())
    except KeyboardInterrupt:
        return 130
    except (EdgeError, BaseExceptionGroup) as error:
        cause = root_cause(error)
        if not isinstance(cause, EdgeError):
            raise
        print(f"cpsl-agent: {cause}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
