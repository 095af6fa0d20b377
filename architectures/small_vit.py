"""A ViT for small images and small datasets, plain or with parts that help there: `vit_32px`, a deeper shallow ViT.

Lee et al. 2021 (https://arxiv.org/abs/2112.13492): shifted patch tokenization, locality self-attention. Hassani et al. 2021
(https://arxiv.org/abs/2104.05704): convolutional tokenizer, sequence pooling.

Legend: B images, N = h w tokens, C width, K classes, c channels of an image.
"""

import math
from itertools import pairwise

import torch
from timm.layers import Attention, LayerNorm2d
from timm.models import generate_default_cfgs
from torch import Tensor, nn

from architectures.registry import register_variants
from architectures.shallow_vit import (
    CFG,
    ShallowViT,
    checkpoint_filter_fn,  # noqa: F401  (timm's name)
    init_weights,
)

# The ViT that Lee et al. train from scratch at 32 px; 2.7 M parameters.
VARIANTS = {"vit_32px": dict(patch_size=4, embed_dim=192, depth=9, num_heads=12, mlp_ratio=2)}


class ShiftedCopies(nn.Module):
    """Concatenate the image and its four diagonal shifts by ``pixels``, filled with zeros (Lee et al.)."""

    def __init__(self, pixels: int):
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:  # B c H W -> B 5c H W
        height, width = x.shape[2:]
        framed = nn.functional.pad(x, (self.pixels,) * 4)
        corners = [(top, left) for top in (0, 2 * self.pixels) for left in (0, 2 * self.pixels)]
        return torch.cat([x, *(framed[:, :, top : top + height, left : left + width] for top, left in corners)], dim=1)


def shifted_patches(in_chans: int, dim: int, patch_size: int) -> nn.Module:  # B c H W -> B C h w
    """Shifted patch tokenization (Lee et al.): image and copies shifted by half a patch -> patches -> LayerNorm -> linear."""
    if patch_size < 2:
        raise ValueError("the shifted tokenizer shifts by half a patch: patch_size must be at least 2")
    pixels = 5 * in_chans * patch_size**2
    unfold = [ShiftedCopies(patch_size // 2), nn.PixelUnshuffle(patch_size)]
    return nn.Sequential(*unfold, LayerNorm2d(pixels), nn.Conv2d(pixels, dim, kernel_size=1))


def convolutions(in_chans: int, dim: int, patch_size: int) -> nn.Module:  # B c H W -> B C h w
    """Convolutional tokenizer (Hassani et al.): ``log2(patch_size)`` times 3x3 convolution, ReLU, max pooling by 2."""
    if patch_size < 2 or patch_size & (patch_size - 1):
        raise ValueError(
            f"the convolutional tokenizer halves the grid: patch_size must be a power of two above 1, not {patch_size}"
        )
    count = int(math.log2(patch_size))
    widths = [in_chans, *(dim // 2 ** (count - 1 - i) for i in range(count))]  # doubling up to C
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(3, stride=2, padding=1)]
    return nn.Sequential(*layers)


TOKENIZERS = {"shifted": shifted_patches, "conv": convolutions}


class Temperature(nn.Module):
    """A learned factor on the queries. Times timm's d^-1/2 it is 1 / tau, where tau starts at d^1/2."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, q: Tensor) -> Tensor:
        return q * self.factor


class LocalityAttention(Attention):
    """Locality self-attention (Lee et al.): SoftMax(Q K^T / tau) V with learned tau, where no token attends to itself.

    Args:
        dim, num_heads: C, and the number of heads, which divides it.
        num_tokens: N.
    """

    def __init__(self, dim: int, num_heads: int, *, num_tokens: int):
        super().__init__(dim, num_heads, qkv_bias=True)
        if num_tokens < 2:
            raise ValueError("locality attention needs at least two tokens: a token does not attend to itself")
        self.q_norm = Temperature()
        self.register_buffer("others", ~torch.eye(num_tokens, dtype=torch.bool), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # B N C
        return super().forward(x, attn_mask=self.others)


class SequencePool(nn.Module):
    """Sequence pooling (Hassani et al.): tokens weighted by the softmax of a learned linear score."""

    def __init__(self, dim: int):
        super().__init__()
        self.score = nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # B N C -> B C
        return (self.score(x).softmax(dim=1) * x).sum(dim=1)


class SmallViT(ShallowViT):
    """`ShallowViT` with three more switches.

    Args:
        tokenizer: patch (ViT's), shifted (patches of the image and four shifted copies), or conv (convolutions).
        locality: whether attention has a learned temperature and no token attends to itself.
        pool: mean, or sequence (a mean with learned weights of the tokens).
        **shallow_vit: arguments of `ShallowViT`.

    Raises ValueError for an unknown tokenizer or pool, and for sizes that do not fit together.
    """

    def __init__(self, *, tokenizer: str = "patch", locality: bool = False, pool: str = "mean", **shallow_vit):
        super().__init__(**shallow_vit)
        if tokenizer not in ("patch", *TOKENIZERS):
            raise ValueError(f"tokenizer = {tokenizer!r} is none of patch, {', '.join(TOKENIZERS)}")
        if pool not in ("mean", "sequence"):
            raise ValueError(f"pool = {pool!r} is neither mean nor sequence")
        embed, dim = self.patch_embed, self.num_features
        if tokenizer != "patch":
            embed.proj = TOKENIZERS[tokenizer](embed.proj.in_channels, dim, embed.patch_size[0])
        for block in self.blocks:
            if locality and not isinstance(block.attn, Attention):
                raise ValueError("locality is a kind of attention; with attention: false set it to false")
            if locality:
                block.attn = LocalityAttention(dim, block.attn.num_heads, num_tokens=embed.num_patches)
        self.pool = SequencePool(dim) if pool == "sequence" else None
        self.apply(init_weights)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:  # B N C -> B K
        x = self.norm(self.pool(x) if self.pool else x.mean(dim=1))
        return x if pre_logits else self.head(x)


default_cfgs = generate_default_cfgs({f"{name}.untrained": CFG for name in VARIANTS})
register_variants(SmallViT, VARIANTS)
