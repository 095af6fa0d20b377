"""Weighted losses and balanced draws."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from support import make_config

from data import load_dataset
from training.optimization import Mixer, create_loss, create_optimizer, create_scheduler

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
        loss_of({"ceder": 3.0, "oak": 1.0})


def test_a_balanced_epoch_draws_all_classes_alike():
    split = load_dataset(make_config().data, seed=0).train
    split.labels = (torch.arange(len(split)) < 100).long()  # 100 of one, the rest of the other
    plans = [split.plan(64, torch.Generator().manual_seed(0), balanced=True) for _ in range(2)]
    drawn = torch.cat([part.indices for part in plans[0]])
    assert len(drawn) == len(split) and torch.equal(drawn, torch.cat([part.indices for part in plans[1]]))
    assert 0.45 < split.labels[drawn].float().mean() < 0.55


def optimizer_of(opt, opt_kwargs):
    return create_optimizer(torch.nn.Linear(3, 2), make_config(train={"opt": opt, "opt_kwargs": opt_kwargs}))


def test_arguments_reach_timms_optimizer():
    optimizer = optimizer_of("adamw", {"betas": [0.8, 0.95], "eps": 1e-6, "filter_bias_and_bn": False})
    assert len(optimizer.param_groups) == 1  # biases are decayed, too
    assert optimizer.defaults["betas"] == (0.8, 0.95) and optimizer.defaults["eps"] == 1e-6
    assert optimizer_of("sgd", {"momentum": 0.5, "nesterov": False}).defaults["nesterov"] is False


@pytest.mark.parametrize(
    ("opt", "opt_kwargs", "message"),
    [
        ("adamw", {"beta": 3}, "adamw does not take 'beta'; it takes betas, eps, "),
        ("adamw", {"momentum": 0.9}, "adamw does not take 'momentum'"),  # timm drops it without a word
        ("sgd", {"betas": [0.9, 0.99]}, "sgd does not take 'betas'; it takes momentum, "),
        ("adamw", {"lr": 1}, "lr has a key of its own; set train.lr"),
        ("adamw", {"betas": [2, 3]}, "adamw does not take such values .Invalid beta"),
        ("adamw", {"betas": [0.9]}, "adamw does not take such values"),
        ("adamw", {"eps": "small"}, "adamw does not take such values"),
    ],
)
def test_arguments_that_an_optimizer_does_not_take(opt, opt_kwargs, message):
    with pytest.raises(ValueError, match=f"^train.opt_kwargs.*{message}"):
        optimizer_of(opt, opt_kwargs)


@pytest.mark.parametrize(
    ("sched", "warmup", "epochs"), [("cosine", 2, 8), ("constant", 2, 8), ("cosine", 0, 5), ("cosine", 9, 6)]
)
def test_the_learning_rate_of_every_step(sched, warmup, epochs):
    """A line to the full rate, then half a cosine down to the least one, or nothing."""
    values = {"sched": sched, "warmup_epochs": warmup, "epochs": epochs, "warmup_lr": 1e-5, "lr": 0.01}
    if sched == "cosine":
        values["min_lr"] = 2e-4
    config = make_config(train=values)
    optimizer = create_optimizer(torch.nn.Linear(3, 2), config)
    scheduler, steps = create_scheduler(optimizer, config, steps_per_epoch=10), 10 * epochs
    warm = 10 * min(warmup, epochs / 2)  # never more than half
    for step in range(steps):
        scheduler.step_update(step)
        if step < warm:
            expected = 1e-5 + (0.01 - 1e-5) * step / warm
        elif sched == "constant":
            expected = 0.01
        else:
            expected = 2e-4 + (0.01 - 2e-4) * (1 + np.cos(np.pi * (step - warm) / (steps - warm))) / 2
        assert all(group["lr"] == pytest.approx(expected, rel=1e-6) for group in optimizer.param_groups)


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_mixing_keeps_the_last_image_of_an_odd_batch(count):
    mixer = Mixer(make_config(train={"mixup": 1.0, "cutmix": 0.0}).train, 3)
    images, labels = torch.rand(count, 3, 4, 4), LABELS[:count] if count < 7 else torch.arange(count) % 3
    before = images.clone()
    np.random.seed(0)
    mixed, weights = mixer(images, labels)
    assert mixed is images and weights.shape == (count, 3)
    torch.testing.assert_close(weights.sum(1), torch.ones(count))
    even = count - count % 2
    assert torch.equal(mixed[even:], before[even:]) and torch.equal(weights[even:].argmax(1), labels[even:])
    changed = (mixed[:even] - before[:even]).abs().amax((1, 2, 3))
    assert (changed > 1e-3).all()
    share = (mixed[0] - before[even - 1]) / (before[0] - before[even - 1]) if even else None  # of the first image
    if even and labels[0] != labels[even - 1]:
        torch.testing.assert_close(weights[0, labels[0]].expand_as(share), share, atol=1e-3, rtol=1e-3)
