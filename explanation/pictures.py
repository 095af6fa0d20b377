"""Which pictures are explained: image files, or images of a run's splits."""

import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.runs import Run
from data import Split, load_data_of
from explanation.overlays import View
from images.files import open_image
from images.sources import Photos


@dataclass(frozen=True)
class Picture:
    name: str
    """The beginning of its files' names."""
    pixels: Tensor
    """uint8 3 H W, as read for the model."""
    label: int | None
    """True class, if it is known."""
    photos: Photos | None = None
    """Whose ``position``-th photo the pixels were cut from; None where they are all there is."""
    position: int = 0
    digest: str | None = None
    """SHA-256 of the file, for an image that was given as a file."""

    def view(self, longest: int | None = None) -> View:
        """The photo at its own resolution, or shrunk to ``longest`` pixels, and which part was the model's input."""
        if self.photos is None:
            return View.whole(self.pixels.permute(1, 2, 0).numpy())  # 3 H W -> H W 3
        photo = open_image(self.photos.paths[self.position])
        if longest:
            photo.thumbnail((longest, longest))
        return View(np.asarray(photo), seen_area(photo.width, photo.height, self.photos))


def seen_area(width: int, height: int, photos: Photos) -> tuple[float, float, float, float]:
    """The part of a photo that becomes the model's input: left, top, right, bottom in pixels of the photo.

    It follows the crop of `Photos.read` or of timm; in the mode "border" the part is larger than the photo.
    """
    mode = photos.crop_mode if photos.crop_pct else "center"
    rows, columns = (int(side / (photos.crop_pct or 1)) for side in photos.size)
    across, down = width / columns, height / rows  # pixels of the photo to one of the input
    if mode != "squash":
        across = down = max(across, down) if mode == "border" else min(across, down)
    seen_width, seen_height = photos.size[1] * across, photos.size[0] * down
    left, top = (width - seen_width) / 2, (height - seen_height) / 2
    return left, top, left + seen_width, top + seen_height


def read_pictures(run: Run, paths: Sequence[Path]) -> list[Picture]:
    """Image files of any size and mode, as read for ``run``'s model.

    Files of the same name get their folder in the name; a file that has the name of another one with maps in the run gets
    the start of its hash. Raises ValueError for unreadable files, and for a file that is given twice.
    """
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
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    names = [f"{n}-{d[:8]}" if _is_of_another(run, n, d) else n for n, d in zip(names, digests)]
    look = (cfg.size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode)
    photos = Photos(list(map(str, paths)), torch.full((len(paths),), -1), *look)
    return [Picture(name, photos.read(i), None, photos, i, digests[i]) for i, name in enumerate(names)]


def _is_of_another(run: Run, name: str, digest: str) -> bool:
    """Whether the run holds maps of another file with this name, which must not be overwritten."""
    stored = [run.read_json(f"gradcam/{path.name}") for path in run.path("gradcam").glob("*.json")]
    return any(values.get("image") == name and values.get("image_sha256", digest) != digest for values in stored)


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
    photos = split.source if isinstance(split.source, Photos) else None
    return [
        Picture(f"{split_name}-{i}", split.image(i), int(split.labels[i]), photos, int(split.indices[i]))
        for i in dict.fromkeys(indices)
    ]


def sample_indices(split: Split, count: int, seed: int, *, option: str) -> list[int]:
    """``count`` seeded positions of a split, ascending; if it has fewer, all of them and a note that names the option."""
    if count < 1 or not len(split):
        raise ValueError(f"{option} {count}: the {split.name} split has {len(split)} images; ask for 1 to that")
    if count > len(split):
        print(f"note: {option} {count}: the {split.name} split has {len(split)} images, all are taken", file=sys.stderr)
        count = len(split)
    return np.sort(np.random.default_rng(seed).choice(len(split), count, replace=False)).tolist()


def sample_each_class(split: Split, count: int, seed: int) -> list[int]:
    """Seeded positions of ``count`` images of each class, class by class; all images of a class that has fewer."""
    if count < 1:
        raise ValueError(f"--per-class {count}: ask for at least one image of each class")
    shuffled = np.random.default_rng(seed).permutation(len(split))
    labels = np.asarray(split.labels)[shuffled]
    return [int(i) for label in np.unique(labels) for i in shuffled[labels == label][:count]]
