"""The only place that spells a topic.

What is JSON lives below `cpsl`, what is binary below `cpsl-tensors`: MQTT cannot subscribe to all
but one branch, so that a tool that shows everything readable subscribes to `cpsl/#`.
"""

import re
from dataclasses import dataclass

from runtime.errors import SettingsError

ROOT = "cpsl"
"""Of everything readable."""
TENSORS_ROOT = "cpsl-tensors"
"""Of frames and link probes."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(what: str, name: str) -> str:
    """Return `name` if it can be one level of a topic; SettingsError if not."""
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{what} {name!r} cannot be used in a topic; take 1 to 64 letters, digits, '-', '_' "
            "and '.', the first a letter or digit"
        )
    return name


@dataclass(frozen=True)
class DeviceTopic:
    """A topic below one device, taken apart."""

    device: str
    leaf: str
    """What comes after the device id: `status`, `profile`, `metrics`, `reply`, `up/smashed`, …"""


@dataclass(frozen=True)
class Topics:
    """The topics of one site; several jobs share a broker by having different sites."""

    site: str

    def __post_init__(self) -> None:
        check_name("site", self.site)

    def status(self, device: str) -> str:
        """Retained, also the device's last will: JSON `DeviceStatus`."""
        return self._device(device, "status")

    def profile(self, device: str) -> str:
        """Retained: JSON `DeviceProfile`."""
        return self._device(device, "profile")

    def tags(self, device: str) -> str:
        """Retained, by whoever looks after the site: JSON `DeviceTags`."""
        return self._device(device, "tags")

    def settings(self, device: str) -> str:
        """Retained, by whoever looks after the site: JSON `WantedSettings`."""
        return self._device(device, "settings")

    def metrics(self, device: str) -> str:
        """Seconds and bytes of each phase of a cluster's turn: JSON `DeviceMetrics`."""
        return self._device(device, "metrics")

    def command(self, device: str) -> str:
        """From the coordinator to the device: JSON, any of `runtime.wire.commands`."""
        return self._device(device, "command")

    def reply(self, device: str) -> str:
        """From the device to the coordinator: JSON, what comes of a command."""
        return self._device(device, "reply")

    def up(self, device: str, leaf: str) -> str:
        """From the device to the coordinator: frames, or probes of the link."""
        return self._device(device, f"up/{leaf}")

    def down(self, device: str, leaf: str) -> str:
        """From the coordinator to the device: frames, or probes of the link."""
        return self._device(device, f"down/{leaf}")

    def command_of_wire_1(self, device: str) -> str:
        """Where agents up to version 0.2 listen; they are told there that they are too old."""
        return f"{ROOT}/{self.site}/device/{device}/down/command"

    def reply_of_wire_1(self, device: str) -> str:
        """Where coordinators up to version 0.2 listen."""
        return f"{ROOT}/{self.site}/device/{device}/up/reply"

    def cluster_model(self, cluster: int) -> str:
        """From the coordinator to all devices of a cluster at once: frames."""
        return f"{TENSORS_ROOT}/{self.site}/cluster/{cluster}/model"

    def cluster_gradient(self, cluster: int) -> str:
        """From the coordinator to all devices of a cluster at once: aggregated gradients."""
        return f"{TENSORS_ROOT}/{self.site}/cluster/{cluster}/gradient"

    @property
    def every_cluster(self) -> tuple[str, str]:
        """Filters for the models and the aggregated gradients of all clusters."""
        clusters = f"{TENSORS_ROOT}/{self.site}/cluster/+"
        return f"{clusters}/model", f"{clusters}/gradient"

    @property
    def whole_site(self) -> tuple[str, ...]:
        """Filters for everything that this site's programs say."""
        return (f"{ROOT}/{self.site}/#", f"{TENSORS_ROOT}/{self.site}/#")

    @property
    def coordinator_status(self) -> str:
        """Retained, also the coordinator's last will: JSON `CoordinatorStatus`."""
        return f"{ROOT}/{self.site}/coordinator/status"

    @property
    def coordinator_challenge(self) -> str:
        """To whoever coordinates the site: JSON `Challenge`."""
        return f"{ROOT}/{self.site}/coordinator/challenge"

    @property
    def control(self) -> str:
        """To whoever coordinates the site: JSON `ControlRequest`."""
        return f"{ROOT}/{self.site}/coordinator/control"

    @property
    def control_answer(self) -> str:
        """Retained: JSON `ControlAnswer`, to the last request."""
        return f"{ROOT}/{self.site}/coordinator/answer"

    @property
    def queue(self) -> str:
        """Retained: JSON `QueueReport`."""
        return f"{ROOT}/{self.site}/queue/jobs"

    @property
    def queue_status(self) -> str:
        """Retained, also the last will of who serves the queue: JSON `QueueStatus`."""
        return f"{ROOT}/{self.site}/queue/status"

    @property
    def queue_challenge(self) -> str:
        """To whoever serves the site's queue: JSON `Challenge`."""
        return f"{ROOT}/{self.site}/queue/challenge"

    @property
    def queue_request(self) -> str:
        """To whoever serves the site's queue: JSON `QueueRequest`."""
        return f"{ROOT}/{self.site}/queue/request"

    @property
    def queue_answer(self) -> str:
        """JSON `QueueAnswer`, to the last request."""
        return f"{ROOT}/{self.site}/queue/answer"

    @property
    def inference_status(self) -> str:
        """Retained, also the last will of who serves the server half: JSON `InferenceStatus`."""
        return f"{ROOT}/{self.site}/inference/status"

    @property
    def inference_challenge(self) -> str:
        """To whoever serves the site's server half: JSON `Challenge`."""
        return f"{ROOT}/{self.site}/inference/challenge"

    def inference_request(self, device: str) -> str:
        """From a device to the server half: JSON `InferenceRequest`."""
        return f"{ROOT}/{self.site}/inference/{device}/request"

    def inference_answer(self, device: str) -> str:
        """From the server half to a device: JSON `InferenceAnswer`."""
        return f"{ROOT}/{self.site}/inference/{device}/answer"

    def inference_smashed(self, device: str) -> str:
        """From a device to the server half: frames."""
        return f"{TENSORS_ROOT}/{self.site}/inference/{device}/smashed"

    def inference_outputs(self, device: str) -> str:
        """From the server half to a device: frames."""
        return f"{TENSORS_ROOT}/{self.site}/inference/{device}/outputs"

    def parse_inference(self, topic: str) -> DeviceTopic | None:
        """Take the topic of a request or of smashed data apart; None for any other."""
        match topic.split("/"):
            case [_, self.site, "inference", device, leaf] if _NAME.fullmatch(device):
                asked = {self.inference_request(device), self.inference_smashed(device)}
                return DeviceTopic(device, leaf) if topic in asked else None
        return None

    @property
    def plan(self) -> str:
        """Retained: JSON `PlanReport`."""
        return f"{ROOT}/{self.site}/plan"

    @property
    def round(self) -> str:
        """Retained: JSON `RoundReport`, the last round's measurements."""
        return f"{ROOT}/{self.site}/round"

    @property
    def history(self) -> str:
        """Retained: JSON `HistoryReport`, the rounds so far in short."""
        return f"{ROOT}/{self.site}/history"

    def every_device(self, leaf: str) -> str:
        """Filter for one leaf of every device."""
        return self._device("+", leaf)

    def parse(self, topic: str) -> DeviceTopic | None:
        """Take a device's topic apart; None for a topic that belongs to no device of this site."""
        root, *levels = topic.split("/", maxsplit=4)
        if len(levels) < 4 or levels[:2] != [self.site, "device"]:
            return None
        device, leaf = levels[2:]
        is_known = leaf and root == _root_of(leaf) and _NAME.fullmatch(device)
        return DeviceTopic(device, leaf) if is_known else None

    def _device(self, device: str, leaf: str) -> str:
        return f"{_root_of(leaf)}/{self.site}/device/{device}/{leaf}"


@dataclass(frozen=True)
class HomeAssistantTopics:
    """Where Home Assistant looks for devices, and says that it has started."""

    prefix: str = "homeassistant"
    birth: str = "homeassistant/status"
    """Not below the prefix, whatever that is."""

    def __post_init__(self) -> None:
        check_name("prefix", self.prefix)

    def device(self, object_id: str) -> str:
        """Retained: JSON, the device with all its components."""
        return f"{self.prefix}/device/{object_id}/config"

    @property
    def every_device(self) -> str:
        """Filter for all of them, whoever told of them."""
        return self.device("+")

    def parse(self, topic: str) -> str | None:
        """Return the object id of a device's topic; None for a topic that is none."""
        match topic.split("/"):
            case [self.prefix, "device", object_id, "config"]:
                return object_id
        return None


def _root_of(leaf: str) -> str:
    return TENSORS_ROOT if leaf.startswith(("up/", "down/")) else ROOT
