"""Confidence intervals: Wilson's for a proportion, the bootstrap for a mean, simultaneous ones for several means."""

from functools import lru_cache

import numpy as np
from scipy.special import stdtrit
from scipy.stats import bootstrap, norm

DRAWS = 4000


def wilson_interval(successes: np.ndarray, trials: np.ndarray, confidence: float = 0.95) -> np.ndarray:
    """Score interval of a proportion (Wilson 1927).

    Args:
        successes, trials: counts, scalars or arrays of one shape.
    Returns:
        [..., 2] lower and upper bound in [0, 1]; NaN where there are no trials.
    """
    successes, trials = np.asarray(successes, float), np.asarray(trials, float)
    z = norm.ppf(0.5 + confidence / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = successes / trials
        centre = (rate + z**2 / (2 * trials)) / (1 + z**2 / trials)
        half = z / (1 + z**2 / trials) * np.sqrt(rate * (1 - rate) / trials + z**2 / (4 * trials**2))
    return np.stack([np.clip(centre - half, 0, 1), np.clip(centre + half, 0, 1)], -1)


def mean_interval(
    values: np.ndarray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over images and its percentile-bootstrap interval (Efron 1979).

    Columns are resampled together; give differences of two methods on the same images for a paired interval.

    Args:
        values: N [...], one row per image.
    Returns:
        [...] means and [..., 2] lower and upper bounds; for a single image both bounds are its value.
    """
    values = np.asarray(values, np.float64)
    mean = values.mean(axis=0)
    if len(values) < 2:
        return mean, np.stack([mean, mean], -1)
    result = bootstrap(
        (values,),
        np.mean,
        axis=0,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        batch=100,
        random_state=np.random.default_rng(seed),
    )
    return mean, np.stack(result.confidence_interval, -1)


def estimate(values: np.ndarray) -> dict:
    """``mean_interval`` of the finite ones of N values, as plain values: mean, ci95, images; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "ci95": None, "images": 0}
    mean, interval = mean_interval(values)
    return {"mean": float(mean), "ci95": interval.tolist(), "images": len(values)}


class Family:
    """Several differences tested together: the distribution of their smallest p-value when nothing differs (max-T).

    Single intervals at the level that `level` gives cover all true differences at once. A p-value from `adjust` is below
    0.05 exactly where such an interval excludes 0 (Westfall and Young 1993).
    """

    def __init__(self, smallest: np.ndarray | None, count: int):
        """``smallest``: draws of the smallest p-value among ``count`` differences; None for a single one."""
        self.count, self._smallest = count, None if smallest is None else np.sort(smallest)

    @classmethod
    def normal(cls, covariance: np.ndarray, *, draws: int = DRAWS, seed: int = 0) -> "Family":
        """The family of m normal differences with an m m covariance, on any scale; those without variance are ignored."""
        covariance = np.atleast_2d(np.asarray(covariance, float))
        if len(covariance) == 1:
            return cls(None, 1)
        drawn = normal_draws(covariance, draws, seed)
        sd = np.sqrt(np.diag(covariance))
        return cls(2 * norm.sf(np.abs(drawn / np.where(sd > 0, sd, np.inf)).max(axis=1)), len(covariance))

    def level(self, level: float = 0.05) -> float:
        """The level of each single interval with which all of them together cover with probability ``1 - level``."""
        if self._smallest is None:
            return level
        return min(level, float(self._smallest[int(np.ceil(level * len(self._smallest))) - 1]))

    def adjust(self, p: float) -> float:
        """The p-value of one difference alone -> its p-value corrected for testing all of them."""
        if self._smallest is None:
            return float(p)
        share, rare = float(np.mean(self._smallest <= p)), 2 / len(self._smallest)
        if share < rare:  # too rare for this many draws to count
            share = min(rare, self.count * float(p))  # Bonferroni's bound
        return max(float(p), share)


def simultaneous_intervals(values: np.ndarray, level: float = 0.05) -> np.ndarray:
    """Intervals that cover several means all at once in ``1 - level`` of samples: Student's, at the level of `Family`.

    Args:
        values: N m, one row per image; for paired intervals, differences on the same images.
    Returns:
        m 2 lower and upper bounds; -inf and inf for a single image.
    """
    values = np.asarray(values, np.float64)
    count, mean = len(values), values.mean(axis=0)
    if count < 2:
        return np.stack([np.full_like(mean, -np.inf), np.full_like(mean, np.inf)], -1)
    covariance = np.atleast_2d(np.cov(values, rowvar=False)) / count
    single = Family.normal(covariance).level(level)
    half = float(stdtrit(count - 1, 1 - single / 2)) * np.sqrt(np.diag(covariance))
    return np.stack([mean - half, mean + half], -1)


def normal_draws(covariance: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Normal draws, draws m, with mean 0 and an m m covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return _standard_draws(draws, len(covariance), seed) @ (vectors * np.sqrt(np.clip(values, 0, None))).T


@lru_cache(maxsize=8)
def _standard_draws(draws: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((draws, count))
