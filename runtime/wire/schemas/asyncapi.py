"""Every topic with the schema of what travels on it, as one AsyncAPI 3 document.

It is written for the coordinator, and for whoever serves a server half: `send` is what that
publishes, `receive` what it hears.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic.json_schema import models_json_schema

from runtime.distribution import own_version
from runtime.wire.chunks.inbox import leaf_of
from runtime.wire.chunks.questions import InferenceAnswer, InferenceRequest
from runtime.wire.commands import AnyCommand, AnyReply, Challenge
from runtime.wire.fields import Message
from runtime.wire.frames import FrameKind
from runtime.wire.history import HistoryReport
from runtime.wire.published import (
    CoordinatorStatus,
    DeviceMetrics,
    DeviceProfile,
    DeviceStatus,
    InferenceStatus,
    PlanReport,
    RoundReport,
)
from runtime.wire.run_control import (
    ControlAnswer,
    ControlRequest,
    DeviceTags,
    QueueAnswer,
    QueueReport,
    QueueRequest,
    QueueStatus,
    WantedSettings,
)
from runtime.wire.topics import Topics

_SITE, _DEVICE, _CLUSTER = "{site}", "{device}", "{cluster}"
_UP = (FrameKind.SMASHED, FrameKind.WEIGHTS, FrameKind.PROBE)
_DOWN = (FrameKind.MODEL, FrameKind.GRADIENT, FrameKind.GRAPHS, FrameKind.PROBE)
_PARAMETERS = {
    "site": "Several jobs share a broker by having different sites.",
    "device": "Id of the device: letters, digits, '-', '_' and '.'.",
    "cluster": "Number of the cluster, from 0.",
}


@dataclass(frozen=True)
class _Channel:
    """A topic: what travels on it and who says it; None where that is a frame."""

    name: str
    address: str
    messages: tuple[type[Message], ...] | None
    action: str
    retain: bool = False


def asyncapi_document() -> dict[str, Any]:
    """Describe all topics and messages."""
    channels = list(_channels())
    models = sorted(
        {model for channel in channels for model in channel.messages or ()},
        key=lambda model: model.__name__,
    )
    _, schemas = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "cpsl",
            "version": own_version(),
            "description": "Cluster-based parallel split learning over MQTT. What is JSON is "
            "below cpsl, what is binary below cpsl-tensors.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"broker": {"host": "{host}", "protocol": "mqtt", "variables": {"host": _HOST}}},
        "channels": {channel.name: _channel(channel) for channel in channels},
        "operations": {channel.name: _operation(channel) for channel in channels},
        "components": {
            "messages": {model.__name__: _message(model) for model in models} | {"Frame": _FRAME},
            "schemas": {name: _draft_7(schema) for name, schema in schemas["$defs"].items()},
            "parameters": {
                name: {"description": description} for name, description in _PARAMETERS.items()
            },
        },
    }


def dump_asyncapi() -> str:
    """Write it as text."""
    return json.dumps(asyncapi_document(), indent=2) + "\n"


_HOST = {"description": "The broker, with its port.", "default": "localhost:1883"}
_FRAME = {
    "title": "A chunk of a frame of tensors, or a probe of the link",
    "contentType": "application/octet-stream",
    "payload": {
        "type": "string",
        "format": "binary",
        "description": "A header (kind, run, round, cluster, epoch, which chunk of how many), then "
        "raw little-endian bytes; runtime/wire/frames.py says which.",
    },
}


def _channels() -> Iterator[_Channel]:
    site = _UncheckedTopics(_SITE)
    yield _Channel("deviceStatus", site.status(_DEVICE), (DeviceStatus,), "receive", retain=True)
    yield _Channel("deviceProfile", site.profile(_DEVICE), (DeviceProfile,), "receive", retain=True)
    yield _Channel("deviceMetrics", site.metrics(_DEVICE), (DeviceMetrics,), "receive")
    yield _Channel("deviceCommand", site.command(_DEVICE), get_args(AnyCommand), "send")
    yield _Channel("deviceReply", site.reply(_DEVICE), get_args(AnyReply), "receive")
    status = site.coordinator_status
    yield _Channel("coordinatorStatus", status, (CoordinatorStatus,), "send", retain=True)
    yield _Channel("coordinatorChallenge", site.coordinator_challenge, (Challenge,), "receive")
    yield _Channel("control", site.control, (ControlRequest,), "receive")
    answer = site.control_answer
    yield _Channel("controlAnswer", answer, (ControlAnswer,), "send", retain=True)
    yield _Channel("queue", site.queue, (QueueReport,), "send", retain=True)
    yield _Channel("queueStatus", site.queue_status, (QueueStatus,), "send", retain=True)
    yield _Channel("queueRequest", site.queue_request, (QueueRequest,), "receive")
    yield _Channel("queueAnswer", site.queue_answer, (QueueAnswer,), "send")
    yield _Channel("queueChallenge", site.queue_challenge, (Challenge,), "receive")
    yield _Channel("deviceTags", site.tags(_DEVICE), (DeviceTags,), "receive", retain=True)
    settings = site.settings(_DEVICE)
    yield _Channel("deviceSettings", settings, (WantedSettings,), "send", retain=True)
    yield _Channel("plan", site.plan, (PlanReport,), "send", retain=True)
    yield _Channel("round", site.round, (RoundReport,), "send", retain=True)
    yield _Channel("history", site.history, (HistoryReport,), "send", retain=True)
    yield from _inference_channels(site)
    for kind in _UP:
        leaf = leaf_of(kind)
        yield _Channel(f"up{leaf.title()}", site.up(_DEVICE, leaf), None, "receive")
    for kind in _DOWN:
        leaf = leaf_of(kind)
        yield _Channel(f"down{leaf.title()}", site.down(_DEVICE, leaf), None, "send")
    for name, topic in (("Model", site.cluster_model), ("Gradient", site.cluster_gradient)):
        address = topic(0).replace("/0/", f"/{_CLUSTER}/")
        yield _Channel(f"cluster{name}", address, None, "send")


def _inference_channels(site: Topics) -> Iterator[_Channel]:
    """Say what the server half of a trained model publishes and hears."""
    status, challenge = site.inference_status, site.inference_challenge
    yield _Channel("inferenceStatus", status, (InferenceStatus,), "send", retain=True)
    yield _Channel("inferenceChallenge", challenge, (Challenge,), "receive")
    request, answer = site.inference_request(_DEVICE), site.inference_answer(_DEVICE)
    yield _Channel("inferenceRequest", request, (InferenceRequest,), "receive")
    yield _Channel("inferenceAnswer", answer, (InferenceAnswer,), "send")
    yield _Channel("inferenceSmashed", site.inference_smashed(_DEVICE), None, "receive")
    yield _Channel("inferenceOutputs", site.inference_outputs(_DEVICE), None, "send")


class _UncheckedTopics(Topics):
    """Topics with parameters in the place of names."""

    def __post_init__(self) -> None:
        """Check nothing."""


def _names(channel: _Channel) -> list[str]:
    return [model.__name__ for model in channel.messages] if channel.messages else ["Frame"]


def _channel(channel: _Channel) -> dict[str, Any]:
    parameters = {name for name in _PARAMETERS if f"{{{name}}}" in channel.address}
    return {
        "address": channel.address,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in _names(channel)},
        "parameters": {
            name: {"$ref": f"#/components/parameters/{name}"} for name in sorted(parameters)
        },
    }


def _operation(channel: _Channel) -> dict[str, Any]:
    return {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "bindings": {"mqtt": {"qos": 1, "retain": channel.retain, "bindingVersion": "0.2.0"}},
    }


def _message(model: type[Message]) -> dict[str, Any]:
    text = (model.__doc__ or "").strip().splitlines()[0]
    return {
        "title": text.removesuffix("."),
        "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
    }


def _draft_7(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Say in JSON Schema's draft 7, which AsyncAPI builds on, what differs there."""
    if isinstance(schema, Mapping):
        parts = {key: _draft_7(value) for key, value in schema.items()}
        if "prefixItems" in parts:
            parts["items"] = parts.pop("prefixItems")
        return parts
    return [_draft_7(part) for part in schema] if isinstance(schema, list) else schema
