"""What a number is worth: Wilson's interval of a share, the bootstrap interval of a mean."""

import numpy as np
from scipy.stats import bootstrap, norm


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
        [...] means and [..., 2] lower and upper bounds; a single image has no spread, so that its bounds are its value.
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
