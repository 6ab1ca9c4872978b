"""Who may say and hear what on a site: the access list, made of the topics that programs use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from runtime.wire.chunks.inbox import leaf_of
from runtime.wire.frames import FrameKind
from runtime.wire.topics import HomeAssistantTopics, Topics

_SENT_KINDS = (FrameKind.SMASHED, FrameKind.WEIGHTS, FrameKind.PROBE)
"""What a device sends as frames."""


@dataclass(frozen=True)
class Rights:
    """Topics that one user may publish on, and filters of those that it may hear."""

    publish: tuple[str, ...] = ()
    hear: tuple[str, ...] = ()


def device_rights(topics: Topics, device: str) -> Rights:
    """Give a device its own topics, leaf by leaf, and what clusters are sent at once."""
    probe = topics.up(device, leaf_of(FrameKind.PROBE))
    return Rights(
        publish=(
            topics.status(device),
            topics.profile(device),
            topics.metrics(device),
            topics.reply(device),
            *(topics.up(device, leaf_of(kind)) for kind in _SENT_KINDS),
            topics.command(device),  # The question whether the id is taken.
            topics.inference_request(device),
            topics.inference_smashed(device),
        ),
        hear=(
            topics.status(device),
            topics.command(device),
            topics.settings(device),
            topics.down(device, "+"),
            probe,  # A device alone measures its link by its own echo.
            *topics.every_cluster,
            topics.inference_status,
            topics.inference_answer(device),
            topics.inference_outputs(device),
        ),
    )


def coordinator_rights(topics: Topics) -> Rights:
    """Give the coordinator its site, and Home Assistant to tell of it."""
    home = HomeAssistantTopics()
    return Rights(
        publish=(*topics.whole_site, home.every_device),
        hear=(*topics.whole_site, home.every_device, home.birth),
    )


def monitor_rights(topics: Topics) -> Rights:
    """Let watchers hear what is published for everybody: no commands and no tensors."""
    leaves = ("tags", "settings", "status", "profile", "metrics")
    devices = [topics.every_device(leaf) for leaf in leaves]
    site = (
        *(topics.coordinator_status, topics.plan, topics.round, topics.history),
        topics.inference_status,
    )
    return Rights(hear=(*site, *devices))


def operator_rights(topics: Topics) -> Rights:
    """Let a person watch, submit jobs, ask a run, and tag and set devices: no more than ask.

    To forget a device takes its own topics, which could say anything of it: the coordinator's.
    """
    answers = (topics.control_answer, topics.queue, topics.queue_status, topics.queue_answer)
    of_devices = (topics.every_device("tags"), topics.every_device("settings"))
    return Rights(
        publish=(topics.control, topics.queue_request, *of_devices),
        hear=(*monitor_rights(topics).hear, *answers),
    )


def access_list(users: Mapping[str, Rights]) -> str:
    """Write Mosquitto's `acl_file`; who is not in it has no rights at all."""
    lines = ["# Written by cpsl fleet; who is not named here may neither speak nor hear."]
    for user, rights in users.items():
        lines += ["", f"user {user}", *_lines(rights)]
    return "\n".join(lines) + "\n"


def _lines(rights: Rights) -> Iterable[str]:
    for topic in rights.publish:
        yield f"topic {'readwrite' if topic in rights.hear else 'write'} {topic}"
    for topic in rights.hear:
        if topic not in rights.publish:
            yield f"topic read {topic}"
