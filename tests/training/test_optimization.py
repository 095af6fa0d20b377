"""Weighted losses and balanced draws."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from support import make_config

from data import load_dataset
from training.optimization import create_loss

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])
NAMES = ["ash", "beech", "cedar"]
LOGITS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))


def loss_of(weights, smoothing=0.0):
    return create_loss(make_config(train={"class_weights": weights, "smoothing": smoothing}).train, LABELS, NAMES)


def test_balanced_weights_are_scikit_learns_and_the_mean_is_over_images():
    weights = torch.tensor(compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy()))
    each = torch.nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(loss_of("balanced")(LOGITS, LABELS).double(), (weights[LABELS] * each).mean())
    parts = [loss_of("balanced")(LOGITS[i : i + 5], LABELS[i : i + 5]) for i in (0, 5)]
    torch.testing.assert_close(sum(parts) / 2, loss_of("balanced")(LOGITS, LABELS))  # whatever a batch is cut into
    mixed = torch.nn.functional.one_hot(LABELS, 3).float()
    torch.testing.assert_close(loss_of("balanced", 0.1)(LOGITS, mixed), loss_of("balanced", 0.1)(LOGITS, LABELS))


def test_weights_by_name():
    plain, weighted = loss_of(None), loss_of({"cedar": 3.0})
    torch.testing.assert_close(weighted(LOGITS[:9], LABELS[:9]), plain(LOGITS[:9], LABELS[:9]))
    torch.testing.assert_close(weighted(LOGITS[9:], LABELS[9:]), 3 * plain(LOGITS[9:], LABELS[9:]))
    with pytest.raises(ValueError, match=r"no class ceder \(did you mean cedar\?\)"):
        loss_of({"ceder": 3.0})


def test_a_balanced_epoch_draws_all_classes_alike():
    split = load_dataset(make_config().data, seed=0).train
    split.labels = (torch.arange(len(split)) < 100).long()  # 100 of one, the rest of the other
    plans = [split.plan(64, torch.Generator().manual_seed(0), balanced=True) for _ in range(2)]
    drawn = torch.cat([part.indices for part in plans[0]])
    assert len(drawn) == len(split) and torch.equal(drawn, torch.cat([part.indices for part in plans[1]]))
    assert 0.45 < split.labels[drawn].float().mean() < 0.55
