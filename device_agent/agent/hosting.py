"""What an agent has of the process that it is in."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from device_agent.agent.desired import DesiredSettings
from device_agent.engines.compute_timings import ComputeTimings
from device_agent.engines.measurement import Measurement, SharedFindings


@dataclass(frozen=True)
class Hosting:
    """As it is, the agent is alone in its process, and nothing is set or measured without a job."""

    findings: SharedFindings = field(default_factory=SharedFindings)
    """What the devices of the process have measured."""
    link_class: Hashable = None
    """Equal for devices of the process whose links are alike."""
    generic: Measurement[ComputeTimings] | None = None
    """What to measure before there is a job."""
    desired: DesiredSettings | None = None
    """What is made of settings by topic."""
