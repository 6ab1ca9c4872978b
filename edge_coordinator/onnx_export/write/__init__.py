"""From a flat graph of ATen operators to an ONNX model."""
