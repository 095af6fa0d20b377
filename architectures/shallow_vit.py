"""Shallow ViT: how much of a Vision Transformer (Dosovitskiy et al. 2021) is needed?

Patch embedding, learnable positions, ``depth`` (default 1) pre-norm blocks, mean over tokens, LayerNorm, linear head. The
switches ``pos_embed``, ``attention`` and ``ffn`` remove parts; the variants A0 to A4 are one ablation study.

Legend: B images, N = h w tokens, C width, K classes.
"""

import logging

import torch
from timm.layers import Attention, Mlp, PatchEmbed, resample_abs_pos_embed, trunc_normal_
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from architectures.registry import Classifier, register_variants, run_blocks

logger = logging.getLogger(__name__)

# About 1.1 M parameters at 32 px with 100 classes; each variant after A0 changes one thing.
A0 = dict(patch_size=4, embed_dim=288, num_heads=6)
VARIANTS = {
    "shallow_vit": {},
    "shallow_vit_a0": A0,
    "shallow_vit_a1": A0 | dict(pos_embed=False),
    "shallow_vit_a2": A0 | dict(attention=False),
    "shallow_vit_a3": A0 | dict(ffn=False),
    "shallow_vit_a4": A0 | dict(patch_size=8),
}


class Zero(nn.Module):
    """The branch of a block that was switched off: it adds nothing to the residual stream."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class Block(nn.Module):
    """Pre-norm transformer block: x + MHSA(LN x), then x + FFN(LN x)."""

    def __init__(self, dim: int, num_heads: int, *, mlp_ratio: float, attention: bool, ffn: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim) if attention else nn.Identity()
        self.attn = Attention(dim, num_heads, qkv_bias=True) if attention else Zero()
        self.norm2 = nn.LayerNorm(dim) if ffn else nn.Identity()
        self.mlp = Mlp(dim, int(dim * mlp_ratio)) if ffn else Zero()

    def forward(self, x: Tensor) -> Tensor:  # B N C
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ShallowViT(Classifier):
    """A ViT with few blocks and no class token.

    Args:
        img_size: side, or (height, width), of the input in pixels; a multiple of ``patch_size``.
        patch_size: side of a patch in pixels.
        embed_dim: C.
        depth: number of blocks.
        num_heads: attention heads; divides ``embed_dim``.
        mlp_ratio: hidden width of the FFN as a multiple of C.
        pos_embed, attention, ffn: ablation switches; False removes the part.

    Raises ValueError for sizes that do not fit together.
    """

    num_prefix_tokens = 0

    def __init__(
        self,
        *,
        img_size: int | tuple[int, int] = 32,
        patch_size: int = 4,
        in_chans: int = 3,
        num_classes: int = 10,
        embed_dim: int = 192,
        depth: int = 1,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        pos_embed: bool = True,
        attention: bool = True,
        ffn: bool = True,
    ):
        super().__init__()
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}")
        if not (attention or ffn):
            logger.warning("ShallowViT without attention and ffn: its blocks are empty, depth and heads change nothing")
        self.num_classes, self.num_features = num_classes, embed_dim
        self.patch_embed = PatchEmbed(img_size, patch_size, in_chans, embed_dim)
        height, width = self.patch_embed.grid_size
        if height * patch_size != self.patch_embed.img_size[0] or width * patch_size != self.patch_embed.img_size[1]:
            raise ValueError(f"an image of {img_size} px does not divide into patches of {patch_size} px")
        positions = torch.zeros(1, height * width, embed_dim)
        if pos_embed:
            self.pos_embed = nn.Parameter(positions)
        else:
            self.register_buffer("pos_embed", positions, persistent=False)
        blocks = [Block(embed_dim, num_heads, mlp_ratio=mlp_ratio, attention=attention, ffn=ffn) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.apply(init_weights)
        if pos_embed:
            trunc_normal_(self.pos_embed, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:  # B 3 H W -> B N C
        x = self.patch_embed(x) + self.pos_embed
        return run_blocks(self.blocks, x, checkpointed=self.grad_checkpointing)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # B N C -> B K
        x = self.norm(x.mean(dim=1))
        return x if pre_logits else self.head(x)

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict:
        return dict(stem=r"^pos_embed|^patch_embed", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])


def init_weights(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def checkpoint_filter_fn(state: dict[str, Tensor], model: ShallowViT) -> dict[str, Tensor]:
    """Interpolate the positional embedding of weights that were trained with another image size."""
    if isinstance(model.pos_embed, nn.Parameter) and "pos_embed" in state:
        grid = model.patch_embed.grid_size
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=0)
    return state


CFG = dict(input_size=(3, 32, 32), fixed_input_size=True, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear")
CFG |= dict(first_conv="patch_embed.proj", classifier="head")
default_cfgs = generate_default_cfgs({f"{name}.untrained": CFG for name in VARIANTS})
register_variants(ShallowViT, VARIANTS)
