"""Which differences between models are real: an interval for each, and the verdict whether it excludes 0.

Sentence, interval and p-value are computed from one statistic, so that they cannot disagree. benchmarks/error_rates.py
measures how often each rule errs.

Legend: k models, S seeds (runs of one model), N images; hits: which images a run gets right, bool S N.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, stdtr, stdtrit
from scipy.stats import norm

from common.intervals import DRAWS, Family, normal_draws, wilson_interval

SEED_SPREADS = (0.003, 0.01)
"""Standard deviations of accuracy over seeds for which the report says how often claims about single runs are false."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of one model minus that of another, before the correction for several comparisons."""

    value: float
    """The measured difference."""
    centre: float
    """The centre of its interval."""
    error: float
    """Standard error; never 0."""
    degrees: float
    """Degrees of freedom of Student's distribution."""

    @property
    def p(self) -> float:
        """Two-sided p-value of this difference alone."""
        return float(2 * stdtr(self.degrees, -abs(self.centre) / self.error))

    def interval(self, level: float = 0.05) -> list[float]:
        """The interval that misses the true difference with probability ``level``."""
        half = self.error * float(stdtrit(self.degrees, 1 - level / 2))
        return [max(-1.0, self.centre - half), min(1.0, self.centre + half)]


def image_difference(first: np.ndarray, second: np.ndarray, runs: tuple[int, int] = (1, 1)) -> Difference:
    """Difference of two models for other such images, from the share of ``runs`` that get each image right (N each).

    For single runs it is Bonett and Price's (2012): one image is added on which only the first is right, and one on which
    only the second is right, so that the interval has a width even if no image distinguishes the two. With several runs,
    one of them is right on the added image.
    """
    apart, count = np.asarray(first, float) - np.asarray(second, float), len(first) + 2
    centre = apart.sum() / count
    added = sum(1 / number**2 for number in runs)
    error = np.sqrt(((np.square(apart).sum() + added) / count - centre**2) / count)
    return Difference(float(apart.mean()), float(centre), float(error), np.inf)


@dataclass(frozen=True)
class Hits:
    """A summary of what the runs of one model get right, from which differences are computed."""

    shares: np.ndarray
    """N: the share of the runs that get each image right."""
    runs: int
    spread: float
    """s^2 / S: the variance of the mean accuracy over seeds, including the randomness of single images; 0 for one run."""
    added: float
    """The part of it that seeds add: s^2 / S minus the mean variance within an image / (N S), at least 0."""

    @classmethod
    def of(cls, hits: np.ndarray) -> "Hits":
        """From hits, bool S N, or from shares of hits over several versions of each image, float S N."""
        runs, count = hits.shape
        shares = hits.mean(axis=0)
        if runs == 1:
            return cls(shares, 1, 0.0, 0.0)
        spread = float(hits.mean(axis=1).var(ddof=1)) / runs
        within = float(hits.var(axis=0, ddof=1).mean())
        return cls(shares, runs, spread, max(0.0, spread - within / (count * runs)))


def two_way_difference(first: Hits, second: Hits) -> Difference:
    """Difference of two models for other images and other seeds.

    The variances over images and over seeds are added, with Satterthwaite's (1946) degrees of freedom.
    """
    images = image_difference(first.shares, second.shares, (first.runs, second.runs))
    total = images.error**2 + first.added + second.added
    freedom = images.error**4 / (len(first.shares) - 1)
    freedom += sum(model.spread**2 / (model.runs - 1) for model in (first, second) if model.runs > 1)
    degrees = total**2 / freedom if max(first.runs, second.runs) > 1 else np.inf
    return Difference(images.value, images.centre, float(np.sqrt(total)), float(degrees))


def family_of(models: Sequence[Hits], pairs: Sequence[tuple[int, int]], *, draws: int = DRAWS, seed: int = 0) -> Family:
    """The `Family` of all pairs' differences if nothing differs: in each draw images and seeds vary, and so do estimates."""
    shares = np.stack([model.shares for model in models])  # k N
    count, runs = shares.shape[1], tuple(model.runs for model in models)
    signs = np.zeros((len(pairs), len(models)))
    for row, (i, j) in zip(signs, pairs):
        row[i], row[j] = 1, -1
    images = np.cov(shares) / count + np.diag(1 / np.square(runs)) / count**2
    added = np.array([model.added for model in models])
    if len(pairs) == 1 or max(runs) == 1:
        return Family.normal(signs @ (images + np.diag(added)) @ signs.T, draws=draws, seed=seed)
    drawn = normal_draws(images + np.diag(added), draws, seed) @ signs.T  # draws m
    fixed = np.diag(signs @ images @ signs.T)
    degrees = np.maximum(np.array(runs) - 1, 1)
    spread = np.array([model.spread for model in models])
    estimated = spread * _chi_square_draws(runs, draws, seed) / degrees  # s^2 / S of other seeds, draws k
    within = spread - added
    total = fixed + np.maximum(0, estimated - within) @ np.abs(signs).T
    freedom = fixed**2 / (count - 1) + (estimated**2 / degrees) @ np.abs(signs).T
    return Family(_smallest_p(drawn / np.sqrt(total), total**2 / freedom), len(pairs))


@lru_cache(maxsize=8)
def _chi_square_draws(runs: tuple[int, ...], draws: int, seed: int) -> np.ndarray:
    """Chi-square draws, draws k, with one degree of freedom less than the model has runs (at least 1)."""
    degrees = np.maximum(np.array(runs) - 1, 1)
    return np.random.default_rng([seed, 1]).chisquare(degrees, (draws, len(runs)))


def _smallest_p(statistics: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """The smallest two-sided p-value of Student's distribution in each draw: draws m -> draws.

    By Wallace's (1959) normal approximation, and exactly for the smallest fifth of them, which decide about claims.
    """
    normal = np.log1p(statistics**2 / degrees)
    normal = (8 * degrees + 1) / (8 * degrees + 3) * np.sqrt(degrees * normal)
    rows, best = np.arange(len(statistics)), normal.argmax(axis=1)
    smallest = 2 * ndtr(-normal[rows, best])
    rows = np.flatnonzero(smallest <= np.quantile(smallest, 0.2))
    smallest[rows] = 2 * stdtr(degrees[rows, best[rows]], -np.abs(statistics[rows, best[rows]]))
    return smallest


def compare_pairs(
    names: Sequence[str], correct: Sequence[np.ndarray], *, level: float = 0.05, scope: str | None = None
) -> list[dict]:
    """Every pair of models on the same images: difference, interval, p-value and a sentence.

    The intervals are simultaneous for all pairs; two models are distinguishable if their interval excludes 0.

    Args:
        names: of the models.
        correct: for each, bool S N, which of N images each of its S runs (one per seed) gets right.
        scope: for single runs, the words in the sentence that say what the verdict holds for; None: these two runs.
    Returns:
        for each pair ``first``, ``second``, ``runs``, ``test`` ("images" for single runs, else "images and seeds"),
        ``difference``, ``difference_ci95`` (simultaneous), ``p`` (of this pair alone), ``p_adjusted`` (for all pairs),
        ``distinguishable``, ``standard_error``, ``sentence``; for single runs and bool hits also ``only_first`` and
        ``only_second``, the numbers of images.
    """
    places = [(i, j) for j in range(len(names)) for i in range(j)]
    if not places:
        return []
    models = [Hits.of(hits) for hits in correct]
    family = family_of(models, places)
    results = []
    for i, j in places:
        pair = {"first": names[i], "second": names[j], "runs": [len(correct[i]), len(correct[j])]}
        difference = two_way_difference(models[i], models[j])
        if pair["runs"] == [1, 1] and correct[i].dtype == bool:
            first, second = correct[i][0], correct[j][0]
            pair |= {"only_first": int((first & ~second).sum()), "only_second": int((second & ~first).sum())}
        low, high = difference.interval(family.level(level))
        pair |= {
            "test": "images" if pair["runs"] == [1, 1] else "images and seeds",
            "difference": difference.value,
            "difference_ci95": [low, high],
            "p": difference.p,
            "p_adjusted": family.adjust(difference.p),
            "distinguishable": not low <= 0 <= high,
            "standard_error": difference.error,
        }
        results.append(pair | {"sentence": _sentence(pair, correct[0].shape[1], scope)})
    return results


def accuracy_interval(hits: np.ndarray) -> list[float]:
    """95 % interval of a model's accuracy from hits, bool S N: Wilson's for a single run, else over images and seeds."""
    if len(hits) == 1:
        return wilson_interval(int(hits.sum()), hits.shape[1]).tolist()
    model, count = Hits.of(hits), hits.shape[1]
    images = float(model.shares.var(ddof=1)) / count
    total = max(images + model.added, 1e-18)
    degrees = total**2 / max(images**2 / (count - 1) + model.spread**2 / (model.runs - 1), 1e-40)
    half = float(stdtrit(degrees, 0.975)) * np.sqrt(total)
    return np.clip(model.shares.mean() + half * np.array([-1, 1]), 0, 1).tolist()


def class_differences(
    first: np.ndarray, second: np.ndarray, labels: np.ndarray, num_classes: int, *, level: float = 0.05
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracy of one run minus that of another in each class, with simultaneous intervals for all classes.

    Classes share no images, so that Sidak's (1967) level is exact.

    Args:
        first, second: bool N; labels: int N.
    Returns:
        K differences and K 2 bounds, NaN for classes without images.
    """
    present = np.unique(labels)
    single = 1 - (1 - level) ** (1 / len(present))
    values, bounds = np.full(num_classes, np.nan), np.full((num_classes, 2), np.nan)
    for k in present:
        difference = image_difference(first[labels == k], second[labels == k])
        values[k], bounds[k] = difference.value, difference.interval(single)
    return values, bounds


def summarize_seeds(accuracies: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean, standard deviation (n - 1) and Student's interval of the mean over runs that differ only in their seed.

    The interval shows where the mean over many seeds may lie, on these test images. A single run has a mean but no spread,
    and the spread of two is too uncertain for an interval.
    """
    values = np.asarray(accuracies, float)
    summary = {"n": len(values), "mean": float(values.mean()), "std": None, "mean_ci95": None}
    if len(values) > 1:
        summary["std"] = float(values.std(ddof=1))
    if len(values) > 2:
        half = stdtrit(len(values) - 1, 0.5 + confidence / 2) * summary["std"] / np.sqrt(len(values))
        summary["mean_ci95"] = np.clip(values.mean() + half * np.array([-1, 1]), 0, 1).tolist()
    return summary


def false_claim_rate(standard_error: float, seed_sd: float, *, level: float = 0.05) -> float:
    """How often single runs of two equally good architectures differ significantly, if only images are taken as random.

    Args:
        standard_error: of the difference of the two runs over images.
        seed_sd: standard deviation of either architecture's accuracy over its seeds.
    """
    spread = np.sqrt(standard_error**2 + 2 * seed_sd**2)
    return float(2 * norm.sf(norm.isf(level / 2) * standard_error / spread))


def single_seed_remark(pairs: Sequence[dict]) -> str | None:
    """What a claim about single runs is worth as one about architectures; None if no pair is of single runs."""
    errors = [pair["standard_error"] for pair in pairs if pair["runs"] == [1, 1]]
    if not errors:
        return None
    whose = "One run each" if len(errors) == len(pairs) else "Where both models have a single run"
    rates = [f"{false_claim_rate(float(np.median(errors)), sd):.0%}" for sd in SEED_SPREADS]
    spreads = [f"{100 * sd:g}" for sd in SEED_SPREADS]
    return (
        f"{whose}: what is said holds for these runs, not for their architectures. If accuracy varies from seed to seed "
        f"with a standard deviation of {spreads[0]} ({spreads[1]}) points, two equally good architectures differ as clearly "
        f"as this rule asks for in {rates[0]} ({rates[1]}) of such comparisons. Train several seeds of each."
    )


def rule_notes(runs: Sequence[int]) -> list[str]:
    """By what rule differences were judged, in words, for models of so many runs each."""
    notes = []
    if len(runs) > 1 and min(runs) == 1:
        notes.append(
            "Between single runs: Bonett and Price's (2012) interval of the difference on the same images; its p-value comes "
            "from the same standard error."
        )
    if len(runs) > 1 and max(runs) > 1:
        notes.append(
            "Where a model has several seeds: the standard error adds the variance over images and that over seeds, with "
            "Satterthwaite's (1946) degrees of freedom, so that a claim is about other seeds and other such images."
        )
    if len(runs) > 2:
        count = len(runs) * (len(runs) - 1) // 2
        notes.append(
            f"The intervals of all {count} pairs hold at once with 95 %, and p-values are corrected likewise (max-T over the "
            "covariance of the models' hits); a difference is called real just where its interval leaves out 0."
        )
    elif len(runs) == 2:
        notes.append("A difference is called real just where its interval leaves out 0.")
    return notes


def error_consistency(correct: Sequence[np.ndarray]) -> np.ndarray:
    """Cohen's kappa of the hits of every two runs (Geirhos et al. 2020, equation 3), k k, of bool N each.

    1: the same images are missed; 0: as often as independent errors of these accuracies would meet; NaN where a run has no
    errors or nothing else.
    """
    result = np.full((len(correct), len(correct)), np.nan)
    for i, j in itertools.product(range(len(correct)), repeat=2):
        first, second = correct[i].mean(), correct[j].mean()
        expected = first * second + (1 - first) * (1 - second)
        if expected < 1:
            result[i, j] = (np.mean(correct[i] == correct[j]) - expected) / (1 - expected)
    return result


def _sentence(pair: dict, count: int, scope: str | None) -> str:
    sign = 1 if pair["difference"] >= 0 else -1
    above, below = (pair["first"], pair["second"])[::sign]
    low, high = sorted(100 * sign * bound for bound in pair["difference_ci95"])
    p = "p < 0.0001" if pair["p_adjusted"] < 1e-4 else f"p = {pair['p_adjusted']:.2g}"
    several = max(pair["runs"]) > 1
    over = f" over {' and '.join(map(str, pair['runs'][::sign]))} runs" if several else ""
    if min(pair["runs"]) > 1:
        scope = "for other seeds and other such images"
    elif several:
        scope = f"for other such images; how {above if pair['runs'][::sign][0] == 1 else below} varies with its seed is unknown"
    else:
        scope = scope or "between these two runs on such images"
    verdict = "a difference that chance does not explain" if pair["distinguishable"] else "not distinguishable"
    points = f"{100 * abs(pair['difference']):.2f} points above"
    return (
        f"{above} is {points if pair['difference'] else 'as accurate as'} {below}{over}, 95 % interval {low:+.2f} to "
        f"{high:+.2f}, {p}: {verdict} {scope} ({count:,} images)."
    )
