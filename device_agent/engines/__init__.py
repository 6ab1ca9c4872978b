"""What computes the device side: PyTorch, or ONNX Runtime without it."""
