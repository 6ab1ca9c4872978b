"""What ends a run for each device: a secret that is told with the stop, and before as a digest."""

import hashlib
import secrets

from runtime.wire.commands import Assignment, Stop


class StopSecrets:
    """Of each device that was given the job; whoever reads along learns it when it is used up."""

    def __init__(self) -> None:
        self._secrets: dict[str, str] = {}

    def with_digest(self, device: str, assignment: Assignment) -> Assignment:
        """Give the job as this device is told it; the same each time, until it is stopped."""
        secret = self._secrets.setdefault(device, secrets.token_hex(16))
        digest = hashlib.sha256(secret.encode()).hexdigest()
        return assignment.model_copy(update={"stop_digest": digest})

    def stop(self, device: str, *, run: int) -> Stop:
        """End the run for a device."""
        return Stop(run=run, secret=self._secrets.pop(device, None))
