"""Write the graphs that an agent without torch and without a job is measured with.

They ship with the package: `python -m edge_coordinator.onnx_export device_agent/data`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_coordinator.onnx_export import export_device_side
from runtime.models.cut_table import measure_cut_table
from runtime.models.load import input_shape_of, load_network, split
from runtime.wire.device_graphs import (
    SHIPPED_BATCH_SIZE,
    SHIPPED_CUTS,
    SHIPPED_NETWORK,
    shipped_folder,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m edge_coordinator.onnx_export",
        description="Write the graphs that a device without a job is measured with.",
    )
    parser.add_argument("folder", type=Path, help="where they go: device_agent/data")
    folder = parser.parse_args(arguments).folder
    try:
        write_graphs(folder)
    except OSError as error:
        print(f"cannot write {error.filename or folder}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def write_graphs(folder: Path) -> None:
    """Export the device sides of a built-in network, and its layers' work."""
    network = load_network(SHIPPED_NETWORK, {}, seed=0)
    shape = input_shape_of(network)
    for cut in SHIPPED_CUTS:
        own = folder / shipped_folder(cut)
        own.mkdir(parents=True, exist_ok=True)
        device_side, _ = split(network, cut)
        graphs = export_device_side(device_side, shape, batch_size=SHIPPED_BATCH_SIZE)
        (own / "manifest.json").write_bytes(graphs.manifest.encode())
        for name, payload in graphs.payloads.items():
            (own / f"{name}.onnx").write_bytes(payload)
    layers = [
        {"name": each.name, "forward_flop": each.forward_flop, "backward_flop": each.backward_flop}
        for each in measure_cut_table(network, name=SHIPPED_NETWORK, input_shape=shape).layers
    ]
    (folder / "layers.json").write_text(json.dumps(layers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
