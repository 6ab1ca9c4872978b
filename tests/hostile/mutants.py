"""Real messages, damaged: what a broken or hostile peer might send.

Every mutant is wrong in a way that its receiver can know. A chunk whose data were changed and
whose checksum was made to fit is another chunk, not a mutant, unless it brings a NaN.
"""

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from runtime.wire.fields import MAX_PROFILE_BYTES
from runtime.wire.frames import CHUNK_HEADER
from tests.turn import Original

_MAGIC, _VERSION, _KIND, _RUN, _ROUND, _CLUSTER, _EPOCH, _INDEX, _NUM_CHUNKS, _LENGTH = range(10)
_TOO_BIG = {_RUN: 2**64 - 1, _ROUND: 2**32 - 1, _LENGTH: 2**64 - 1}
_NAN_BYTES = bytes.fromhex("0000c07f")


@dataclass(frozen=True)
class Mutant:
    """A damaged message, and how it was damaged."""

    topic: str
    payload: bytes
    original: Original
    damage: str


Choice = TypeVar("Choice")
Damage = Callable[[bytes, np.random.Generator], bytes]


class Mutator:
    """An endless source of mutants: equal seeds give equal mutants."""

    def __init__(self, originals: Sequence[Original], *, seed: int) -> None:
        self._by_topic = {
            topic: [original for original in originals if original.topic == topic]
            for topic in dict.fromkeys(original.topic for original in originals)
        }
        self._random = np.random.default_rng(seed)

    def next(self) -> Mutant:
        """Damage a random original of a random topic in a random way."""
        original = self._choose(self._choose(list(self._by_topic.values())))
        damage = self._choose(_OF_CHUNKS if original.is_frame else _OF_JSON)
        payload = damage(original.payload, self._random)
        return Mutant(original.topic, payload, original, damage.__name__.strip("_"))

    def _choose(self, choices: Sequence[Choice]) -> Choice:
        return choices[int(self._random.integers(len(choices)))]


# Anything


def _flip_bits(payload: bytes, random: np.random.Generator) -> bytes:
    damaged = bytearray(payload)
    num_bits = random.integers(1, 4)  # A CRC-32 finds up to three flipped bits, always.
    for bit in random.choice(len(payload) * 8, num_bits, replace=False):
        damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


def _truncate(payload: bytes, random: np.random.Generator) -> bytes:
    return payload[: random.integers(len(payload))]


def _extend(payload: bytes, random: np.random.Generator) -> bytes:
    return payload + random.bytes(int(random.integers(1, 100)))


def _replace(_payload: bytes, random: np.random.Generator) -> bytes:
    return random.bytes(int(random.integers(200)))


def _send_twice_in_one(payload: bytes, _random: np.random.Generator) -> bytes:
    return payload + payload


# Chunks, with a checksum that fits


def _sign(head: Sequence[object], data: bytes) -> bytes:
    start = CHUNK_HEADER.pack(*head[:-1], 0)[:-4]
    return start + zlib.crc32(data, zlib.crc32(start)).to_bytes(4, "little") + data


def _opened(payload: bytes) -> tuple[list[int], bytes]:
    return list(CHUNK_HEADER.unpack(payload[: CHUNK_HEADER.size])), payload[CHUNK_HEADER.size :]


def _is_last(head: Sequence[int]) -> bool:
    """Whether a chunk ends its frame, so that with another size it may end one of other chunks."""
    return head[_INDEX] == head[_NUM_CHUNKS] - 1


def _of_another_step(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    field = int(random.choice([_RUN, _ROUND, _CLUSTER, _EPOCH]))
    # No step of the original run is that far away.
    head[field] = (head[field] + int(random.integers(1000, 60_000))) % (_TOO_BIG.get(field, 0xFFFF))
    return _sign(head, data)


def _of_another_kind(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    head[_KIND] = (head[_KIND] + int(random.integers(1, 255))) % 256
    return _sign(head, data)


def _of_another_version(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    head[_VERSION] = int(random.integers(2, 256))
    return _sign(head, data)


def _of_another_size(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    sizes = [0, 1, 2**31, 2**32, 2**40, 2**63, 2**64 - 1, head[_LENGTH] + 1, head[_LENGTH] - 1]
    head[_LENGTH] = int(sizes[random.integers(len(sizes))])
    return _sign(head, data)


def _out_of_place(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    head[_INDEX] = int(random.integers(head[_NUM_CHUNKS], 0x10000))
    return _sign(head, data)


def _of_another_number(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    others = [0, 1, 2, 3, 0xFFFF, head[_NUM_CHUNKS] + 1, int(random.integers(0x10000))]
    others = [number for number in others if number != head[_NUM_CHUNKS]]
    head[_NUM_CHUNKS] = others[random.integers(len(others))]
    return _sign(head, data)


def _cut_to_size(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    if _is_last(head):
        return _out_of_place(payload, random)
    return _sign(head, data[: random.integers(len(data))])


def _grown(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    if _is_last(head):
        return _out_of_place(payload, random)
    return _sign(head, data + random.bytes(int(random.integers(1, 5000))))


def _with_nan(payload: bytes, random: np.random.Generator) -> bytes:
    head, data = _opened(payload)
    if head[_INDEX] == 0 or _is_last(head):  # There are the body's header and labels.
        return _of_another_kind(payload, random)
    place = 4 * int(random.integers(len(data) // 4))
    return _sign(head, data[:place] + _NAN_BYTES + data[place + 4 :])


def _of_another_type(payload: bytes, random: np.random.Generator) -> bytes:
    """Another number, dtype or shape of the tensors, where the body says so."""
    head, data = _opened(payload)
    if head[_INDEX] != 0:
        return _of_another_size(payload, random)
    damaged = bytearray(data)
    damaged[random.integers(6)] ^= 1 << int(random.integers(8))
    return _sign(head, bytes(damaged))


_OF_CHUNKS: Sequence[Damage] = (
    _flip_bits,
    _truncate,
    _extend,
    _replace,
    _send_twice_in_one,
    _of_another_step,
    _of_another_kind,
    _of_another_version,
    _of_another_size,
    _out_of_place,
    _of_another_number,
    _cut_to_size,
    _grown,
    _with_nan,
    _of_another_type,
)


# JSON

_WRONG = (
    "NaN", "-Infinity", "1e999", "null", "[]", "{}", '"\\ud800"', '"\\u0000"', "-1", "1.5", "true",
    str(2**64), str(2**63 - 1), "9" * 4000, "9" * 5000, "[" * 5000, '{"a":' * 3000,
    '"' + "x" * 9000, '"' + "\\n" * 3000 + '"', '"' + "y" * 3000 + '"',
)  # fmt: skip


def _with_a_wrong_value(payload: bytes, random: np.random.Generator) -> bytes:
    fields = json.loads(payload)
    texts = {name: json.dumps(value) for name, value in fields.items()}
    texts[list(fields)[random.integers(len(fields))]] = _WRONG[random.integers(len(_WRONG))]
    return ("{" + ",".join(f'"{name}":{text}' for name, text in texts.items()) + "}").encode()


def _without_a_field(payload: bytes, random: np.random.Generator) -> bytes:
    fields = json.loads(payload)
    del fields[list(fields)[random.integers(len(fields))]]
    return json.dumps(fields).encode()


def _with_more_fields(payload: bytes, random: np.random.Generator) -> bytes:
    more = {f"f{number}": number for number in range(int(2 ** random.uniform(0, 8)))}
    return json.dumps(json.loads(payload) | more).encode()


def _not_utf8(payload: bytes, random: np.random.Generator) -> bytes:
    place = random.integers(len(payload))
    return payload[:place] + bytes([random.integers(0x80, 0xC0)]) + payload[place:]


def _in_a_list(payload: bytes, _random: np.random.Generator) -> bytes:
    return b"[" + payload + b"]"


def _too_long(payload: bytes, _random: np.random.Generator) -> bytes:
    return payload[:-1] + b" " * MAX_PROFILE_BYTES + payload[-1:]


def _of_another_run(payload: bytes, random: np.random.Generator) -> bytes:
    fields = json.loads(payload)
    if "run" not in fields or fields.get("kind") == "assignment":
        return _without_a_field(payload, random)
    fields["run"] += int(random.integers(1, 1000))
    return json.dumps(fields).encode()


_OF_JSON: Sequence[Damage] = (
    _flip_bits,
    _truncate,
    _extend,
    _replace,
    _send_twice_in_one,
    _with_a_wrong_value,
    _without_a_field,
    _with_more_fields,
    _not_utf8,
    _in_a_list,
    _too_long,
    _of_another_run,
)
