"""Intervals and verdicts between models, against independent computations and simulated truth."""

import numpy as np
import pytest
from scipy.stats import binom, norm, t, ttest_rel
from sklearn.metrics import cohen_kappa_score

from comparison import significance
from comparison.significance import compare_pairs


def table(both: int, only_first: int, only_second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    first = np.repeat([True, True, False, False], [both, only_first, only_second, neither])
    return first, np.repeat([True, False, True, False], [both, only_first, only_second, neither])


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (5, 0), (3, 9), (61, 40)])
def test_the_interval_of_two_runs_is_bonett_and_prices(only_first, only_second):
    first, second = table(800, only_first, only_second, 90)
    found, count = significance.image_difference(first, second), len(first)
    p1, p2 = (only_first + 1) / (count + 2), (only_second + 1) / (count + 2)
    half = norm.ppf(0.975) * np.sqrt((p1 + p2 - (p1 - p2) ** 2) / (count + 2))
    np.testing.assert_allclose(found.interval(), [p1 - p2 - half, p1 - p2 + half], atol=1e-12)
    assert found.value == (only_first - only_second) / count and half > 0


def test_the_verdict_on_two_runs_is_that_of_mcnemars_mid_p_test():
    """The number of images from which on a difference is called real may be one more or one less."""
    for discordant in (8, 15, 30, 60, 150):
        decides = []
        for rule in ("ours", "mid-p"):
            for only_second in range(discordant // 2, -1, -1):
                first, second = table(700, discordant - only_second, only_second, 100)
                if rule == "ours":
                    real = significance.image_difference(first, second).p < 0.05
                else:
                    below = binom.cdf(only_second, discordant, 0.5) - binom.pmf(only_second, discordant, 0.5) / 2
                    real = 2 * below < 0.05
                if real:
                    break
            decides.append(only_second)
        assert abs(decides[0] - decides[1]) <= 1


@pytest.mark.parametrize("runs", [(1, 1), (3, 3), (1, 3), (2, 4, 1)])
def test_sentence_interval_and_p_value_never_disagree(runs):
    random = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        easy = random.random(200)
        hits = [random.random((count, 200)) < 0.8 + random.normal(0, 0.06) + 0.3 * (easy - 0.5) for count in runs]
        for pair in compare_pairs("abc"[: len(runs)], hits):
            low, high = pair["difference_ci95"]
            assert pair["distinguishable"] == (not low <= 0 <= high) == (pair["p_adjusted"] < 0.05)
            assert ("chance does not explain" in pair["sentence"]) == pair["distinguishable"]
            assert low <= pair["difference"] <= high and pair["p_adjusted"] >= pair["p"]
            seen.add(pair["distinguishable"])
    assert seen == {True, False}


def test_two_way_standard_error_by_hand():
    random = np.random.default_rng(3)
    easy, count = random.random(500), 500
    first, second = (random.random((runs, count)) < rate + 0.4 * (easy - 0.5) for runs, rate in ((3, 0.8), (5, 0.7)))
    apart = first.mean(0) - second.mean(0)
    added = apart.sum() / (count + 2)
    images = ((apart**2).sum() + 1 / 3**2 + 1 / 5**2) / (count + 2) ** 2 - added**2 / (count + 2)
    total, freedom = images, images**2 / (count - 1)
    for hits in (first, second):
        runs = len(hits)
        spread = hits.mean(1).var(ddof=1) / runs
        total += max(0, spread - hits.var(0, ddof=1).mean() / (count * runs))
        freedom += spread**2 / (runs - 1)
    half = np.sqrt(total) * t.ppf(0.975, total**2 / freedom)
    pair = compare_pairs(["a", "b"], [first, second])[0]
    np.testing.assert_allclose(pair["difference_ci95"], [added - half, added + half])
    assert pair["test"] == "images and seeds" and pair["difference"] == pytest.approx(apart.mean())
    assert "over 3 and 5 runs" in pair["sentence"] and "for other seeds and other such images" in pair["sentence"]


def test_one_run_is_compared_with_several_over_the_images():
    random = np.random.default_rng(2)
    easy = random.random(400)
    one, several = (random.random((runs, 400)) < rate + 0.3 * (easy - 0.5) for runs, rate in ((1, 0.8), (3, 0.7)))
    pair = compare_pairs(["one", "several"], [one, several])[0]
    assert pair["test"] == "images and seeds" and "only_first" not in pair
    assert pair["p"] == pytest.approx(ttest_rel(one[0].astype(float), several.mean(0)).pvalue, abs=0.01)
    assert "how one varies with its seed is unknown" in pair["sentence"]
    same = compare_pairs(["a", "b"], [one, np.concatenate([one, one])])[0]
    assert (same["difference"], same["p"]) == (0, 1) and "a is as accurate as b" in same["sentence"]


def test_pairs_are_put_into_words():
    truth = np.zeros(1000, bool)
    good, same, bad = truth.copy(), truth.copy(), truth.copy()
    good[:900], same[2:901], bad[:700] = True, True, True
    good, same, bad = good[None], same[None], bad[None]  # one run each
    pairs = compare_pairs(["good", "same", "bad"], [good, same, bad])
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("good", "same"), ("good", "bad"), ("same", "bad")]
    assert pairs[0]["sentence"].startswith("good is 0.10 points above same, 95 % interval ")
    assert "not distinguishable between these two runs on such images (1,000 images)" in pairs[0]["sentence"]
    assert (pairs[0]["only_first"], pairs[0]["only_second"]) == (2, 1)
    assert pairs[1]["sentence"].startswith("good is 20.00 points above bad") and "p < 0.0001" in pairs[1]["sentence"]
    reverse = compare_pairs(["bad", "good"], [bad, good])[0]
    assert reverse["difference"] == pytest.approx(-0.2)
    assert reverse["sentence"].startswith("good is 20.00 points above bad")
    low, high = reverse["difference_ci95"]
    assert f"{-100 * high:+.2f} to {-100 * low:+.2f}" in reverse["sentence"]


def test_class_differences_hold_for_all_classes_at_once():
    random = np.random.default_rng(4)
    labels = random.integers(0, 20, 4000)
    missed = [significance_of_equal_classes(random, labels) for _ in range(400)]
    assert 0.02 <= np.mean(missed) <= 0.08  # single 95 % intervals would miss in 64 %
    first, second = random.random(4000) < 0.9, random.random(4000) < 0.8
    values, bounds = significance.class_differences(first, second, labels, 21)
    assert values[3] == pytest.approx(first[labels == 3].mean() - second[labels == 3].mean())
    assert np.isnan(values[20]) and np.isnan(bounds[20]).all() and (bounds[:20, 0] < bounds[:20, 1]).all()


def significance_of_equal_classes(random: np.random.Generator, labels: np.ndarray) -> bool:
    hits = random.random((2, len(labels))) < 0.8
    _, bounds = significance.class_differences(*hits, labels, 20)
    return bool(((bounds[:, 0] > 0) | (bounds[:, 1] < 0)).any())


def test_seeds_are_summarised_as_by_the_t_distribution():
    values = [0.98, 0.97, 0.985]
    found = significance.summarize_seeds(values)
    assert (found["n"], found["mean"], found["std"]) == (3, pytest.approx(np.mean(values)), np.std(values, ddof=1))
    low, high = t.interval(0.95, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / 3**0.5)
    np.testing.assert_allclose(found["mean_ci95"], [low, min(high, 1)])
    assert significance.summarize_seeds([0.5]) == {"n": 1, "mean": 0.5, "std": None, "mean_ci95": None}
    two = significance.summarize_seeds([0.3, 0.4])
    assert two["std"] == pytest.approx(0.0707, abs=1e-4) and two["mean_ci95"] is None
    assert significance.summarize_seeds([0.1, 0.5, 0.9])["mean_ci95"] == [0, 1]


def test_what_single_runs_say_of_architectures_is_told_as_it_is():
    random, sd, error = np.random.default_rng(5), 0.01, 0.006
    measured = random.normal(0, np.sqrt(error**2 + 2 * sd**2), 100_000)
    rate = significance.false_claim_rate(error, sd)
    assert rate == pytest.approx(np.mean(np.abs(measured) > norm.ppf(0.975) * error), abs=0.01)
    first, second = table(800, 50, 50, 100)
    pairs = compare_pairs(["a", "b"], [first[None], second[None]])
    rates = [f"{significance.false_claim_rate(pairs[0]['standard_error'], sd):.0%}" for sd in (0.003, 0.01)]
    remark = significance.single_seed_remark(pairs)
    assert remark.startswith("One run each: ") and f"in {rates[0]} ({rates[1]}) of such comparisons" in remark
    mixed = compare_pairs(["a", "b", "c"], [first[None], second[None], np.stack([first, second])])
    assert significance.single_seed_remark(mixed).startswith("Where both models have a single run: ")
    several = compare_pairs(["a", "b"], [np.stack([first, second]), np.stack([second, first])])
    assert significance.single_seed_remark(several) is None


def test_error_consistency_is_cohens_kappa_of_the_hits():
    random = np.random.default_rng(6)
    easy = random.random(300)
    hits = [random.random(300) < 0.5 + 0.9 * (easy - 0.5) for _ in range(3)]
    found = significance.error_consistency([*hits, np.ones(300, bool)])
    for i in range(3):
        for j in range(3):
            assert found[i, j] == pytest.approx(cohen_kappa_score(hits[i], hits[j]))
    assert found[0, 3] == pytest.approx(0) and np.isnan(found[3, 3])


def test_the_interval_of_a_mean_over_seeds_by_hand():
    """Satterthwaite: the squared sum of the two variances over the sum of each squared by its degrees of freedom."""
    hits = np.random.default_rng(3).random((4, 300)) < np.array([0.6, 0.7, 0.75, 0.8])[:, None]
    images = hits.mean(axis=0).var(ddof=1) / 300
    seeds = hits.mean(axis=1).var(ddof=1) / 4
    total = images + significance.Hits.of(hits).added
    degrees = total**2 / (images**2 / 299 + seeds**2 / 3)
    half = t.ppf(0.975, degrees) * np.sqrt(total)
    mean = hits.mean()
    np.testing.assert_allclose(significance.accuracy_interval(hits), [mean - half, mean + half], rtol=1e-9)


def test_spreads_of_other_seeds_are_drawn_with_a_degree_of_freedom_less_than_runs():
    drawn = significance._chi_square_draws((2, 3, 10, 1), 20_000, 0)
    np.testing.assert_allclose(drawn.mean(axis=0), [1, 2, 9, 1], rtol=0.03)  # of one run none is used


@pytest.mark.parametrize(
    ("runs", "test"), [((1, 1), "images"), ((1, 2), "images and seeds"), ((2, 2), "images and seeds")]
)
def test_it_is_said_what_was_drawn_anew(runs, test):
    hits = [np.random.default_rng(i).random((count, 50)) < 0.7 for i, count in enumerate(runs)]
    assert compare_pairs("ab", hits)[0]["test"] == test


def smallest_p_by_hand(models, count, draws):
    """Of every pair when nothing differs, each draw with spreads estimated anew, written out pair by pair."""
    random, pairs = np.random.default_rng(7), [(0, 1), (0, 2), (1, 2)]
    shares, runs = np.stack([model.shares for model in models]), [model.runs for model in models]
    images = np.cov(shares) / count + np.diag([1 / (r * count) ** 2 for r in runs])
    means = random.multivariate_normal(np.zeros(3), images + np.diag([model.added for model in models]), draws)
    spreads = [m.spread * random.chisquare(m.runs - 1, draws) / (m.runs - 1) if m.runs > 1 else 0 for m in models]
    found = []
    for i, j in pairs:
        variance = images[i, i] + images[j, j] - 2 * images[i, j]
        total, freedom = np.full(draws, variance), np.full(draws, variance**2 / (count - 1))
        for k in (i, j):
            if runs[k] > 1:
                total += np.maximum(0, spreads[k] - (models[k].spread - models[k].added))
                freedom += spreads[k] ** 2 / (runs[k] - 1)
        degrees = total**2 / freedom if max(runs) > 1 else np.inf
        found.append(2 * t.sf(np.abs(means[:, i] - means[:, j]) / np.sqrt(total), degrees))
    return np.min(found, axis=0)


@pytest.mark.parametrize(("runs", "shift"), [(1, 0.0), (3, 0.0), (3, 0.12), (5, 0.05)])
def test_the_level_of_each_of_three_pairs_by_hand(runs, shift):
    """Two models of nearly the same hits and a third of its own: the pairs with it count for little more than one."""
    random, count = np.random.default_rng(1), 60
    hard = random.random(count)
    moved = lambda: hard[None] + shift * random.normal(size=(runs, 1))  # noqa: E731  (seeds that shift all images)
    first = moved() + 0.1 * random.normal(size=(runs, count)) < 0.7
    second = first.copy()
    second[:, 0] ^= True
    models = [significance.Hits.of(hits) for hits in (first, second, random.random((runs, count)) + moved() < 1.4)]
    family = significance.family_of(models, [(0, 1), (0, 2), (1, 2)], draws=40_000)
    by_hand = smallest_p_by_hand(models, count, 40_000)
    for level in (0.05, 0.2):
        assert family.level(level) == pytest.approx(np.quantile(by_hand, level), rel=0.06)
