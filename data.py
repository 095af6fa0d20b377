"""Datasets -> seeded splits of uint8 images; batches of them on the device.

Two ways in, one interface. *Resident*: all pixels are one uint8 tensor on the device, and a batch is an index into it.
*Streaming*: workers decode, crop and resize photos to uint8. Everything after that is the same code.

Legend: B images in a batch, N images in a split, H W height and width in pixels; images are RGB, channels first.
"""

import difflib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from augmentation import Augment, Preprocess, crop_and_resize, random_crops
from config import DataConfig
from network import require_network

__all__ = ["Augment", "Dataset", "Photos", "Pixels", "Preprocess", "Split", "load_dataset"]

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


# ---------------------------------------------------------------- sources: where the pixels come from


@dataclass(frozen=True)
class Pixels:
    """Images of one size, decoded already."""

    images: Tensor  # uint8 N 3 H W
    labels: Tensor  # int64 N

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.images.shape[-2:])

    def read(self, index: int, crop: Tensor | None = None) -> Tensor:
        """Image ``index``, uint8 3 H W; ``crop`` (top, left, height, width as fractions) is resized to full size."""
        image = self.images[index]
        return image if crop is None else crop_and_resize(image[None], crop[None])[0]


@dataclass(frozen=True)
class Photos:
    """Image files of any size, read as ``size``: cropped to its aspect ratio around the centre, then resized."""

    paths: list[Path]
    labels: Tensor  # int64 N
    size: tuple[int, int]  # height, width
    interpolation: str

    def read(self, index: int, crop: Tensor | None = None) -> Tensor:
        """Image ``index``, uint8 3 H W; ``crop`` (top, left, height, width as fractions) replaces the centre crop."""
        return fit_image(open_image(self.paths[index]), self.size, self.interpolation, crop)


Source = Pixels | Photos


def open_image(path: str | Path) -> Image.Image:
    """Decode an image file of any mode to RGB, upright as its EXIF orientation says; the first frame of an animation.

    Raises ValueError, naming the file, if it is missing or cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16 bits per pixel: keep the upper eight
                upright = Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            return upright.convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); repair or remove the file") from None


def fit_image(image: Image.Image, size: tuple[int, int], interpolation: str, crop: Tensor | None = None) -> Tensor:
    """RGB image -> uint8 3 H W of ``size`` (H, W), from its centre or from ``crop`` (fractions of the image)."""
    height, width = size
    if crop is None:
        image = ImageOps.fit(image, (width, height), PIL_FILTERS[interpolation])
    else:
        top, left, high, wide = crop.tolist()
        box = (left * image.width, top * image.height, (left + wide) * image.width, (top + high) * image.height)
        image = image.resize((width, height), PIL_FILTERS[interpolation], box=box)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()  # H W 3 -> 3 H W


# ---------------------------------------------------------------- datasets: name -> sources of the splits that exist


def _digits(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    """1,797 scanned digits of 8x8 pixels that come with scikit-learn, upscaled to 16x16."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy(digits.images / 16 * 255).float()[:, None]  # N 1 8 8
    images = (
        F.interpolate(images, size=(16, 16), mode="bicubic").round().clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
    )
    labels = torch.from_numpy(digits.target).long()
    return {"train": Pixels(images.contiguous(), labels)}, [str(name) for name in digits.target_names]


def _cifar(cfg: DataConfig, name: str, folder: str, archive: str) -> tuple[dict[str, Source], list[str]]:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), 50,000 + 10,000 images of 32x32, through torchvision."""
    import torchvision

    root = Path(cfg.root)
    if not (root / folder).is_dir() and not (root / archive).is_file():
        require_network(
            "https://www.cs.toronto.edu",
            purpose=f"Downloading {cfg.dataset}",
            remedy=f"Put {archive} or the folder {folder} into {root}/ (key data.root), or use another dataset.",
        )
    sources = {}
    for split in ("train", "test"):
        try:
            dataset = getattr(torchvision.datasets, name)(root, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{cfg.dataset} could not be read from or downloaded to {root}: {error}") from None
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # N H W 3 -> N 3 H W
        sources[split] = Pixels(images, torch.tensor(dataset.targets))
    return sources, list(dataset.classes)


def _cifar10(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    return _cifar(cfg, "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz")


def _cifar100(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    return _cifar(cfg, "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz")


def _imagefolder(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    """A folder of class folders of images, or one that holds such folders as train/ and, if they exist, val/, test/."""
    root = Path(cfg.root)
    if not root.is_dir():
        raise ValueError(f"data.root = {root}: no such folder; imagefolder wants one folder of images per class in it")
    folders = {"train": root}
    if (root / "train").is_dir():
        folders = {split: root / split for split in ("train", "val", "test") if (root / split).is_dir()}
    elif (root / "val").is_dir() or (root / "test").is_dir():
        raise ValueError(
            f"{root} holds val/ or test/ but no train/; add train/, or point data.root at a class-per-folder"
        )
    class_names, files = [], {}
    for split, folder in folders.items():
        files[split], names = _list_folder(folder)
        class_names = class_names or names
        unknown = sorted(set(names) - set(class_names))
        if unknown:
            raise ValueError(f"{folder} has classes that {folders['train']} lacks: {', '.join(unknown)}")
        files[split] = [(path, class_names.index(names[label])) for path, label in files[split]]
    size = _stored_size([path for split in files.values() for path, _ in split], cfg)
    interpolation = "bilinear" if cfg.interpolation == "bilinear" else "bicubic"
    sources = {}
    for split, samples in files.items():
        labels = torch.tensor([label for _, label in samples])
        sources[split] = Photos([path for path, _ in samples], labels, size, interpolation)
    return sources, class_names


DATASETS: dict[str, Callable[[DataConfig], tuple[dict[str, Source], list[str]]]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagefolder": _imagefolder,
}


def _list_folder(folder: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    from torchvision.datasets import ImageFolder

    try:
        found = ImageFolder(folder)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: {str(error).rstrip('.')}; every class needs a folder with images in it") from None
    return [(Path(path), label) for path, label in found.samples], found.classes


def _stored_size(paths: list[Path], cfg: DataConfig) -> tuple[int, int]:
    """The size as which photos are kept: their own if they share one of the input's shape and no larger than it.

    Small images are then resized on the device, as those of an array dataset are; photos are shrunk when read. Judged
    by at most 256 files spread over the folder, so that starting a script does not open every file.
    """
    target = image_size_of(cfg)
    sizes = set()
    for path in paths[:: max(1, len(paths) // 256)]:
        try:
            with Image.open(path) as image:
                sizes.add((image.height, image.width))
        except OSError as error:
            raise ValueError(f"{path}: not a readable image ({error}); repair or remove the file") from None
        if len(sizes) > 1:
            return target
    height, width = sizes.pop()
    return (height, width) if height <= target[0] and height * target[1] == width * target[0] else target


def image_size_of(cfg: DataConfig) -> tuple[int, int]:
    """``data.image_size`` as (height, width)."""
    return (cfg.image_size, cfg.image_size) if isinstance(cfg.image_size, int) else tuple(cfg.image_size)


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Selection:
    """The images of one batch."""

    indices: Tensor  # int64 B, positions in the split
    crops: Tensor | None  # float B 4, as `random_crops` gives them

    def part(self, rank: int, world_size: int) -> "Selection":
        """Every ``world_size``-th image of the batch, from ``rank`` on."""
        crops = None if self.crops is None else self.crops[rank::world_size]
        return Selection(self.indices[rank::world_size], crops)


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

    def image(self, i: int) -> Tensor:
        """Image ``i`` of the split, uint8 3 H W, before augmentation and preprocessing."""
        if not 0 <= i < len(self):
            raise ValueError(f"image index {i} is out of range: the {self.name} split has images 0 to {len(self) - 1}")
        return self.source.read(int(self.indices[i]))

    def num_batches(self, size: int) -> int:
        return len(self.plan(size))

    def plan(
        self, size: int, generator: torch.Generator | None = None, *, repeats: int = 1, smallest: int = 2
    ) -> list["Selection"]:
        """Which images make up the batches of one pass.

        Without a generator: in order, as the images are. With one: shuffled, and cropped at random if the split has a
        ``crop`` range. With ``repeats`` a batch holds that many versions of each of its images, and a pass as many
        images as ever, of fewer kinds (repeated augmentation, Hoffer et al. 2020). The last batch may be smaller; one of
        fewer than ``smallest`` joins its neighbour, since BatchNorm cannot train on one image.
        """
        order, crops = torch.arange(len(self)), None
        if generator is not None:
            order = torch.randperm(len(self), generator=generator)
            order = order[: math.ceil(len(order) / repeats)].repeat_interleave(repeats)[: len(order)]
            if self.crop:
                crops = random_crops(len(self), *self.crop, aspect=self.source.size, generator=generator)
        parts = list(range(0, len(order), size))
        if len(parts) > 1 and len(order) - parts[-1] < smallest:
            parts.pop()
        bounds = zip(parts, [*parts[1:], len(order)])
        return [Selection(order[i:j], None if crops is None else crops[i:j]) for i, j in bounds]

    def load(self, plan: list["Selection"], device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
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


def load_dataset(cfg: DataConfig, *, seed: int) -> Dataset:
    """The dataset ``cfg.dataset`` with its three splits; ``cfg.image_size`` must be set.

    Splits that the data does not have are cut from its training images, stratified by class and seeded by ``seed``.
    Raises ValueError for an unknown dataset, unreadable or missing data, and classes too small to be split.
    """
    if cfg.dataset not in DATASETS:
        nearest = difflib.get_close_matches(cfg.dataset, DATASETS, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"data.dataset = {cfg.dataset!r} is unknown; {hint}known: {', '.join(DATASETS)}")
    sources, class_names = DATASETS[cfg.dataset](cfg)
    if len(class_names) < 2:
        raise ValueError(f"{cfg.root} has one class only ({class_names[0]}); a classifier needs at least two")
    labels = sources["train"].labels.numpy()
    indices = {"train": np.arange(len(labels))}
    for split, fraction in (("test", cfg.test_fraction), ("val", cfg.val_fraction)):
        if split not in sources:
            count = math.ceil(fraction * len(labels))
            indices["train"], indices[split] = _cut(indices["train"], labels, count, f"data.{split}_fraction", seed)
    total_bytes = sum(len(s.labels) * 3 * s.size[0] * s.size[1] for s in sources.values())
    resident = cfg.residency == "device" or (cfg.residency == "auto" and total_bytes <= cfg.resident_budget_mb * 1e6)
    workers = min(8, os.cpu_count() or 1) if cfg.num_workers is None else cfg.num_workers
    splits = {}
    for name in ("train", "val", "test"):
        source = sources.get(name, sources["train"])
        chosen = torch.as_tensor(indices.get(name, np.arange(len(source.labels))))
        crop = (cfg.augment.scale, cfg.augment.ratio) if cfg.augment.scale else None
        splits[name] = Split(source, chosen, name=name, resident=resident, crop=crop, num_workers=workers)
    return Dataset(cfg.dataset, class_names, **splits)


def _cut(pool: np.ndarray, labels: np.ndarray, count: int, key: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold ``count`` indices out of ``pool``, stratified; both parts come back sorted."""
    from sklearn.model_selection import train_test_split

    if count == 0:
        return pool, pool[:0]
    try:
        rest, held_out = train_test_split(pool, test_size=count, stratify=labels[pool], random_state=seed)
    except ValueError as error:
        raise ValueError(f"{key}: {count} of {len(pool)} images cannot be held out by class: {error}") from None
    return np.sort(rest), np.sort(held_out)
