"""Resize and normalise batches of uint8 images."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from images.augmentation import _warp


def crop_and_resize(images: Tensor, crops: Tensor, size: tuple[int, int] | None = None) -> Tensor:
    """Crop uint8 B 3 h w by ``crops`` (B 4: top, left, height, width, as fractions of the image) and resize.

    ``size`` (H, W) of the result is by default that of the images. Bilinear; averaged where the images are larger.
    """
    height, width = images.shape[-2:]
    size = size or (height, width)
    if images.device.type == "cpu" and size != (height, width):
        return torch.stack([resize(cut(image, crop)[None], size, "bilinear")[0] for image, crop in zip(images, crops)])
    return _sample_crops(images, crops, size)


def _sample_crops(images: Tensor, crops: Tensor, size: tuple[int, int]) -> Tensor:
    """`crop_and_resize` of a whole batch at once, on any device."""
    height, width = images.shape[-2:]
    top, left, high, wide = crops.unbind(-1)
    zero = torch.zeros_like(top)
    rows = [
        [wide, zero, (left + wide / 2 - 0.5) * width],
        [zero, high, (top + high / 2 - 0.5) * height],
    ]
    if size == (height, width):
        return _warp(images, rows, padding_mode="border")
    # Twice as many samples as pixels along each side, then means of four: no stored pixel is skipped.
    samples = _warp(images, rows, padding_mode="border", size=(2 * size[0], 2 * size[1]))
    return F.avg_pool2d(samples.float(), 2).round_().to(torch.uint8)


def cut(image: Tensor, crop: Sequence[float]) -> Tensor:
    """Crop C h w (top, left, height, width, as fractions), rounded to whole pixels, at least one along each side."""
    top, left, high, wide = crop.tolist() if isinstance(crop, Tensor) else crop
    return image[:, _whole_pixels(top, high, image.shape[-2]), _whole_pixels(left, wide, image.shape[-1])]


def _whole_pixels(start: float, length: float, side: int) -> slice:
    count = max(1, round(length * side))
    first = min(round(start * side), side - count)
    return slice(first, first + count)


def resize(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """uint8 B 3 h w -> uint8 B 3 H W of ``size``, with PIL's filters (with antialiasing when it shrinks)."""
    if tuple(images.shape[-2:]) == tuple(size):
        return images
    if images.device.type == "cpu":  # has a uint8 kernel, equal to PIL's
        return F.interpolate(images, size, mode=interpolation, antialias=True)
    return _resize_in_two_passes(images, size, interpolation)


def _resize_in_two_passes(images: Tensor, size: tuple[int, int], interpolation: str) -> Tensor:
    """`resize` on any device, as in PIL: along rows, rounded, then along columns."""
    for step in ((images.shape[-2], size[1]), size):
        images = F.interpolate(images.float(), step, mode=interpolation, antialias=True).round_().clamp_(0, 255)
    return images.to(torch.uint8)


class Preprocess(nn.Module):
    """uint8 images of any size -> the model's input: resized to ``size`` (H, W) and normalised, float32 B 3 H W."""

    def __init__(self, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...], interpolation: str):
        super().__init__()
        self.size, self.interpolation = tuple(size), interpolation
        self.register_buffer("mean", 255 * torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("std", 255 * torch.tensor(std)[:, None, None], persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (self.resize(images).float() - self.mean) / self.std

    def resize(self, images: Tensor) -> Tensor:
        """uint8 B 3 h w -> uint8 B 3 H W."""
        return resize(images, self.size, self.interpolation)

    def undo(self, inputs: Tensor) -> Tensor:
        """The model's input back to images, float B 3 H W -> uint8 B 3 H W."""
        return (inputs * self.std + self.mean).round().clamp(0, 255).to(torch.uint8)
