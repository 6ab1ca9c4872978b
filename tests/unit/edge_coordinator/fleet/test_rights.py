"""What programs say and hear in a run, beside what a fleet's access list lets them."""

from edge_coordinator.fleet.rights import (
    Rights,
    access_list,
    monitor_rights,
)
from runtime.bus.topic_filter import matches
from runtime.wire.topics import Topics

TOPICS = Topics("default")


def _may(filters: tuple[str, ...], topic: str) -> bool:
    return any(matches(allowed, topic) for allowed in filters)


def test_the_monitor_says_nothing_and_hears_no_tensors() -> None:
    rights = monitor_rights(TOPICS)
    assert rights.publish == ()
    tensors = [TOPICS.up("d0", "smashed"), TOPICS.down("d0", "gradient"), TOPICS.cluster_model(0)]
    assert not any(_may(rights.hear, topic) for topic in [*tensors, TOPICS.command("d0")])


def test_who_is_not_in_the_access_list_has_no_rights() -> None:
    text = access_list({"a": Rights(publish=("x", "y"), hear=("y", "z"))})
    assert text.splitlines()[2:] == ["user a", "topic write x", "topic readwrite y", "topic read z"]
