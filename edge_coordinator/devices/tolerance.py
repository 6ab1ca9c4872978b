"""What is put up with from devices, as the job says."""

from dataclasses import dataclass

from edge_coordinator.job.settings import DeviceSettings


@dataclass(frozen=True)
class Tolerance:
    """What is put up with from devices."""

    patience_s: float
    """For an answer that a device has never given before."""
    margin_s: float
    """At least, beyond what was expected of an answer."""
    max_unusable: int
    """Messages that can never be right, after which a device is excluded."""

    @classmethod
    def of(cls, settings: DeviceSettings) -> "Tolerance":
        """Take it from a job."""
        return cls(settings.patience_s, settings.margin_s, settings.max_unusable)
