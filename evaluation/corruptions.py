"""Images made worse, in batches on their device: how fast does a model fall?

Four kinds of Hendrycks and Dietterich (2019, "Benchmarking neural network robustness to common corruptions and
perturbations"), at three severities of our own that go with the image's size. They act on the pixels that the dataset
holds, before the resize to the model's input.

Legend: B images of H x W pixels, uint8.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as F

from common.intervals import wilson_interval
from evaluation.predictions import Predictions

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


def gaussian_noise(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """White noise of standard deviation ``amount`` (white is 1). An image gets the same noise whichever model looks at it."""
    noise = torch.stack([_noise(images.shape[1:], seed) for seed in positions.tolist()]).to(images.device)
    return (images + 255 * amount * noise).round().clamp(0, 255).to(torch.uint8)


def blur(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Gaussian blur; ``amount`` is its sigma in units of the shorter side."""
    sigma = amount * min(images.shape[-2:])
    return F.gaussian_blur(images, [2 * math.ceil(3 * sigma) + 1] * 2, [sigma] * 2)


def jpeg(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """What JPEG compression of quality ``amount`` (of 100) leaves; the entropy coding, which loses nothing, is left out.

    ITU-T T.81 as libjpeg does it: YCbCr with the colours at half the resolution, 8x8 blocks, cosine transform, and the
    tables of its annex K scaled by the quality.
    """
    height, width = images.shape[-2:]
    padded = nn.functional.pad(images.float(), (0, -width % 16, 0, -height % 16), mode="replicate")
    matrix = torch.tensor(RGB_TO_YCBCR, device=images.device)
    luma, *colors = torch.einsum("cr,brhw->cbhw", matrix, padded).round()
    luma = _quantize(luma - 128, LUMINANCE_TABLE, amount) + 128
    colors = [_quantize(nn.functional.avg_pool2d(color, 2).round(), COLOR_TABLE, amount) for color in colors]
    colors = nn.functional.interpolate(torch.stack(colors, 1), scale_factor=2, mode="bilinear")
    decoded = torch.einsum("rc,bchw->brhw", matrix.inverse(), torch.cat([luma[:, None], colors], 1))
    return decoded[..., :height, :width].round().clamp(0, 255).to(torch.uint8)


def contrast(images: Tensor, positions: Tensor, amount: float) -> Tensor:
    """Every pixel moved towards the image's mean grey; ``amount`` of the contrast is left."""
    return F.adjust_contrast(images, amount)


SEVERITIES = (1, 2, 3)

# name -> function of (images, their positions in the split, amount), and its amount at severity 1, 2 and 3
CORRUPTIONS = {
    "Gaussian noise": (gaussian_noise, (0.05, 0.1, 0.2)),
    "blur": (blur, (0.02, 0.04, 0.08)),
    "JPEG": (jpeg, (30, 15, 5)),
    "contrast": (contrast, (0.5, 0.3, 0.1)),
}


def score_corrupted(predict: Callable[..., Predictions]) -> dict[str, list[dict]]:
    """Accuracy under each corruption at each severity.

    Args:
        predict: called with ``corrupt=``, a function of images (uint8 B 3 H W) and their positions (int64 B).
    Returns:
        for each corruption its severities: ``severity``, ``amount``, ``accuracy``, ``accuracy_ci95`` (Wilson).
    """
    results = {}
    for name, (function, amounts) in CORRUPTIONS.items():
        results[name] = []
        for severity, amount in zip(SEVERITIES, amounts):
            correct = predict(corrupt=partial(function, amount=amount)).correct
            interval = wilson_interval(correct.sum(), len(correct)).tolist()
            found = {"accuracy": float(correct.mean()), "accuracy_ci95": interval}
            results[name].append({"severity": severity, "amount": amount} | found)
    return results


def by_severity(scores: dict[str, list[dict]], key: str) -> dict[str, list]:
    """One number (``accuracy``, ``accuracy_ci95``) of `score_corrupted` at each severity, by corruption."""
    return {name: [found[key] for found in severities] for name, severities in scores.items()}


def _noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


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
