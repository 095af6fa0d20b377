"""Attention rollout: how much each patch contributes to the prediction if attention is multiplied through all layers.

The layers' attention matrices are multiplied from the last to the first. Only the needed rows of the product are computed,
and Swin's windows are applied window by window, so that no full token matrix is formed; the result is the same.

Legend: B images, R rows, T tokens of a layer (class tokens first), W windows, M heads, N tokens of a window, h w the grid.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from explanation.attention import AttentionLayer, record_attention
from explanation.pooling import pooling


def attention_rollout(
    model: nn.Module, images: Tensor, *, context: Callable[[], AbstractContextManager] = nullcontext
) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, section 3): the share of each patch in what the classifier reads.

    Each layer mixes tokens by (A + I) / 2, A being the mean over its heads and I standing for the residual connection; the
    classifier reads the class token, or the mean of the patches. In Swin each layer's A is block diagonal over its shifted
    windows, and between two stages a merged token is the mean of those that it was merged from. The same for every class.

    Args:
        images: preprocessed B 3 H W.
        context: in which the model runs, such as autocast.
    Returns:
        B h w, on the first layer's grid; not negative; sums to 1 minus the share of the class tokens.
    Raises:
        ValueError: no attention over a grid of patches, or pooled in another way.
    """
    with context():
        _, layers = record_attention(model, images)
    prefix = getattr(model, "num_prefix_tokens", 0)
    rows = _pooling(model, layers[-1]).expand(len(images), 1, -1)
    return _as_maps(roll_out(layers, rows, prefix), layers[0], prefix)


def gradient_rollout(
    model: nn.Module,
    images: Tensor,
    targets: Sequence[int],
    *,
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> Tensor:
    """Gradient-weighted rollout: the relevance of each patch for one class per image.

    The self-attention rule of Chefer et al. (2021), "Generic Attention-model Explainability", equations 5 and 6: each layer
    adds the mean over heads of (A x gradient of the class score)+ to the identity. The contribution of the identity alone is
    the same for every patch and is left out. Windows, merging and pooling as in `attention_rollout`.

    Args:
        images: preprocessed B 3 H W.
        targets: the class to explain, one per image.
        context: in which the model runs, such as autocast.
    Returns:
        B h w, on the first layer's grid; not negative, no unit.
    Raises:
        ValueError: as `attention_rollout`, or no gradient reaches the attention.
    """
    with context():
        logits, layers = record_attention(model, images, gradients=True)
    scores = logits[torch.arange(len(images)), list(targets)].sum()
    if not scores.requires_grad:
        raise ValueError(f"gradrollout: no gradient of the class score reaches the attention of {type(model).__name__}")
    gradients = torch.autograd.grad(scores, [layer.weights for layer in layers])
    prefix = getattr(model, "num_prefix_tokens", 0)
    start = _pooling(model, layers[-1]).expand(len(images), 1, -1)
    gained, below = torch.zeros_like(start), None
    for layer, gradient in zip(reversed(layers), reversed(gradients)):
        if below:
            start, gained = (_unmerge(rows, below, layer) for rows in (start, gained))
        relevance = (layer.weights.detach() * gradient).clamp(min=0).mean(dim=2).float()  # B W M N N -> B W N N
        gained = gained + _attend(start + gained, relevance, layer, prefix)
        below = layer
    return _as_maps(gained, layers[0], prefix)


def roll_out(layers: Sequence[AttentionLayer], rows: Tensor, prefix: int) -> Tensor:
    """``rows`` (B R T of the last layer) times the product of all layers' token matrices: B R T of the first layer.

    The rows of each matrix sum to 1: attention to padding, which is outside the image, is distributed over the other tokens.
    ``prefix`` is the number of class and register tokens before the patches.
    """
    below = None
    for layer in reversed(layers):
        if below:
            rows = _unmerge(rows, below, layer)
        weights = layer.weights.mean(dim=2).float()  # B W M N N -> B W N N
        weights = weights * (_tokens(layer, prefix) < _count(layer, prefix))[:, None]
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        rows = (_attend(rows, weights, layer, prefix) + rows) / 2
        below = layer
    return rows


def _attend(rows: Tensor, weights: Tensor, layer: AttentionLayer, prefix: int) -> Tensor:
    """``rows`` (B R T) times the token matrix (T T) that ``weights`` (B W N N) are the windows of: B R T."""
    tokens = _tokens(layer, prefix)
    in_windows = nn.functional.pad(rows, (0, 1))[..., tokens]  # B R T -> B R W N
    attended = torch.einsum("brwn,bwnk->brwk", in_windows, weights)
    back = rows.new_zeros(*rows.shape[:2], rows.shape[2] + 1)
    back[..., tokens] = attended  # every token is in one window
    return back[..., :-1]


def _tokens(layer: AttentionLayer, prefix: int) -> Tensor:
    """int64 W N: the number among the layer's T tokens of each token of each window; T for padding."""
    tokens = torch.where(layer.positions < 0, _count(layer, prefix), layer.positions + prefix)
    tokens[:, :prefix] = torch.arange(prefix, device=tokens.device)
    return tokens


def _count(layer: AttentionLayer, prefix: int) -> int:
    return prefix + layer.grid[0] * layer.grid[1]


def _unmerge(rows: Tensor, coarse: AttentionLayer, fine: AttentionLayer) -> Tensor:
    """Convert ``rows`` from the tokens of one layer to those of the layer before: a merged token is the mean of its parts."""
    if coarse.grid == fine.grid:
        return rows
    maps = rows.unflatten(2, coarse.grid)  # no class tokens where patches are merged
    for dim, few, many in ((2, coarse.grid[0], fine.grid[0]), (3, coarse.grid[1], fine.grid[1])):
        merged_into = torch.arange(many, device=rows.device) // -(-many // few)
        parts = merged_into.bincount(minlength=few)  # fewer at the edge of an odd grid
        share = (1 / parts)[merged_into]
        maps = maps.index_select(dim, merged_into) * (share[:, None] if dim == 2 else share)
    return maps.flatten(2)


def _pooling(model: nn.Module, last: AttentionLayer) -> Tensor:
    """float T: the weight of each token of the last layer in the classifier's input."""
    prefix, pooled = getattr(model, "num_prefix_tokens", 0), pooling(model)
    weights = torch.zeros(_count(last, prefix), device=last.weights.device)
    if pooled.kind == "mean":
        weights[prefix:] = 1 / (len(weights) - prefix)
    elif pooled.kind == "token":
        classes = prefix - getattr(model, "num_reg_tokens", 0)  # two where a model has a distillation token
        weights[:classes] = 1 / classes
    else:
        raise ValueError(
            "attention rollout knows classifiers that read a class token or the mean of all places; that of "
            f"{type(model).__name__} reads {pooled.words}"
        )
    return weights


def _as_maps(rows: Tensor, first: AttentionLayer, prefix: int) -> Tensor:
    return rows[:, 0, prefix:].unflatten(1, first.grid)  # B 1 T -> B h w
