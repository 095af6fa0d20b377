"""Faithfulness of a heat map: how the class's probability changes when pixels are removed in the order of the map.

Every measure removes shares of the *image's area*, pixel by pixel, whatever grid the map has, so that architectures can be
compared. All but ROAD's imputation run batched on the device. Legend: B images, H W pixels, h w the map's grid, S steps.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.integrate import trapezoid
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import gaussian_blur

from common.intervals import mean_interval

Predict = Callable[[Tensor], Tensor]
"""Preprocessed B 3 H W -> probabilities B of the explained classes of these images."""

MEASURES = ("insertion_blur", "insertion_mean", "deletion_blur", "deletion_mean", "drop", "increase", "road")

FRACTIONS = tuple(np.linspace(0, 1, 11).tolist())
ROAD_PERCENTILES = (20, 40, 60, 80)


def class_probability(model: nn.Module, targets: Tensor, context: Callable) -> Predict:
    """A `Predict` for a batch of images whose explained classes are ``targets`` (int64 B); passes run in ``context()``."""

    @torch.no_grad()
    def predict(images: Tensor) -> Tensor:
        with context():
            logits = model(images)
        return logits.float().softmax(dim=1).gather(1, targets[:, None])[:, 0]

    return predict


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps enlarged bilinearly to the image's size, B h w -> B H W."""
    return F.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def pixel_ranks(maps: Tensor, ties: Tensor, size: tuple[int, int]) -> Tensor:
    """The order in which pixels are removed: float32 B H W, k / (H W) for the k-th pixel; 0 is the most important.

    Args:
        maps: float B h w, not negative; a blank or faulty one is all 0.
        ties: float B h w, a random map, which orders pixels with equal values in ``maps`` (such as 0 for negative evidence);
            a blank map thus becomes the random map.
    """
    values, second = enlarge(maps, size).flatten(1), enlarge(ties, size).flatten(1)
    order = second.argsort(dim=1, descending=True)
    order = order.gather(1, values.gather(1, order).argsort(dim=1, descending=True, stable=True))
    places = torch.arange(values.shape[1], device=maps.device, dtype=torch.float32).expand_as(values)
    return (torch.empty_like(values).scatter_(1, order, places) / values.shape[1]).view(len(maps), *size)


def random_maps(count: int, grid: tuple[int, int], generator: torch.Generator) -> Tensor:
    """The first baseline: independent uniform values in each cell, float32 B h w on the CPU."""
    return torch.rand(count, *grid, generator=generator)


def centre_map(grid: tuple[int, int], sigma: float = 0.25) -> Tensor:
    """The second baseline: a Gaussian around the centre, float32 h w; ``sigma`` in units of each side."""
    rows, columns = ((torch.arange(n) + 0.5) / n - 0.5 for n in grid)
    return torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * sigma**2))


def references(images: Tensor) -> dict[str, Tensor]:
    """Replacements of removed pixels, B 3 H W each.

    ``blur``: a Gaussian blur by 1/8 of the longer side, which keeps the places of colours but removes shapes.
    ``mean``: each image's mean colour.
    """
    side = max(images.shape[2:])
    radius = min(side // 4, min(images.shape[2:]) - 1)
    blurred = images
    for kernel in ([2 * radius + 1, 1], [1, 2 * radius + 1]):  # across, then down: a Gaussian is separable
        blurred = gaussian_blur(blurred, kernel, [side / 8] * 2)
    return {"blur": blurred, "mean": images.mean(dim=(2, 3), keepdim=True).expand_as(images)}


def perturbation_curves(
    predict: Predict,
    images: Tensor,
    reference: Tensor,
    ranks: Tensor,
    fractions: Sequence[float] = FRACTIONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability while the image turns into ``reference`` and back (Petsiuk et al. 2018, "RISE", section 4.3).

    Args:
        images, reference: B 3 H W.
        ranks: B H W, as ``pixel_ranks`` gives them.
        fractions: S shares of the area, ascending from 0 to 1.
    Returns:
        float32 B S each: deletion, where that share of the most important pixels is replaced, and insertion, where only
        that share is kept and the rest is replaced.
    """
    whole, nothing = predict(images), predict(reference)
    deletion, insertion = [whole], [nothing]
    for fraction in fractions[1:-1]:
        chosen = (ranks < fraction)[:, None]
        deletion.append(predict(torch.where(chosen, reference, images)))
        insertion.append(predict(torch.where(chosen, images, reference)))
    curves = [*deletion, nothing], [*insertion, whole]
    return tuple(torch.stack(curve, dim=1).cpu().numpy() for curve in curves)


def area_under(curves: np.ndarray, fractions: Sequence[float] = FRACTIONS) -> np.ndarray:
    """B from B S: by trapezoids, in units of probability."""
    return trapezoid(curves, fractions, axis=1)


def paired_bands(curves: Sequence[np.ndarray]) -> np.ndarray:
    """95 % bounds of the mean curves of M maps of the same images, M S 2, for comparing the maps with each other.

    Each image's mean over the maps is subtracted first, since differences between images, which are common to all maps, would
    hide those between the maps (Cousineau 2005, with the correction of Morey 2008).

    Args:
        curves: of each map float B S.
    """
    stacked = np.stack(curves).astype(np.float64)  # M B S
    means = stacked.mean(axis=1, keepdims=True)
    own_level = stacked.mean(axis=0) - stacked.mean(axis=(0, 1))  # B S
    deviations = (stacked - own_level - means) * np.sqrt(len(stacked) / max(len(stacked) - 1, 1))
    return np.stack([mean_interval(values)[1] for values in means + deviations])


def confidence_change(predict: Predict, images: Tensor, maps: Tensor) -> np.ndarray:
    """Probability of the image times its map minus that of the image, float32 B (Chattopadhyay et al. 2018).

    As in grad-cam's metrics, the preprocessed image is multiplied by the map scaled to [0, 1]; a *drop* is the loss of
    probability, an *increase* any gain.

    Args:
        maps: float B h w; a constant one counts as 0.
    """
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    scaled = enlarge((maps - low) / (high - low).clamp(min=1e-12), tuple(images.shape[2:]))
    return (predict(images * scaled[:, None]) - predict(images)).cpu().numpy()


def road(
    model: nn.Module,
    images: Tensor,
    ranks: Tensor,
    targets: Sequence[int],
    *,
    percentiles: Sequence[int] = ROAD_PERCENTILES,
    seed: int = 0,
) -> np.ndarray:
    """ROAD by grad-cam's metrics, float32 B (Rong et al. 2022); more is better.

    grad-cam cuts maps at percentiles, where a map with many equal values loses everything at once; given the ranks
    instead, each step removes exactly its share. Imputing solves a sparse system per image on the CPU: at 224 px it takes
    seconds per image. The noise is seeded, and the global generator left as it was.
    """
    cams = (1 - ranks).cpu().numpy().astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        metric = ROADCombined(percentiles=list(percentiles))
        return metric(images, cams, [ClassifierOutputSoftmaxTarget(int(target)) for target in targets], model)
