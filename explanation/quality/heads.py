"""Attention distance and entropy of each head.

Legend: B images, W windows, M heads, N tokens of a window, h w the layer's grid.
"""

import torch
from torch import Tensor

from explanation.attention import AttentionLayer


def attention_distance(layer: AttentionLayer, image_size: tuple[int, int]) -> Tensor:
    """Mean distance in pixels between a patch and those that it attends to (Dosovitskiy et al. 2021, appendix D.7).

    From the centre of the query patch to those of the attended patches, weighted by attention, averaged over queries. Class
    tokens and padding have no position: as queries they are left out; as keys too, and the other weights are scaled up.

    Returns:
        float32 B M.
    """
    (rows, columns), positions = layer.grid, layer.positions
    y, x = positions // columns * (image_size[0] / rows), positions % columns * (image_size[1] / columns)
    distance = torch.hypot(y[:, :, None] - y[:, None], x[:, :, None] - x[:, None])  # W N N
    weights, queries = _between_patches(layer)
    per_query = torch.einsum("bwmqk,wqk->bmwq", weights, distance.to(weights.dtype))
    return per_query[..., queries].mean(dim=-1)


def attention_entropy(layer: AttentionLayer) -> Tensor:
    """Mean entropy in nats of a patch's attention over patches, float32 B M: 0 on one patch, log n evenly on n."""
    weights, queries = _between_patches(layer)
    return torch.special.entr(weights).sum(dim=-1).transpose(1, 2)[..., queries].mean(dim=-1)


def _between_patches(layer: AttentionLayer) -> tuple[Tensor, Tensor]:
    """Attention B W M N N over keys that are patches, its rows scaled to sum to 1; and bool W N, which queries are."""
    patches = layer.positions >= 0
    weights = layer.weights.float() * patches[:, None, None, :]
    return weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12), patches
