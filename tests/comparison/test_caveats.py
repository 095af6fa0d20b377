"""Everything in which two runs differ is named, with key and values, or the comparison is refused."""

import copy

import numpy as np
import pytest

from common.config import Config
from common.runs import Run
from comparison.caveats import ARCHITECTURE, CERTAINTY, MEASUREMENT, TRAINING, WEIGHTS, caveats, settings
from comparison.entries import Entry, check_comparable, group_by_seed
from evaluation.predictions import Predictions

CONFIG = {
    "name": "a",
    "data": {"dataset": "digits", "image_size": 16},
    "model": {"name": "vit_tiny_patch16_224", "kwargs": {"depth": 2}},
    "train": {"lr": 0.001, "amp": "fp32"},
}
METRICS = {
    **{
        "fingerprint": "f" * 8,
        "train_fingerprint": "0" * 64,
        "num_images": 20,
        "corpus": "none",
        "image_size": [16, 16],
    },
    **{
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bicubic",
        "precision": "fp32",
        "params": 10**6,
        "gmacs": 1,
    },
    **{"device": "cpu", "threads": 1, "attention_kernel": "fused", "latency_ms": {"1": {"median": 1.0, "p90": 1.2}}},
}
TRAINING_FACTS = {
    **{"epochs_run": 30, "selected_by": "validation accuracy", "diverged": False, "precision": "fp32", "processes": 1},
    **{"num_images": {"train": 100, "val": 20, "test": 20}},
}
ENVIRONMENT = {
    **{"python": "3.11.7", "packages": {"torch": "2.11.0", "timm": "1.0.21"}, "git_commit": "a" * 40, "device": "cpu"},
    **{"cpu": "one processor", "threads": 1, "pretrained": None},
}


@pytest.fixture
def make_entry(tmp_path):
    def make(name="a", **changes):
        """``changes``: a path such as config.train.mixup (with __ for the dots) -> value."""
        parts = {"config": CONFIG | {"name": name}, "metrics": METRICS, "training": TRAINING_FACTS}
        parts = copy.deepcopy(parts | {"environment": ENVIRONMENT})
        for path, value in changes.items():
            *sections, last = path.split("__")
            place = parts
            for section in sections:
                place = place.setdefault(section, {})
            place[last] = value
        run = Run(tmp_path / name, Config.model_validate(parts["config"]))
        run.directory.mkdir(exist_ok=True)
        run.save_json("environment.json", parts["environment"])
        predictions = Predictions(np.eye(2, dtype=np.float32)[[0, 1] * 10], np.array([0, 1] * 10))
        return Entry(name, run, parts["metrics"], parts["training"], predictions, ["x", "y"], None)

    return make


SINGLE = {  # one respect -> what must be said, and among which caveats
    "metrics__corpus": ("ImageNet-1k", ARCHITECTURE, "Pretraining: corpus none (a), ImageNet-1k (b)"),
    "metrics__train_fingerprint": ("1" * 64, ARCHITECTURE, "Training images: training images 00000000 (a), 11111111"),
    "training__num_images__train": (90, ARCHITECTURE, "number of training images 100 (a), 90 (b)"),
    "config__data__val_fraction": (0.2, ARCHITECTURE, "data.val_fraction 0.1 (a), 0.2 (b)"),
    "config__train__epochs": (60, ARCHITECTURE, "Epochs: train.epochs 30 (a), 60 (b). So do the budgets"),
    "training__epochs_run": (12, ARCHITECTURE, "Epochs: epochs run 30 (a), 12 (b)"),
    "config__train__patience": (5, ARCHITECTURE, "train.patience null (a), 5 (b)"),
    "config__model__tune": ("head", ARCHITECTURE, "What is trained: model.tune full (a), head (b)"),
    "metrics__image_size": ([24, 24], ARCHITECTURE, "Input size: input size 16x16 (a), 24x24 (b)"),
    "metrics__params": (3 * 10**6, ARCHITECTURE, "Parameters differ by a factor of 3"),
    "metrics__gmacs": (4, ARCHITECTURE, "GMACs differ by a factor of 4"),
    "config__train__lr": (0.01, TRAINING, "Learning rate: learning rate 0.001 (a), 0.01 (b)"),
    "config__train__sched": ("constant", TRAINING, "train.sched cosine (a), constant (b)"),
    "config__train__warmup_epochs": (3.0, TRAINING, "train.warmup_epochs 1.0 (a), 3.0 (b)"),
    "config__train__min_lr": (1e-5, TRAINING, "train.min_lr 0.0 (a), 1e-05 (b)"),
    "config__train__layer_decay": (0.7, TRAINING, "train.layer_decay null (a), 0.7 (b)"),
    "config__train__opt": ("sgd", TRAINING, "Optimizer: train.opt adamw (a), sgd (b)"),
    "config__train__weight_decay": (0.1, TRAINING, "train.weight_decay 0.05 (a), 0.1 (b)"),
    "config__train__clip_grad": (None, TRAINING, "train.clip_grad 1.0 (a), null (b)"),
    "config__train__batch_size": (64, TRAINING, "Batches: train.batch_size 128 (a), 64 (b)"),
    "training__processes": (2, TRAINING, "processes 1 (a), 2 (b)"),
    "config__data__augment__hflip": (0.0, TRAINING, "Augmentation: data.augment.hflip 0.5 (a), 0.0 (b)"),
    "config__data__augment__aa": ("rand-m9", TRAINING, "data.augment.aa null (a), rand-m9 (b)"),
    "config__train__mixup": (0.8, TRAINING, "Mixed or smoothed labels: train.mixup 0.0 (a), 0.8 (b). They"),
    "config__train__cutmix": (1.0, TRAINING, "train.cutmix 0.0 (a), 1.0 (b). They"),
    "config__train__smoothing": (0.0, TRAINING, "train.smoothing 0.1 (a), 0.0 (b)"),
    "config__train__model_ema": (True, TRAINING, "Averaged weights: train.model_ema false (a), true (b). They"),
    "config__model__kwargs__drop_path_rate": (0.1, TRAINING, "depth: model.kwargs.drop_path_rate null (a), 0.1"),
    "metrics__mean": ([0.4, 0.5, 0.5], TRAINING, "Preprocessing: mean [0.5, 0.5, 0.5] (a), [0.4, 0.5, 0.5] (b)"),
    "metrics__interpolation": ("bilinear", TRAINING, "interpolation bicubic (a), bilinear (b)"),
    "config__data__crop_pct": (0.9, TRAINING, "data.crop_pct null (a), 0.9 (b)"),
    "training__selected_by": ("last epoch", TRAINING, "Selection: selected by validation accuracy (a), last epoch"),
    "training__precision": ("bf16", MEASUREMENT, "Precision: precision of training fp32 (a), bf16 (b)"),
    "metrics__precision": ("bf16", MEASUREMENT, "precision of evaluation fp32 (a), bf16 (b)"),
    "environment__device": ("NVIDIA H100", MEASUREMENT, "training device cpu (a), NVIDIA H100 (b)"),
    "environment__cpu": ("another", MEASUREMENT, "training processor one processor (a), another (b)"),
    "metrics__threads": (8, MEASUREMENT, "How latency was measured: threads 1 (a), 8 (b)"),
    "metrics__attention_kernel": ("explicit", MEASUREMENT, "attention kernel fused (a), explicit (b)"),
    "metrics__gmacs_torch": (0.5, MEASUREMENT, "GMACs of b: fvcore counts 1 and PyTorch's own counter 0.5"),
    "environment__packages__torch": ("2.12.0", MEASUREMENT, "Versions: packages.torch 2.11.0 (a), 2.12.0 (b)"),
    "environment__git_commit": ("b" * 40, MEASUREMENT, "code aaaaaaaaaa (a), bbbbbbbbbb (b)"),
    "config__evaluate__batch_size": (64, MEASUREMENT, "evaluate.batch_size 256 (a), 64 (b)"),
}


@pytest.mark.parametrize("respect", SINGLE)
def test_a_single_difference_is_named_with_its_key_and_both_values(make_entry, respect):
    value, weight, said = SINGLE[respect]
    other = {respect: value, "config__model__name": "swin_tiny_patch4_window7_224"}
    entries = [make_entry("a"), make_entry("b", **other)]
    check_comparable(entries)
    found = [caveat for caveat in caveats(entries, group_by_seed(entries)) if caveat.weight != CERTAINTY]
    assert len(found) == 1 and found[0].weight == weight and said in found[0].text


def test_a_model_without_attention_has_no_kernel_that_could_differ(make_entry):
    entries = [make_entry("a"), make_entry("b", metrics__attention_kernel="none", config__model__name="resnet18")]
    assert not [caveat for caveat in caveats(entries, group_by_seed(entries)) if "attention" in caveat.text]


NO_SEEDS = ("config", "metrics__params", "metrics__gmacs", "metrics__train_fingerprint")  # other models, other images


@pytest.mark.parametrize("respect", [key for key in SINGLE if not key.startswith(NO_SEEDS)])
def test_seeds_that_differ_in_more_than_their_seed_are_named(make_entry, respect):
    value, _, said = SINGLE[respect]
    entries = [make_entry("a"), make_entry("b", config__seed=1, **{respect: value})]
    groups = group_by_seed(entries)
    assert len(groups) == 1
    [text] = [caveat.text for caveat in caveats(entries, groups) if "more than their seed" in caveat.text]
    assert said.partition(": ")[2].removesuffix(". They") in text or said in text


@pytest.mark.parametrize(
    ("respect", "value", "message"),
    [
        ("metrics__fingerprint", "other", "were not evaluated on the same images"),
        ("config__data__dataset", "cifar10", "their data are cifar10 and digits"),
    ],
)
def test_what_cannot_be_compared_is_refused(make_entry, respect, value, message):
    with pytest.raises(ValueError, match=message):
        check_comparable([make_entry("a"), make_entry("b", **{respect: value})])


def test_equal_runs_and_settings_without_effect_are_not_named(make_entry):
    same = [make_entry("a"), make_entry("b", config__model__name="resnet18", config__train__mixup_prob=0.5)]
    same.append(make_entry("c", config__model__kwargs__depth=4, config__train__model_ema_decay=0.9))
    assert settings(same) == {} and caveats(same, group_by_seed(same)) == []


def test_any_two_of_many_runs_are_compared_and_values_named_once(make_entry):
    entries = [make_entry(name, config__train__batch_size=size) for name, size in (("a", 128), ("b", 128), ("c", 64))]
    entries[1] = make_entry("b", config__model__name="resnet18")
    [found] = caveats(entries, group_by_seed(entries))
    assert "train.batch_size 128 (a, b), 64 (c)" in found.text


def test_values_that_are_long_and_alike_are_told_apart(make_entry):
    names = ["weights-of-a-very-long-name-" * 4 + end for end in ("one.pth", "two.pth")]
    entries = [make_entry(end, config__model__pretrained=name) for end, name in zip("ab", names)]
    texts = " ".join(caveat.text for caveat in caveats(entries, group_by_seed(entries)))
    assert all(name in texts for name in names)


def test_how_certain_a_comparison_is(make_entry):
    entries = [make_entry("a-seed0"), make_entry("a-seed1", config__seed=1), make_entry("a-seed2", config__seed=1)]
    entries.append(make_entry("b", config__model__name="resnet18", training__diverged=True))
    entries[0].metrics["latency_ms"] = {"1": {"median": 1.0, "p90": 1.4}, "64": {"median": 10.0, "p90": 21.0}}
    found = caveats(entries, group_by_seed(entries))
    texts = "\n".join(caveat.text for caveat in found)
    assert "Numbers of seeds (a: 3; b: 1)" in texts and "a: two of its runs have the same seed" in texts
    assert "b diverged in training" in texts and "a-seed0 at batch 64 was unsteady: its 90th percentile is 2.1" in texts
    assert "at batch 1 " not in texts
    weights = [WEIGHTS.index(caveat.weight) for caveat in found]
    assert weights == sorted(weights)


def test_seeds_that_were_timed_once_have_one_caveat(make_entry):
    entries = [
        make_entry("a-seed0"),
        make_entry("a-seed1", config__seed=1),
        make_entry("b", config__model__name="resnet18"),
    ]
    for entry in entries[:2]:
        entry.metrics["latency_ms"] = {"64": {"median": 10.0, "p90": 21.0}}
    texts = [caveat.text for caveat in caveats(entries, group_by_seed(entries)) if "unsteady" in caveat.text]
    assert [text.split(" was")[0] for text in texts] == ["The latency of a at batch 64"]


def test_copies_and_changed_images_are_named(make_entry):
    copied = {"metrics__num_copies": 3, "metrics__accuracy_without_copies": 0.5}
    entries = [make_entry("a", **copied), make_entry("b", **copied, metrics__images_since_training="changed")]
    told = [caveat.text for caveat in caveats(entries, group_by_seed(entries))]
    copies = "3 of the images are exact copies of training or validation images. Accuracy without them: a: 50.00%; b: 50.00%."
    assert copies in told
    one = [make_entry("a", **copied | {"metrics__num_copies": 1})]
    assert any(c.text.startswith("1 of the images is an exact copy of ") for c in caveats(one, group_by_seed(one)))
    assert "The images that b was evaluated on were changed since it was trained." in told
    clean = [make_entry("c", metrics__num_copies=0), make_entry("d")]
    assert not any("copies" in caveat.text for caveat in caveats(clean, group_by_seed(clean)))


def test_another_folder_of_the_same_images_is_no_caveat(make_entry):
    entries = [make_entry("a"), make_entry("b", config__seed=1, config__data__root="elsewhere")]
    assert len(group_by_seed(entries)) == 1
    assert not any("data.root" in caveat.text for caveat in caveats(entries, group_by_seed(entries)))
