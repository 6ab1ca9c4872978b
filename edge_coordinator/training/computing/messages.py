"""What rank 0 and another rank say to each other: JSON, then tensors as their bytes.

Both ends are of one program and one user, over a pair of sockets without a name. Nothing is
pickled, so no code travels.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from runtime.wire.frames import Tensor

Fields = Mapping[str, Any]


@dataclass(frozen=True)
class RankMessage:
    """A request or its answer."""

    kind: str
    fields: Fields
    arrays: Sequence[Tensor] = ()


def send(connection: Connection, message: RankMessage) -> None:
    """Send a message; BrokenPipeError if nobody is there."""
    arrays = [np.ascontiguousarray(each) for each in message.arrays]
    head = {
        "kind": message.kind,
        "fields": message.fields,
        "arrays": [
            (each.dtype.str, np.shape(own))
            for each, own in zip(arrays, message.arrays, strict=True)
        ],
    }
    connection.send_bytes(json.dumps(head).encode())
    for each in arrays:
        if each.size:
            connection.send_bytes(each.reshape(-1).view(np.uint8).data)


def receive(connection: Connection) -> RankMessage:
    """Receive a message; EOFError if the other has ended."""
    head = json.loads(connection.recv_bytes())
    arrays = []
    for dtype, shape in head["arrays"]:
        array = np.empty(shape, np.dtype(dtype))
        if array.size:
            connection.recv_bytes_into(array.reshape(-1).view(np.uint8).data)
        arrays.append(array)
    return RankMessage(head["kind"], head["fields"], arrays)
