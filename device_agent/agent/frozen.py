"""Parameters that do not learn: whether a device has the right ones, or has to ask for them."""

from device_agent.engines.engine import Executor
from runtime.errors import SettingsError
from runtime.wire.commands import FrozenOffer, Join
from runtime.wire.device_graphs import frozen_offer


def missing_of_frozen(executor: Executor, join: Join) -> FrozenOffer | None:
    """What has to be sent before a turn: those that the network was built with may be right.

    Reads all of them, so ask once for each executor. SettingsError where there are others here
    than the coordinator has, which no sending can mend.
    """
    own, offer = frozen_offer(executor.frozen()), join.frozen
    if own == offer:
        return None
    if own is not None and offer is not None and own.num_bytes == offer.num_bytes:
        return offer
    here, there = own.num_bytes if own else 0, offer.num_bytes if offer else 0
    raise SettingsError(
        f"of the device side {here} bytes do not learn here, and {there} at the coordinator: "
        "the network is another; have the same code on both sides"
    )
