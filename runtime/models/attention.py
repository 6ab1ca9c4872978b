"""Scaled dot product attention whose dropout is drawn from the step's key."""

import math

import torch
from torch import nn
from torch.nn import functional

from runtime.models.dropout import SeededDropout


class SeededAttention(nn.Module):
    """What torch's function of that name computes in training, with its dropout as a layer.

    `layer` is where in the network it stands, by which its masks are drawn.
    """

    def __init__(self, p: float, *, layer: str) -> None:
        super().__init__()
        self.drop = SeededDropout(p, layer=layer, channel_wise=False)

    def forward(  # noqa: PLR0917 - torch's own signature
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002 - the layer has it
        is_causal: bool = False,  # noqa: FBT001, FBT002
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> torch.Tensor:
        """Queries, keys and values are [sample, head, position, feature]."""
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(groups, -3) for each in (key, value))
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        scores = torch.matmul(query * factor, key.transpose(-2, -1))
        if is_causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            scores = scores.masked_fill(seen.logical_not(), -math.inf)
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(attn_mask.logical_not(), -math.inf)
        elif attn_mask is not None:
            scores = scores + attn_mask
        weights = self.drop(functional.softmax(scores, dim=-1))
        return torch.matmul(weights, value)
