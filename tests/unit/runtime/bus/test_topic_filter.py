"""Which topics a subscription's filter picks, without a broker."""

import pytest

from runtime.bus.topic_filter import matches, require_topic_filter
from runtime.errors import SettingsError


@pytest.mark.parametrize(
    ("topic_filter", "topic", "is_picked"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("a/+/c", "a/b/c", True),
        ("a/+", "a/b/c", False),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/#", "a", True),
        ("a/#", "ab", False),
        ("#", "a/b", True),
        ("+/b", "a/b", True),
    ],
)
def test_plus_is_one_level_and_hash_all_that_are_left(
    topic_filter: str, topic: str, *, is_picked: bool
) -> None:
    assert matches(topic_filter, topic) is is_picked


@pytest.mark.parametrize(
    ("topic_filter", "is_picked"),
    [("#", False), ("+/broker", False), ("$SYS/#", True), ("$SYS/+", True), ("$SYS/broker", True)],
)
def test_the_brokers_own_topics_are_picked_by_name_only(
    topic_filter: str, *, is_picked: bool
) -> None:
    assert matches(topic_filter, "$SYS/broker") is is_picked


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "a/b#", "#/a"])
def test_a_wildcard_that_is_no_whole_level_is_refused(topic_filter: str) -> None:
    with pytest.raises(SettingsError, match="topic filter"):
        require_topic_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["#", "+", "a/+/#", "/"])
def test_wildcards_that_are_whole_levels_are_taken(topic_filter: str) -> None:
    require_topic_filter(topic_filter)
