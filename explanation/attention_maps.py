"""Attention itself as a heat map: to which patches the class token, one patch, or all patches attend, for each head.

Attention is not evidence for a class: these maps are the same for every class.

Legend: B images, W windows, M heads, N tokens of a window, h w the layer's grid.
"""

import torch
from torch import Tensor, nn

from common.console import did_you_mean
from explanation.attention import AttentionLayer, record_attention
from explanation.layers import MapLayer
from models import input_spec

ASKED_BY = {"patch": "one patch", "class token": "the class token", "patches": "the mean over all patches"}


def attention_layer(model: nn.Module, name: str | None = None) -> MapLayer:
    """The attention layer ``name`` (or the one in the block ``name``); by default the last.

    Raises ValueError for a model without attention over one grid, and for a name that fits none of its layers.
    """
    images = torch.zeros(1, 3, *input_spec(model).size, device=next(model.parameters()).device)
    layers = record_attention(model, images)[1]
    chosen = [layer for layer in layers if name in (None, layer.name, layer.name.rpartition(".")[0])]
    if not chosen:
        names = [layer.name for layer in layers]
        hint = did_you_mean(name, names, cutoff=0.4)
        raise ValueError(f"--layer {name} is no attention layer{hint}; those are {', '.join(names)}")
    layer = chosen[-1]
    return MapLayer(layer.name, model.get_submodule(layer.name), layer.grid, lambda output: output)


def attention_of(model: nn.Module, images: Tensor, name: str, patch: tuple[int, int] | None = None) -> Tensor:
    """Attention of each head of one layer to the patches, not rescaled: float32 B M h w.

    Args:
        name: name of the attention layer, as in `attention_layer`.
        patch: row and column of the query patch; None: the class token or, without one, the mean over all patches.
    """
    (layer,) = [one for one in record_attention(model, images)[1] if one.name == name]
    return attention_maps(layer, patch, class_token=getattr(model, "cls_token", None) is not None)


def asked_by(model: nn.Module, patch: tuple[int, int] | None) -> str:
    """The query in words: a patch, the class token, or the mean over all patches."""
    if patch is not None:
        return f"patch {patch[0]}, {patch[1]}"
    return ASKED_BY["class token" if getattr(model, "cls_token", None) is not None else "patches"]


def attention_maps(layer: AttentionLayer, patch: tuple[int, int] | None = None, *, class_token: bool = False) -> Tensor:
    """Attention of one query token of a layer, or the mean over its patches, with windows and shifts undone; B M h w.

    A map sums to 1 minus the attention to class and register tokens.

    Args:
        patch: row and column of the query patch on the layer's grid.
        class_token: whether the first token is a class token, which is then the query if ``patch`` is None.
    Raises:
        ValueError: no such patch.
    """
    (height, width), windows = layer.grid, len(layer.positions)
    weights, places = layer.weights.float(), layer.positions  # B W M N N, W N
    queries = (places >= 0).float()
    if patch is not None:
        row, column = patch
        if not (0 <= row < height and 0 <= column < width):
            raise ValueError(
                f"--patch {row} {column}: {layer.name} has {height} x {width} patches, counted from 0 0 in the upper left"
            )
        queries = (places == row * width + column).float()
    elif class_token and windows == 1:
        queries = torch.zeros_like(queries)
        queries[0, 0] = 1
    looked = torch.einsum("bwmqk,wq->bmwk", weights, queries.to(weights.device)) / queries.sum()  # B M W N
    flat = looked.flatten(2)  # B M W*N
    cells = places.flatten().to(flat.device)
    maps = flat.new_zeros(*flat.shape[:2], height * width)
    kept = cells >= 0
    return maps.index_add(2, cells[kept], flat[..., kept]).unflatten(2, (height, width))
