"""Control messages from strangers: bounded, cheap to refuse, and safe to show."""

import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import MalformedMessageError
from runtime.wire.commands import Join, Ready, Refused
from runtime.wire.control import decode_command, decode_reply
from runtime.wire.fields import MAX_MESSAGE_BYTES, MAX_OPTIONS, MAX_WORDS, Message, are_nested
from runtime.wire.published import CoordinatorStatus, DeviceMetrics, DeviceProfile, DeviceStatus
from runtime.wire.topics import Topics
from tests.sites import EPOCH
from tests.stated_profiles import Stated, stated_profile
from tests.turn import ASSIGNMENT, JOIN, JOINED, PROFILE, READY, STATUS


def _fields(value: bytes) -> bytes:
    return b",".join(b'"%x":%s' % (number, value) for number in range(6000))


@pytest.mark.parametrize("message", [ASSIGNMENT, JOIN])
def test_a_command_comes_out_as_it_went_in(message: Message) -> None:
    assert decode_command(memoryview(message.encode())) == message


@pytest.mark.parametrize("message", [READY, JOINED, Refused(run=1, reason="no room")])
def test_a_reply_comes_out_as_it_went_in(message: Message) -> None:
    assert decode_reply(memoryview(message.encode())) == message


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_random_bytes_are_malformed_and_nothing_worse(payload: bytes) -> None:
    for decode in (decode_command, decode_reply, DeviceStatus.decode, DeviceProfile.decode):
        with pytest.raises(MalformedMessageError):
            decode(payload)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    ),
    st.sampled_from(sorted(Join.model_fields)),
)
def test_any_json_in_any_field_is_a_join_or_malformed(value: object, name: str) -> None:
    payload = json.dumps(JOIN.model_dump() | {name: value}).encode()
    try:
        message = decode_command(payload)
    except MalformedMessageError:
        return
    assert isinstance(message, Join)
    assert decode_command(message.encode()) == message


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * MAX_MESSAGE_BYTES,
        b'{"a":' * (MAX_MESSAGE_BYTES // 5),
        b'{"kind":"stop","run":' + b"9" * (MAX_MESSAGE_BYTES - 22) + b"}",
        b'{"kind":"' + b"x" * (MAX_MESSAGE_BYTES - 11) + b'"}',
        b'{"kind":"stop",' + b",".join(b'"%x":1' % n for n in range(6000)) + b"}",
        b'{"kind":"assignment","options":{'
        + b",".join(b'"%x":{}' % n for n in range(6000))
        + b"}}",
        b'{"kind":"assignment","options":{"a":[' + b'"",' * 20_000 + b'""]}}',
        b" " * 50_000_000,
    ],
    ids=["lists", "objects", "digits", "kind", "fields", "options", "list", "blank"],
)
def test_the_worst_message_costs_little_and_its_fault_is_told_in_few_words(payload: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(MalformedMessageError) as caught:
        decode_command(payload)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 16_000_000
    assert len(str(caught.value)) < 300
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "changes",
    [
        {"label_shape": [65_535, 65_535]},
        {"label_shape": [1] * 9},
        {"label_shape": [-1]},
        {"num_samples": 2**63},
        {"num_held_out": 2**63},
        {"num_samples": 0},
        {"num_held_out": -1},
    ],
)
def test_a_device_cannot_claim_what_no_memory_holds(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedMessageError):
        Ready.decode(json.dumps(READY.model_dump() | changes).encode())


@pytest.mark.parametrize(
    "changes",
    [{"num_cores": 2**64}, {"num_cores": 0}, {"sample_shape": [1] * 9}, {"machine": "x" * 65}],
)
def test_a_profile_has_bounds(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedMessageError):
        DeviceProfile.decode(json.dumps(PROFILE.model_dump() | changes).encode())


@pytest.mark.parametrize("figure", [1e-320, 0.5, 1e19, 1e308])
@pytest.mark.parametrize("name", ["up_bps", "down_bps", "forward_flop_per_s"])
def test_a_device_cannot_claim_a_rate_that_no_device_has(name: str, figure: float) -> None:
    profile = stated_profile("a", Stated()).model_dump()
    profile["link" if name.endswith("bps") else "compute"][name] = figure
    with pytest.raises(MalformedMessageError, match=name):
        DeviceProfile.decode(json.dumps(profile).encode())


def test_a_device_cannot_claim_seconds_without_end() -> None:
    profile = stated_profile("a", Stated()).model_dump()
    metrics = DeviceMetrics(
        run=7, round=3, cluster=0, forward_s=1, backward_s=1, upload_s=1, waiting_s=1,
        up_bytes=1, down_bytes=1, phases=EPOCH,
    ).model_dump()  # fmt: skip
    for message, fields, place in (
        (DeviceProfile, profile, profile["link"]),
        (DeviceProfile, profile, profile["compute"]["layers"][0]),
        (DeviceMetrics, metrics, metrics),
        (DeviceMetrics, metrics, metrics["phases"]),
    ):
        name = "round_trip_s" if "round_trip_s" in place else "forward_s"
        kept, place[name] = place[name], 1e308
        with pytest.raises(MalformedMessageError):
            message.decode(json.dumps(fields).encode())
        place[name] = kept
        assert message.decode(json.dumps(fields).encode())


def test_an_assignment_has_no_more_options_than_a_network_takes() -> None:
    fields = ASSIGNMENT.model_dump()
    fields["options"] = {f"o{n}": [n] * MAX_OPTIONS for n in range(MAX_OPTIONS)}
    assert decode_command(json.dumps(fields).encode())
    fields["options"] |= {"one_more": 1}
    with pytest.raises(MalformedMessageError, match="options"):
        decode_command(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("options", "is_nested"),
    [
        ({"input_shape": {"ids": [128], "age": []}}, True),
        ({"kernels": [[3, 3], [5, 5]], "names": ["a"], "rates": [0.5]}, True),
        ({"blocks": [{"width": 8, "kernel": [3, 3]}]}, True),
        ({"width": 0.5, "is_deep": True, "hidden": [8, 8], "activation": "relu"}, False),
    ],
)
def test_options_may_be_lists_and_tables_that_older_devices_do_not_know(
    options: dict[str, object],
    is_nested: bool,  # noqa: FBT001
) -> None:
    sent = ASSIGNMENT.model_copy(update={"options": options})
    received = decode_command(sent.encode())
    assert received == sent
    assert are_nested(options) == is_nested


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"a": [[[[[1]]]]]}, "a is too large"),
        ({"a": {str(n): n for n in range(MAX_OPTIONS + 1)}}, "a is too large"),
        ({"a": [[0] * MAX_OPTIONS] * MAX_OPTIONS, "b": 1}, "a is too large"),
        ({"a": [2**64]}, "a has 18446744073709551616; what an option may be"),
        ({"a": [None]}, "a has None; what an option may be"),
    ],
)
def test_options_that_a_device_could_not_bear_are_refused(
    options: dict[str, object], said: str
) -> None:
    fields = ASSIGNMENT.model_dump() | {"options": options}
    with pytest.raises(MalformedMessageError, match=said):
        decode_command(json.dumps(fields).encode())


def test_what_is_shown_to_people_is_short_and_printable_whoever_wrote_it() -> None:
    hostile = "\x1b[2J\r\n\udcff" + "x" * 100_000
    reason = Refused(run=1, reason=hostile).reason
    phase = CoordinatorStatus(state="online", session="a", since_unix_s=0, phase=hostile).phase
    assert reason == phase
    assert reason.isprintable()
    assert len(reason) == MAX_WORDS


@pytest.mark.parametrize("device", ["a b", "a\nb", "é", "x" * 65, "-x", "\x1b[2J", ""])
def test_a_topic_of_a_device_id_that_nobody_may_have_is_nobodys(device: str) -> None:
    topics = Topics("default")
    assert topics.parse(topics.status(device)) is None
    assert topics.parse(topics.status("pi-1.local")) is not None


def test_a_status_of_two_states_or_none_is_refused() -> None:
    for state in ("", "Online", None, ["online"]):
        with pytest.raises(MalformedMessageError, match="state"):
            DeviceStatus.decode(json.dumps(STATUS.model_dump() | {"state": state}).encode())
