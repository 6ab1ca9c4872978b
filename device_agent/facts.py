"""What psutil says of the machine this agent runs on."""

import platform
import time

import psutil

from device_agent.memory import resident_bytes
from runtime.messages import DeviceProfile


def measure_profile(
    device: str, *, engine: str, num_samples: int, sample_shape: tuple[int, ...]
) -> DeviceProfile:
    """Read the machine's facts now."""
    memory = psutil.virtual_memory()
    return DeviceProfile(
        device=device,
        engine=engine,
        machine=platform.machine(),
        num_cores=psutil.cpu_count() or 1,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        resident_bytes=resident_bytes(),
        num_samples=num_samples,
        sample_shape=sample_shape,
        measured_at_unix_s=time.time(),
    )
