"""What a comparison of both sides gave."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Wire:
    """A kind of frame: its tensors' raw bytes, and its MQTT packets' bytes."""

    raw_bytes: float
    sent_bytes: float

    @property
    def overhead(self) -> float:
        """Fraction above the raw bytes."""
        return self.sent_bytes / self.raw_bytes - 1


@dataclass(frozen=True)
class Result:
    """What one batch size gave; milliseconds are per step."""

    batch_size: int
    num_steps: int
    over_mqtt_ms: float
    in_process_ms: float
    best_case_ms: float
    """The slowest device's arithmetic and the server's, with nothing between them."""
    turn_overhead_ms: float
    """Of a turn, besides its steps: join, model out, models back; over MQTT less in process."""
    phases_ms: Mapping[str, float]
    serialising_ms: float
    """Of the transit: a frame each way encoded and decoded, measured apart."""
    in_process_device_ms: float
    """One device's forward and backward, where it has the core for itself."""
    in_process_server_ms: float
    in_process_ran_ms: float
    core_ms: Mapping[str, tuple[float, float]]
    """Thread to milliseconds on a core, and waiting for one."""
    wire: Mapping[str, Wire]

    @property
    def ratio(self) -> float:
        """Over MQTT to in one process."""
        return self.over_mqtt_ms / self.in_process_ms
