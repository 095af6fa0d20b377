"""Which images are for training, validation and testing: missing splits are taken from the training images."""

import math
from collections.abc import Collection, Sequence

import numpy as np

from common.config import DataConfig


def cut_splits(
    labels: np.ndarray, cfg: DataConfig, *, given: Collection[str], class_names: Sequence[str], seed: int
) -> dict[str, np.ndarray]:
    """Sorted positions of the training images and of the images of each missing split, stratified by class.

    The test images are a share of all, or with ``data.fold`` one of several folds, which together hold each image once.
    ``data.train_fraction`` keeps only part of the remaining training images; a smaller part is contained in a larger one.

    Args:
        labels: int N, of the images that are to be split.
        given: names of the splits that the data already has.
        class_names: for messages.
        seed: seed of the random splits.
    Raises:
        ValueError: classes too small to be split, or a fold of data that has a test split.
    """
    splits = {"train": np.arange(len(labels))}
    if cfg.fold:
        if "test" in given:
            raise ValueError(f"data.fold = {cfg.fold}: the data has test images of its own; leave data.fold out")
        splits["train"], splits["test"] = _cut_fold(labels, cfg.fold, class_names, seed)
    for split, fraction in (("test", cfg.test_fraction), ("val", cfg.val_fraction)):
        if split not in given and split not in splits:
            count = math.ceil(fraction * len(labels))
            splits["train"], splits[split] = _cut(splits["train"], labels, count, f"data.{split}_fraction", seed)
    if cfg.train_fraction < 1:
        splits["train"] = _keep_part(splits["train"], labels, cfg.train_fraction, class_names, seed)
    return splits


def _cut(pool: np.ndarray, labels: np.ndarray, count: int, key: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split ``pool`` into the rest and ``count`` held-out indices, stratified; both are returned sorted."""
    from sklearn.model_selection import train_test_split

    if count == 0:
        return pool, pool[:0]
    if count >= len(pool):
        raise ValueError(f"{key} asks for {count:,} images, but only {len(pool):,} are left; lower it")
    try:
        rest, held_out = train_test_split(pool, test_size=count, stratify=labels[pool], random_state=seed)
    except ValueError as error:
        raise ValueError(f"{key}: {count} of {len(pool)} images cannot be held out by class: {error}") from None
    return np.sort(rest), np.sort(held_out)


def _cut_fold(labels: np.ndarray, fold: str, class_names: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fold ``k/n``: positions of all images outside the k-th fold, and of those in it."""
    from sklearn.model_selection import StratifiedKFold

    number, count = map(int, fold.split("/"))
    sizes = np.bincount(labels, minlength=len(class_names))
    if sizes.min() < count:
        smallest = class_names[int(sizes.argmin())]
        raise ValueError(f"data.fold = {fold}: {smallest} has {sizes.min()} images, too few for {count} folds")
    folds = StratifiedKFold(count, shuffle=True, random_state=seed).split(labels, labels)
    return [parts for parts in folds][number - 1]


def _keep_part(
    pool: np.ndarray, labels: np.ndarray, fraction: float, class_names: Sequence[str], seed: int
) -> np.ndarray:
    """The first ``fraction`` of each class, in a random order given by the seed."""
    order = np.random.default_rng(seed).permutation(pool)
    kept = []
    for label in np.unique(labels[pool]):
        members = order[labels[order] == label]
        count = round(fraction * len(members))
        if not count:
            raise ValueError(
                f"data.train_fraction = {fraction:g} leaves none of the {len(members)} training images of "
                f"{class_names[label]}; raise it"
            )
        kept.append(members[:count])
    return np.sort(np.concatenate(kept))
