"""Datasets -> seeded splits of uint8 images; batches of them on the device.

Images are loaded in one of two ways. *Kept*: all pixels are one uint8 tensor, on the device or in a memory-mapped file, and
a batch is an index into it. *Streaming*: workers decode, crop and resize photos to uint8. All later code is the same.

Legend: B images in a batch, N images in a split, H W height and width in pixels; images are RGB, channels first.
"""

import hashlib
import math
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from common.config import Config, DataConfig
from common.console import did_you_mean
from images.augmentation import Augment, random_crops
from images.duplicates import copies_of
from images.loading import Reader, read_photos, stored_photos
from images.preprocessing import Preprocess, crop_and_resize
from images.sources import DATASETS, Photos, Pixels, Source, class_numbers, known_classes
from images.splits import cut_splits

__all__ = ["Augment", "BatchPlan", "Dataset", "Preprocess", "Split", "load_dataset"]

SPLITS = ("train", "val", "test")
BY_PIXELS = "-pixels"
"""The end of a fingerprint of pixels; fingerprints of older runs are of file names, without this end."""

LARGEST_FACTOR = 2
"""Kept photos have at most this many times the height and width of the model's input."""

STATISTICS_IMAGES = 4096
"""From how many training images, at most, mean and standard deviation are computed."""


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

    Attributes: ``labels`` int64 N; ``indices`` int64 N, the images' positions in their source. ``resident``: whether all
    pixels are kept on the device. ``cache_mb``: how much disk space, in MB, resized photos may take; 0: none.
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
        cache_mb: int = 0,
    ):
        self.source, self.indices, self.labels = source, indices, source.labels[indices]
        self.name, self.resident, self.crop, self.num_workers = name, resident, crop, num_workers
        self.cache_mb = cache_mb
        self._pixels: Tensor | None = None
        self._reader: Reader | None = None

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def digests(self) -> np.ndarray:
        """A digest of each image's pixels, uint8 N 16."""
        return self.source.digests[self.indices.numpy()]

    def fingerprint(self) -> str:
        """SHA-256 of the images' labels and decoded pixels, in their order: it says which images these are."""
        return hashlib.sha256(self.labels.numpy().tobytes() + self.digests.tobytes()).hexdigest() + BY_PIXELS

    def has_fingerprint(self, expected: str) -> bool:
        """Whether ``expected`` is the fingerprint of these images; an old fingerprint compares their names only."""
        return expected == (self.fingerprint() if expected.endswith(BY_PIXELS) else self._fingerprint_of_names())

    def _fingerprint_of_names(self) -> str:
        """The fingerprint of older runs: SHA-256 of labels, positions in the source and, for photos, class and file names."""
        digest = hashlib.sha256(self.labels.numpy().tobytes() + self.indices.numpy().tobytes())
        if isinstance(self.source, Photos):
            chosen = [self.source.paths[i].split(os.sep)[-2:] for i in self.indices.tolist()]
            digest.update("\n".join("/".join(names) for names in chosen).encode(errors="surrogateescape"))
        return digest.hexdigest()

    def image(self, i: int) -> Tensor:
        """Image ``i`` of the split, uint8 3 H W, before augmentation and preprocessing. Raises ValueError out of range."""
        if not 0 <= i < len(self):
            raise ValueError(f"image index {i} is out of range: the {self.name} split has images 0 to {len(self) - 1}")
        return self.source.read(int(self.indices[i]))

    def median_side(self) -> float:
        """Median of the stored images' shorter sides, in pixels."""
        return float(np.median(self.source.stored_sizes()[self.indices.numpy()].min(axis=1)))

    def at_side(self, side: int) -> "Split":
        """The same images; photos are read bilinearly with a shorter side of ``side`` pixels, whatever the model's input."""
        if isinstance(self.source, Pixels):
            return self
        scale = side / min(self.source.size)
        size = tuple(round(length * scale) for length in self.source.size)
        source = replace(self.source, size=size, interpolation="bilinear")
        return Split(source, self.indices, name=self.name, resident=False, num_workers=self.num_workers)

    def pixel_statistics(self, device: torch.device) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in [0, 1], to four digits.

        From at most STATISTICS_IMAGES images, spread evenly over the split.
        """
        chosen = torch.linspace(0, len(self) - 1, min(len(self), STATISTICS_IMAGES)).round().long()
        sums, count = torch.zeros(2, 3, dtype=torch.float64), 0
        for images, _ in self.load([BatchPlan(part, None) for part in chosen.split(256)], device):
            values = images.double() / 255  # B 3 H W
            sums += torch.stack([values.sum(dim=(0, 2, 3)), values.square().sum(dim=(0, 2, 3))]).cpu()
            count += values.numel() // 3
        mean = sums[0] / count
        std = (sums[1] / count - mean.square()).clamp_min(1 / 255**2).sqrt()  # a lower limit for images of one colour
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

        Without a generator: in order and not cropped. With one: shuffled, and cropped at random if the split has a ``crop``
        range. With ``repeats`` a batch holds that many versions of each of its images, and a pass as many images as before
        but fewer different ones (repeated augmentation, Hoffer et al. 2020). The last batch may be smaller; if it has fewer
        than ``smallest`` images, they join the batch before, since BatchNorm cannot train on one image. ``balanced`` draws
        images with replacement, so that all classes are equally likely.
        """
        order, crops = torch.arange(len(self)), None
        if generator is not None:
            order = self._draw_balanced(generator) if balanced else torch.randperm(len(self), generator=generator)
            repeats = min(repeats, len(order))
            order = order[: math.ceil(len(order) / repeats)].repeat_interleave(repeats)[: len(order)]
            if self.crop:
                sizes = torch.from_numpy(self.source.stored_sizes())[self.indices[order]].float()
                crops = random_crops(len(self), *self.crop, aspect=sizes.unbind(-1), generator=generator)
        parts = list(range(0, len(order), size))
        if len(parts) > 1 and len(order) - parts[-1] < smallest:
            parts.pop()
        bounds = zip(parts, [*parts[1:], len(order)])
        return [BatchPlan(order[i:j], None if crops is None else crops[i:j]) for i, j in bounds]

    def _draw_balanced(self, generator: torch.Generator) -> Tensor:
        shares = 1 / self.labels.bincount()[self.labels].double()
        return torch.multinomial(shares, len(self), replacement=True, generator=generator)

    def load(self, plan: list[BatchPlan], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (uint8 B 3 H W, int64 B) on ``device`` for each batch of the plan. ValueError for an unreadable photo."""
        if self.crop and isinstance(self.source, Photos) and any(batch.crops is None for batch in plan):
            if self.source.crop_pct:  # timm's crop is made when a photo is read
                return self._load_streamed(plan, device)
            plan = [BatchPlan(b.indices, self.source.centre_crops(self.indices[b.indices])) for b in plan]
        pixels = self._keep_pixels(device)
        return self._load_streamed(plan, device) if pixels is None else self._load_kept(pixels, plan, device)

    def batches(
        self, size: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`load` a `plan`: each image once, in order or, with a generator, shuffled and cropped."""
        return self.load(self.plan(size, generator), device)

    @property
    def kept_size(self) -> tuple[int, int]:
        """Height and width at which photos are kept.

        Random crops are taken from the whole photo, which is kept larger than the model's input, so that a crop has enough
        pixels.
        """
        height, width = self.source.size
        if not self.crop or isinstance(self.source, Pixels):
            return height, width
        factor = min(LARGEST_FACTOR, self.crop[0][0] ** -0.5)  # with it, the smallest crop is as large as the input
        own = np.median(self.source.stored_sizes()[self.indices.numpy()], axis=0)
        return tuple(round(max(side, min(factor * side, most))) for side, most in zip((height, width), own.tolist()))

    def _keep_pixels(self, device: torch.device) -> Tensor | None:
        """All pixels, uint8 N 3 H W: on the device if the split is resident; None where photos are streamed."""
        if self._pixels is None and (self.resident or self.cache_mb):
            self._pixels = self._read_all()
        if self.resident:
            self._pixels = self._pixels.to(device)
        return self._pixels

    def _read_all(self) -> Tensor | None:
        if isinstance(self.source, Pixels):
            return self.source.images[self.indices]
        photos = (self.source, self.indices.numpy(), self.kept_size)
        options = dict(whole=bool(self.crop), num_workers=self.num_workers)
        pixels = stored_photos(*photos, **options, limit_mb=self.cache_mb) if self.cache_mb else None
        return read_photos(*photos, **options) if pixels is None and self.resident else pixels

    def _load_kept(self, pixels, plan, device):
        labels = self.labels.to(device)
        for batch in plan:
            chosen = batch.indices.to(device, non_blocking=True)
            images = pixels[chosen] if self.resident else pixels[batch.indices].to(device)
            if batch.crops is not None:
                images = crop_and_resize(images, batch.crops, self.source.size)
            yield images, labels[chosen]

    def _load_streamed(self, plan, device):
        if self._reader is None:
            self._reader = Reader(self.source, self.num_workers, pin_memory=device.type == "cuda")
        requests = ((self.indices[b.indices].numpy(), None if b.crops is None else b.crops.numpy(), None) for b in plan)
        for batch, images in zip(plan, self._reader.read(requests)):
            yield images.to(device, non_blocking=True), self.labels[batch.indices].to(device, non_blocking=True)


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
        """The fingerprint of every split that has images."""
        return {name: self.split(name).fingerprint() for name in SPLITS if len(self.split(name))}

    def copies(self, name: str) -> np.ndarray:
        """Which images of a split have a pixel-identical copy in an earlier one (train, then val, then test): bool N."""
        seen = [split.digests for split in (self.train, self.val)[: SPLITS.index(name)]]
        return (
            copies_of(self.split(name).digests, np.concatenate(seen)) >= 0 if seen else np.zeros(len(self.train), bool)
        )

    def check_images(self, expected: Mapping[str, str]) -> None:
        """Raise ValueError if training or validation images differ from these fingerprints; print a note for test images.

        The model has learned nothing from test images, so it may be tested on others. If training or validation images
        differ, some images that are held out now may have been trained on.
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
            print("note: the test images differ from those when the run was trained", file=sys.stderr)
        if expected and not any(images.endswith(BY_PIXELS) for images in expected.values()):
            print(
                "note: this run recorded the names of its images, not their pixels, so it cannot be verified that the "
                "images are still the same",
                file=sys.stderr,
            )


def load_dataset(cfg: DataConfig, *, seed: int) -> Dataset:
    """The dataset ``cfg.dataset`` with its three splits; ``cfg.image_size`` must be set.

    Splits that the data lacks are taken from its training images: see `cut_splits`.
    Raises ValueError for an unknown dataset, unreadable or missing data, and classes too small to be split.
    """
    if cfg.dataset not in DATASETS:
        hint = did_you_mean(cfg.dataset, DATASETS)
        raise ValueError(f"data.dataset = {cfg.dataset!r} is unknown{hint}; known: {', '.join(DATASETS)}")
    sources, class_names = DATASETS[cfg.dataset](cfg)
    if len(class_names) < 2:
        raise ValueError(f"{cfg.root} has only one class ({class_names[0]}); a classifier needs at least two")
    labels = sources["train"].labels.numpy()
    indices = cut_splits(labels, cfg, given=sources.keys() - {"train"}, class_names=class_names, seed=seed)
    splits = {}
    for name in SPLITS:
        source = sources.get(name, sources["train"])
        chosen = torch.as_tensor(indices.get(name, np.arange(len(source.labels))))
        crop = (cfg.augment.scale, cfg.augment.ratio) if cfg.augment.scale and name == "train" else None
        splits[name] = Split(source, chosen, name=name, resident=False, crop=crop, num_workers=cfg.num_readers)
    _choose_place(splits.values(), cfg)
    return Dataset(cfg.dataset, class_names, **splits)


def _choose_place(splits: Collection[Split], cfg: DataConfig) -> None:
    """Decide where pixels are kept: on the device, in a file, or not at all (``data.residency``)."""
    megabytes = sum(len(split) * 3 * math.prod(split.kept_size) for split in splits) / 1e6
    resident = cfg.residency == "device" or (cfg.residency == "auto" and megabytes <= cfg.resident_budget_mb)
    for split in splits:
        split.resident = resident
        split.cache_mb = cfg.cache_mb if cfg.residency != "stream" and megabytes <= cfg.cache_mb else 0


def load_data_of(config: Config, checkpoint: Mapping) -> Dataset:
    """The data of the run to which a checkpoint belongs; its classes and images must be those that it was trained on.

    For pretrained weights that were not trained here: the folder ``data.root``, all of it as the test split; its classes
    are found by name or synset among those of the weights.

    Raises ValueError if the classes, or the training or validation images, differ from those of the run.
    """
    if "synsets" in checkpoint:
        return _load_known(config.data, checkpoint["class_names"], checkpoint["synsets"])
    dataset = load_dataset(config.data, seed=config.data.split_seed)
    if dataset.class_names != checkpoint["class_names"]:
        raise ValueError(
            f"data.root holds the classes {_some(dataset.class_names)}, but the run was trained on "
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
