"""Scores, calibration, intervals and tests against independent oracles."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import brentq
from scipy.stats import binomtest, chi2, t, ttest_ind, ttest_rel

from common.intervals import wilson_interval
from comparison.significance import compare_pairs, holm, mcnemar, paired_difference, summarize_seeds
from evaluation import calibration, metrics
from evaluation.predictions import Predictions


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 500)
    logits = random.normal(size=(500, 8)).astype(np.float32)  # class 7 never occurs
    logits[np.arange(500), labels] += 1.5
    return Predictions(logits, labels)


def test_scores_equal_scikit_learns(predictions):
    labels, predicted, probabilities = predictions.labels, predictions.predicted, predictions.probabilities
    summary = metrics.summarize(predictions, [f"c{i}" for i in range(8)])
    assert summary["accuracy"] == sklearn.metrics.accuracy_score(labels, predicted)
    assert summary["top1_error"] == pytest.approx(1 - summary["accuracy"])
    assert summary["top5_accuracy"] == sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=range(8))
    assert summary["loss"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=range(8)))
    seen = sklearn.metrics.recall_score(labels, predicted, labels=range(7), average=None)
    assert summary["balanced_accuracy"] == pytest.approx(seen.mean())
    report = sklearn.metrics.classification_report(
        labels, predicted, labels=range(8), output_dict=True, zero_division=0
    )
    assert summary["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert summary["weighted_precision"] == pytest.approx(report["weighted avg"]["precision"])
    for k in range(8):
        ours, theirs = summary["per_class"][f"c{k}"], report[str(k)]
        assert ours["precision"] == pytest.approx(theirs["precision"])
        assert ours["f1"] == pytest.approx(theirs["f1-score"])
        assert ours["support"] == theirs["support"]
        assert ours["accuracy"] == (pytest.approx(theirs["recall"]) if theirs["support"] else None)
    counts = metrics.confusion_counts(predictions, 8)
    np.testing.assert_array_equal(counts, sklearn.metrics.confusion_matrix(labels, predicted, labels=range(8)))


def test_calibration_equals_brute_force(predictions):
    confidence = predictions.probabilities.max(1)
    correct = predictions.predicted == predictions.labels
    total = 0.0
    for b in range(15):
        chosen = (confidence >= b / 15) & (confidence < (b + 1) / 15)
        if chosen.any():
            total += chosen.sum() * abs(confidence[chosen].mean() - correct[chosen].mean())
    bins = calibration.calibration_bins(predictions)
    assert bins["ece"] == pytest.approx(total / len(correct))
    assert bins["counts"].sum() == len(correct)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (9893, 10000), (3, 7)])
def test_wilson_intervals_equal_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials), [expected.low, expected.high], atol=1e-12)


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (3, 9), (0, 5), (20, 30), (40, 61), (300, 220)])
def test_mcnemar_equals_the_binomial_test(only_first, only_second):
    p = mcnemar(only_first, only_second)
    assert p == mcnemar(only_second, only_first)
    count = only_first + only_second
    exact = binomtest(only_first, count).pvalue if count else 1.0
    assert p == pytest.approx(exact, rel=1e-12 if count <= 50 else 0.05)


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 2**10)  # 10 discordant: P(0 or 1) on either side
    assert mcnemar(101, 51) == pytest.approx(chi2.sf((50 - 1) ** 2 / 152, 1))


def test_holm_by_hand():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.5, 0.6]), [1, 1])
    assert holm([0.02]).tolist() == [0.02]


def test_the_paired_interval_equals_resampling_images():
    random = np.random.default_rng(1)
    first, second = random.random(800) < 0.8, random.random(800) < 0.7
    difference, interval = paired_difference(first, second)
    assert difference == pytest.approx(first.mean() - second.mean())
    chosen = random.integers(0, 800, (4000, 800))
    resampled = first[chosen].mean(1) - second[chosen].mean(1)
    np.testing.assert_allclose(interval, np.percentile(resampled, [2.5, 97.5]), atol=0.004)
    together = paired_difference(first, first)
    assert together == (0.0, [0.0, 0.0])


def test_pairs_are_put_into_words():
    truth = np.zeros(1000, bool)
    good, same, bad = truth.copy(), truth.copy(), truth.copy()
    good[:900], same[2:901], bad[:700] = True, True, True
    good, same, bad = good[None], same[None], bad[None]  # one run each
    pairs = compare_pairs(["good", "same", "bad"], [good, same, bad])
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("good", "same"), ("good", "bad"), ("same", "bad")]
    assert pairs[0]["sentence"].startswith("good is 0.10 points above same, 95 % interval ")
    assert "not distinguishable on these 1,000 images" in pairs[0]["sentence"]
    assert pairs[1]["sentence"].startswith("good is 20.00 points above bad") and "p < 0.0001" in pairs[1]["sentence"]
    reverse = compare_pairs(["bad", "good"], [bad, good])[0]
    assert reverse["difference"] == pytest.approx(-0.2) and reverse["sentence"].startswith(
        "good is 20.00 points above bad"
    )
    low, high = reverse["difference_ci95"]
    assert f"{-100 * high:+.2f} to {-100 * low:+.2f}" in reverse["sentence"]


def test_fewer_than_six_classes_have_no_top5():
    logits = np.eye(3, dtype=np.float32)
    assert metrics.summarize(Predictions(logits, np.arange(3)), ["a", "b", "c"])["top5_accuracy"] is None


def test_logits_that_are_not_finite_are_refused(predictions):
    predictions.logits[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite logits for 1 of 500"):
        metrics.summarize(predictions, [f"c{i}" for i in range(8)])


def test_equal_mass_calibration_equals_brute_force(predictions):
    confidence, correct = predictions.probabilities.max(1), predictions.correct
    ranked = sorted(range(500), key=lambda i: confidence[i])
    sizes = [34] * 5 + [33] * 10  # 500 = 5 x 34 + 10 x 33
    total, start = 0.0, 0
    for size in sizes:
        chosen = ranked[start : start + size]
        total += size * abs(np.mean(confidence[chosen]) - np.mean(correct[chosen]))
        start += size
    bins = calibration.calibration_bins(predictions, equal_mass=True)
    assert bins["counts"].tolist() == sizes
    assert bins["ece"] == pytest.approx(total / 500)
    assert metrics.summarize(predictions, list("abcdefgh"))["ece_equal_mass"] == bins["ece"]


def test_the_brier_score_is_scikit_learns(predictions):
    summed = sum(
        sklearn.metrics.brier_score_loss(predictions.labels == k, predictions.probabilities[:, k]) for k in range(8)
    )
    assert calibration.calibration(predictions)["brier"] == pytest.approx(summed)


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_the_temperature_undoes_a_factor_on_the_logits(predictions, factor):
    fitted = calibration.fit_temperature(predictions)
    scaled = Predictions(predictions.logits * np.float32(factor), predictions.labels)
    assert calibration.fit_temperature(scaled) == pytest.approx(factor * fitted, rel=1e-3)

    def slope(
        temperature,
    ):  # of the cross-entropy, which is 0 at its minimum: mean logit of the label less the expected one
        p = calibration.scale_logits(predictions, temperature).probabilities
        logits = predictions.logits.astype(float)
        return (logits[np.arange(500), predictions.labels] - (p * logits).sum(1)).mean()

    assert fitted == pytest.approx(brentq(slope, 0.05, 20), rel=1e-3)


def test_temperature_changes_no_prediction_and_mends_overconfidence(predictions):
    sure = Predictions(predictions.logits * 5, predictions.labels)
    mended = calibration.scale_logits(sure, calibration.fit_temperature(sure))
    assert (mended.predicted == sure.predicted).all()
    assert calibration.calibration(mended)["ece"] < 0.2 * calibration.calibration(sure)["ece"]


def test_the_most_confused_pairs(predictions):
    counts = metrics.confusion_counts(predictions, 8)
    found = metrics.most_confused(counts, list("abcdefgh"), limit=5)
    everything = sorted((-counts[i, j], i, j) for i in range(8) for j in range(8) if i != j)
    assert [(-pair["count"], pair["true"], pair["predicted"]) for pair in found] == [
        (count, "abcdefgh"[i], "abcdefgh"[j]) for count, i, j in everything[:5]
    ]
    assert found[0]["share"] == found[0]["count"] / counts["abcdefgh".index(found[0]["true"])].sum()
    assert metrics.most_confused(np.diag([3, 4]), ["a", "b"]) == []


def test_the_most_confidently_wrong():
    logits = np.log(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]], dtype=np.float32))
    predictions = Predictions(logits, np.array([1, 0, 1, 0]))
    assert metrics.most_confidently_wrong(predictions).tolist() == [0, 3, 1]
    assert metrics.most_confidently_wrong(predictions, limit=1).tolist() == [0]


def test_seeds_are_summarised_as_by_the_t_distribution():
    values = [0.98, 0.97, 0.985]
    found = summarize_seeds(values)
    assert (found["n"], found["mean"], found["std"]) == (3, pytest.approx(np.mean(values)), np.std(values, ddof=1))
    expected = t.interval(0.95, 2, loc=np.mean(values), scale=np.std(values, ddof=1) / 3**0.5)
    np.testing.assert_allclose(found["mean_ci95"], expected)
    assert summarize_seeds([0.5]) == {"n": 1, "mean": 0.5, "std": None, "mean_ci95": None}


@pytest.fixture
def hits():
    random = np.random.default_rng(2)
    easy = random.random(400)
    return lambda rate, runs: np.stack([random.random(400) < rate + 0.3 * (easy - 0.5) for _ in range(runs)])


def test_models_of_several_seeds_are_compared_by_welchs_test(hits):
    first, second = hits(0.8, 3), hits(0.7, 4)
    pair = compare_pairs(["a", "b"], [first, second])[0]
    expected = ttest_ind(first.mean(1), second.mean(1), equal_var=False)
    assert pair["test"] == "welch" and pair["p"] == pytest.approx(expected.pvalue)
    np.testing.assert_allclose(pair["difference_ci95"], expected.confidence_interval())
    assert pair["difference"] == pytest.approx(first.mean() - second.mean())
    assert "over 3 and 4 runs" in pair["sentence"]


def test_one_run_is_compared_with_several_over_the_images(hits):
    one, several = hits(0.8, 1), hits(0.7, 3)
    pair = compare_pairs(["one", "several"], [one, several])[0]
    expected = ttest_rel(one[0].astype(float), several.mean(0))
    assert pair["test"] == "paired-t" and pair["p"] == pytest.approx(expected.pvalue)
    assert "how one of them varies with its seed is unknown" in pair["sentence"]
    same = compare_pairs(["a", "b"], [one, np.concatenate([one, one])])[0]
    assert (same["difference"], same["p"]) == (0, 1) and "a is as accurate as b" in same["sentence"]


def test_a_class_that_never_occurs_and_a_single_class():
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    summary = metrics.summarize(Predictions(logits, np.zeros(3, dtype=int)), ["a", "b", "c"])
    assert summary["accuracy"] == pytest.approx(2 / 3) and summary["balanced_accuracy"] == pytest.approx(2 / 3)
    assert summary["per_class"]["c"]["accuracy"] is None and summary["per_class"]["c"]["support"] == 0
    assert summary["per_class"]["a"]["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "count"), [(0.5, 200), (0.9, 360), (0.98, 1000)])
def test_wilson_intervals_cover_what_they_promise(rate, count):
    drawn = np.random.default_rng(0).binomial(count, rate, 20_000)
    low, high = wilson_interval(drawn, np.full(20_000, count)).T
    assert ((low <= rate) & (rate <= high)).mean() == pytest.approx(0.95, abs=0.02)


@pytest.mark.slow
def test_paired_intervals_cover_what_they_promise():
    """Two models that err together: an interval that ignored the pairing would be far too wide."""
    random, covered, widths = np.random.default_rng(0), [], []
    for _ in range(1000):
        hard = random.random(1000) < 0.12
        first = ~(hard & (random.random(1000) < 0.8))
        second = ~(hard & (random.random(1000) < 0.9))
        _, (low, high) = paired_difference(first, second, resamples=1000, seed=int(random.integers(1 << 30)))
        covered.append(low <= 0.12 * 0.1 <= high)
        widths.append(high - low)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)
    assert np.mean(widths) < 0.8 * 2 * 1.96 * (2 * 0.1 * 0.9 / 1000) ** 0.5  # what two independent samples would give


@pytest.mark.slow
def test_mcnemar_errs_as_often_as_it_may():
    random = np.random.default_rng(0)
    for discordant in (20, 200):
        draws = random.binomial(discordant, 0.5, 4000)
        false_alarms = np.mean([mcnemar(k, discordant - k) < 0.05 for k in draws])
        assert 0.01 < false_alarms <= 0.055
