"""Splits that are cut: folds, and parts of the training images."""

import itertools

import numpy as np
import pytest
from support import make_config

from images.splits import cut_splits

LABELS = np.arange(120) % 3
NAMES = ["ash", "beech", "cedar"]


def cut(labels=LABELS, given=(), seed=0, **data):
    return cut_splits(labels, make_config(data=data).data, given=given, class_names=NAMES, seed=seed)


def test_folds_test_each_image_once_and_all_classes_alike():
    folds = [cut(fold=f"{k}/5", val_fraction=0.1) for k in range(1, 6)]
    assert sorted(np.concatenate([fold["test"] for fold in folds])) == list(range(120))
    for fold in folds:
        assert np.bincount(LABELS[fold["test"]]).tolist() == [8, 8, 8]
        assert len(fold["val"]) == 12 and not set(fold["test"]) & set(fold["train"])
        assert sorted(np.concatenate(list(fold.values()))) == list(range(120))
    assert not np.array_equal(folds[0]["test"], cut(fold="1/5", seed=1)["test"])


def test_a_smaller_part_lies_within_a_larger_one_and_the_rest_stays():
    parts = [cut(train_fraction=fraction) for fraction in (0.1, 0.25, 0.5, 1)]
    for small, large in itertools.pairwise(parts):
        assert set(small["train"]) < set(large["train"])
        assert np.array_equal(small["test"], large["test"]) and np.array_equal(small["val"], large["val"])
    assert [np.bincount(LABELS[part["train"]]).tolist() for part in parts[:2]] == [[3, 3, 3], [8, 8, 8]]


def test_impossible_cuts_are_named():
    with pytest.raises(ValueError, match=r"data.fold = 1/2: the data has test images of its own"):
        cut(fold="1/2", given=("test",))
    with pytest.raises(ValueError, match="cedar has 2 images, too few for 3 folds"):
        cut(np.array([0, 0, 0, 1, 1, 1, 2, 2]), fold="1/3")
    with pytest.raises(ValueError, match="leaves none of the 32 training images of ash"):
        cut(train_fraction=0.01)
    for wrong in ("0/5", "6/5", "1/1", "1"):
        with pytest.raises(ValueError, match="fold"):
            cut(fold=wrong)
