"""What a number is worth: intervals."""

import numpy as np
from scipy.stats import norm


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
