"""Images that occur twice: exact copies, found by their digests, and near copies, found by the correlation of thumbnails.

Legend: N images that are searched among M others; T = 32, the side of a thumbnail in pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

SIDE = 32
"""Side in pixels of the thumbnails that are compared."""
THRESHOLD = 0.96
"""Correlation from which two images count as near copies: chosen by looking at pairs of CIFAR-10 (docs/data.md)."""
CANDIDATES, CANDIDATE = (
    4,
    0.5,
)  # how many pairs per image, and with which correlation at 8x8 pixels, are examined closely
SHIFT = 3  # largest shift between two thumbnails, in pixels


@dataclass(frozen=True)
class NearCopies:
    """P pairs of an image and the other image most similar to it, the most similar pair first."""

    images: np.ndarray  # int64 P, positions in the N
    others: np.ndarray  # int64 P, positions in the M
    correlation: np.ndarray  # float32 P
    mirrored: np.ndarray  # bool P


def copies_of(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """The first position of each digest (uint8 N 16) ``among`` others (uint8 M 16), or -1: int64 N."""
    if not len(among):
        return np.full(len(digests), -1)
    known, first = np.unique(_as_bytes(among), return_index=True)
    wanted = _as_bytes(digests)
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, first[places], -1)


def thumbnails(images: Tensor) -> Tensor:
    """uint8 B 3 H W of any shape -> uint8 B 3 T T, averaged over areas."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True).round().to(torch.uint8)


def near_copies(images: Tensor, among: Tensor, *, threshold: float = THRESHOLD) -> NearCopies:
    """Images that look like one of the others, even if mirrored, re-encoded, resized or shifted a little.

    First the four most similar at 8x8 pixels are found, by the correlation of their mean-free RGB values. Then these are
    compared at full size, blurred over 3x3 pixels to hide compression artefacts, at the best of all shifts by up to three
    pixels.

    Args:
        images, among: thumbnails, uint8 N 3 T T and M 3 T T.
        threshold: the least correlation that is reported.
    """
    known, size = _coarse(among), 500
    best = np.full(len(images), -1.0, np.float32)
    other, mirrored = np.zeros(len(images), np.int64), np.zeros(len(images), bool)
    for start in tqdm(
        range(0, len(images) if len(among) else 0, size), "looking for near copies", leave=False, delay=1
    ):
        part = images[start : start + size]
        for flipped in (False, True):
            seen = part.flip(-1) if flipped else part
            values, places = (_coarse(seen) @ known.T).topk(min(CANDIDATES, len(among)))
            rows, columns = torch.where(values > CANDIDATE)
            if not len(rows):
                continue
            found = places[rows, columns]
            correlation = _aligned(_smooth(seen[rows]), _smooth(among[found]))
            order = correlation.argsort()
            order = order[correlation[order] > torch.from_numpy(best)[start + rows[order]]]
            of = (start + rows[order]).numpy()  # sorted, so that the best candidate of an image is written last
            best[of], other[of], mirrored[of] = correlation[order], found[order], flipped
    order = np.argsort(-best, kind="stable")
    chosen = order[best[order] >= threshold]
    return NearCopies(chosen, other[chosen], best[chosen], mirrored[chosen])


def _coarse(images: Tensor) -> Tensor:
    """uint8 B 3 T T -> 8x8 pixels, mean-free and scaled to length 1, float32 B 192."""
    return _unit(F.adaptive_avg_pool2d(images.float(), 8))


def _smooth(images: Tensor) -> Tensor:
    """Means over 3x3 pixels, float32 B 3 T T."""
    return _windows(F.pad(images.float(), (1, 1, 1, 1), "replicate"), 3) / 9


def _aligned(images: Tensor, others: Tensor) -> Tensor:
    """Correlation of each image's centre with the same-sized part of the other, at the best of all shifts: float B."""
    shifts, inner = 2 * SHIFT + 1, SIDE - 2 * SHIFT
    others = others - others.mean((2, 3), keepdim=True)
    middle = images[:, :, SHIFT : SHIFT + inner, SHIFT : SHIFT + inner]
    middle = _unit(middle).view_as(middle)
    padded = F.pad(middle, (0, 2 * SHIFT, 0, 2 * SHIFT))
    product = torch.fft.rfft2(padded).conj() * torch.fft.rfft2(others)  # of all shifts at once
    inside = torch.fft.irfft2(product.sum(1), s=(SIDE, SIDE))[:, :shifts, :shifts]
    mean, square = _windows(others, inner) / inner**2, _windows(others.square().sum(1), inner)
    energy = (square - inner**2 * mean.square().sum(1)).clamp_min(0)
    return (inside / energy.sqrt().clamp_min(1e-3)).flatten(1).amax(1)


def _windows(values: Tensor, side: int) -> Tensor:
    """Sums over all windows of ``side`` x ``side`` pixels: ... S S -> ... S-side+1 S-side+1.

    Matrix products with ones and zeros; `avg_pool2d` would add up each window anew, which costs many times as much.
    """
    within = torch.arange(values.shape[-1]) - torch.arange(values.shape[-1] - side + 1)[:, None]
    ones = ((within >= 0) & (within < side)).float()
    return ones @ values @ ones.T


def _unit(values: Tensor) -> Tensor:
    """Flattened, mean-free in each colour and of length 1: a common tint does not count as similarity.

    A blank image becomes 0, so that it is similar to nothing.
    """
    free = (values - values.mean((2, 3), keepdim=True)).flatten(1)
    return free / free.norm(dim=1, keepdim=True).clamp_min(1e-3)


def _as_bytes(digests: np.ndarray) -> np.ndarray:
    """One opaque value for each row: (N 16) -> N."""
    return np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
