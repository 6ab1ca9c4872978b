"""The step that a question about a frame names."""

from runtime.wire.chunks.questions import Holding, Inquire, NotInTurn, SendAgain
from runtime.wire.commands import FrozenOffer, GraphsOffer, Join, Joined, NeedGraphs
from runtime.wire.frames import StepId
from runtime.wire.published import DeviceMetrics

_PLACE = ("run", "round", "cluster", "epoch")


def turn_of(
    message: Join | Joined | NeedGraphs | NotInTurn | Inquire | SendAgain | StepId | DeviceMetrics,
) -> tuple[int, int, int]:
    """Read the run, the round and the cluster that a message belongs to."""
    return (message.run, message.round, message.cluster)


def address(step: StepId) -> dict[str, int]:
    """Give the fields that name a step in a message; the first micro-batch goes without saying."""
    place = dict(vars(step))
    return place if step.micro_batch else {name: place[name] for name in _PLACE}


def offered_step(join: Join, offer: GraphsOffer | FrozenOffer) -> StepId:
    """Name the frame that carries something offered with a join: there may be two, one by one."""
    return StepId(join.run, join.round, join.cluster, int(isinstance(offer, FrozenOffer)))


def step_of(message: Inquire | SendAgain | Holding) -> StepId:
    """Read the step that a message is about."""
    micro_batch = None if isinstance(message, Inquire) else message.micro_batch
    place = (message.run, message.round, message.cluster, message.epoch)
    return StepId(*place, micro_batch or 0)
