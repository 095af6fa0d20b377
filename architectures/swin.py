"""Swin Transformer (Liu et al. 2021, https://arxiv.org/abs/2103.14030), written to be read and to be ablated.

Patches are embedded; stages of blocks attend within windows, every second block within windows that are shifted by half
their side; between stages 2x2 neighbours are merged. With the default switches, weights of timm's Swin load and give timm's
logits; each switch removes one idea of the paper.

Legend: B images, H W grid of tokens, C width, M window side (Mh Mw if the grid is smaller), Y X number of windows down and
across, h heads, d = C / h, K classes.
"""

import logging
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp, calculate_drop_path_rates, trunc_normal_
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from architectures.registry import Classifier, register_variants, run_blocks
from architectures.swin_weights import convert_weights as checkpoint_filter_fn  # noqa: F401  (timm's name)
from architectures.windows import attention_mask, relative_position_index, window_partition, window_reverse

logger = logging.getLogger(__name__)

# Section 3.3: T, S, B and L, for 224 px. The last one is for 32 px: grids with sides of 16, 8 and 4 tokens.
VARIANTS = {
    "swin_t": dict(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
    "swin_s": dict(embed_dim=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    "swin_b": dict(embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32)),
    "swin_l": dict(embed_dim=192, depths=(2, 2, 18, 2), num_heads=(6, 12, 24, 48)),
    "swin_32px": dict(img_size=32, patch_size=2, window_size=4, depths=(2, 6, 4), num_heads=(3, 6, 12)),
}


class PatchEmbed(nn.Module):
    """Patch partition and linear embedding (section 3.1): a convolution whose stride is its kernel, then LayerNorm."""

    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel_size=patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:  # B 3 h w -> B H W C
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class WindowAttention(nn.Module):
    """W-MSA and SW-MSA (section 3.2): Attention(Q, K, V) = SoftMax(Q K^T / sqrt(d) + B) V within each window.

    Args:
        dim, num_heads: C, and h, which divides it.
        grid: (H, W) of the input.
        window: (Mh, Mw); if it does not divide the grid, the grid is padded at the bottom and on the right.
        shift: rows and columns by which the grid is rolled up and to the left before it is divided into windows.
        relative_position_bias, mask_padding: see `Swin`.
    """

    def __init__(self, dim, num_heads, *, grid, window, shift, relative_position_bias, mask_padding):
        super().__init__()
        self.num_heads, self.window, self.scale = num_heads, window, (dim // num_heads) ** -0.5
        self.fused_attn = True
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attn_drop = nn.Identity()  # where hooks can record the attention matrices
        self.grid, self.relative_position_bias_table = grid, None
        if relative_position_bias:
            rows = (2 * window[0] - 1) * (2 * window[1] - 1)
            self.relative_position_bias_table = nn.Parameter(trunc_normal_(torch.empty(rows, num_heads), std=0.02))
            self.register_buffer("relative_position_index", relative_position_index(window), persistent=False)
        self.register_buffer("mask", attention_mask(grid, window, shift, mask_padding), persistent=False)
        # Steps before the attention and their inverses after it; those that would change nothing are left out.
        roll, pad = partial(torch.roll, dims=(1, 2)), [-side % m for side, m in zip(grid, window)]
        steps = [(partial(roll, shifts=(-shift[0], -shift[1])), partial(roll, shifts=shift))] if any(shift) else []
        if any(pad):
            steps.append((partial(F.pad, pad=(0, 0, 0, pad[1], 0, pad[0])), lambda x: x[:, : grid[0], : grid[1]]))
        if mask_padding:  # pad first, so that the padding is rolled as well and every window stays in one piece
            steps.reverse()
        self.before, self.after = [step for step, _ in steps], [inverse for _, inverse in reversed(steps)]

    def bias(self) -> Tensor | None:
        """B plus the mask, (G h) N N, where G = Y X, or G = 1 if all windows have the same mask."""
        if self.relative_position_bias_table is None:
            return None if self.mask is None else self.mask.repeat_interleave(self.num_heads, dim=0)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # N N h -> h N N
        return bias if self.mask is None else (bias + self.mask[:, None]).flatten(0, 1)

    def token_positions(self) -> Tensor:
        """Index in the grid, row by row, of each token of each window, int64 (Y X) N; -1 for padding."""
        cells = torch.arange(1, self.grid[0] * self.grid[1] + 1).view(1, *self.grid, 1)
        for step in self.before:
            cells = step(cells)
        return window_partition(cells, self.window).flatten(3).flatten(0, 2) - 1

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        for step in self.before:
            x = step(x)
        x = window_partition(self.qkv(x), self.window)  # B Y X Mh Mw 3C
        batch, down, across = x.shape[:3]
        groups = (
            1 if self.mask is None else down * across
        )  # windows with different masks are placed on the axis of the heads
        x = x.unflatten(-1, (3, self.num_heads, -1)).permute(5, 0, 1, 2, 6, 3, 4, 7)  # 3 B Y X h Mh Mw d
        q, k, v = x.reshape(3, -1, groups * self.num_heads, self.window[0] * self.window[1], x.shape[-1])
        bias = self.bias()
        # On CPU no fused kernel has a gradient for B, and torch's fallback is slower than the two products below.
        if self.fused_attn and not (bias is not None and bias.requires_grad and not x.is_cuda):
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=None if bias is None else bias[None])
        else:
            scores = (q * self.scale) @ k.transpose(-2, -1)
            x = self.attn_drop((scores if bias is None else scores + bias).softmax(-1)) @ v
        x = x.reshape(batch, down, across, self.num_heads, *self.window, -1).permute(0, 1, 2, 4, 5, 3, 6)
        x = window_reverse(x).flatten(3)  # B Y X Mh Mw h d -> B H W (h d)
        for step in self.after:
            x = step(x)
        return self.proj(x)


class Block(nn.Module):
    """Equation 3: x + (S)W-MSA(LN x), then x + MLP(LN x); each branch is dropped at random in training."""

    def __init__(self, *, dim: int, mlp_ratio: float, drop_path: float, **attention):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, **attention)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:  # B H W C
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Section 3.1: 2x2 neighbours are concatenated, 4C -> 2C; an odd row or column is padded with zeros."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # B H W C -> B ceil(H/2) ceil(W/2) 2C
        x = F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2))
        x = window_partition(x, (2, 2)).transpose(3, 4).flatten(3)  # column by column, as in the published weights
        return self.reduction(self.norm(x))


class PatchPooling(nn.Module):
    """An alternative to merging: the mean of 2x2 neighbours (fewer at an odd edge), then C -> 2C."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.reduction = nn.Linear(dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # B H W C -> B ceil(H/2) ceil(W/2) 2C
        x = F.avg_pool2d(x.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1)
        return self.reduction(self.norm(x))


MERGING = {"concat": PatchMerging, "pool": PatchPooling}


class Stage(nn.Module):
    """``downsample``, then a block for each rate in ``drop_path``; every second one has shifted windows."""

    grad_checkpointing = False

    def __init__(self, downsample: nn.Module, drop_path: list[float], shift: tuple[int, int], **block):
        super().__init__()
        self.downsample = downsample
        shifts = [shift if i % 2 else (0, 0) for i in range(len(drop_path))]
        self.blocks = nn.Sequential(*(Block(drop_path=p, shift=s, **block) for p, s in zip(drop_path, shifts)))

    def forward(self, x: Tensor) -> Tensor:
        return run_blocks(self.blocks, self.downsample(x), checkpointed=self.grad_checkpointing)


class Swin(Classifier):
    """Swin Transformer for one image size.

    Args:
        img_size: side, or (height, width), of the input in pixels; pixels beyond the last whole patch are ignored.
        patch_size: side of a patch in pixels.
        embed_dim: C of the first stage; it doubles from stage to stage.
        depths, num_heads: blocks, and heads, of each stage; heads divide that stage's C.
        window_size: M; a grid smaller than M is one window.
        mlp_ratio: hidden width of the MLP as a multiple of C.
        drop_path_rate: stochastic depth (Huang et al. 2016) of the last block, rising linearly from 0.
        shift: whether every second block shifts its windows by floor(M / 2).
        relative_position_bias: whether attention adds the learned bias B.
        absolute_position: whether a learned embedding is added to the patches (an ablation in the paper's table 4).
        merging: concat, or pool.
        global_attention: a single window that is the whole grid, without shifts.
        mask_padding: if windows do not divide the grid: whether padding is excluded from attention and windows stay in one
            piece. False does what timm does: it rolls before it pads, and attends to the padding.

    Raises ValueError for sizes that do not fit together. ``idle_switches`` lists, in sentences, which switches change
    nothing at this size; they are also logged as warnings.
    """

    output_fmt = "NHWC"

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 1000,
        embed_dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        num_heads: tuple[int, ...] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        drop_path_rate: float = 0.1,
        shift: bool = True,
        relative_position_bias: bool = True,
        absolute_position: bool = False,
        merging: str = "concat",
        global_attention: bool = False,
        mask_padding: bool = True,
    ):
        super().__init__()
        size = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)
        widths = [embed_dim * 2**i for i in range(len(depths))]
        _check_sizes(size, patch_size, window_size, widths, depths, num_heads)
        if merging not in MERGING:
            raise ValueError(f"merging = {merging!r} is none of {', '.join(MERGING)}")
        if shift and not global_attention and max(depths) == 1:
            raise ValueError("shift needs a second block in some stage; with one block per stage set shift to false")
        self.img_size, self.num_classes, self.num_features = size, num_classes, widths[-1]
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        grids = [tuple(-(-(side // patch_size) // 2**i) for side in size) for i in range(len(depths))]  # rounded up
        self.pos_embed = nn.Parameter(torch.zeros(1, *grids[0], embed_dim)) if absolute_position else None
        rates = calculate_drop_path_rates(drop_path_rate, list(depths), stagewise=True)
        switches = dict(relative_position_bias=relative_position_bias, mask_padding=mask_padding, mlp_ratio=mlp_ratio)
        self.layers = nn.Sequential()
        for dim, heads, grid, rate in zip(widths, num_heads, grids, rates):
            downsample = MERGING[merging](dim // 2) if len(self.layers) else nn.Identity()
            window = grid if global_attention else tuple(min(window_size, side) for side in grid)
            step = tuple(window_size // 2 if shift and m < side else 0 for m, side in zip(window, grid))
            block = dict(dim=dim, num_heads=heads, grid=grid, window=window, **switches)
            self.layers.append(Stage(downsample, rate, step, **block))
        self.norm = nn.LayerNorm(self.num_features)
        self.head = nn.Linear(self.num_features, num_classes)
        self.apply(_init_weights)
        if absolute_position:
            trunc_normal_(self.pos_embed, std=0.02)
        self.idle_switches = _idle(size, patch_size, grids, depths, window_size, global_attention, mask_padding)
        for remark in self.idle_switches:
            logger.warning("Swin at %dx%d px: %s", *size, remark)

    def forward_features(self, x: Tensor) -> Tensor:  # B 3 h w -> B H W C
        if x.shape[-2:] != self.img_size:
            raise ValueError(f"the model is built for {self.img_size} pixels, the images have {tuple(x.shape[-2:])}")
        x = self.patch_embed(x)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        return self.norm(self.layers(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # B H W C -> B K
        x = x.mean(dim=(1, 2))
        return x if pre_logits else self.head(x)

    def no_weight_decay(self) -> set[str]:
        tables = {name for name, _ in self.named_parameters() if "relative_position_bias_table" in name}
        return tables | {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict:
        stages = r"^layers\.(\d+)"
        blocks = [(stages + r"\.downsample", (0,)), (stages + r"\.blocks\.(\d+)", None), (r"^norm", (99999,))]
        return dict(stem=r"^pos_embed|^patch_embed", blocks=stages if coarse else blocks)


def _init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check_sizes(size, patch_size, window_size, widths, depths, num_heads) -> None:
    if min(patch_size, window_size, *depths) < 1:
        raise ValueError(f"patch_size {patch_size}, window_size {window_size} and depths {depths} must be at least 1")
    if min(size) < patch_size:
        raise ValueError(f"an image of {size[0]}x{size[1]} px is smaller than a patch of {patch_size} px")
    if len(depths) != len(num_heads):
        raise ValueError(f"depths {depths} and num_heads {num_heads} name different numbers of stages")
    for stage, (dim, heads) in enumerate(zip(widths, num_heads)):
        if heads < 1 or dim % heads:
            raise ValueError(f"stage {stage}: its width {dim} does not divide into {heads} heads")


def _idle(size, patch_size, grids, depths, window_size, global_attention, mask_padding) -> list[str]:
    """Sentences on what is ignored or has no effect at this image size."""
    remarks = []
    if any(side % patch_size for side in size):
        remarks.append(f"pixels beyond the last whole patch of {patch_size} px are ignored")
    if global_attention:
        return [*remarks, "window_size and shift change nothing with global_attention"]
    if window_size == 1:
        return [*remarks, "windows of one token: attention and its switches change nothing"]
    for stage, (grid, depth) in enumerate(zip(grids, depths)):
        if max(grid) == 1:
            remarks.append(f"layers.{stage} has a 1x1 grid: attention and its switches change nothing there")
        elif max(grid) <= window_size:
            remarks.append(f"layers.{stage} never shifts: its {grid[0]}x{grid[1]} grid is one window")
        elif depth == 1:
            remarks.append(f"layers.{stage} never shifts: it has a single block")
    if max(grids[0]) <= window_size:
        remarks.append(f"every grid fits into a window of {window_size}: this is global attention")
    if not mask_padding and not any(side % min(side, window_size) for grid in grids for side in grid):
        remarks.append("mask_padding changes nothing: no window is padded")
    return remarks


TIMMS = dict(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic", fixed_input_size=True)
TIMMS |= dict(first_conv="patch_embed.proj", classifier="head")
default_cfgs = generate_default_cfgs(
    {
        "swin_t.ms_in1k": dict(hf_hub_id="timm/swin_tiny_patch4_window7_224.ms_in1k", **TIMMS),
        "swin_s.ms_in1k": dict(hf_hub_id="timm/swin_small_patch4_window7_224.ms_in1k", **TIMMS),
        "swin_b.ms_in1k": dict(hf_hub_id="timm/swin_base_patch4_window7_224.ms_in1k", **TIMMS),
        "swin_l.ms_in22k_ft_in1k": dict(hf_hub_id="timm/swin_large_patch4_window7_224.ms_in22k_ft_in1k", **TIMMS),
        "swin_32px.untrained": dict(input_size=(3, 32, 32), **TIMMS),
    }
)
register_variants(Swin, VARIANTS)
