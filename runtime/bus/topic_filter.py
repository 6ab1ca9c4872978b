"""How a subscription's filter picks topics."""

from runtime.errors import SettingsError


def require_topic_filter(topic_filter: str) -> None:
    """Raise SettingsError unless `topic_filter` is one that every broker accepts."""
    levels = topic_filter.split("/")
    misplaced = any(len(level) > 1 and ("+" in level or "#" in level) for level in levels)
    if not topic_filter or misplaced or "#" in levels[:-1]:
        raise SettingsError(
            f"{topic_filter!r} is not a topic filter: + and # stand for whole levels, # comes last"
        )


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a message on `topic` goes to a subscription to `topic_filter`.

    `+` stands for one level and `#` for all that are left, none included; topics that begin
    with `$` belong to the broker, and no leading wildcard picks them.
    """
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in {"+", "#"}:
        return False
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in {"+", levels[position]}:
            return False
    return len(wanted) == len(levels)
