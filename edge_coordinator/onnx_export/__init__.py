"""The device side of a network as ONNX graphs, for devices without torch."""

from edge_coordinator.onnx_export.device_side import export_device_side as export_device_side
