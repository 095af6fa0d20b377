"""Where images come from: datasets by name, each as the sources of the splits that exist.

To add one, write a function that returns its sources and class names, and enter it in DATASETS.

Legend: N images of height H and width W in pixels; RGB, channels first.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from common.config import DataConfig
from common.console import did_you_mean
from common.network import require_network
from images.preprocessing import crop_and_resize

PIL_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


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
    crop_pct: float | None = None
    crop_mode: str = "center"

    def read(self, index: int, crop: Tensor | None = None) -> Tensor:
        """Image ``index``, uint8 3 H W; ``crop`` (top, left, height, width as fractions) replaces the centre crop."""
        image = open_image(self.paths[index])
        if crop is None and self.crop_pct:
            return crop_like_timm(image, self.size, self.interpolation, self.crop_pct, self.crop_mode)
        return fit_image(image, self.size, self.interpolation, crop)


Source = Pixels | Photos


def open_image(path: str | Path) -> Image.Image:
    """Decode an image file of any mode to RGB, upright as its EXIF orientation says; the first frame of an animation.

    Raises ValueError, naming the file, if it is missing, cannot be decoded, or holds floating-point pixels.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "F":
                raise ValueError("its pixels are floating-point numbers of no known range")
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


def crop_like_timm(
    image: Image.Image, size: tuple[int, int], interpolation: str, crop_pct: float, crop_mode: str
) -> Tensor:
    """RGB image -> uint8 3 H W of ``size`` (H, W) by timm's own transform: resize to size / crop_pct, then crop."""
    from timm.data import create_transform

    options = dict(interpolation=interpolation, crop_pct=crop_pct, crop_mode=crop_mode, normalize=False)
    return create_transform((3, *size), **options)(image)


def read_photo(path: Path, cfg: DataConfig) -> Tensor:
    """An image file as the model of ``cfg`` is fed it, uint8 3 H W."""
    return Photos([path], torch.zeros(1), cfg.size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode).read(0)


def known_classes(cfg: DataConfig, numbers: Mapping[str, int]) -> Photos:
    """Images in folders that are named by classes; ``numbers``: the class that each name (in small letters) stands for.

    ``data.root`` may also hold such folders as test/ or val/. Raises ValueError for a folder of another name.
    """
    root = Path(cfg.root)
    if not root.is_dir():
        raise ValueError(
            f"data.root = {root}: no such folder; give one with a folder of images per class: data.root=FOLDER"
        )
    folder = next((root / split for split in ("test", "val") if (root / split).is_dir()), root)
    samples, names = _list_folder(folder)
    unknown = [name for name in names if name.lower() not in numbers]
    if unknown:
        hint = did_you_mean(unknown[0].lower(), numbers, count=3)
        raise ValueError(
            f"{folder / unknown[0]}: the weights know no class of that name{hint}; name it as timm does, or by synset"
        )
    labels = torch.tensor([numbers[names[label].lower()] for _, label in samples])
    return Photos([path for path, _ in samples], labels, cfg.size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode)


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
    sources = {}
    for split, samples in files.items():
        labels = torch.tensor([label for _, label in samples])
        sources[split] = Photos(
            [path for path, _ in samples], labels, size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode
        )
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
    target = cfg.size
    if cfg.crop_pct:  # cut out of the photo itself
        return target
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
