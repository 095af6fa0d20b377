"""Corruptions of images by Hendrycks and Dietterich (2019, "Benchmarking neural network robustness to common corruptions and
perturbations"), in batches on the device, to measure how much accuracy a model loses.

Ten of their corruptions at their five severities: nine of the fifteen of ImageNet-C and CIFAR-10-C, and saturation, one of
their four extra ones. Their constants belong to an image size: ImageNet-C's to 224 px, CIFAR-10-C's to 32 px. Therefore an
image is first resized to that size, and after the corruption to the model's input size; every model gets the same pixels.

Not included: glass and motion blur, elastic transform, snow, frost, fog and spatter, which need other libraries, pictures of
frost, or a loop over pixels. JPEG is computed without its lossless part, which changes no pixel; grey levels are truncated,
not rounded, as in the original.

Legend: B images of H x W pixels, uint8; positions: int64 B, the images' positions in their split.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from common.intervals import wilson_interval
from data import Split

RGB_TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
LUMINANCE_TABLE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
COLOR_TABLE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
)


# ---------------------------------------------------------------- corruptions: (images, positions, amount) -> images


def gaussian_noise(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Gaussian noise with standard deviation ``amount`` (white is 1). An image gets the same noise for every model."""
    noise = _per_image(images, positions, lambda image, generator: torch.randn(image.shape, generator=generator))
    return _to_grey_levels(images + 255 * amount * noise)


def shot_noise(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Poisson noise, where a white pixel stands for ``amount`` photons."""
    counts = _per_image(images, positions, lambda x, generator: torch.poisson(x / 255 * amount, generator=generator))
    return _to_grey_levels(255 / amount * counts)


def impulse_noise(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Salt-and-pepper noise: the share ``amount`` of all values becomes 0 or 255."""
    hit = _per_image(images, positions, lambda x, generator: torch.rand(2, *x.shape, generator=generator))  # B 2 3 H W
    return torch.where(hit[:, 0] <= amount, 255 * (hit[:, 1] <= 0.5).to(torch.uint8), images)


def defocus_blur(images: Tensor, positions: Tensor, amount: tuple[float, float]) -> Tensor:
    """Blur of a lens out of focus: the mean over a disk; ``amount``: its radius, and the sigma that smooths its edge, in px."""
    kernel = disk(*amount).to(images.device)
    padding = len(kernel) // 2
    padded = F.pad(images.float(), [padding] * 4, mode="reflect")
    blurred = F.conv2d(padded.flatten(0, 1)[:, None], kernel[None, None])
    return _to_grey_levels(blurred.view(images.shape))


def zoom_blur(images: Tensor, positions: Tensor, amount: tuple[float, float]) -> Tensor:
    """Blur of a camera that moves forward: the mean over zooms from 1 to below ``amount[0]`` in steps of ``amount[1]``."""
    zooms, whole = np.arange(1, *amount), images.float()
    total = whole.clone()
    for zoom in zooms:
        total += _zoomed(whole, float(zoom))
    return _to_grey_levels(total / (len(zooms) + 1))


def brightness(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Add ``amount`` (white is 1) to the value of HSV."""
    whole = images.float()
    value = whole.amax(dim=1, keepdim=True)
    raised = (value + 255 * amount).clamp(max=255)
    return _to_grey_levels(torch.where(value > 0, whole * (raised / value.clamp(min=1)), raised))


def saturate(images: Tensor, positions: Tensor, amount: tuple[float, float]) -> Tensor:
    """Multiply the saturation of HSV by ``amount[0]`` and add ``amount[1]``; grey, whose hue counts as red, becomes reddish."""
    whole = images.float()
    value = whole.amax(dim=1, keepdim=True)
    saturation = (value - whole.amin(dim=1, keepdim=True)) / value.clamp(min=1)
    wanted = (saturation * amount[0] + amount[1]).clamp(0, 1)
    share = (value - whole) / (value * saturation).clamp(min=1e-6)  # 0 for the largest channel, 1 for the smallest
    red = torch.tensor([0.0, 1.0, 1.0], device=images.device).view(3, 1, 1)
    return _to_grey_levels(value * (1 - wanted * torch.where(saturation > 0, share, red)))


def contrast(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Move every value towards its channel's mean; the share ``amount`` of the contrast remains."""
    whole = images.float()
    mean = whole.mean(dim=(2, 3), keepdim=True)
    return _to_grey_levels((whole - mean) * amount + mean)


def pixelate(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Shrink to the share ``amount`` of each side and enlarge again, both with a box filter."""
    size = tuple(images.shape[-2:])
    small = (int(size[0] * amount), int(size[1] * amount))
    return _resize_by_boxes(_resize_by_boxes(images, small), size)


def jpeg(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """The image after JPEG compression with quality ``amount`` (of 100); entropy coding is skipped, since it is lossless.

    ITU-T T.81 as in libjpeg: YCbCr with the colours at half the resolution, 8x8 blocks, cosine transform, and the tables
    of annex K scaled by the quality.
    """
    height, width = images.shape[-2:]
    padded = F.pad(images.float(), (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = torch.tensor(RGB_TO_YCBCR, device=images.device)
    luma, *colors = torch.einsum("cr,brhw->cbhw", matrix, padded).round()
    luma = _quantize(luma - 128, LUMINANCE_TABLE, amount) + 128
    colors = [_quantize(F.avg_pool2d(color, 2).round(), COLOR_TABLE, amount) for color in colors]
    colors = F.interpolate(torch.stack(colors, 1), scale_factor=2, mode="bilinear")
    decoded = torch.einsum("rc,bchw->brhw", matrix.inverse(), torch.cat([luma[:, None], colors], 1))
    return decoded[..., :height, :width].round().clamp(0, 255).to(torch.uint8)


SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    function: Callable[[Tensor, Tensor, object], Tensor]
    small: Sequence
    """Amounts of the five severities for images of 32 px, from CIFAR-10-C."""
    large: Sequence
    """Amounts for images of 224 px, from ImageNet-C."""


_ZOOMS_SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
_ZOOMS_LARGE = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))
_DISKS_SMALL = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
_DISKS_LARGE = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
_SATURATION_SMALL = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))
_SATURATION_LARGE = ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2))

CORRUPTIONS = {
    "Gaussian noise": Corruption(gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.1), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot noise": Corruption(shot_noise, (500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse noise": Corruption(impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus blur": Corruption(defocus_blur, _DISKS_SMALL, _DISKS_LARGE),
    "zoom blur": Corruption(zoom_blur, _ZOOMS_SMALL, _ZOOMS_LARGE),
    "brightness": Corruption(brightness, (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption(contrast, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "saturation": Corruption(saturate, _SATURATION_SMALL, _SATURATION_LARGE),
    "pixelate": Corruption(pixelate, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "JPEG": Corruption(jpeg, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


@dataclass(frozen=True)
class Benchmark:
    """The benchmark whose constants are used, and the side of the images, in pixels, for which they are meant."""

    name: str
    side: int

    def amounts(self, corruption: str) -> Sequence:
        return getattr(CORRUPTIONS[corruption], "small" if self.side == SMALL.side else "large")


SMALL, LARGE = Benchmark("CIFAR-10-C", 32), Benchmark("ImageNet-C", 224)
LARGEST_SMALL_SIDE = 64
"""If the median side of the data's images is at most this many pixels, the constants for small images are used."""


# ---------------------------------------------------------------- scores on corrupted images


def benchmark_of(split: Split) -> Benchmark:
    """The benchmark for a split, by the size of its stored images, whatever the model's input size."""
    return SMALL if split.median_side() <= LARGEST_SMALL_SIDE else LARGE


def versions_of(benchmark: Benchmark) -> list[Callable[[Tensor, Tensor], Tensor]]:
    """The clean image at the benchmark's size, then each corruption at each severity, as functions of images and positions."""

    def fitted(images: Tensor, positions: Tensor, change: Callable | None = None) -> Tensor:
        images = fit_to_side(images, benchmark.side)
        return images if change is None else change(images, positions)

    changes = [
        partial(corruption.function, amount=amount)
        for name, corruption in CORRUPTIONS.items()
        for amount in benchmark.amounts(name)
    ]
    return [fitted, *[partial(fitted, change=change) for change in changes]]


def score_corrupted(hits: np.ndarray, benchmark: Benchmark) -> dict:
    """Scores from a model's hits on all `versions_of` a split, bool V N.

    Returns:
        ``benchmark``, ``side``; ``corruptions``: name -> for each severity ``severity``, ``amount``, ``accuracy``,
        ``accuracy_ci95`` (Wilson); ``clean_accuracy`` at the benchmark's size; ``mean_corruption_accuracy``, the mean over
        all corruptions and severities; ``relative_corruption_accuracy``, that divided by the clean accuracy; with
        intervals over images (``..._ci95``).
    """
    clean, corrupted = hits[0], hits[1:].reshape(len(CORRUPTIONS), len(SEVERITIES), -1)
    scores = {
        name: [
            {"severity": severity, "amount": amount} | _accuracy("accuracy", found)
            for severity, amount, found in zip(SEVERITIES, benchmark.amounts(name), rows)
        ]
        for name, rows in zip(CORRUPTIONS, corrupted)
    }
    share = corrupted.mean(axis=(0, 1))  # N
    return (
        {"benchmark": benchmark.name, "side": benchmark.side, "corruptions": scores}
        | _accuracy("clean_accuracy", clean)
        | _ratio("mean_corruption_accuracy", share, np.ones(len(share)))
        | _ratio("relative_corruption_accuracy", share, clean)
    )


def by_severity(scores: Mapping[str, Sequence[Mapping]], key: str) -> dict[str, list]:
    """Corruption -> one of its values (``accuracy`` or ``accuracy_ci95``) at each severity."""
    return {name: [found[key] for found in severities] for name, severities in scores.items()}


def fit_to_side(images: Tensor, side: int) -> Tensor:
    """Resize uint8 images so that their shorter side has ``side`` pixels, bilinear with antialiasing."""
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    if scale == 1:
        return images
    size = (round(height * scale), round(width * scale))
    return F.interpolate(images.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)


def _accuracy(key: str, correct: np.ndarray) -> dict:
    return {
        key: float(correct.mean()),
        f"{key}_ci95": wilson_interval(int(correct.sum()), len(correct)).tolist(),
    }


def _ratio(key: str, shares: np.ndarray, of: np.ndarray) -> dict:
    """Mean of N shares divided by the mean of ``of``, with a 95 % interval by the delta method; None if that is 0."""
    if not of.any():
        return {key: None, f"{key}_ci95": None}
    value = shares.mean() / of.mean()
    half = 1.96 * np.std((shares - value * of) / of.mean()) / math.sqrt(len(shares))
    return {key: float(value), f"{key}_ci95": [max(0.0, float(value - half)), float(value + half)]}


# ---------------------------------------------------------------- parts


@lru_cache(maxsize=32)
def disk(radius: float, smoothing: float) -> Tensor:
    """The kernel of `defocus_blur`: a disk of pixels, smoothed over 3 x 3 pixels (5 x 5 if the radius is above 8)."""
    reach, half = (8, 1) if radius <= 8 else (int(radius), 2)
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    aliased = (places[:, None] ** 2 + places**2 <= radius**2).double()
    edge = torch.exp(-(torch.arange(-half, half + 1, dtype=torch.float64) ** 2) / (2 * smoothing**2))
    edge = torch.outer(edge, edge) / edge.sum() ** 2
    padded = F.pad((aliased / aliased.sum())[None, None], [half] * 4, mode="reflect")
    return F.conv2d(padded, edge[None, None])[0, 0].float()


def _zoomed(images: Tensor, zoom: float) -> Tensor:
    """The centre of the images, enlarged by ``zoom`` to their own size (with aligned corners)."""
    size = images.shape[-2:]
    kept = [math.ceil(side / zoom) for side in size]
    top, left = ((side - inner) // 2 for side, inner in zip(size, kept))
    enlarged = F.interpolate(
        images[..., top : top + kept[0], left : left + kept[1]],
        [round(inner * zoom) for inner in kept],
        mode="bilinear",
        align_corners=True,
    )
    top, left = ((large - side) // 2 for large, side in zip(enlarged.shape[-2:], size))
    return enlarged[..., top : top + size[0], left : left + size[1]]


def _resize_by_boxes(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pillow's BOX filter: the mean of the pixels whose centres lie in a box; along rows, rounded, then along columns."""
    rows, columns = (_boxes(old, new).to(images.device) for old, new in zip(images.shape[-2:], size))
    wide = (images.float() @ columns.T + 0.5).floor()
    return (rows @ wide + 0.5).floor().clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=64)
def _boxes(old: int, new: int) -> Tensor:
    """Weights of the old pixels in each new one, float new x old."""
    reach = max(old / new, 1) / 2
    centres = (torch.arange(new, dtype=torch.float64)[:, None] + 0.5) * old / new
    places = (torch.arange(old, dtype=torch.float64) + 0.5 - centres) / (2 * reach)
    chosen = ((places > -0.5) & (places <= 0.5)).double()
    return (chosen / chosen.sum(dim=1, keepdim=True)).float()


def _per_image(images: Tensor, positions: Tensor, draw: Callable[[Tensor, torch.Generator], Tensor]) -> Tensor:
    """Call ``draw`` for each image, on the CPU and seeded by its position, so that it is the same on every device."""
    rows = [
        draw(image.float(), torch.Generator().manual_seed(seed))
        for image, seed in zip(images.cpu(), positions.tolist())
    ]
    return torch.stack(rows).to(images.device)


def _to_grey_levels(values: Tensor) -> Tensor:
    """Clip to 0 to 255 and truncate to whole levels; 0.001 is added against rounding errors."""
    return (values.clamp(0, 255) + 1e-3).to(torch.uint8)


def _quantize(plane: Tensor, table: tuple[int, ...], quality: float) -> Tensor:
    """Round the cosine coefficients of each 8x8 block of B H W to multiples of the table's steps."""
    scale = 50 / quality if quality < 50 else 2 - quality / 50
    steps = (torch.tensor(table, device=plane.device).view(8, 8) * scale + 0.5).floor().clamp(1, 255)
    k = torch.arange(8, device=plane.device, dtype=plane.dtype)
    cosine = 0.5 * torch.cos(math.pi / 8 * k[:, None] * (k + 0.5))
    cosine[0] /= 2**0.5
    blocks = plane.unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).transpose(2, 3)  # B H W -> B h w 8 8
    kept = ((cosine @ blocks @ cosine.T) / steps).round() * steps
    return (cosine.T @ kept @ cosine).round().clamp(-128, 127).transpose(2, 3).flatten(3, 4).flatten(1, 2)
