"""The owner's veto: nothing leaves a device before a layer of the owner's choice."""

from dataclasses import replace

import pytest

from device_agent.agent.trainer import Trainer
from device_agent.command_line import build_parser
from device_agent.engines.open import open_engine
from device_agent.program import agent_settings
from edge_coordinator.devices.registry import DeviceRecord
from edge_coordinator.planning.fleet import leave_out
from edge_coordinator.replanning.corrections import LearnedCorrections
from edge_coordinator.replanning.device_states import cuts_before, known_devices
from profiles.link import IndependentLinks
from runtime.errors import SettingsError
from runtime.wire.run_control import SettingsReport
from tests.fleets import CUTS, device, workload
from tests.noise import random_samples
from tests.turn import ASSIGNMENT, JOIN, PROFILE, READY, STATUS


def _trainer(min_cut: str, engine: str = "torch") -> Trainer:
    samples = random_samples(40, (1, 28, 28), num_classes=10, seed=5)
    return Trainer(
        "d0",
        samples,
        lambda job, shape: open_engine(engine, job, sample_shape=shape),
        min_cut=min_cut,
    )


@pytest.mark.parametrize(
    ("min_cut", "engine"),
    [pytest.param("pool1", "torch", marks=pytest.mark.torch), ("3", "onnxruntime")],
)
def test_a_device_refuses_a_turn_that_cuts_before_what_its_owner_lets_out(
    min_cut: str, engine: str
) -> None:
    trainer = _trainer(min_cut, engine)
    trainer.prepare(ASSIGNMENT)
    for cut, purpose in ((0, "train"), (0, "evaluate"), (2, "train")):
        join = JOIN.model_copy(update={"cut": cut, "purpose": purpose})
        with pytest.raises(SettingsError, match=rf"before 3 \(--min-cut {min_cut}\)"):
            trainer.open(join)


@pytest.mark.torch
@pytest.mark.parametrize(("owners", "wanted"), [("1", "pool1"), ("conv1", "3"), ("", "3")])
def test_the_later_of_what_the_owner_and_the_settings_let_out_holds(
    owners: str, wanted: str
) -> None:
    trainer = _trainer(owners)
    trainer.prepare(ASSIGNMENT)
    trainer.open(JOIN.model_copy(update={"cut": 2}))
    trainer.wanted_min_cut = wanted
    with pytest.raises(SettingsError, match=f"its settings let nothing out before 3 .*{wanted}"):
        trainer.open(JOIN.model_copy(update={"cut": 2}))
    trainer.wanted_min_cut = "1"
    trainer.open(JOIN.model_copy(update={"cut": 2}))


@pytest.mark.torch
def test_a_device_refuses_a_job_that_sends_raw_data_at_once() -> None:
    raw = ASSIGNMENT.model_copy(update={"deepest_cut": 0})
    with pytest.raises(SettingsError, match="the job cuts at the latest after 0 layers"):
        _trainer("1").prepare(raw)
    _trainer("").prepare(raw)


@pytest.mark.torch
def test_a_layer_that_the_network_lacks_lets_nothing_out() -> None:
    with pytest.raises(SettingsError, match="no layer named 'pool9'"):
        _trainer("pool9").prepare(ASSIGNMENT)


def test_a_plan_cuts_no_earlier_than_owners_let_out_or_goes_without_their_devices() -> None:
    strict = replace(device("a"), shallowest_cut=2)
    stricter = replace(device("b"), shallowest_cut=4)
    weak = replace(device("weak"), deepest_cut=3, why_no_deeper="no such kernel")
    why = "the owner of a lets nothing out before it"
    assert cuts_before([device("free"), strict], range(1, 4), beyond=()) == {1: why}
    assert cuts_before([strict, stricter, weak], range(1, 6), beyond=(4, 5)) == {1: why}
    refused = dict.fromkeys((4, 5), "weak cannot run it")
    work = replace(workload(IndependentLinks()), refused_cuts=refused)
    left_out = leave_out([strict, stricter], work, candidates=range(1, 6))
    assert left_out == {"b": "its owner lets nothing out before 4 layers"}


@pytest.mark.parametrize(
    ("flags", "min_cut"), [((), ""), (("--min-cut", "pool1"), "pool1"), (("--min-cut", "3"), "3")]
)
def test_an_agent_without_a_veto_has_none(flags: tuple[str, ...], min_cut: str) -> None:
    words = ("--broker", "mqtt://h", "--id", "a", "--data", "digits", "--engine", "torch", *flags)
    assert agent_settings(build_parser().parse_args(words)).limits.min_cut == min_cut


@pytest.mark.parametrize(
    ("min_cut", "wanted", "least"),
    [
        ("", "", 0),
        ("pool", "", 2),
        ("1", "", 1),
        ("no", "", 10**6),
        ("1", "pool", 2),
        ("pool", "1", 2),
        ("", "no", 10**6),
    ],
)
def test_a_profile_says_what_its_owner_or_its_settings_let_out(
    min_cut: str, wanted: str, least: int
) -> None:
    settings = SettingsReport(applied={"min_cut": wanted}) if wanted else None
    profile = PROFILE.model_copy(update={"min_cut": min_cut, "settings": settings})
    record = DeviceRecord(STATUS, profile=profile, ready=READY)
    (known,) = known_devices({"d0": record}, CUTS, LearnedCorrections(), shared_bps=None)
    assert known.state.shallowest_cut == min(least, CUTS.num_layers + 1)
