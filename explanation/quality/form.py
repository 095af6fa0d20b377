"""Heat maps in numbers: how spread out a map is, where it lies, and whether it lies where it should.

Maps are not negative; a map's *mass* in a cell is the cell's value over the sum of all. Legend: B maps, h w cells.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F

COMMON_GRID = (14, 14)
"""What maps of different grids are brought to before they are compared."""

STATISTICS = {
    "mean": "mean of the map over its maximum",
    "std": "standard deviation of the map over its maximum",
    "entropy": "entropy of the mass over that of an even map: 1 even, 0 a single cell",
    "half_mass_area": "smallest share of the area that holds half of the mass: 0.5 for an even map",
    "half_max_area": "share of the area where the map is above half of its maximum",
    "centre_mass": "mass in the middle rectangle of half the height and half the width: 0.25 for an even map",
    "peak_distance": "distance of the maximum from the image's centre: 0 there, 1 in a corner",
}


def map_statistics(maps: np.ndarray) -> dict[str, np.ndarray]:
    """The numbers of STATISTICS for each map, float64 B each.

    An area is cut through cells where needed (the middle rectangle, the last cell of a share), so that grids of any size
    compare; several equal maxima are at their mean distance. ``peak_distance`` measures down and across in halves of the
    image's height and width and divides by the square root of 2.

    Args:
        maps: B h w, not negative, finite, none of them blank.
    """
    maps = np.asarray(maps, np.float64)
    relative = maps / maps.max(axis=(1, 2), keepdims=True)
    flat = relative.reshape(len(maps), math.prod(maps.shape[1:]))  # also where there are none
    mass = flat / flat.sum(axis=1, keepdims=True)
    log_mass = np.log(mass, where=mass > 0, out=np.zeros_like(mass))
    peaks = flat == 1
    distance = _distance_from_centre(maps.shape[1:]).ravel()
    return {
        "mean": flat.mean(axis=1),
        "std": flat.std(axis=1),
        "entropy": -(mass * log_mass).sum(axis=1) / np.log(mass.shape[1]),
        "half_mass_area": np.array([_area_of_mass(row, 0.5) for row in mass]),
        "half_max_area": (flat > 0.5).mean(axis=1),
        "centre_mass": mass @ _centre_coverage(maps.shape[1:]).ravel(),
        "peak_distance": (peaks * distance).sum(axis=1) / peaks.sum(axis=1),
    }


def centre_to_edge(centre_mass: float) -> float | None:
    """How many times denser the mass is in the middle rectangle than around it: 1 for an even map; None if all is inside.

    Taken of a mean of ``centre_mass``, it is the ratio of the mean densities, which one map without an edge cannot spoil.
    """
    return 3 * centre_mass / (1 - centre_mass) if centre_mass < 1 else None


def resample(maps: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Maps brought to another grid, B h w -> float32 B H W: interpolated linearly, averaged where the grid is coarser."""
    tensor = torch.from_numpy(np.ascontiguousarray(maps, dtype=np.float32))[:, None]
    resized = F.interpolate(tensor, tuple(grid), mode="bilinear", antialias=True)[:, 0]
    return resized.clamp_(min=0).numpy()


def pointing_game(maps: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Whether each map's maximum lies in its region (Zhang et al. 2018, "Top-down neural attention"), share of B maxima.

    Args:
        maps: B h w.
        regions: B h w, true where the evidence is known to be.
    """
    peaks = maps == maps.max(axis=(1, 2), keepdims=True)
    return (peaks & np.asarray(regions, bool)).sum(axis=(1, 2)) / peaks.sum(axis=(1, 2))


def energy_inside(maps: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Share of each map's mass in its region (Wang et al. 2020, "Score-CAM"): B, from maps and regions of B h w."""
    return (maps * np.asarray(regions, bool)).sum(axis=(1, 2)) / maps.sum(axis=(1, 2))


def _area_of_mass(mass: np.ndarray, share: float) -> float:
    """The smallest part of the cells, in [0, 1], whose mass adds up to ``share``; of the last one only what is needed."""
    descending = np.sort(mass)[::-1]
    total = np.concatenate([[0], descending.cumsum()])
    return float(np.interp(share, total, np.arange(len(total)))) / len(mass)


def _distance_from_centre(grid: tuple[int, int]) -> np.ndarray:
    """h w: of the cells' centres, 0 in the image's centre and 1 in its corners."""
    rows, columns = (2 * (np.arange(n) + 0.5) / n - 1 for n in grid)
    return np.hypot(rows[:, None], columns[None]) / np.sqrt(2)


def _centre_coverage(grid: tuple[int, int]) -> np.ndarray:
    """h w: the part of each cell that the middle rectangle covers."""
    rows, columns = (
        np.clip(np.minimum(0.75 * n, np.arange(n) + 1) - np.maximum(0.25 * n, np.arange(n)), 0, 1) for n in grid
    )
    return rows[:, None] * columns[None]
