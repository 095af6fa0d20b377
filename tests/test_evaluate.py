import csv
import json

import numpy as np
import pytest
import sklearn.metrics
import timm
import torch
from conftest import TINY_VIT, make_config, write_config
from scipy.stats import binomtest, chi2

import evaluate
import train
from analysis import efficiency, metrics
from analysis.metrics import Predictions
from analysis.statistics import compare_pairs, holm, mcnemar, paired_difference, wilson_interval
from data import load_dataset
from inference import predict_split
from models import create_model
from runs import Run


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    labels = random.integers(0, 7, 500)
    logits = random.normal(size=(500, 8)).astype(np.float32)  # class 7 never occurs
    logits[np.arange(500), labels] += 1.5
    return Predictions(logits, labels)


@pytest.fixture(scope="module")
def evaluated(vit_run):
    evaluate.main([str(vit_run)])
    return vit_run


# ---------------------------------------------------------------- numbers against oracles


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
    bins = metrics.calibration_bins(predictions)
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


def test_a_split_is_predicted_in_its_order_and_weighed_by_images():
    dataset = load_dataset(make_config().data, seed=0)
    model = create_model(make_config(), num_classes=10)
    kwargs = {"device": torch.device("cpu"), "precision": "fp32"}
    whole = predict_split(model, dataset.test, batch_size=1000, **kwargs)
    parts = predict_split(model, dataset.test, batch_size=70, **kwargs)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
    np.testing.assert_array_equal(parts.labels, dataset.test.labels)
    assert whole.accuracy == np.mean(whole.logits.argmax(1) == whole.labels)
    empty = load_dataset(make_config(data={"val_fraction": 0}).data, seed=0).val
    with pytest.raises(ValueError, match="the val split is empty"):
        predict_split(model, empty, batch_size=70, **kwargs)


@pytest.mark.parametrize(
    ("name", "gmacs", "params"),
    [
        ("vit_base_patch16_224", 17.58, 86.57e6),
        ("vit_base_patch32_224", 4.41, 88.22e6),
        ("swin_base_patch4_window7_224", 15.47, 87.77e6),
        ("resnet34", 3.67, 21.80e6),
    ],
)
def test_costs_of_known_models(name, gmacs, params):
    with torch.device("meta"):
        shapes = timm.create_model(name)
    assert efficiency.count_parameters(shapes)[0] == pytest.approx(params, rel=1e-3)
    model = timm.create_model(name).eval()
    counted, uncounted = efficiency.count_gmacs(model, torch.zeros(1, 3, 224, 224))
    assert counted == pytest.approx(gmacs, abs=0.011)
    assert not any("attention" in name for name in uncounted)


def test_counting_leaves_attention_as_it_was():
    model = create_model(make_config(data={"image_size": 32}), num_classes=3).eval()
    assert efficiency.attention_kernel(model) == "fused"
    with efficiency.unfused_attention(model):
        assert efficiency.attention_kernel(model) == "unfused"
    assert efficiency.attention_kernel(model) == "fused"
    image = torch.randn(1, 3, 32, 32)
    fused = model(image)
    with efficiency.unfused_attention(model):
        torch.testing.assert_close(model(image), fused)


def test_attention_is_counted_by_hand():
    """One block, N tokens of width C: patches + 4 N C^2 + 2 N^2 C + 8 N C^2 + head, and fvcore's 5 per normalised value."""
    model = create_model(make_config(data={"image_size": 32}, train={"amp": "fp32"}), num_classes=10).eval()
    tokens, width = 64, 192
    products = tokens * 48 * width + 12 * tokens * width**2 + 2 * tokens**2 * width + 10 * width
    counted, _ = efficiency.count_gmacs(model, torch.zeros(1, 3, 32, 32))
    norms = 2 * 5 * tokens * width + 5 * width
    assert counted * 1e9 == pytest.approx(products, rel=0.01)
    assert products <= counted * 1e9 <= products + norms


# ---------------------------------------------------------------- the script


def test_one_run_is_evaluated(evaluated, capsys):
    result = json.loads((evaluated / "metrics.json").read_text())
    assert {
        *("split", "checkpoint", "num_images", "accuracy", "accuracy_ci95", "top1_error", "top5_accuracy", "loss"),
        *("ece", "macro_f1", "per_class", "params", "trainable_params", "gmacs", "uncounted_ops", "latency_ms"),
        *("images_per_second", "peak_memory_mb", "device", "precision", "attention_kernel"),
    } <= set(result)
    assert result["num_images"] == 180 and set(result["latency_ms"]) == {"1", "180"}
    low, high = result["accuracy_ci95"]
    assert low < result["accuracy"] < high
    for name in ("confusion_matrix", "per_class_accuracy", "reliability"):
        assert (evaluated / "figures" / f"{name}.png").stat().st_size > 5000
    arrays = np.load(evaluated / "predictions.npz")
    assert (arrays["logits"].argmax(1) == arrays["labels"]).mean() == result["accuracy"]
    assert len(arrays["indices"]) == 180
    assert f"accuracy {result['accuracy']:.2%}" in (evaluated / "report.txt").read_text()


def test_accuracy_equals_that_of_training(vit_run, capsys):
    evaluate.main([str(vit_run), "--split", "val"])
    at_training = json.loads((vit_run / "train.json").read_text())["val_accuracy"]
    result = json.loads((vit_run / "metrics-val.json").read_text())
    assert result["accuracy"] == at_training and result["split"] == "val"
    last = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert last["accuracy"] == at_training


def test_every_family_is_evaluated_and_compared(family_runs, tmp_path, capsys):
    directories = [str(path) for path in family_runs.values()]
    evaluate.main([*directories, "--output", str(tmp_path / "all")])
    with (tmp_path / "all" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["vit", "swin", "resnet"]
    stored = json.loads((tmp_path / "all" / "comparison.json").read_text())
    for row, run in zip(rows, stored["runs"]):
        assert row["accuracy (%)"] == f"{100 * run['accuracy']:.2f}"
    report = (tmp_path / "all" / "report.md").read_text()
    assert "| vit | vit_tiny_patch16_224 |" in report and (tmp_path / "all" / "accuracy.png").is_file()
    assert stored["runs"][1]["top5_accuracy"] is None  # three classes
    assert len(stored["pairs"]) == 3 and all(f"- {pair['sentence']}" in report for pair in stored["pairs"])
    capsys.readouterr()
    before = (family_runs["vit"] / "metrics.json").stat().st_mtime_ns
    evaluate.main([*directories, "--output", str(tmp_path / "all")])
    assert "is evaluated already" in capsys.readouterr().out
    assert (family_runs["vit"] / "metrics.json").stat().st_mtime_ns == before


def test_runs_on_different_images_are_not_compared(tmp_path, vit_run, family_runs):
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        evaluate.main([str(vit_run), str(family_runs["vit"])])
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "data.split_seed=1", "train.epochs=1"])
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        evaluate.main([str(vit_run), str(tmp_path / "tiny")])


def test_a_retrained_run_is_not_current(tmp_path):
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1"])
    run = Run.open(tmp_path / "tiny")
    assert not evaluate.is_current(run, "test", "best")
    evaluate.main([str(run.directory)])
    assert evaluate.is_current(run, "test", "best") and not evaluate.is_current(run, "test", "last")
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1", "--overwrite"])
    assert not evaluate.is_current(Run.open(tmp_path / "tiny"), "test", "best")


def test_trainable_parameters_are_those_of_training(tmp_path, vit_run):
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1", "model.tune=head"])
    evaluate.main([str(tmp_path / "tiny")])
    result = json.loads((tmp_path / "tiny" / "metrics.json").read_text())
    assert (
        result["trainable_params"]
        == 330
        == json.loads((tmp_path / "tiny" / "train.json").read_text())["trainable_params"]
    )
