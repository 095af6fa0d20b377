"""What a number is worth: intervals, and paired tests of two models on the same images."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binomtest, chi2, ttest_1samp, ttest_ind
from scipy.stats import t as student_t


def mcnemar(only_first: int, only_second: int) -> float:
    """p-value of McNemar's test that two classifiers err equally often (McNemar 1947; Edwards 1948).

    Args:
        only_first, only_second: images that one classifier alone gets right.
    Returns:
        Exact (binomial) up to 50 such images, chi-square with continuity correction beyond; 1 if there are none.
    """
    discordant = only_first + only_second
    if discordant == 0:
        return 1.0
    if discordant <= 50:
        return float(binomtest(only_first, discordant).pvalue)
    return float(chi2.sf((abs(only_first - only_second) - 1) ** 2 / discordant, df=1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for their number (Holm 1979): the chance of any false finding among them stays at the level."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(len(p_values), 0, -1)
    corrected = np.empty_like(scaled)
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return corrected


def paired_difference(
    first: np.ndarray, second: np.ndarray, *, resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
) -> tuple[float, list[float]]:
    """Accuracy of ``first`` minus ``second`` with its paired-bootstrap interval.

    Images are resampled with what both classifiers made of them. An image adds 1, -1 or 0 to the difference, so that a
    resample is a draw of the three counts from a multinomial.

    Args:
        first, second: bool N, which images each classifier gets right.
    """
    count = len(first)
    shares = np.array([(first & ~second).sum(), (second & ~first).sum(), (first == second).sum()]) / count
    draws = np.random.default_rng(seed).multinomial(count, shares, size=resamples)
    tail = 100 * (1 - confidence) / 2
    interval = np.percentile((draws[:, 0] - draws[:, 1]) / count, [tail, 100 - tail])
    return float(shares[0] - shares[1]), interval.tolist()


def summarize_seeds(accuracies: Sequence[float], confidence: float = 0.95) -> dict:
    """Mean, standard deviation (n - 1) and Student's interval of the mean over runs that differ in their seed alone.

    The interval says how far the mean over more seeds may lie, on these test images. Of a single run the mean is all.
    """
    values = np.asarray(accuracies, float)
    summary = {"n": len(values), "mean": float(values.mean()), "std": None, "mean_ci95": None}
    if len(values) > 1:
        std = values.std(ddof=1)
        half = student_t.ppf(0.5 + confidence / 2, len(values) - 1) * std / np.sqrt(len(values))
        summary |= {"std": float(std), "mean_ci95": [float(values.mean() - half), float(values.mean() + half)]}
    return summary


def compare_pairs(names: Sequence[str], correct: Sequence[np.ndarray], *, level: float = 0.05) -> list[dict]:
    """Every pair of models on the same images: difference, interval, p-value, Holm's over all pairs, and a sentence.

    Args:
        names: of the models.
        correct: for each, bool S N, which of N images each of its S runs (one per seed) gets right.
    Returns:
        for each pair ``test`` names what was done. One run each: McNemar's test and the paired bootstrap over images.
        Several runs each: Welch's t-test over their accuracies (Welch 1947), which holds for other seeds on these images.
        One run against several: the paired t-test over images, on each image's share of runs that get it right.
    """
    pairs = []
    for j in range(len(names)):
        for i in range(j):
            pairs.append({"first": names[i], "second": names[j]} | _test_pair(correct[i], correct[j]))
    for pair, p in zip(pairs, holm([pair["p"] for pair in pairs])):
        pair["p_holm"] = float(p)
        pair["sentence"] = _sentence(pair, correct[0].shape[1], level)
    return pairs


def _test_pair(first: np.ndarray, second: np.ndarray) -> dict:
    """Test of two models by their hits, bool S N."""
    runs, accuracies = [len(first), len(second)], (first.mean(axis=1), second.mean(axis=1))
    if runs == [1, 1]:
        difference, interval = paired_difference(first[0], second[0])
        only = {"only_first": int((first & ~second).sum()), "only_second": int((second & ~first).sum())}
        return {"test": "mcnemar", "runs": runs, **only} | _tested(difference, interval, mcnemar(*only.values()))
    difference = float(accuracies[0].mean() - accuracies[1].mean())
    if min(runs) > 1 and any(np.ptp(values) for values in accuracies):
        test, result = "welch", ttest_ind(*accuracies, equal_var=False)
    else:  # nothing is known about the spread over seeds of one of them at least
        test, result = "paired-t", ttest_1samp(first.mean(axis=0) - second.mean(axis=0), 0)
    if np.isnan(result.pvalue):  # the same hits on every image
        return {"test": test, "runs": runs} | _tested(difference, [difference, difference], float(difference == 0))
    interval = [float(bound) for bound in result.confidence_interval()]
    return {"test": test, "runs": runs} | _tested(difference, interval, float(result.pvalue))


def _tested(difference: float, interval: list[float], p: float) -> dict:
    return {"difference": difference, "difference_ci95": interval, "p": p}


def _sentence(pair: dict, count: int, level: float) -> str:
    sign = 1 if pair["difference"] >= 0 else -1
    above, below = (pair["first"], pair["second"])[::sign]
    low, high = sorted(100 * sign * bound for bound in pair["difference_ci95"])
    verdict = "a difference that chance does not explain" if pair["p_holm"] < level else "not distinguishable"
    p = "p < 0.0001" if pair["p_holm"] < 1e-4 else f"p = {pair['p_holm']:.2g}"
    over = "" if pair["test"] == "mcnemar" else f" over {' and '.join(map(str, pair['runs'][::sign]))} runs"
    lone = "; how one of them varies with its seed is unknown" if pair["test"] == "paired-t" else ""
    points = f"{100 * abs(pair['difference']):.2f} points above"
    return (
        f"{above} is {points if pair['difference'] else 'as accurate as'} {below}{over}, 95 % interval {low:+.2f} to "
        f"{high:+.2f}, {p}: {verdict} on these {count:,} images{lone}."
    )
