"""Images that stand in two places: exact copies by their digests, near ones by how alike they look.

Legend: N images that are looked for among M others; T = 32, the side of a thumbnail in pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

SIDE = 32
"""Of the thumbnails that are compared."""
THRESHOLD = 0.96
"""Correlation from which two images count as near copies: chosen by looking at pairs of CIFAR-10 (docs/data.md)."""
CANDIDATES, CANDIDATE = 4, 0.5  # the most alike at 8x8 pixels, and how alike they must be, to be looked at closely
SHIFT = 3  # pixels of a thumbnail by which one may be moved against the other


@dataclass(frozen=True)
class NearCopies:
    """Of P images the one among the others that is most like it, the most alike first."""

    images: np.ndarray  # int64 P, positions in the N
    others: np.ndarray  # int64 P, positions in the M
    correlation: np.ndarray  # float32 P
    mirrored: np.ndarray  # bool P


def copies_of(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each digest (uint8 N 16) the first position ``among`` others (uint8 M 16) where it stands too, or -1: int64 N."""
    if not len(among):
        return np.full(len(digests), -1)
    known, first = np.unique(_as_bytes(among), return_index=True)
    wanted = _as_bytes(digests)
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, first[places], -1)


def thumbnails(images: Tensor) -> Tensor:
    """uint8 B 3 H W -> uint8 B 3 T T, whatever the shape: means over areas."""
    if images.shape[-2:] == (SIDE, SIDE):
        return images
    return F.interpolate(images.float(), (SIDE, SIDE), mode="bilinear", antialias=True).round().to(torch.uint8)


def near_copies(images: Tensor, among: Tensor, *, threshold: float = THRESHOLD) -> NearCopies:
    """Images that look like one of the others, upright or mirrored, re-encoded, resized or moved by a little.

    First the four most alike at 8x8 pixels, by the correlation of their mean-free RGB values; then these at full size,
    blurred over 3x3 pixels so that encodings do not count, at the best of all shifts by up to three pixels.

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
            of = (start + rows[order]).numpy()  # of an image's candidates the best comes last, and stays
            best[of], other[of], mirrored[of] = correlation[order], found[order], flipped
    order = np.argsort(-best, kind="stable")
    chosen = order[best[order] >= threshold]
    return NearCopies(chosen, other[chosen], best[chosen], mirrored[chosen])


def _coarse(images: Tensor) -> Tensor:
    """uint8 B 3 T T -> mean-free 8x8 pixels of length 1, float32 B 192."""
    return _unit(F.adaptive_avg_pool2d(images.float(), 8))


def _smooth(images: Tensor) -> Tensor:
    """Means over 3x3 pixels, float32 B 3 T T."""
    return _windows(F.pad(images.float(), (1, 1, 1, 1), "replicate"), 3) / 9


def _aligned(images: Tensor, others: Tensor) -> Tensor:
    """Correlation of the middle of each image with the other's pixels behind it, at the best of all shifts: B."""
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

    A product with ones and zeros from both sides: `avg_pool2d` adds up each window anew, at many times the cost.
    """
    within = torch.arange(values.shape[-1]) - torch.arange(values.shape[-1] - side + 1)[:, None]
    ones = ((within >= 0) & (within < side)).float()
    return ones @ values @ ones.T


def _unit(values: Tensor) -> Tensor:
    """Mean-free in each colour and of length 1, flattened: a tint is no likeness, and nothing is like a blank image."""
    free = (values - values.mean((2, 3), keepdim=True)).flatten(1)
    return free / free.norm(dim=1, keepdim=True).clamp_min(1e-3)


def _as_bytes(digests: np.ndarray) -> np.ndarray:
    """One opaque value for each row: (N 16) -> N."""
    return np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
