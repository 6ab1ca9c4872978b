"""Settings that are wanted of a device by a retained topic, within what its owner allows.

The owner's flags are the bound: fewer threads and a later cut can be wanted, and no more threads
and no earlier cut, whoever may write to the topic. How talkative the log is gives nobody a right.
"""

import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from device_agent.limits import is_layer
from runtime.bus.bus import Bus
from runtime.errors import BusError, MalformedMessageError, SettingsError
from runtime.service.logs import LOG_LEVELS
from runtime.wire.run_control import SettingsReport, WantedSettings
from runtime.wire.topics import Topics

log = logging.getLogger(__name__)

Applied = Mapping[str, str]


@dataclass(frozen=True)
class Started:
    """What a device's owner allowed at the start of its agent."""

    threads: int = 1
    min_cut: str = ""
    knows_layers: bool = True
    """By their names: without PyTorch there are numbers only."""


def judge(wanted: Mapping[str, object], started: Started) -> tuple[dict[str, str], dict[str, str]]:
    """Part what is wanted into what holds from now on, and what is refused and why."""
    applied, refused = {}, {}
    for name, value in wanted.items():
        try:
            applied[name] = _CHECKS.get(name, _unknown)(str(value), started)
        except SettingsError as error:
            refused[name] = f"{name} = {value!r}: {error}"
    return applied, refused


def _unknown(*_: object) -> str:
    raise SettingsError(f"there is no such setting; there are {', '.join(_CHECKS)}")


def _log_level(text: str, _: Started) -> str:
    if text not in LOG_LEVELS:
        raise SettingsError(f"it is one of {', '.join(LOG_LEVELS)}")
    return text


def _threads(text: str, started: Started) -> str:
    number = int(text) if text.isdecimal() and len(text) <= 4 else 0
    if number < 1:
        raise SettingsError("it is a whole number from 1")
    if number > started.threads:
        raise SettingsError(
            f"the agent was started with --threads {started.threads}, and no message raises that"
        )
    return str(number)


def _min_cut(text: str, started: Started) -> str:
    if not is_layer(text):
        raise SettingsError("it is a layer's name or its number from 1")
    if not (text.isdecimal() or started.knows_layers):
        raise SettingsError("without PyTorch layers have numbers only here, as min_cut = 3")
    owners = started.min_cut
    if text.isdecimal() and owners.isdecimal() and int(text) < int(owners):
        raise SettingsError(
            f"the agent was started with --min-cut {owners}, and no message lowers that"
        )
    return text


_CHECKS = {"log_level": _log_level, "threads": _threads, "min_cut": _min_cut}


class DesiredSettings:
    """What is wanted of one device, and what it made of it."""

    def __init__(
        self,
        device: str,
        topics: Topics,
        started: Started,
        *,
        on_change: Callable[[Applied], None] = lambda _: None,
    ) -> None:
        """`on_change` hears all that holds from then on."""
        self.report: SettingsReport | None = None
        self.topic = topics.settings(device)
        self._device, self._started = device, started
        self._on_change = on_change
        self._is_told = False
        """Whether the broker has told what it has retained since the connection was made."""

    async def listen(self, bus: Bus) -> None:
        """Hear what is wanted, if the broker's access list lets this device."""
        with contextlib.suppress(BusError):
            await bus.subscribe(self.topic)

    def note_connected(self) -> None:
        """Take note that the broker is about to tell what it has retained."""
        self._is_told = False

    def note_echo(self) -> bool:
        """Take note that what this device says comes back: what was retained has come before.

        Settings that were taken back while it was away end here; True if there were any.
        """
        was_told, self._is_told = self._is_told, True
        if was_told or self.report is None:
            return False
        self._answer(WantedSettings(settings={}), {}, {})
        return True

    def take(self, payload: bytes | memoryview) -> None:
        """Take a message; an empty one takes all back, and what cannot be read changes nothing."""
        self._is_told = True
        if not payload:
            self._answer(WantedSettings(settings={}), {}, {})
            return
        try:
            wanted = WantedSettings.decode(payload)
        except MalformedMessageError as error:
            applied = dict(self.report.applied) if self.report else {}
            self._answer(WantedSettings(settings={}), applied, {"message": str(error)})
            return
        self._answer(wanted, *judge(wanted.settings, self._started))

    def _answer(
        self, wanted: WantedSettings, applied: dict[str, str], refused: dict[str, str]
    ) -> None:
        report = SettingsReport(
            request=wanted.request, by=wanted.by, applied=applied, refused=refused
        )
        if report == self.report:
            return  # The broker has told it again.
        self.report = report
        holding = ", ".join(f"{name} = {value}" for name, value in applied.items())
        by = f", wanted by {wanted.by}" if wanted.by else ""
        # Before a level that may hide it.
        log.warning("%s works with settings by topic: %s%s", self._device, holding or "none", by)
        for sentence in report.refused.values():
            log.warning("%s refuses a setting%s: %s", self._device, by, sentence)
        self._on_change(applied)


class ProcessSettings:
    """What holds for all devices of a process: what one wants of it, the others have too."""

    def __init__(
        self, *, log_level: str, threads: int, set_log_level: Callable[[str], None]
    ) -> None:
        """Begin with what the owner has set."""
        self._log_level, self._threads = log_level, threads
        self._set_log_level = set_log_level
        self._of_device: dict[str, Applied] = {}

    @property
    def threads(self) -> int:
        """The fewest that are wanted."""
        wanted = [int(each["threads"]) for each in self._of_device.values() if "threads" in each]
        return min(wanted, default=self._threads)

    def note(self, device: str, applied: Applied) -> None:
        """Take note of what holds for a device; the most talkative level that is wanted does."""
        self._of_device[device] = applied
        levels = [each["log_level"] for each in self._of_device.values() if "log_level" in each]
        self._set_log_level(min(levels, key=LOG_LEVELS.index, default=self._log_level))
