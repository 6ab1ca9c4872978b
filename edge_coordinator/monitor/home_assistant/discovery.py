"""What Home Assistant is told of a site and its devices: names, units, and where each figure is.

Home Assistant reads the figures from the topics that there are; nothing is published twice. Its
templates take a field of the JSON; where a figure is null they give `None`, which it takes for
unknown.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runtime.distribution import own_version
from runtime.wire.published import DeviceStatus
from runtime.wire.topics import Topics

SUPPORT_URL = "https://arxiv.org/abs/2204.08119"
_MEGA = 1_000_000
_GIGA = 1_000_000_000
_MOST_LETTERS = 250
"""A state of Home Assistant has at most 255."""

_MEASURED = {"state_class": "measurement"}
_DIAGNOSTIC = {"entity_category": "diagnostic"}


@dataclass(frozen=True)
class _Sensor:
    """One figure; `template` takes it from the JSON on `leaf`."""

    name: str
    leaf: str
    template: str
    more: Mapping[str, Any]
    always: bool = False
    """Whether it says something while its device is not there."""


def _of(part: str, figure: str, divisor: int) -> str:
    value = f"value_json.{part}.{figure}"
    return f"{{{{ ({value} / {divisor}) | round(2) if value_json.{part} else none }}}}"


def _percent(field: str) -> str:
    value = f"value_json.{field}"
    return f"{{{{ ({value} * 100) | round(1) if {value} is number else none }}}}"


def _rate(name: str, figure: str) -> _Sensor:
    more = {"device_class": "data_rate", "unit_of_measurement": "Mbit/s"} | _MEASURED
    return _Sensor(name, "profile", _of("link", figure, _MEGA), more)


def _speed(name: str, figure: str) -> _Sensor:
    more = {"unit_of_measurement": "GFLOP/s", "icon": "mdi:speedometer"} | _MEASURED
    return _Sensor(name, "profile", _of("compute", figure, _GIGA), more)


_OF_DEVICE = {
    "state": _Sensor(
        "State", "status", "{{ value_json.state }}",
        {"device_class": "enum", "options": ["online", "offline"]}, always=True,
    ),
    "last_seen": _Sensor(
        "Last seen", "profile", "{{ as_datetime(value_json.measured_at_unix_s) }}",
        {"device_class": "timestamp"} | _DIAGNOSTIC, always=True,
    ),
    "forward": _speed("Speed forward", "forward_flop_per_s"),
    "backward": _speed("Speed backward", "backward_flop_per_s"),
    "uplink": _rate("Uplink", "up_bps"),
    "downlink": _rate("Downlink", "down_bps"),
    "round_trip": _Sensor(
        "Round trip", "profile",
        "{{ (value_json.link.round_trip_s * 1000) | round(1) if value_json.link else none }}",
        {"device_class": "duration", "unit_of_measurement": "ms"} | _MEASURED,
    ),
    "temperature": _Sensor(
        "Temperature", "profile", "{{ value_json.temperature_c }}",
        {"device_class": "temperature", "unit_of_measurement": "°C"} | _MEASURED,
    ),
    "battery": _Sensor(
        "Battery", "profile", _percent("battery_fraction"),
        {"device_class": "battery", "unit_of_measurement": "%"} | _MEASURED,
    ),
    "free_memory": _Sensor(
        "Free memory", "profile", f"{{{{ (value_json.free_memory_bytes / {_MEGA}) | round }}}}",
        {"device_class": "data_size", "unit_of_measurement": "MB"} | _MEASURED,
    ),
    "load": _Sensor(
        "Load", "profile", _percent("load_fraction"),
        {"unit_of_measurement": "%", "icon": "mdi:gauge"} | _MEASURED | _DIAGNOSTIC,
    ),
}  # fmt: skip


def _names(field: str) -> str:
    names = f"value_json.{field} | list | sort | join(', ')"
    return f"{{{{ ({names} or 'nobody') | truncate({_MOST_LETTERS}) }}}}"


def _text(name: str, leaf: str, template: str, icon: str) -> _Sensor:
    return _Sensor(name, leaf, template, {"icon": icon})


_OF_SITE = {
    "phase": _text(
        "Phase", "coordinator/status",
        f"{{{{ value_json.phase | truncate({_MOST_LETTERS}) }}}}", "mdi:progress-clock",
    ),
    "round": _Sensor(
        "Round", "round", "{{ value_json.round }}", {"icon": "mdi:counter"} | _MEASURED
    ),
    "round_seconds": _Sensor(
        "Seconds of a round", "round", "{{ value_json.round_s | round(2) }}",
        {"device_class": "duration", "unit_of_measurement": "s"} | _MEASURED,
    ),
    "lost": _text("Lost in the last round", "round", _names("lost"), "mdi:account-off"),
    "left_out": _text("Left out of the plan", "plan", _names("left_out"), "mdi:account-clock"),
}  # fmt: skip


_REMOVED = {"platform": "sensor"}
"""Takes back a sensor that Home Assistant may have been told of."""


def _of_metric(metric: str) -> dict[str, _Sensor | None]:
    """Show how good the model is, by its own name; None for the sensor that goes with another.

    Not every round is evaluated; the last figure stands until the next.
    """
    if metric == "accuracy":
        value, unit = "(value_json.test_accuracy * 100) | round(2)", {"unit_of_measurement": "%"}
        field = "test_accuracy"
    else:
        value, unit, field = "value_json.test_metric | round(4)", {}, "test_metric"
    sensor = _Sensor(
        f"Test {metric}", "round",
        f"{{{{ {value} if value_json.{field} is number else this.state | float(none) }}}}",
        {"icon": "mdi:target"} | unit | _MEASURED,
    )  # fmt: skip
    is_accuracy = metric == "accuracy"
    return {"accuracy": sensor if is_accuracy else None, "metric": None if is_accuracy else sensor}


def object_id(*names: str) -> str:
    """Make an id of letters, digits, `_` and `-`, other for other names."""
    return "_".join(("cpsl", *(name.replace("_", "__").replace(".", "_-") for name in names)))


def is_of_site(own: str, site: str) -> bool:
    """Whether an id is that of this site, or of one of its devices."""
    rest = own.removeprefix(object_id(site))
    return rest != own and (not rest or (rest[0] == "_" and rest[1:2] not in {"_", "-"}))


def device_message(topics: Topics, device: str, status: DeviceStatus) -> bytes:
    """Describe a device and its sensors."""
    own = object_id(topics.site, device)
    about = {
        "identifiers": [own],
        "name": device,
        "manufacturer": "cpsl",
        "model": f"device of site {topics.site}",
        "via_device": object_id(topics.site),
        **({"sw_version": status.version} if status.version else {}),
    }
    base = topics.status(device).removesuffix("status")
    return _message(own, about, _OF_DEVICE, base=base, status_topic=topics.status(device))


def site_message(topics: Topics, *, metric: str = "accuracy") -> bytes:
    """Describe a site and its sensors; `metric` is what its run is judged by."""
    own = object_id(topics.site)
    about = {
        "identifiers": [own],
        "name": f"cpsl {topics.site}",
        "manufacturer": "cpsl",
        "model": "coordinator",
    }
    status_topic = topics.coordinator_status
    base = status_topic.removesuffix("coordinator/status")
    sensors = _OF_SITE | _of_metric(metric)
    return _message(own, about, sensors, base=base, status_topic=status_topic)


def _message(
    own: str,
    about: Mapping[str, Any],
    sensors: Mapping[str, _Sensor | None],
    *,
    base: str,
    status_topic: str,
) -> bytes:
    availability = {"topic": status_topic, "value_template": "{{ value_json.state }}"}
    components = {
        key: {
            "platform": "sensor",
            "unique_id": f"{own}_{key}",
            "name": sensor.name,
            "state_topic": base + sensor.leaf,
            "value_template": sensor.template,
            **({} if sensor.always else {"availability": [availability]}),
            **sensor.more,
        }
        if sensor is not None
        else _REMOVED
        for key, sensor in sensors.items()
    }
    origin = {"name": "cpsl", "sw_version": own_version(), "support_url": SUPPORT_URL}
    message = {"device": about, "origin": origin, "components": components, "qos": 1}
    return json.dumps(message, ensure_ascii=False).encode()
