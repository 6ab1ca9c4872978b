"""Who trains with whom, and where the network is cut, by code of one's own.

cpsl simulate --scenario mixed --set plan.grouping=examples.own_strategies:fast_with_slow
cpsl simulate --scenario mixed --set plan.cut=examples.own_strategies:fewest_bytes

Each plan's reason says what the planner would have taken instead. docs/python.md has the rules.
"""

from edge_coordinator.api.strategies import CutTask, GroupingTask


def fast_with_slow(task: GroupingTask) -> list[list[str]]:
    """Deal devices to clusters in the order of their speed, so that each has some of all."""
    by_speed = sorted(task.devices, key=lambda each: task.seconds_of([each.device]))
    ids, count = [each.device for each in by_speed], len(task.sizes)
    return [ids[index::count] for index in range(count)]


def fewest_bytes(task: CutTask) -> str:
    """Cut where the least of a sample crosses."""
    possible = [price for price in task.prices if not price.infeasible]
    return min(possible, key=lambda price: task.cuts.smashed_bits[price.cut]).name
