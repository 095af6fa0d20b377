"""What else a comparison says: robustness with paired differences, error consistency, the cost of training."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from common.intervals import wilson_interval
from comparison import further
from comparison.significance import accuracy_interval
from evaluation.corruptions import SMALL, score_corrupted


class FakeRun:
    def __init__(self, hits):
        self.hits = hits

    def path(self, name):
        return name

    def load_arrays(self, name, forms):
        assert name == "corruptions.npz"
        return {"hits": self.hits}

    def read_json(self, name):
        if name == "corruptions.json":
            return score_corrupted(self.hits, SMALL)
        return {"device": "cpu", "cpu": "a processor", "threads": 2}


@pytest.fixture
def comparison():
    """Two seeds of a and one run of b, which contrast hurts; nothing else differs."""
    random, entries = np.random.default_rng(0), []
    hard = random.random(400)
    for name in ("a-0", "a-1", "b"):
        hits = random.random((51, 400)) < 0.95 - 0.5 * hard
        if name == "b":
            hits[31:36] &= random.random((5, 400)) < 0.5  # the seventh corruption
        entry = SimpleNamespace(name=name, run=FakeRun(hits), predictions=SimpleNamespace(correct=hits[0], labels=hard))
        entry.metrics = {"split": "test", "checkpoint": "best", "tta": None, "gmacs": 2.0, "mcc": 0.5}
        entry.metrics |= {"conformal": {"mean_set_size": 1.5, "coverage": 0.91}, "risk_at_coverage": {"0.8": 0.07}}
        entry.training = {"epochs_run": 3, "num_images": {"train": 1000}, "seconds": 90.0}
        entry.corruptions = {"some": "scores"}
        entries.append(entry)
    groups = {"a": entries[:2], "b": entries[2:]}
    return SimpleNamespace(entries=entries, groups=groups, reference="a")


def test_corruptions_come_with_paired_differences_that_hold_at_once(comparison):
    rows, findings = further.robustness(comparison)
    assert [row["corruption"] for row in rows][6] == "contrast" and len(rows) == 10
    for place, row in enumerate(rows):
        low, high = map(float, row["b less a (points)"].partition("(")[2].rstrip(")").split(" to "))
        assert (high < 0) == (place == 6) and low < high
        hits = comparison.entries[2].run.hits[1 + 5 * place : 6 + 5 * place]
        assert row["b (%)"] == f"{100 * hits.mean():.2f}"
    assert "Mean over the 10 corruptions and 5 severities" in findings[0] and "by a-0; b " in findings[0]
    assert findings[1].startswith("Over all corruptions: a is ") and "above b over 2 and 1 runs" in findings[1]
    stored = further.numbers(comparison)
    assert stored["corruption_pairs"][0]["difference"] == pytest.approx(
        np.mean([e.run.hits[1:].mean() for e in comparison.entries[:2]]) - comparison.entries[2].run.hits[1:].mean()
    )
    for entry in comparison.entries:
        entry.corruptions = None
    assert further.robustness(comparison) == ([], []) and "corruption_pairs" not in further.numbers(comparison)


@pytest.mark.parametrize(("rows", "images"), [(50, 400), (51, 399)])
def test_hits_of_other_images_or_corruptions_are_named(comparison, rows, images):
    comparison.entries[1].run.hits = comparison.entries[1].run.hits[:rows, :images]
    with pytest.raises(ValueError, match=r"corruptions\.npz is of other images or corruptions"):
        further.robustness(comparison)


def test_error_consistency_within_and_between_models(comparison):
    first, second, other = (entry.predictions.correct for entry in comparison.entries)
    rows = further.consistency_rows(comparison)
    assert [row["model"] for row in rows] == ["a", "b"]
    assert float(rows[0]["a"]) == pytest.approx(cohen_kappa_score(first, second), abs=6e-4) and rows[1]["b"] == "–"
    between = np.mean([cohen_kappa_score(hits, other) for hits in (first, second)])
    assert float(rows[0]["b"]) == float(rows[1]["a"]) == pytest.approx(between, abs=6e-4)
    assert further.numbers(comparison)["error_consistency"]["kappa"][0][0] == pytest.approx(1)


def test_what_training_took_and_what_predictions_tell(comparison):
    row = further.training_rows(comparison.entries)[0]
    assert (row["images seen"], row["forward passes (PMACs)"], row["training (min)"]) == ("3,000", "0.006", "1.5")
    cells = further.score_rows(comparison.entries)[0]
    assert cells["MCC"] == "0.5000" and cells["classes in a 90 % set"] == "1.50 (holds 91.0 %)" and cells["AURC"] == "–"


def test_how_far_training_came(comparison):
    for entry in comparison.entries:
        entry.training |= {
            "best_epoch": 2,
            "train_accuracy": 0.5,
            "val_accuracy": 0.25,
            "stopped_because": "all_epochs_done",
        }
        entry.metrics["accuracy"] = 0.2
    first = further.progress_rows(comparison.entries)[0]
    expected = {"run": "a-0", "epochs": "3", "kept epoch": "2", "training accuracy (%)": "50.00"}
    assert first == expected | {"validation accuracy (%)": "25.00", "test accuracy (%)": "20.00"}
    comparison.entries[0].training["target"] = 0.198
    comparison.entries[1].training |= {"target": 0.198, "stopped_because": "target_reached", "val_accuracy": None}
    rows = further.progress_rows(comparison.entries)
    assert [row["target (%)"] for row in rows] == ["19.80", "19.80", "–"]
    assert [row["epochs to the target"] for row in rows] == ["not reached in 3", "3", "–"]
    assert rows[1]["validation accuracy (%)"] == "–"


def test_the_interval_of_a_mean_over_seeds_covers_other_seeds_and_images():
    single = np.arange(200)[None] < 180
    assert accuracy_interval(single) == wilson_interval(180, 200).tolist()
    random, covered = np.random.default_rng(1), []
    for _ in range(400):
        hard = random.normal(size=500)
        luck = random.normal(0, 0.1, size=(4, 1))
        low, high = accuracy_interval(hard + luck + 0.5 * random.normal(size=(4, 500)) > -1)
        truth = 0.8135  # of a normal deviate of variance 1.26 above -1
        covered.append(low <= truth <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
