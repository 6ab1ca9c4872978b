"""What an agent is told when it starts."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from device_agent.limits import Limits
from profiles.emulation import DeviceClass, EmulationError
from runtime.bus.broker_url import TlsFiles
from runtime.datasets.partition import partition
from runtime.datasets.samples import MOST_CLASSES, Samples
from runtime.datasets.sources import load_source
from runtime.errors import SettingsError
from runtime.scenarios.files import load_emulation
from runtime.wire.names import check_names
from runtime.wire.topics import check_name

log = logging.getLogger(__name__)


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
    scenario: str | None = None
    """Emulated devices: a shipped scenario or a file; None for what this machine is."""
    watch_data_s: float | None = None
    """How often the data are read again, since they grow; never if None."""
    publish_labels: bool = False
    """Whether the profile says how many samples of each class there are."""
    tls: TlsFiles = field(default_factory=lambda: TlsFiles(None, None, None))
    wait: bool = False
    """Whether to wait for a broker that is not there."""
    end_with_stdin: bool = False
    health_file: Path | None = None
    """Where it says every few seconds that it is alive."""
    limits: Limits = field(default_factory=Limits)
    log_level: str = "info"
    """As it was started with: settings by topic may set another, and end."""
    base_dir: Path = Path()

    def __post_init__(self) -> None:
        check_name("site", self.site)
        for device in self.devices:
            check_name("device id", device)
        if len(set(self.devices)) < len(self.devices):
            raise SettingsError(f"--id is given twice: {', '.join(self.devices)}")
        if self.watch_data_s is not None and (self.shards or len(self.devices) > 1):
            raise SettingsError(
                "--watch-data is of one device that has a source to itself: shares of a source "
                "(--shard, several --id) are dealt out of all its samples, so one more would move "
                "others from device to device; give each device a folder or a table of its own, or "
                "have a --scenario with a growth say when a device gets which part of its share"
            )
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


def device_classes(settings: AgentSettings) -> list[DeviceClass | None]:
    """What each device emulates, by the number of its shard or its place among the devices."""
    if settings.scenario is None:
        return [None] * len(settings.devices)
    try:
        scenario = load_emulation(settings.scenario, base_dir=settings.base_dir)
    except EmulationError as error:
        raise SettingsError(str(error)) from error
    numbers = [shard.index for shard in settings.shards] or range(len(settings.devices))
    classes: list[DeviceClass | None] = [scenario.class_of(number) for number in numbers]
    if settings.watch_data_s is not None and any(each and each.growth for each in classes):
        raise SettingsError(
            f"--watch-data, and a growth of the data in scenario {settings.scenario}: data grow by "
            "one of them; take the other away"
        )
    return classes


class PublishedLabels(TypedDict, total=False):
    """What a profile says of labels; nothing where they are no classes."""

    label_counts: tuple[int, ...]
    label_names: tuple[str, ...] | None


def published_labels(samples: Samples, device: str) -> PublishedLabels:
    """Count the samples of each class, and name the classes where they have names."""
    y, names = samples.y, samples.class_names
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.integer):
        return {}
    if len(y) and y.max() >= MOST_CLASSES:
        log.warning(
            "%s does not publish how many samples each class has: label %d is none of at most %d",
            *(device, y.max(), MOST_CLASSES),
        )
        return {}
    try:
        check_names(names or ())
    except ValueError as error:
        log.warning("%s does not publish how many samples each class has: %s", device, error)
        return {}
    counts = np.bincount(y, minlength=len(names or ()))
    return {"label_counts": tuple(counts.tolist()), "label_names": names}


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
