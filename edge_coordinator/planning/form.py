"""How clusters may be formed, by which method; apart, so that settings are read without numpy."""

from typing import Literal

Form = Literal["planned", "sorted", "random", "by_id"]
"""How devices come together: sampled for a short round, by finish time, at random, neighbours."""

Method = Literal["cpsl", "sl", "fl", "cl"]
"""Cluster-based, vanilla split, federated and central learning."""
