"""What an agent is told when it starts."""

from dataclasses import dataclass
from pathlib import Path

from runtime.datasets.partition import partition
from runtime.datasets.samples import Samples
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.topics import check_name


@dataclass(frozen=True)
class ShardSettings:
    """Which part of a common data set a device takes, where several share one."""

    index: int
    num_devices: int


@dataclass(frozen=True)
class AgentSettings:
    """One agent process, which may host several devices."""

    broker: str
    site: str
    devices: tuple[str, ...]
    data: str
    shards: tuple[ShardSettings, ...]
    """One a device; empty if each device takes the whole of its data."""
    partition: str
    seed: int
    engine: str
    num_threads: int
    chunk_bytes: int
    base_dir: Path = Path()

    def __post_init__(self) -> None:
        check_name("site", self.site)
        for device in self.devices:
            check_name("device id", device)
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError(f"--id is given twice: {', '.join(self.devices)}")
        if self.shards and len(self.shards) != len(self.devices):
            raise SettingsError(
                f"{len(self.devices)} --id and {len(self.shards)} --shard; give one for each"
            )


def parse_shard(text: str) -> ShardSettings:
    """Read `INDEX/DEVICES`, the index from 0."""
    index, slash, total = text.partition("/")
    if not (slash and index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise SettingsError(f"--shard {text!r} is not INDEX/DEVICES with INDEX from 0, like 0/6")
    return ShardSettings(int(index), int(total))


def load_samples(settings: AgentSettings) -> list[Samples]:
    """Each device's own samples, in the order of the devices."""
    source = load_source(settings.data, base_dir=settings.base_dir).train
    if not settings.shards:
        return [source] * len(settings.devices)
    parts = {}
    for shard in settings.shards:
        if shard.num_devices not in parts:
            parts[shard.num_devices] = partition(
                source.y, settings.partition, num_devices=shard.num_devices, seed=settings.seed
            )
    return [source.take(parts[shard.num_devices][shard.index]) for shard in settings.shards]
