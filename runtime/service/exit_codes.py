"""What `cpsl` and `cpsl-agent` end with."""

from enum import IntEnum


class ExitCode(IntEnum):
    """A program's exit code; docs/operating.md tells what to do about each."""

    DONE = 0
    FAILED = 1
    """Something could not be, and one sentence on standard error says what."""
    USAGE = 2
    """The command line or the settings file is not understood."""
    INTERRUPTED = 130
    """Ctrl-C, as a shell says it."""
    TERMINATED = 143
    """SIGTERM, as a shell says it; an agent that is told to end so ends with 0."""
