"""How clusters may be formed, by which method; apart, so that settings are read without numpy."""

from typing import Literal

Form = Literal["planned", "sorted", "random", "by_id"]
"""How devices come together: sampled for a short round, by finish time, at random, neighbours."""

BatchSizes = Literal["equal", "by_speed", "by_data", "auto"]
"""How a cluster's samples are shared out: B to each device, or B times their number among them by
how fast they are or by how much data they have; auto: by speed where that shortens the round."""

Method = Literal["cpsl", "sl", "fl", "cl"]
"""Cluster-based, vanilla split, federated and central learning."""
