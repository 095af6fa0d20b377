"""Augmentation and preprocessing of whole batches, on the device.

Augmentations are functions uint8 B 3 H W -> uint8 B 3 H W with one set of parameters per image. Random numbers come from an
explicit generator on the CPU, so that a run repeats on any device and does not wait for the GPU.

Legend: B images in a batch, H W height and width in pixels; images are RGB, channels first.
"""

import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as TF

from common.config import AugmentConfig
from images import color

# ---------------------------------------------------------------- geometry


def crop_at(images: Tensor, padding: int, offsets: Tensor) -> Tensor:
    """Zero-pad every side by ``padding`` pixels and crop H x W at each image's ``offsets`` (B 2: top, left)."""
    height, width = images.shape[-2:]
    windows = F.pad(images, [padding] * 4).unfold(2, height, 1).unfold(3, width, 1)  # B 3 2p+1 2p+1 H W, a view
    return windows[torch.arange(len(images), device=images.device), :, offsets[:, 0], offsets[:, 1]]


def flip_where(images: Tensor, flipped: Tensor, *, side: int = -1) -> Tensor:
    """Mirror the images where ``flipped`` (bool B) is true: left and right, or with ``side`` -2 top and bottom."""
    return torch.where(flipped[:, None, None, None], images.flip(side), images)


def affine(images: Tensor, degrees: Tensor, shifts: Tensor, *, fill: int = 0) -> Tensor:
    """Rotate each image clockwise about its centre by ``degrees`` (B), then move it by ``shifts`` (B 2: right, down, pixels).

    Bilinear, with grey level ``fill`` outside the image: torchvision's ``affine``, with parameters for each image of a batch.
    """
    radians = torch.deg2rad(degrees)
    cos, sin = radians.cos(), radians.sin()
    right, down = shifts.unbind(-1)
    # Where an output pixel comes from: undo the shift, then the rotation.
    return _warp(images, [[cos, sin, -(cos * right + sin * down)], [-sin, cos, sin * right - cos * down]], fill)


def random_crops(
    count: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    *,
    aspect: tuple[int, int] | tuple[Tensor, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Boxes of a random resized crop, B 4: top, left, height, width, as fractions of the image.

    The area is uniform in ``scale``, the aspect ratio log-uniform in ``ratio``, as in torchvision's RandomResizedCrop; a
    side that would exceed the image is shortened to it instead of drawn again.

    Args:
        aspect: height and width of the images: two numbers for all, or two tensors (B) for each.
    """
    area, shape, down, right = torch.rand(4, count, generator=generator)
    area = scale[0] + (scale[1] - scale[0]) * area
    log_low, log_high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(log_low + (log_high - log_low) * shape) * aspect[0] / aspect[1]
    high, wide = (area / shape).sqrt().clamp(max=1), (area * shape).sqrt().clamp(max=1)
    return torch.stack([down * (1 - high), right * (1 - wide), high, wide], -1)


def _warp(
    images: Tensor,
    rows: list[list[Tensor]],
    fill: int = 0,
    padding_mode: str = "zeros",
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Sample images bilinearly at affine positions.

    Args:
        rows: the two rows of each image's 2x3 matrix (output -> input, in pixels from the centre), as vectors (B).
        size: height and width of the output, which covers the same area; None: those of the images.
    """
    height, width = images.shape[-2:]
    matrices = torch.stack([torch.stack(row, -1) for row in rows], 1)  # B 2 3
    side = matrices.new_tensor([width, height, 2.0])  # pixels from the centre -> [-1, 1]
    theta = (matrices * side / side[:2, None]).to(images.device, non_blocking=True)
    grid = F.affine_grid(theta, [*images.shape[:2], *(size or (height, width))], align_corners=False)
    levels = images.float() - fill  # outside the image, samples are 0
    warped = F.grid_sample(levels, grid, mode="bilinear", padding_mode=padding_mode, align_corners=False) + fill
    return warped.round_().to(torch.uint8)


# ---------------------------------------------------------------- RandAugment (Cubuk et al. 2020)


# Each function below takes images, the index of each one's operation in its tuple of names, levels in [0, 1] and signs of -1
# or 1 (B, on the CPU). It changes all images at once, since many small kernels would slow a GPU down. Ranges are timm's
# "increasing" ones.

GREY = 128  # timm's fill colour for places outside the moved image


def _move(images: Tensor, which: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """The operations of GEOMETRY."""
    height, width = images.shape[-2:]
    amount, zero, one = signs * levels, torch.zeros_like(levels), torch.ones_like(levels)
    radians = torch.deg2rad(30 * amount)
    cos, sin = radians.cos(), radians.sin()
    choices = [  # output -> input, rows (a, b, c) and (d, e, f)
        (cos, sin, zero, -sin, cos, zero),
        (one, 0.3 * amount, zero, zero, one, zero),
        (one, zero, zero, 0.3 * amount, one, zero),
        (one, zero, -0.45 * amount * width, zero, one, zero),
        (one, zero, zero, zero, one, -0.45 * amount * height),
    ]
    matrices = torch.stack([torch.stack(choice) for choice in choices])[which, :, torch.arange(len(which))]  # B 6
    entries = matrices.unbind(-1)
    return _warp(images, [list(entries[:3]), list(entries[3:])], GREY)


def _blend(images: Tensor, which: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """The operations of COLOR."""
    return color.blend(images, which, 1 + 0.9 * signs * levels, smooth=True)


def _change_tones(images: Tensor, which: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """The operations of TONES."""
    bits = (4 - (4 * levels).floor()).clamp(min=1)  # 0 bits would be black
    masks = torch.where(which == 0, 256 - 2 ** (8 - bits), 255).to(torch.uint8)
    thresholds = torch.where(which == 1, 256 * (1 - levels), 256)
    masks, thresholds = (x.to(images.device, non_blocking=True)[:, None, None, None] for x in (masks, thresholds))
    return torch.where(images >= thresholds, 255 - images, images & masks)


GEOMETRY = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
COLOR = ("brightness", "color", "contrast", "sharpness")  # in the order of images.color
TONES = ("posterize", "solarize")
KINDS: dict[tuple[str, ...], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    ("identity",): lambda images, *_: images,
    GEOMETRY: _move,
    COLOR: _blend,
    TONES: _change_tones,
    ("autocontrast",): lambda images, *_: TF.autocontrast(images),
    ("equalize",): lambda images, *_: TF.equalize(images),
}
RAND_AUGMENT = [name for names in KINDS for name in names]


def rand_augment(images: Tensor, policy: str, generator: torch.Generator) -> Tensor:
    """Apply n operations, drawn for each image from RAND_AUGMENT, at magnitude m of 10.

    ``policy`` is written as timm's: ``rand-m9-n2-mstd0.5`` (mstd: standard deviation of the magnitude).
    """
    magnitude, count, spread = parse_policy(policy)
    for _ in range(count):
        chosen = torch.randint(len(RAND_AUGMENT), (len(images),), generator=generator)
        levels = (magnitude + spread * torch.randn(len(images), generator=generator)).clamp(0, 10) / 10
        signs = 2.0 * torch.randint(2, (len(images),), generator=generator) - 1
        images = apply_operations(images, chosen, levels, signs)
    return images


def apply_operations(images: Tensor, chosen: Tensor, levels: Tensor, signs: Tensor) -> Tensor:
    """Apply to each image the operation with its index in RAND_AUGMENT (``chosen``, int64 B, on the CPU)."""
    result, first = images.clone(), 0
    for names, operation in KINDS.items():
        where = ((chosen >= first) & (chosen < first + len(names))).nonzero()[:, 0]
        if first and len(where):  # the first one changes nothing
            there = where.to(images.device, non_blocking=True)
            result[there] = operation(images[there], chosen[where] - first, levels[where], signs[where])
        first += len(names)
    return result


def parse_policy(policy: str) -> tuple[float, int, float]:
    """``rand-m9-n2-mstd0.5`` -> magnitude, number of operations, standard deviation of the magnitude."""
    found = re.fullmatch(r"rand-m(\d+(?:\.\d+)?)(?:-n(\d+))?(?:-mstd(\d+(?:\.\d+)?))?(?:-inc1)?", policy)
    assert found, policy  # the config's pattern is as strict
    return float(found[1]), int(found[2] or 2), float(found[3] or 0)


# ---------------------------------------------------------------- what training and evaluation use


class Augment(nn.Module):
    """Random changes to training images in timm's order, colours last; each is off where its config key is 0 or null."""

    def __init__(self, cfg: AugmentConfig):
        super().__init__()
        self.cfg = cfg

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 B 3 H W -> uint8 B 3 H W."""
        cfg, (count, _, height, width) = self.cfg, images.shape
        if cfg.degrees or cfg.translate:
            degrees = (2 * torch.rand(count, generator=generator) - 1) * cfg.degrees
            reach = cfg.translate * torch.tensor([width, height])
            images = affine(images, degrees, (2 * torch.rand(count, 2, generator=generator) - 1) * reach)
        if cfg.crop_padding:
            offsets = torch.randint(2 * cfg.crop_padding + 1, (count, 2), generator=generator)
            images = crop_at(images, cfg.crop_padding, offsets.to(images.device, non_blocking=True))
        if cfg.hflip:
            flipped = torch.rand(count, generator=generator) < cfg.hflip
            images = flip_where(images, flipped.to(images.device, non_blocking=True))
        if cfg.vflip:
            flipped = torch.rand(count, generator=generator) < cfg.vflip
            images = flip_where(images, flipped.to(images.device, non_blocking=True), side=-2)
        if cfg.aa:
            images = rand_augment(images, cfg.aa, generator)
        if cfg.color_jitter:
            images = color.color_jitter(images, cfg.color_jitter, generator)
        if cfg.grayscale_prob:
            chosen = torch.rand(count, generator=generator) < cfg.grayscale_prob
            images = color.grey_where(images, chosen.to(images.device, non_blocking=True))
        if cfg.gaussian_blur_prob:
            images = self.blur_some(images, generator)
        return images

    def blur_some(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Blur each image with probability ``gaussian_blur_prob``."""
        low, high = color.BLUR_SIGMA
        chosen, sigmas = torch.rand(2, len(images), generator=generator)
        where = (chosen < self.cfg.gaussian_blur_prob).nonzero()[:, 0]
        there, sigmas = (x.to(images.device, non_blocking=True) for x in (where, low + (high - low) * sigmas[where]))
        if len(where):
            images = images.index_copy(0, there, color.blur(images[there], sigmas))
        return images

    def erase(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random erasing (Zhong et al. 2020) of preprocessed float B 3 H W: with probability ``reprob`` a box of 2 to 33 %
        of the area, of aspect ratio 0.3 to 3.3, becomes 0, the mean pixel."""
        if not self.cfg.reprob:
            return images
        count, _, height, width = images.shape
        boxes = random_crops(count, (0.02, 1 / 3), (0.3, 1 / 0.3), aspect=(height, width), generator=generator)
        erased = torch.rand(count, generator=generator) < self.cfg.reprob
        boxes, erased = (x.to(images.device, non_blocking=True) for x in (boxes, erased))
        (top, left, high, wide), kept = boxes.unbind(-1), ~erased
        rows = (torch.arange(height, device=images.device)[None] + 0.5) / height - top[:, None]  # B H
        columns = (torch.arange(width, device=images.device)[None] + 0.5) / width - left[:, None]  # B W
        beside_rows, beside_columns = (rows < 0) | (rows >= high[:, None]), (columns < 0) | (columns >= wide[:, None])
        outside = kept[:, None, None] | beside_rows[:, :, None] | beside_columns[:, None, :]  # B H W
        return images * outside[:, None]
