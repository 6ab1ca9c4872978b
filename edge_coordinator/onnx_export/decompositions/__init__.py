"""Backward operators, and what else ONNX cannot say, as forward operators that it can."""

from edge_coordinator.onnx_export.decompositions import (
    activations,
    average_pooling,
    convolution,
    max_pooling,
    normalisation,
)
from edge_coordinator.onnx_export.decompositions.registry import decomposition_table

__all__ = [
    "activations",
    "average_pooling",
    "convolution",
    "decomposition_table",
    "max_pooling",
    "normalisation",
]
