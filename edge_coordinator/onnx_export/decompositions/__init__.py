"""Backward operators, and what else ONNX cannot say, as forward operators that it can."""

from edge_coordinator.onnx_export.decompositions import activations as activations
from edge_coordinator.onnx_export.decompositions import average_pooling as average_pooling
from edge_coordinator.onnx_export.decompositions import convolution as convolution
from edge_coordinator.onnx_export.decompositions import max_pooling as max_pooling
from edge_coordinator.onnx_export.decompositions import normalisation as normalisation
from edge_coordinator.onnx_export.decompositions import reductions as reductions
from edge_coordinator.onnx_export.decompositions.registry import (
    decomposition_table as decomposition_table,
)
