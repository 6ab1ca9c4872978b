"""The planner's inputs as arrays: the devices that may take part, and the work they share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np

from edge_coordinator.planning.form import BatchSizes
from edge_coordinator.planning.plan import InfeasiblePlanError, StepFlow
from edge_coordinator.planning.wire import WireTable
from profiles.cuts import CutTable
from profiles.device import ComputeState, DeviceState
from profiles.link import LinkState, Medium
from profiles.scenario import Scenario
from profiles.units import BITS_PER_BYTE, Counts, Floats
from runtime.wire.codecs.names import TurnCodecs
from runtime.wire.micro_batches import num_aggregated

MODEL_COPIES = 3
"""Weights, gradients and one optimiser state of the same size."""
ACTIVATION_COPIES = 2
"""What the forward pass keeps, and its gradients."""


@dataclass(frozen=True)
class Workload:
    """What one round asks for, whoever takes part in it."""

    cuts: CutTable
    batch_size: int
    local_epochs: int
    label_bits: float
    """Bits of one sample's label."""
    message_bytes: float
    """The largest message; a longer transfer travels as several."""
    server: ComputeState
    medium: Medium
    loss_on_device: bool = field(kw_only=True)
    """Whether the devices train the whole network by themselves (federated averaging).

    Cut after the last layer the server still computes the loss: outputs and labels go up, the
    gradients of the outputs come down.
    """
    server_device_s: float = 0.0
    """What a step of the server takes for each device in it, at every cut that has one."""
    server_part_s: float = 0.0
    """What each further micro-batch of a device takes the server, however few its samples."""
    cluster_overhead_s: float = 0.0
    """What a cluster's turn takes beyond its phases, as learned; below zero where it takes less."""
    round_overhead_s: float = 0.0
    """What a round takes beyond its clusters' turns, as learned."""
    known_bytes: Mapping[int, float] = field(default_factory=dict)
    """Memory that training takes on a device, by cut, where an engine has said."""
    refused_cuts: Mapping[int, str] = field(default_factory=dict)
    """Cuts that some device cannot run, and why."""
    refused_to_each: Mapping[int, str] | None = None
    """Of these, those that no device may have; None: it is so of all."""
    wires: tuple[WireTable, ...] = ()
    """What frames take, by each of the codecs to choose from; empty where tensors are not encoded.
    The first holds as long as none is chosen."""
    chosen: TurnCodecs | None = None
    """The codecs that a plan has chosen."""

    @cached_property
    def wire(self) -> WireTable | None:
        """What frames take; None where tensors travel as they are."""
        named = [wire for wire in self.wires if wire.codecs == self.chosen]
        return next(iter([*named, *self.wires]), None)

    micro_batches: tuple[int, ...] = (1,)
    """Numbers of micro-batches of a mini-batch to choose from."""
    whole_batches: str = ""
    """Why mini-batches cannot go in parts, where that is asked for and they cannot."""
    phi: float = 0.0
    """Share of a mini-batch whose gradients are aggregated over the devices of a cluster; what
    clusters are sampled by, where plans choose it for each."""
    phis: tuple[float, ...] = ()
    """Shares that plans choose from, the least first; empty where it is given."""
    plain_cuts: Mapping[int, str] = field(default_factory=dict)
    """Cuts at which plans choose none, and why nothing can be aggregated there."""
    energy_weight: float = 0.0
    """Seconds that a joule counts as."""
    batch_sizes: BatchSizes = "equal"
    """How a cluster's samples are shared out among its devices."""
    equal_batches: str = ""
    """Why mini-batches stay equal, where that is asked for and they have to."""
    fixed_cuts: frozenset[int] = frozenset()
    """Cuts whose device side takes mini-batches of one size alone."""

    @property
    def partings(self) -> tuple[int, ...]:
        """The numbers of micro-batches of a step that can be told apart; the least first."""
        if self.loss_on_device:
            return (1,)
        return tuple(sorted({min(count, self.batch_size) for count in self.micro_batches}))

    def phis_at(self, cut: int) -> tuple[float, ...]:
        """Shares of a mini-batch that may be aggregated at a cut; the given one, if it is."""
        if not self.phis:
            return (self.phi,)
        is_plain = self.loss_on_device or cut in self.plain_cuts or not self.cuts.learns[cut]
        return (0.0,) if is_plain else self.phis

    def flows(self, cut: int) -> tuple[StepFlow, ...]:
        """How mini-batches may travel at a cut."""
        phis = self.phis_at(cut)
        return tuple(StepFlow(count, phi) for phi in phis for count in self.partings)

    def num_aggregated(self, cut: int) -> int:
        """How many samples of each device of a cluster have one gradient for all."""
        if self.loss_on_device or not self.cuts.learns[cut]:
            return 0
        return num_aggregated(self.phi, [self.batch_size] * 2)

    def of_each_device(self) -> "Workload":
        """Take what holds where devices cut at different layers: one binds no other."""
        refused = self.refused_cuts if self.refused_to_each is None else self.refused_to_each
        return replace(self, refused_cuts=refused)

    def at_cuts(self, cuts: Counts) -> "Workload":
        """Take what holds at one of several cuts of a round for all of them."""
        found = frozenset(cuts.tolist())
        return (
            replace(self, fixed_cuts=self.fixed_cuts | found) if found & self.fixed_cuts else self
        )

    @classmethod
    def of_scenario(cls, scenario: Scenario, *, loss_on_device: bool) -> "Workload":
        """Take the work that a scenario describes."""
        cuts = scenario.cut_table()
        return cls(
            cuts=cuts,
            batch_size=scenario.batch_size,
            local_epochs=scenario.local_epochs,
            label_bits=scenario.label_bits,
            message_bytes=np.inf,
            server=scenario.server(cuts),
            medium=scenario.medium(),
            loss_on_device=loss_on_device,
        )


@dataclass(frozen=True)
class PlanBasis:
    """What a plan was priced by, so that others can be priced by the same."""

    states: tuple[DeviceState, ...]
    """Of all that could be planned with, in id order."""
    workload: Workload
    lessons: int
    """Rounds that predictions had been corrected by."""


@dataclass(frozen=True)
class Fleet:
    """Devices in id order, their states stacked into arrays."""

    devices: tuple[str, ...]
    num_samples: Floats
    """|D_k|, [device]."""
    device_forward_s: Floats
    """Seconds of one sample's forward pass, [device, cut]."""
    device_backward_s: Floats
    """Seconds of one sample's backward pass, [device, cut]."""
    up_bps: Floats
    """Rate with the whole link, [device]."""
    down_bps: Floats
    """Rate with the whole link, [device]."""
    round_trip_s: Floats
    message_s: Floats
    free_memory_bytes: Floats
    scale: Floats
    """Learned factor, [phase, device]."""
    added_s: Floats
    """Learned seconds, [phase, device]."""
    power_w: Floats
    """Watts when idle, and more when computing and sending, [idle or what more, device]; 0 where
    nobody knows."""
    label_mix: Floats | None
    """Fraction of each class in a device's data, [device, class]; None unless all publish it."""
    cuts: Counts | None = None
    """Where each device cuts, [device], if not all at the round's cut."""

    def cut_at(self, cut: int, own: Mapping[str, int]) -> "Fleet":
        """Have devices cut where they do on their own, and all others at a cut."""
        cuts = np.array([own.get(device, cut) for device in self.devices], dtype=np.int64)
        return replace(self, cuts=cuts if (cuts != cut).any() else None)

    def cuts_by(self, cut: int) -> Counts:
        """Where each device cuts, [device], in a round that is cut there."""
        return np.full(self.num_devices, cut) if self.cuts is None else self.cuts

    @property
    def num_devices(self) -> int:
        """How many devices there are."""
        return len(self.devices)

    @classmethod
    def of(cls, states: Sequence[DeviceState]) -> "Fleet":
        """Stack the states of devices whose compute and link have been measured."""
        states = sorted(states, key=lambda state: state.device)
        compute = [_measured(state)[0] for state in states]
        links = [_measured(state)[1] for state in states]
        return cls(
            devices=tuple(state.device for state in states),
            num_samples=np.array([state.num_samples for state in states], dtype=np.float64),
            device_forward_s=np.array([each.forward_s for each in compute]),
            device_backward_s=np.array([each.backward_s for each in compute]),
            up_bps=np.array([link.up_bps for link in links]),
            down_bps=np.array([link.down_bps for link in links]),
            round_trip_s=np.array([link.round_trip_s for link in links]),
            message_s=np.array([link.message_s for link in links]),
            free_memory_bytes=np.array([state.free_memory_bytes for state in states]),
            scale=np.array([state.corrections.scale for state in states]).T,
            added_s=np.array([state.corrections.added_s for state in states]).T,
            power_w=np.array([_watts(state) for state in states]).T,
            label_mix=_label_mix(states),
        )


def leave_out(
    devices: Sequence[DeviceState],
    workload: Workload,
    *,
    candidates: Sequence[int],
    own_cuts: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, str]:
    """Give the reason for each device that cannot take part at its own, or any candidate cut."""
    reasons: dict[str, str] = {}
    for cut in sorted(set(own_cuts.values())):
        own = [state for state in devices if own_cuts.get(state.device) == cut]
        reasons |= _leave_out(own, workload, candidates=[cut])
    others = [state for state in devices if state.device not in own_cuts]
    reasons |= _leave_out(others, workload, candidates=candidates)
    return dict(sorted(reasons.items()))


def _leave_out(
    devices: Sequence[DeviceState], workload: Workload, *, candidates: Sequence[int]
) -> dict[str, str]:
    usable = [cut for cut in candidates if cut not in workload.refused_cuts] or list(candidates)
    needed_bytes, shallowest = device_memory_bytes(workload)[usable].min(), min(usable)
    reasons = {}
    for state in sorted(devices, key=lambda each: each.device):
        if state.num_samples == 0:
            reasons[state.device] = "holds no samples"
        elif state.compute is None:
            reasons[state.device] = "no measurement of its compute speed"
        elif state.link is None:
            reasons[state.device] = "no measurement of its link"
        elif needed_bytes > state.free_memory_bytes:
            reasons[state.device] = (
                f"the smallest device side needs {needed_bytes / 1e6:.3g} MB, "
                f"{state.free_memory_bytes / 1e6:.3g} MB are free"
            )
        elif state.deepest_cut is not None and state.deepest_cut < shallowest:
            reasons[state.device] = f"cannot run {shallowest} layers: {state.why_no_deeper}"
        elif (least := state.shallowest_cut) > max(usable):
            reasons[state.device] = f"its owner lets nothing out before {least} layers"
    return reasons


def device_memory_bytes(workload: Workload) -> Floats:
    """Estimate the memory that training the device side takes, or what is known of it, [cut]."""
    cuts = workload.cuts
    activation_bytes = np.cumsum(cuts.smashed_bits) / BITS_PER_BYTE
    needed_bytes: Floats = (
        MODEL_COPIES * cuts.device_model_bits / BITS_PER_BYTE
        + cuts.device_frozen_bytes
        + ACTIVATION_COPIES * workload.batch_size * activation_bytes
    )
    for cut, known_bytes in workload.known_bytes.items():
        needed_bytes[cut] = max(needed_bytes[cut], known_bytes)
    return needed_bytes


def _watts(state: DeviceState) -> tuple[float, float, float]:
    power = state.power
    return (0.0,) * 3 if power is None else (power.idle_w, power.compute_w, power.radio_w)


def _measured(state: DeviceState) -> tuple[ComputeState, LinkState]:
    if state.compute is None or state.link is None:
        raise InfeasiblePlanError(f"{state.device} was not measured")
    return state.compute, state.link


def _label_mix(states: Sequence[DeviceState]) -> Floats | None:
    counts = [state.label_counts for state in states]
    known = [count for count in counts if count is not None and sum(count) > 0]
    if not known or len(known) < len(counts):
        return None
    num_classes = max(len(count) for count in known)  # A device may not know of the last ones.
    table = np.zeros((len(known), num_classes))
    for row, count in zip(table, known, strict=True):
        row[: len(count)] = count
    mix: Floats = table / table.sum(axis=1, keepdims=True)
    return mix
