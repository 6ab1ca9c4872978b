"""Timing the server on a batch that the network takes."""

import torch
from torch import nn

from edge_coordinator.replanning.task import measure_server
from runtime.models.load import network_of


class Tokens(nn.Module):
    """Looks token ids up, after something that takes any number."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ids = (x * 1).long()
        mean: torch.Tensor = self.head(self.table(ids).mean(1))
        return mean


def test_the_server_is_timed_on_token_ids_where_the_network_takes_them() -> None:
    network = network_of(Tokens(), name="tokens", input_shape=(5,))
    found = measure_server(network, sample_shape=(5,), num_samples=3)
    assert (found.forward_s >= 0).all()
    assert found.forward_s.sum() > 0
