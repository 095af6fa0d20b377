"""Features before the classifier."""

import json

import numpy as np
import pytest
import torch
from torch import nn

import evaluate
from common.runs import Run
from data import load_data_of
from evaluation.embedding import features, neighbours, sample
from models import restore_model


def test_the_head_turns_the_features_into_the_logits(family_runs):
    for directory in family_runs.values():
        run = Run.open(directory)
        checkpoint = run.load_checkpoint("best.pt")
        model, split = restore_model(run.config, checkpoint), load_data_of(run.config, checkpoint).test
        options = dict(batch_size=4, device=torch.device("cpu"), precision="fp32")
        values, logits = features(model, split, np.arange(6), **options)
        head = model.get_classifier()
        with torch.no_grad():
            torch.testing.assert_close(head(torch.from_numpy(values)), torch.from_numpy(logits), rtol=1e-4, atol=1e-5)
        assert not head._forward_pre_hooks


def test_neighbours_of_separated_classes_are_right_and_of_noise_at_chance():
    random = np.random.default_rng(0)
    centres, labels = np.eye(4) * 10, np.arange(400) % 4
    near = centres[labels] + random.normal(size=(400, 4))
    found = neighbours(near[:200], labels[:200], near[200:], labels[200:])
    assert found["knn_accuracy"] > 0.99 and found["neighbours"] == 20
    noise = neighbours(random.normal(size=(200, 4)), labels[:200], random.normal(size=(200, 4)), labels[200:])
    assert noise["knn_accuracy_ci95"][0] < 0.25 < noise["knn_accuracy_ci95"][1]


def test_a_run_is_embedded(vit_run, drawn, capsys):
    evaluate.main([str(vit_run), "--embedding"])
    about = json.loads((vit_run / "embedding.json").read_text())
    metrics = json.loads((vit_run / "metrics.json").read_text())
    assert about["images"] == 180 and about["head_accuracy"] == pytest.approx(metrics["accuracy"], abs=0.02)
    assert about["train_images"] == 1437 and about["knn_accuracy_ci95"][0] <= about["knn_accuracy"]
    with np.load(vit_run / "embedding.npz") as arrays:
        assert arrays["places"].shape == (180, 2) and np.isfinite(arrays["places"]).all()
    assert (vit_run / "figures/embedding.png").stat().st_size > 5000
    printed = capsys.readouterr().out
    assert "embedding.png" in printed
    head, near = f"head {about['head_accuracy']:.1%}", f"1,437 training images {about['knn_accuracy']:.1%} (95 %"
    assert head in printed and near in printed


def test_samples_are_always_the_same():
    np.testing.assert_array_equal(sample(50, 10), sample(50, 10))
    np.testing.assert_array_equal(sample(7, 10), np.arange(7))


def test_a_model_that_does_not_name_its_classifier(vit_run):
    run = Run.open(vit_run)
    split = load_data_of(run.config, run.load_checkpoint("best.pt")).test
    with pytest.raises(ValueError, match="Flatten does not say which layer its classifier is"):
        features(nn.Flatten(), split, np.arange(4), batch_size=4, device=torch.device("cpu"), precision="fp32")
    with pytest.raises(ValueError, match="--embedding needs the model"):
        evaluate.main([str(vit_run), "--embedding", "--from-predictions"])
