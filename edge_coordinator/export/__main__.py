"""Write the graphs that an agent without torch and without a job is measured with.

They ship with the package: `python -m edge_coordinator.export device_agent/data`.
"""

import json
import sys
from pathlib import Path

from edge_coordinator.export import export_device_side
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import input_shape_of, load_network, split

NETWORK, BATCH_SIZE = "lenet", 16
CUTS = (6,)


def main() -> None:
    """Export the device sides of a built-in network, and its layers' work."""
    folder = Path(sys.argv[1])
    network = load_network(NETWORK, {}, seed=0)
    shape = input_shape_of(network)
    for cut in CUTS:
        device_side, _ = split(network, cut)
        graphs = export_device_side(device_side, shape, batch_size=BATCH_SIZE)
        own = folder / f"{NETWORK}-{cut}"
        own.mkdir(parents=True, exist_ok=True)
        (own / "manifest.json").write_bytes(graphs.manifest.encode())
        for name, payload in graphs.payloads.items():
            (own / f"{name}.onnx").write_bytes(payload)
    layers = [
        {"name": each.name, "forward_flop": each.forward_flop, "backward_flop": each.backward_flop}
        for each in measure_cut_table(network, name=NETWORK, input_shape=shape).layers
    ]
    (folder / "layers.json").write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
