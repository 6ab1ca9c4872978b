"""Attention whose dropout is drawn from the step's key."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from runtime.models.seeded import SeededDropout


class SeededAttention(nn.Module):
    """What torch's scaled dot product attention computes in training, with its dropout as a layer.

    `layer` is where in the network it stands, by which its masks are drawn.
    """

    def __init__(self, p: float, *, layer: str) -> None:
        super().__init__()
        self.drop = SeededDropout(p, layer=layer, channel_wise=False)

    def forward(  # noqa: PLR0917 - torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002 - the layer has it
        is_causal: bool = False,  # noqa: FBT001, FBT002
        scale: float | None = None,
        enable_gqa: bool = False,  # noqa: FBT001, FBT002
    ) -> Tensor:
        """Queries, keys and values are [sample, head, position, feature]."""
        if enable_gqa:
            groups = query.shape[-3] // key.shape[-3]
            key, value = (each.repeat_interleave(groups, -3) for each in (key, value))
        factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
        masks = [] if attn_mask is None else [attn_mask]
        if is_causal:
            positions = (query.shape[-2], key.shape[-2])
            masks.append(torch.ones(positions, dtype=torch.bool).tril())
        return torch.matmul(self.weights(query * factor, key, masks), value)

    def weights(self, query: Tensor, key: Tensor, masks: list[Tensor]) -> Tensor:
        """How much of each value each query gets, [sample, head, query, key], some dropped.

        A mask of bool keeps scores where it is true; one of numbers is added to them.
        """
        scores = torch.matmul(query, key.transpose(-2, -1))
        for mask in masks:
            is_kept = mask.dtype == torch.bool
            scores = scores.masked_fill(~mask, -math.inf) if is_kept else scores + mask
        dropped: Tensor = self.drop(functional.softmax(scores, dim=-1))
        return dropped


class SeededMultiheadAttention(nn.MultiheadAttention):
    """Torch's layer of that name, with its own weights, whose dropout is a layer of its own."""

    attend: SeededAttention

    def forward(  # noqa: PLR0917 - torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002
        is_causal: bool = False,  # noqa: FBT001, FBT002
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's; it is torch's in evaluation."""
        if not self.training:
            return super().forward(
                query,
                key,
                value,
                key_padding_mask,
                need_weights,
                attn_mask,
                average_attn_weights,
                is_causal,
            )
        given = (query, key, value)
        if not self.batch_first:
            given = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        queries, keys, values = self._projected(*given)
        masks = self._masks(key_padding_mask, attn_mask)
        weights = self.attend.weights(queries * self.head_dim**-0.5, keys, masks)
        outputs = self.out_proj(torch.matmul(weights, values).transpose(1, 2).flatten(2))
        if not need_weights:
            shown = None
        else:
            shown = weights.mean(dim=1) if average_attn_weights else weights
        return (outputs if self.batch_first else outputs.transpose(0, 1)), shown

    def _projected(self, *given: Tensor) -> list[Tensor]:
        """Queries, keys and values as [sample, head, position, feature]."""
        if self.in_proj_weight is not None:
            weights = [*self.in_proj_weight.chunk(3)]
        else:
            weights = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
        biases = [None] * 3 if self.in_proj_bias is None else [*self.in_proj_bias.chunk(3)]
        return [
            self._by_head(functional.linear(x, weight, bias))
            for x, weight, bias in zip(given, weights, biases, strict=True)
        ]

    def _by_head(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)

    def _masks(self, of_keys: Tensor | None, of_pairs: Tensor | None) -> list[Tensor]:
        """Torch's masks, which are true where a bool hides, as those of `SeededAttention`."""
        masks = []
        if of_pairs is not None:
            is_each = of_pairs.dim() == 3  # One for each sample and head.
            masks.append(
                of_pairs.reshape(-1, self.num_heads, *of_pairs.shape[1:]) if is_each else of_pairs
            )
        if of_keys is not None:
            masks.append(of_keys[:, None, None])
        return [~mask if mask.dtype == torch.bool else mask for mask in masks]


def drops_inside(layer: nn.MultiheadAttention) -> bool:
    """Whether an attention drops in a way that `seeded_attention` can stand for."""
    if isinstance(layer, SeededMultiheadAttention) or layer.bias_k is not None:
        return False
    return layer.dropout > 0 and not layer.add_zero_attn


def seeded_attention(layer: nn.MultiheadAttention, *, name: str) -> SeededMultiheadAttention:
    """Give an attention of the same weights that draws by the address `name`."""
    seeded = SeededMultiheadAttention.__new__(SeededMultiheadAttention)
    vars(seeded).update(vars(layer))
    vars(seeded)["_modules"] = dict(vars(layer)["_modules"])
    seeded.attend = SeededAttention(layer.dropout, layer=name)
    return seeded
