"""Datasets -> seeded splits of uint8 images; batches of them on the device.

Two ways in, one interface. *Resident*: all pixels are one uint8 tensor on the device, and a batch is an index into it.
*Streaming*: workers decode, crop and resize photos to uint8. Everything after that is the same code.

Legend: B images in a batch, N images in a split, H W height and width in pixels; images are RGB, channels first.
"""

import hashlib
import math
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.config import Config, DataConfig
from common.console import did_you_mean
from images.augmentation import Augment, random_crops
from images.duplicates import copies_of
from images.preprocessing import Preprocess, crop_and_resize
from images.sources import DATASETS, Photos, Pixels, Source, class_numbers, known_classes
from images.splits import cut_splits

__all__ = ["Augment", "BatchPlan", "Dataset", "Preprocess", "Split", "load_dataset"]

SPLITS = ("train", "val", "test")
BY_PIXELS = "-pixels"
"""Ends the fingerprints of images; those of older runs are of file names, and end otherwise."""

STATISTICS_IMAGES = 4096
"""By how many training images their mean and spread is judged."""


@dataclass(frozen=True)
class BatchPlan:
    """The images of one batch."""

    indices: Tensor  # int64 B, positions in the split
    crops: Tensor | None  # float B 4, as `random_crops` gives them

    def part(self, rank: int, world_size: int) -> "BatchPlan":
        """Every ``world_size``-th image of the batch, from ``rank`` on."""
        crops = None if self.crops is None else self.crops[rank::world_size]
        return BatchPlan(self.indices[rank::world_size], crops)


class Split:
    """Some images of a source, in a fixed order.

    Attributes: ``labels`` int64 N; ``indices`` int64 N, the images' positions in their source.
    """

    def __init__(
        self,
        source: Source,
        indices: Tensor,
        *,
        name: str,
        resident: bool,
        crop: tuple[tuple[float, float], tuple[float, float]] | None = None,
        num_workers: int = 0,
    ):
        self.source, self.indices, self.labels = source, indices, source.labels[indices]
        self.name, self.resident, self.crop, self.num_workers = name, resident, crop, num_workers
        self._pixels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def digests(self) -> np.ndarray:
        """What stands for the pixels of each image, uint8 N 16."""
        return self.source.digests[self.indices.numpy()]

    def fingerprint(self) -> str:
        """Which images these are: SHA-256 of their labels and decoded pixels, in this order."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.digests.tobytes()).hexdigest() + BY_PIXELS

    def has_fingerprint(self, expected: str) -> bool:
        """Whether ``expected`` is of these images; one that was kept before pixels were, by names alone."""
        return expected == (self.fingerprint() if expected.endswith(BY_PIXELS) else self._fingerprint_of_names())

    def _fingerprint_of_names(self) -> str:
        """What was kept before pixels were: of labels, positions in the source and, of photos, classes and file names."""
        digest = hashlib.sha256(self.labels.numpy().tobytes() + self.indices.numpy().tobytes())
        if isinstance(self.source, Photos):
            chosen = [self.source.paths[i].split(os.sep)[-2:] for i in self.indices.tolist()]
            digest.update("\n".join("/".join(names) for names in chosen).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def image(self, i: int) -> Tensor:
        """Image ``i`` of the split, uint8 3 H W, before augmentation and preprocessing."""
        if not 0 <= i < len(self):
            raise ValueError(f"image index {i} is out of range: the {self.name} split has images 0 to {len(self) - 1}")
        return self.source.read(int(self.indices[i]))

    def median_side(self) -> float:
        """Of the images as they are stored, in pixels, the shorter side."""
        return float(np.median(self.source.stored_sizes()[self.indices.numpy()].min(axis=1)))

    def at_side(self, side: int) -> "Split":
        """The same images; photos are read with a shorter side of ``side`` pixels, by one filter, whatever a model wants."""
        if isinstance(self.source, Pixels):
            return self
        scale = side / min(self.source.size)
        size = tuple(round(length * scale) for length in self.source.size)
        source = replace(self.source, size=size, interpolation="bilinear")
        return Split(source, self.indices, name=self.name, resident=False, num_workers=self.num_workers)

    def pixel_statistics(self, device: torch.device) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in [0, 1], to four digits.

        Of at most STATISTICS_IMAGES images, spread evenly over the split.
        """
        chosen = torch.linspace(0, len(self) - 1, min(len(self), STATISTICS_IMAGES)).round().long()
        sums, count = torch.zeros(2, 3, dtype=torch.float64), 0
        for images, _ in self.load([BatchPlan(part, None) for part in chosen.split(256)], device):
            values = images.double() / 255  # B 3 H W
            sums += torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))]).cpu()
            count += values.numel() // 3
        mean = sums[0] / count
        std = (sums[1] / count - mean.square()).clamp_min(1 / 255**2).sqrt()  # images of one colour have none
        return tuple(round(x, 4) for x in mean.tolist()), tuple(round(x, 4) for x in std.tolist())

    def plan(
        self,
        size: int,
        generator: torch.Generator | None = None,
        *,
        repeats: int = 1,
        smallest: int = 2,
        balanced: bool = False,
    ) -> list[BatchPlan]:
        """Which images make up the batches of one pass.

        Without a generator: in order, as the images are. With one: shuffled, and cropped at random if the split has a
        ``crop`` range. With ``repeats`` a batch holds that many versions of each of its images, and a pass as many
        images as ever, of fewer kinds (repeated augmentation, Hoffer et al. 2020). The last batch may be smaller; one of
        fewer than ``smallest`` joins its neighbour, since BatchNorm cannot train on one image. ``balanced`` draws images
        with replacement, so that all classes are equally likely.
        """
        order, crops = torch.arange(len(self)), None
        if generator is not None:
            order = self._draw_balanced(generator) if balanced else torch.randperm(len(self), generator=generator)
            order = order[: math.ceil(len(order) / repeats)].repeat_interleave(repeats)[: len(order)]
            if self.crop:
                crops = random_crops(len(self), *self.crop, aspect=self.source.size, generator=generator)
        parts = list(range(0, len(order), size))
        if len(parts) > 1 and len(order) - parts[-1] < smallest:
            parts.pop()
        bounds = zip(parts, [*parts[1:], len(order)])
        return [BatchPlan(order[i:j], None if crops is None else crops[i:j]) for i, j in bounds]

    def _draw_balanced(self, generator: torch.Generator) -> Tensor:
        shares = 1 / self.labels.bincount()[self.labels].double()
        return torch.multinomial(shares, len(self), replacement=True, generator=generator)

    def load(self, plan: list[BatchPlan], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 B 3 H W, int64 B) on ``device`` for each selection."""
        return (self._load_resident if self.resident else self._load_streamed)(plan, device)

    def batches(
        self, size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """``load`` of a ``plan``: each image once, in order or, with a generator, shuffled and cropped."""
        return self.load(self.plan(size, generator), device)

    def _load_resident(self, plan, device):
        if self._pixels is None or self._pixels.device != device:
            self._pixels = self._read_all().to(device)
        labels = self.labels.to(device)
        for selection in plan:
            chosen = selection.indices.to(device, non_blocking=True)
            images = self._pixels[chosen]
            yield images if selection.crops is None else crop_and_resize(images, selection.crops), labels[chosen]

    def _read_all(self) -> Tensor:
        if isinstance(self.source, Pixels):
            return self.source.images[self.indices]
        images = torch.empty(len(self), 3, *self.source.size, dtype=torch.uint8)
        filled = 0
        with tqdm(total=len(self), desc=f"reading {self.name} images", unit=" images", leave=False, delay=1) as bar:
            for batch, _ in self._load_streamed(self.plan(256), torch.device("cpu")):
                images[filled : filled + len(batch)] = batch
                filled += len(batch)
                bar.update(len(batch))
        return images

    def _load_streamed(self, plan, device):
        requests = [
            list(zip(self.indices[s.indices].tolist(), s.crops if s.crops is not None else [None] * len(s.indices)))
            for s in plan
        ]
        loader = torch.utils.data.DataLoader(
            _Reader(self.source),
            batch_sampler=requests,
            num_workers=self.num_workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
            generator=torch.Generator(),  # the worker seed must not advance the global generator
        )
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield tuple(tensor.to(device, non_blocking=True) for tensor in batch)


class _Reader(torch.utils.data.Dataset):
    """Runs in the workers. An unreadable photo travels as a value, so that its message arrives as it was written."""

    def __init__(self, source: Source):
        self.source = source

    def __getitem__(self, item):
        index, crop = item
        try:
            return self.source.read(index, crop), self.source.labels[index]
        except ValueError as error:
            return error


def _collate(samples):
    for sample in samples:
        if isinstance(sample, ValueError):
            return sample
    images, labels = zip(*samples)
    return torch.stack(images), torch.stack(labels)


@dataclass(frozen=True)
class Dataset:
    name: str
    class_names: list[str]
    train: Split
    val: Split
    test: Split

    def split(self, name: str) -> Split:
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def fingerprints(self) -> dict[str, str]:
        """Of the images of every split that has some."""
        return {name: self.split(name).fingerprint() for name in SPLITS if len(self.split(name))}

    def copies(self, name: str) -> np.ndarray:
        """Which images of a split also stand, pixel for pixel, in one that a model learns from or is selected by: bool N."""
        seen = [split.digests for split in (self.train, self.val)[: SPLITS.index(name)]]
        return (
            copies_of(self.split(name).digests, np.concatenate(seen)) >= 0 if seen else np.zeros(len(self.train), bool)
        )

    def check_images(self, expected: Mapping[str, str]) -> None:
        """Raise ValueError unless the splits have these fingerprints; say so if it is the test images that differ.

        Nothing is learned from test images, so others may be tested; a model that is selected or tested on what another
        folder calls validation or training images is no longer what its run says.
        """
        names = [name for name, images in expected.items() if not self.split(name).has_fingerprint(images)]
        changed = [name for name in names if name != "test"]
        if changed:
            raise ValueError(
                f"data.root holds other {' and '.join(changed)} images than when the run was trained (files were added, "
                "removed, renamed or changed), so that held-out ones may have been trained on; restore the folder, or "
                "train anew"
            )
        if names:
            print("note: the test images are others than when the run was trained", file=sys.stderr)
        if expected and not any(images.endswith(BY_PIXELS) for images in expected.values()):
            print(
                "note: this run kept the names of its images, not their pixels: that they are still the same images "
                "cannot be verified",
                file=sys.stderr,
            )


def load_dataset(cfg: DataConfig, *, seed: int) -> Dataset:
    """The dataset ``cfg.dataset`` with its three splits; ``cfg.image_size`` must be set.

    Splits that the data does not have are cut from its training images: see `cut_splits`.
    Raises ValueError for an unknown dataset, unreadable or missing data, and classes too small to be split.
    """
    if cfg.dataset not in DATASETS:
        hint = did_you_mean(cfg.dataset, DATASETS)
        raise ValueError(f"data.dataset = {cfg.dataset!r} is unknown{hint}; known: {', '.join(DATASETS)}")
    sources, class_names = DATASETS[cfg.dataset](cfg)
    if len(class_names) < 2:
        raise ValueError(f"{cfg.root} has one class only ({class_names[0]}); a classifier needs at least two")
    labels = sources["train"].labels.numpy()
    indices = cut_splits(labels, cfg, given=sources.keys() - {"train"}, class_names=class_names, seed=seed)
    total_bytes = sum(len(s.labels) * 3 * s.size[0] * s.size[1] for s in sources.values())
    resident = cfg.residency == "device" or (cfg.residency == "auto" and total_bytes <= cfg.resident_budget_mb * 1e6)
    workers = cfg.num_readers
    splits = {}
    for name in SPLITS:
        source = sources.get(name, sources["train"])
        chosen = torch.as_tensor(indices.get(name, np.arange(len(source.labels))))
        crop = (cfg.augment.scale, cfg.augment.ratio) if cfg.augment.scale else None
        splits[name] = Split(source, chosen, name=name, resident=resident, crop=crop, num_workers=workers)
    return Dataset(cfg.dataset, class_names, **splits)


def load_data_of(config: Config, checkpoint: Mapping) -> Dataset:
    """The data of a run by one of its checkpoints: those that it was trained on, unchanged, with the classes of its head.

    Of pretrained weights that were not trained here: the folder ``data.root``, whose classes are found by name or synset
    among those of the weights, all of it the test split.
    """
    if "synsets" in checkpoint:
        return _load_known(config.data, checkpoint["class_names"], checkpoint["synsets"])
    dataset = load_dataset(config.data, seed=config.data.split_seed)
    if dataset.class_names != checkpoint["class_names"]:
        raise ValueError(
            f"data.root holds the classes {_some(dataset.class_names)}, and the run was trained on "
            f"{_some(checkpoint['class_names'])}; restore the folder, or train anew"
        )
    dataset.check_images(checkpoint.get("images", {}))
    return dataset


def _load_known(cfg: DataConfig, class_names: list[str], synsets: list[str]) -> Dataset:
    source = known_classes(cfg, class_numbers(class_names, synsets))
    workers, everything = cfg.num_readers, torch.arange(len(source.labels))
    indices = {"train": everything[:0], "val": everything[:0], "test": everything}
    splits = {n: Split(source, i, name=n, resident=False, num_workers=workers) for n, i in indices.items()}
    return Dataset(cfg.dataset, class_names, **splits)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} in all)" if len(names) > 4 else "")
