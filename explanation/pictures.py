"""Which pictures are explained: image files, or images of a run's splits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from common.runs import Run
from data import Split, load_data_of
from images.sources import open_image, read_photo


@dataclass(frozen=True)
class Picture:
    name: str
    """What its files are called."""
    pixels: Tensor
    """uint8 3 H W."""
    label: int | None
    """True class, where it is known."""


def read_pictures(run: Run, paths: Sequence[Path]) -> list[Picture]:
    """Image files of any size and mode, as ``run``'s model is fed them. Files of one name are told apart by their folder."""
    cfg = run.config.data
    names = [path.stem for path in paths]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    names = [f"{p.resolve().parent.name}-{p.stem}" if p.stem in repeated else p.stem for p in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"--image: two files would be called {twice[0]}; give each file once, or rename one")
    for path in paths:
        width, height = open_image(path).size
        if min(width, height) < 2:
            raise ValueError(f"{path}: of {width}x{height} pixels one remains; there is nothing to locate in it")
    return [Picture(name, read_photo(path, cfg), None) for name, path in zip(names, paths)]


def pick_pictures(
    run: Run,
    split_name: str,
    checkpoint: dict,
    *,
    indices: Sequence[int] | None = None,
    random: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> list[Picture]:
    """Images of one of ``run``'s splits: at ``indices``, or drawn with ``seed``: ``random`` ones, or some of each class."""
    split = load_data_of(run.config, checkpoint).split(split_name)
    if random is not None:
        indices = sample_indices(split, random, seed, option="--random")
    elif per_class is not None:
        indices = sample_each_class(split, per_class, seed)
    return [Picture(f"{split_name}-{i}", split.image(i), int(split.labels[i])) for i in dict.fromkeys(indices)]


def sample_indices(split: Split, count: int, seed: int, *, option: str) -> list[int]:
    """``count`` seeded positions of a split, ascending. Raises ValueError, naming the option, for more than there are."""
    if not 1 <= count <= len(split):
        raise ValueError(f"{option} {count}: the {split.name} split has {len(split)} images; ask for 1 to that")
    return np.sort(np.random.default_rng(seed).choice(len(split), count, replace=False)).tolist()


def sample_each_class(split: Split, count: int, seed: int) -> list[int]:
    """Seeded positions of ``count`` images of each class, class by class; all of a class that has fewer."""
    if count < 1:
        raise ValueError(f"--per-class {count}: ask for one image of each class at least")
    shuffled = np.random.default_rng(seed).permutation(len(split))
    labels = np.asarray(split.labels)[shuffled]
    return [int(i) for label in np.unique(labels) for i in shuffled[labels == label][:count]]
