"""What a further rank is told when it starts."""

from pathlib import Path

from pydantic import BaseModel

from runtime.wire.commands import OptimizerSpec
from runtime.wire.fields import Options, Patterns


class WorkerTask(BaseModel):
    """What it builds, and on what it computes it."""

    network: str
    options: Options
    frozen: Patterns
    seed: int
    sample_shape: tuple[int, ...] | None
    base_dir: Path
    optimizer: OptimizerSpec
    device: str
    autocast: str
    num_threads: int
    """Where it computes on the processor."""
