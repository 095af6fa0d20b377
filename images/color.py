"""Colours and sharpness of whole batches, on the device, with a separate factor for each image.

Each function gives the same as torchvision's for one image. Random numbers stay on the CPU until they are needed, so that
nothing waits for the GPU.

Legend: B images in a batch, H W height and width in pixels; images are RGB, channels first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

BRIGHTNESS, SATURATION, CONTRAST, SHARPNESS = range(4)
BLUR_SIZE, BLUR_SIGMA = 23, (0.1, 2.0)
"""Side of the blur kernel in pixels, and range of its standard deviation: timm's and torchvision's."""


def blend(images: Tensor, which: Tensor, factors: Tensor, *, smooth: bool = False) -> Tensor:
    """PIL's ImageEnhance for uint8 B 3 H W: a factor of 0 gives a degraded image, 1 the image itself.

    ``which`` (int64 B) selects the degraded image: BRIGHTNESS black, SATURATION grey, CONTRAST the mean grey, SHARPNESS
    smoothed. It and ``factors`` (float B) are on the CPU. SHARPNESS needs ``smooth``, which costs a convolution.
    """
    grey = TF.rgb_to_grayscale(images).float()
    factors, which = (x.to(images.device, non_blocking=True)[:, None, None, None] for x in (factors, which))
    plain = torch.where(which == CONTRAST, grey.mean((1, 2, 3), keepdim=True), grey)
    if smooth:
        plain = torch.where(which == SHARPNESS, _smooth(images), plain)
    plain = torch.where(which == BRIGHTNESS, 0.0, plain)
    return (plain + factors * (images - plain)).clamp_(0, 255).to(torch.uint8)


def color_jitter(images: Tensor, strength: float | tuple[float, ...], generator: torch.Generator) -> Tensor:
    """torchvision's ColorJitter: brightness, contrast and saturation in random order, and hue if there is a fourth strength.

    Factors are uniform in [max(0, 1 - s), 1 + s]; the hue is shifted by -s to s of a full circle. A single number is the
    strength of the first three (timm's `color_jitter`).
    """
    strengths = [strength] * 3 if isinstance(strength, int | float) else list(strength)
    count, kinds = len(images), (BRIGHTNESS, CONTRAST, SATURATION)
    drawn = torch.rand(count, len(strengths), generator=generator)
    spans = [(max(0.0, 1 - s), 1 + s) for s in strengths[:3]] + [(-s, s) for s in strengths[3:]]
    low, high = torch.tensor(spans).T
    factors = low + (high - low) * drawn  # B 3, or B 4 with the hue
    order = torch.rand(count, len(strengths), generator=generator).argsort(1)
    for step in order.T:  # the operation of each image in this round
        turned = (step == 3).nonzero()[:, 0]
        now = factors.gather(1, step[:, None])[:, 0]
        before = images
        images = blend(images, torch.tensor([*kinds, BRIGHTNESS])[step], now)
        if len(turned):
            there = turned.to(images.device, non_blocking=True)
            images[there] = turn_hue(before[there], now[turned])
    return images


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Shift the HSV hue of each uint8 image by ``turns`` (B, on the CPU) of a full circle, as torchvision's adjust_hue."""
    levels = images.float() / 255
    value, least = levels.amax(1), levels.amin(1)  # B H W
    span = value - least
    red, green, blue = levels.unbind(1)
    scale = torch.where(span == 0, 1.0, span)
    of_blue, of_green = 4 + (red - green) / scale, 2 + (blue - red) / scale
    sixths = torch.where(value == red, (green - blue) / scale, torch.where(value == green, of_green, of_blue))
    sixths = sixths + 6 * turns.to(images.device, non_blocking=True)[:, None, None]
    corners = torch.tensor([5.0, 3.0, 1.0]).to(images.device, non_blocking=True)[:, None, None]
    place = (corners + sixths[:, None]) % 6  # B 3 H W: k of the formula for HSV -> RGB, for each channel
    share = torch.minimum(place, 4 - place).clamp(0, 1)
    return ((value[:, None] - span[:, None] * share) * 255).round_().clamp_(0, 255).to(torch.uint8)


def grey_where(images: Tensor, chosen: Tensor) -> Tensor:
    """Remove the colours of the images where ``chosen`` (bool B) is true."""
    return torch.where(chosen[:, None, None, None], TF.rgb_to_grayscale(images, 3), images)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of each uint8 image with its own sigma in pixels (B), as torchvision's gaussian_blur.

    The kernel is 23 pixels wide as in timm, or narrower where reflection at the border of a small image requires it.
    """
    result = images.float()
    for _ in range(2):  # along rows, then columns: each pass swaps height and width
        reach = min(BLUR_SIZE // 2, result.shape[-1] - 1)
        steps = torch.arange(-reach, reach + 1, device=images.device)
        kernels = torch.softmax(-0.5 * (steps / sigmas[:, None]) ** 2, 1)  # B k
        kernels = kernels.repeat_interleave(3, 0)[:, None, None]  # 3B 1 1 k
        padded = F.pad(result, [reach, reach, 0, 0], mode="reflect").flatten(0, 1)[None]  # 1 3B H W+2r
        result = F.conv2d(padded, kernels, groups=len(kernels))[0].unflatten(0, (-1, 3)).transpose(2, 3)
    return result.round_().to(torch.uint8)


def _smooth(images: Tensor) -> Tensor:
    """PIL's smoothing filter, float B 3 H W; border pixels are unchanged."""
    kernel = torch.full((3, 1, 3, 3), 1 / 13, device=images.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = images.float()
    smooth[..., 1:-1, 1:-1] = F.conv2d(smooth, kernel, groups=3).round_()
    return smooth
