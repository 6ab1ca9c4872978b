"""Discovery by MQTT as Home Assistant documents it: what a device's message may and must hold.

Written from its pages on the MQTT integration (device discovery, availability, origin), on MQTT
sensors, and on the device classes of sensors with their units and state classes.
"""

from typing import Any

_TEXT = {"type": "string", "minLength": 1}
_TOPIC = {"type": "string", "pattern": "^[^+#\\x00]+$", "maxLength": 65_535}
_URL = {"type": "string", "pattern": "^https?://"}


def _object(required: list[str], **properties: object) -> dict[str, Any]:
    return {
        "type": "object",
        "required": required,
        "properties": properties,
        "additionalProperties": False,
    }


_AVAILABILITY = _object(
    ["topic"],
    topic=_TOPIC,
    payload_available=_TEXT,
    payload_not_available=_TEXT,
    value_template=_TEXT,
)
_UNITS = {
    "battery": ["%"],
    "data_rate": ["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "B/s", "kB/s", "MB/s", "GB/s"],
    "data_size": ["bit", "kbit", "Mbit", "Gbit", "B", "kB", "MB", "GB", "TB", "KiB", "MiB", "GiB"],
    "duration": ["d", "h", "min", "s", "ms", "µs"],
    "temperature": ["°C", "°F", "K"],
}


def _of_class(name: str, units: list[str]) -> dict[str, Any]:
    then = {
        "required": ["unit_of_measurement"],
        "properties": {"unit_of_measurement": {"enum": units}},
    }
    return {"if": _has_class(name), "then": then}


def _has_class(name: str) -> dict[str, Any]:
    return {"required": ["device_class"], "properties": {"device_class": {"const": name}}}


_NO_NUMBER = {"properties": {"unit_of_measurement": False, "state_class": False}}
_SENSOR = _object(
    ["platform", "unique_id", "state_topic"],
    platform={"const": "sensor"},
    availability={"type": "array", "items": _AVAILABILITY},
    availability_mode={"enum": ["all", "any", "latest"]},
    default_entity_id=_TEXT,
    device_class={"enum": ["enum", "timestamp", *_UNITS]},
    enabled_by_default={"type": "boolean"},
    entity_category={"const": "diagnostic"},
    expire_after={"type": "integer", "minimum": 0},
    force_update={"type": "boolean"},
    icon={"type": "string", "pattern": "^mdi:[a-z0-9-]+$"},
    json_attributes_template=_TEXT,
    json_attributes_topic=_TOPIC,
    name=_TEXT,
    options={"type": "array", "items": _TEXT, "minItems": 1},
    qos={"enum": [0, 1, 2]},
    state_class={"enum": ["measurement", "total", "total_increasing"]},
    state_topic=_TOPIC,
    suggested_display_precision={"type": "integer", "minimum": 0},
    unique_id=_TEXT,
    unit_of_measurement=_TEXT,
    value_template=_TEXT,
) | {
    "allOf": [
        *(_of_class(name, units) for name, units in _UNITS.items()),
        {"if": _has_class("enum"), "then": {"required": ["options"], **_NO_NUMBER}},
        {"if": _has_class("timestamp"), "then": _NO_NUMBER},
        {"if": {"required": ["options"]}, "then": _has_class("enum")},
    ]
}
_COMPONENT = {"anyOf": [_SENSOR, _object(["platform"], platform={"const": "sensor"})]}
"""One with nothing but its platform is taken back."""
_DEVICE = _object(
    [],
    configuration_url=_URL,
    connections={"type": "array"},
    hw_version=_TEXT,
    identifiers={"type": "array", "items": _TEXT, "minItems": 1},
    manufacturer=_TEXT,
    model=_TEXT,
    model_id=_TEXT,
    name=_TEXT,
    serial_number=_TEXT,
    suggested_area=_TEXT,
    sw_version=_TEXT,
    via_device=_TEXT,
) | {"anyOf": [{"required": ["identifiers"]}, {"required": ["connections"]}]}
DEVICE_DISCOVERY = _object(
    ["device", "origin", "components"],
    device=_DEVICE,
    origin=_object(["name"], name=_TEXT, sw_version=_TEXT, support_url=_URL),
    components={"type": "object", "additionalProperties": _COMPONENT, "minProperties": 1},
    availability={"type": "array", "items": _AVAILABILITY},
    availability_mode={"enum": ["all", "any", "latest"]},
    state_topic=_TOPIC,
    command_topic=_TOPIC,
    qos={"enum": [0, 1, 2]},
    encoding=_TEXT,
)
