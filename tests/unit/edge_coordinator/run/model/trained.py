"""The directory of a run that is over, and how near to its model outputs have to be."""

from pathlib import Path

import numpy as np
import torch

from edge_coordinator.job.file import dump_job, load_job
from edge_coordinator.run.model.files import save_weights
from edge_coordinator.run.model.halves import TorchHalf
from runtime.inference.half import Floats
from runtime.models.load import load_network
from runtime.models.sequence import Network
from tests.rounding import ALLOWED


def write_run(path: Path, name: str = "mlp") -> Network:
    """Write what inference needs of a run; its network."""
    path.mkdir()
    (path / "job.toml").write_text(dump_job(load_job(None, {"model.name": name})))
    network = load_network(name, {}, seed=3).eval()
    save_weights(path / "model.safetensors", network, round_=7)
    return network


def allowed_by_rounding(network: Network, x: Floats) -> float:
    """How far apart rounding alone may put two outputs, by how far it puts the network's own."""
    with torch.no_grad():
        exact = network.double()(torch.from_numpy(x).double()).numpy()
    own = TorchHalf(network.float()).run(x)
    return float(np.abs(own - exact).max() + np.spacing(np.abs(own).max())) * ALLOWED
