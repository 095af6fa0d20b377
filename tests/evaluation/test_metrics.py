"""Scores, calibration, intervals and tests against independent oracles."""

import numpy as np
import pytest
import sklearn.metrics
from scipy.optimize import brentq
from scipy.stats import binomtest

from common.intervals import Family, mean_interval, wilson_interval
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


def sure_of(confidence, correct):
    """Predictions of two classes: how sure the model is of the first, and whether that is right."""
    p = np.array(confidence)
    logits = np.log(np.stack([p, np.maximum(1 - p, 1e-30)], 1)).astype(np.float32)
    return Predictions(logits, np.where(correct, 0, 1))


def test_bins_of_few_images_by_hand():
    """Means and counts of each bin, the last one with a confidence of 1 in it, and zeros where nothing lies."""
    bins = calibration.calibration_bins(sure_of([0.52, 0.58, 0.79, 1.0], [True, False, True, False]), 10)
    assert bins["counts"].tolist() == [0] * 5 + [2, 0, 1, 0, 1]
    np.testing.assert_allclose(bins["confidence"], [0] * 5 + [0.55, 0, 0.79, 0, 1], atol=1e-6)
    assert bins["accuracy"].tolist() == [0] * 5 + [0.5, 0, 1, 0, 0]
    assert bins["ece"] == pytest.approx((2 * 0.05 + 0.21 + 1) / 4, abs=1e-6)


def test_there_are_fifteen_bins(predictions):
    for equal_mass in (False, True):
        assert all(
            len(calibration.calibration_bins(predictions, equal_mass=equal_mass)[key]) == 15
            for key in ("counts", "accuracy")
        )


def test_a_temperature_lies_between_a_hundredth_and_a_hundred(predictions):
    for factor, found in ((1e5, 100), (1e-5, 0.01)):
        scaled = Predictions(predictions.logits * np.float32(factor), predictions.labels)
        assert calibration.fit_temperature(scaled) == pytest.approx(found, rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        ([[1.0, 0.0], [1.0, 0.0]], "no larger than others"),  # as large as the mean of all: no slope at 1 / T = 0
        ([[2.0, 0.0], [1.0, 0.0]], None),
        ([[1.0, 0.0], [2.0, 0.0]], "no larger than others"),
        ([[2.0, 0.0], [0.0, 1.0]], "makes no error on 2 validation images"),
        ([[0.0, 0.0], [0.0, 0.0]], "makes no error"),
    ],
)
def test_why_there_is_no_temperature(logits, reason):
    found = calibration.no_temperature(Predictions(np.array(logits, np.float32), np.array([0, 1])))
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (10, 10), (9893, 10000), (3, 7)])
def test_wilson_intervals_equal_scipys(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, trials), [expected.low, expected.high], atol=1e-12)


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


def test_copies_of_training_images_are_left_out_of_an_accuracy_of_their_own(predictions):
    copies = np.arange(500) % 5 == 0
    found = metrics.without_copies(Predictions(predictions.logits, predictions.labels, copies))
    right = predictions.correct[~copies]
    assert found["num_copies"] == 100 and found["accuracy_without_copies"] == right.mean()
    assert found["accuracy_without_copies_ci95"] == wilson_interval(right.sum(), 400).tolist()
    assert metrics.without_copies(predictions) == dict.fromkeys(found)
    only = metrics.without_copies(Predictions(predictions.logits, predictions.labels, np.ones(500, bool)))
    assert list(only.values()) == [500, None, None]


def test_the_mean_of_two_values_has_an_interval():
    mean, bounds = mean_interval(np.array([[0.0, 1.0], [1.0, 3.0]]))
    assert mean.tolist() == [0.5, 2.0] and bounds.tolist() == [[0, 1], [1, 3]]
    mean, bounds = mean_interval(np.array([[0.25, 4.0]]))
    assert mean.tolist() == [0.25, 4.0] and bounds.tolist() == [[0.25, 0.25], [4, 4]]


def test_p_values_of_a_family_are_at_least_their_own_and_at_most_bonferronis():
    family = Family.normal(np.eye(4))
    assert family.adjust(1e-9) == pytest.approx(4e-9)
    assert family.adjust(0.02) == pytest.approx(1 - 0.98**4, rel=0.15)  # of independent differences
    assert family.level(0.05) == pytest.approx(1 - 0.95**0.25, rel=0.15)
    assert all(p <= family.adjust(p) <= 1 for p in (0.0, 1e-5, 0.3, 1.0))
    alike = Family.normal(np.ones((4, 4)))  # four times the same difference is one
    assert alike.adjust(0.02) == pytest.approx(0.02, rel=0.15) and alike.level(0.05) == pytest.approx(0.05, rel=0.1)
    single = Family.normal(np.eye(1))
    assert single.adjust(0.02) == 0.02 and single.level(0.05) == 0.05
