"""Risk against coverage, conformal sets, rankings of classes: against brute force and scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics

from evaluation import calibration, confidence, metrics
from evaluation.predictions import Predictions
from evaluation.report import scale_temperature


def draw(count: int, seed: int, *, strength: float = 1.5, num_classes: int = 7) -> Predictions:
    random = np.random.default_rng(seed)
    labels = random.integers(0, num_classes, count)
    logits = random.normal(size=(count, num_classes)).astype(np.float32)
    logits[np.arange(count), labels] += strength
    return Predictions(logits, labels)


def test_risk_at_every_coverage_equals_brute_force():
    predictions = draw(200, 0)
    sure, wrong = predictions.probabilities.max(1), ~predictions.correct
    ranked = sorted(range(200), key=lambda i: -sure[i])
    expected = [np.mean([wrong[i] for i in ranked[: count + 1]]) for count in range(200)]
    np.testing.assert_allclose(confidence.risk_curve(predictions), expected)
    found = confidence.risk_coverage(predictions)
    assert found["aurc"] == pytest.approx(np.mean(expected))
    ideal = np.sort(wrong)  # all errors last
    best = np.mean([ideal[: count + 1].mean() for count in range(200)])
    assert found["aurc_excess"] == pytest.approx(np.mean(expected) - best) and found["aurc_excess"] > 0
    assert found["risk_at_coverage"]["1"] == pytest.approx(1 - predictions.accuracy)
    assert found["risk_at_coverage"]["0.9"] == pytest.approx(expected[179])


def test_the_order_of_images_with_equal_confidence_does_not_count():
    logits = np.zeros((40, 2), np.float32)
    labels = np.repeat([0, 1], 20)
    for order in (np.arange(40), np.arange(40)[::-1]):
        risk = confidence.risk_curve(Predictions(logits, labels[order]))
        np.testing.assert_allclose(risk, 0.5)
    perfect = confidence.risk_coverage(Predictions(np.eye(2, dtype=np.float32)[labels], labels))
    assert (perfect["aurc"], perfect["aurc_excess"]) == (0, 0)


def test_conformal_sets_hold_the_true_class_as_often_as_they_promise():
    coverage = [confidence.conformal_sets(draw(200, 1000 + i), draw(99, i)) for i in range(300)]
    assert np.mean([found["coverage"] for found in coverage]) == pytest.approx(0.9, abs=0.008)  # exactly 90 / 100
    test, held_out = draw(500, 3), draw(150, 4)
    found = confidence.conformal_sets(test, held_out)
    scores = np.sort(1 - held_out.probabilities[np.arange(150), held_out.labels])
    members = 1 - test.probabilities <= scores[int(np.ceil(151 * 0.9)) - 1] + 1e-12
    assert found["mean_set_size"] == pytest.approx(members.sum(1).mean()) and found["num_images"] == 150
    assert found["coverage"] == pytest.approx(members[np.arange(500), test.labels].mean())
    low, high = found["coverage_ci95"]
    assert low < found["coverage"] < high and found["empty_sets"] == pytest.approx(np.mean(~members.any(1)))


def test_too_few_validation_images_hold_no_such_promise():
    few = confidence.conformal_sets(draw(50, 0), draw(8, 1))
    assert (
        few["threshold"] is None
        and few["reason"] == "8 validation images are too few for a level of 90%; at least 9 are needed"
    )
    assert confidence.conformal_sets(draw(50, 0), draw(9, 1))["threshold"] is not None


def test_rankings_and_correlation_are_scikit_learns():
    predictions = draw(300, 5)
    labels, probabilities = predictions.labels, predictions.probabilities
    found = metrics.summarize(predictions, list("abcdefg"))
    assert found["mcc"] == pytest.approx(sklearn.metrics.matthews_corrcoef(labels, predictions.predicted))
    roc = sklearn.metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert found["macro_roc_auc"] == pytest.approx(roc)
    pr = sklearn.metrics.average_precision_score(np.eye(7)[labels], probabilities, average="macro")
    assert found["macro_pr_auc"] == pytest.approx(pr)
    one_class = metrics.ranking_scores(Predictions(probabilities[:, :3], np.zeros(300, int)))
    assert one_class == {"macro_roc_auc": None, "macro_pr_auc": None}


@pytest.mark.parametrize(("strength", "reason"), [(60.0, "makes no error on 50"), (-3.0, "no larger than others")])
def test_a_temperature_that_does_not_exist_is_not_given(strength, reason):
    held_out, test = draw(50, 6, strength=strength), draw(200, 7)
    found = scale_temperature(test, held_out)
    assert found["temperature"] is None and reason in found["reason"] and "ece" not in found
    edge = calibration.fit_temperature(held_out)  # it runs away to a bound
    assert min(abs(edge - 0.01), abs(edge - 100)) < 0.5 or edge < 0.02 or edge > 99
    assert calibration.no_temperature(test) is None and scale_temperature(test, draw(50, 8))["temperature"] > 0
