"""The attention matrices of a forward pass, by layer, with the image positions of their rows and columns.

Legend: B images, W windows (1 where attention is global), M heads, N tokens of a window, h w the layer's grid.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from architectures.kernels import unfused_attention


@dataclass(frozen=True)
class AttentionLayer:
    """One layer's attention; ``positions`` describes windows, cyclic shifts and padding completely."""

    name: str
    """Of the attention module."""
    weights: Tensor
    """B W M N N after the softmax: row = query, column = key, rows sum to 1."""
    positions: Tensor
    """int64 W N: each token's cell of the grid, row by row; -1 for class tokens and padding, which have no place."""
    grid: tuple[int, int]
    """h, w."""


def record_attention(
    model: nn.Module, images: Tensor, *, gradients: bool = False
) -> tuple[Tensor, list[AttentionLayer]]:
    """One forward pass with unfused attention: logits (B K) and the attention layers, first to last.

    Works for timm's ViT and Swin (also V2) and models built of the same attention modules.

    Args:
        images: preprocessed B 3 H W.
        gradients: let autograd reach the weights from the logits, on frozen models too.
    Raises:
        ValueError: the model has no such attention, or its attention is not over a single grid of patches.
    """
    recorded: dict[str, Tensor] = {}
    with (
        unfused_attention(model),
        _hooks(model, recorded, len(images), gradients) as blocks,
        torch.set_grad_enabled(gradients),
    ):
        logits = model(images)
    layers = [_describe(model, name, weights, images, blocks.get(name)) for name, weights in recorded.items()]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} {_attention_words(model)}; this needs a transformer such as ViT or Swin"
        )
    return logits, layers


def _attention_words(model: nn.Module) -> str:
    """Words that say why no attention of a model could be recorded."""
    kinds = {type(module).__name__: hasattr(module, "qkv") for module in model.modules()}
    kinds = sorted(kind for kind, has_qkv in kinds.items() if has_qkv or "Attn" in kind or "Attention" in kind)
    if not kinds:
        return "has no attention layers"
    return f"has its own kind of attention ({', '.join(kinds)}), whose matrices cannot be recorded"


@contextmanager
def _hooks(model: nn.Module, recorded: dict[str, Tensor], count: int, gradients: bool) -> Iterator[dict]:
    """Fill ``recorded`` with weights by layer for ``count`` images; yields {layer: (block of a windowed layer, its grid)}."""
    blocks: dict[str, tuple] = {}

    def remember_weights(name, num_heads):
        def hook(module, args, weights):  # the dropout behind the softmax
            if weights.ndim != 4 or len(weights) * weights.shape[1] % (count * num_heads):
                raise ValueError(_refusal(model, name, weights))
            if gradients and not weights.requires_grad:
                weights = weights.detach().requires_grad_()
            # B*W M N N, or B W*M N N, -> B W M N N
            recorded[name] = weights.reshape(count, -1, num_heads, *weights.shape[2:])
            return recorded[name].reshape(weights.shape)  # what is recorded stays part of the graph

        return hook

    def remember_block(name):
        def hook(block, args):
            blocks[name] = (block, tuple(args[0].shape[1:3]))  # B h w C

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(getattr(module, "attn_drop", None), nn.Module) and hasattr(module, "num_heads"):
                see = remember_weights(name, module.num_heads)
                hooks.enter_context(module.attn_drop.register_forward_hook(see))
            if hasattr(module, "shift_size") and hasattr(module, "attn"):
                hooks.enter_context(module.register_forward_pre_hook(remember_block(f"{name}.attn")))
        yield blocks


def _describe(model: nn.Module, name: str, weights: Tensor, images: Tensor, windowed: tuple | None) -> AttentionLayer:
    module = model.get_submodule(name)
    if hasattr(module, "token_positions"):  # the project's own Swin says it itself
        return AttentionLayer(name, weights, module.token_positions().to(weights.device), module.grid)
    if windowed:
        block, grid = windowed
        positions = window_positions(grid, tuple(block.window_size), tuple(block.shift_size)).to(weights.device)
        return AttentionLayer(name, weights, positions, grid)
    embed = getattr(model, "patch_embed", None) or getattr(model, "embeds", None)  # NaFlexViT's name
    grid = tuple(embed.dynamic_feat_size(images.shape[2:])) if hasattr(embed, "dynamic_feat_size") else (0, 0)
    prefix = getattr(model, "num_prefix_tokens", 0)
    # Rows that do not come from a softmax alone (talking heads) do not sum to 1.
    sums_to_one = (weights.detach().float().sum(-1) - 1).abs().max() < 0.05
    if weights.shape[1] != 1 or weights.shape[3:] != (prefix + grid[0] * grid[1],) * 2 or not sums_to_one:
        raise ValueError(_refusal(model, name, weights))
    patches = torch.arange(grid[0] * grid[1], device=weights.device)
    return AttentionLayer(name, weights, torch.cat([patches.new_full((prefix,), -1), patches])[None], grid)


def _refusal(model: nn.Module, name: str, weights: Tensor) -> str:
    return (
        f"{name} of {type(model).__name__} does not share out attention from each patch to each patch of one grid or of "
        f"shifted windows (its matrices: {' x '.join(map(str, weights.shape))}), so it cannot be followed through the layers"
    )


def window_positions(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """int64 W N: the cell of the grid (row by row) behind each token of each window; -1 for padding.

    Swin rolls the grid by -shift, pads it at the bottom and the right to whole windows, and cuts it into them (Liu et al.
    2021, section 3.2); here the cells' numbers take the same way.
    """
    (height, width), (rows, columns) = grid, window
    cells = torch.arange(height * width).view(height, width).roll((-shift[0], -shift[1]), (0, 1))
    padded = nn.functional.pad(cells, (0, -width % columns, 0, -height % rows), value=-1)
    windows = padded.unflatten(1, (-1, columns)).unflatten(0, (-1, rows))  # Wh rows Ww columns
    return windows.transpose(1, 2).reshape(-1, rows * columns)  # W N
