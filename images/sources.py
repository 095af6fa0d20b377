"""Datasets by name; each gives a source of images for each split that it has.

To add one, write a function that returns its sources and class names, and add it to DATASETS.

Legend: N images of height H and width W in pixels; RGB, channels first.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.config import DataConfig
from common.console import did_you_mean
from common.network import require_network
from images.files import PathList, list_classes, open_image
from images.index import ImageFacts, digest_all, index_images
from images.preprocessing import crop_and_resize, cut, resize

DETAIL = 2
"""JPEGs are decoded with at least this many times the requested pixels along each side."""


@dataclass(frozen=True)
class Pixels:
    """Decoded images of one size."""

    images: Tensor  # uint8 N 3 H W
    labels: Tensor  # int64 N

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.images.shape[-2:])

    def stored_sizes(self) -> np.ndarray:
        """Height and width of each image, int N 2."""
        return np.tile(self.size, (len(self.images), 1))

    def read(self, index: int, crop: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Image ``index``, uint8 3 H W; ``crop`` (top, left, height, width as fractions) is resized to ``size``."""
        image = self.images[index]
        return image if crop is None else crop_and_resize(image[None], crop[None], size)[0]

    @cached_property
    def digests(self) -> np.ndarray:
        """A digest of each image's pixels, uint8 N 16."""
        return digest_all(self.images.numpy())


@dataclass(frozen=True)
class Photos:
    """Image files of any size, which are centre-cropped to the aspect ratio of ``size`` and resized when they are read."""

    paths: Sequence[str]
    labels: Tensor  # int64 N
    size: tuple[int, int]  # height, width
    interpolation: str
    crop_pct: float | None = None
    crop_mode: str = "center"
    root: str = ""  # the folder for whose files the cache keeps an index
    facts: ImageFacts | None = None  # digests and sizes, if they are already known
    left_out: tuple[str, ...] = ()  # files that are not read as images

    def centre_crops(self, indices: Tensor) -> Tensor:
        """The centre crops of the photos ``indices``: B 4, as from `random_crops`."""
        sizes = self.stored_sizes()[indices.numpy()].tolist()
        return torch.tensor([_centre(height, width, self.size) for height, width in sizes])

    def read(self, index: int, crop: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """Image ``index``, uint8 3 H W; ``crop`` (top, left, height, width as fractions) replaces the centre crop.

        ``size`` (H, W): by default the source's. Raises ValueError if the file cannot be read.
        """
        path, size = self.paths[index], size or self.size
        if crop is None and self.crop_pct:
            return crop_like_timm(open_image(path), size, self.interpolation, self.crop_pct, self.crop_mode)
        parts = (1, 1) if crop is None else crop[2:].tolist()
        detail = tuple(math.ceil(DETAIL * side / part) for side, part in zip(size, parts))
        return fit_image(open_image(path, at_least=detail), size, self.interpolation, crop)

    @cached_property
    def digests(self) -> np.ndarray:
        """A digest of each file's decoded pixels, uint8 N 16. Decodes files that are not in the index."""
        return (self.facts or index_images(self.paths, self.root)).digests

    def stored_sizes(self) -> np.ndarray:
        """Height and width of each file's image, int N 2."""
        return (self.facts or index_images(self.paths, self.root)).sizes


Source = Pixels | Photos


def fit_image(image: Image.Image, size: tuple[int, int], interpolation: str, crop: Tensor | None = None) -> Tensor:
    """RGB image -> uint8 3 H W of ``size`` (H, W), from its centre or from ``crop`` (fractions of the image).

    Crops at whole pixels and resizes with torch: the same result as PIL's filter, several times as fast.
    """
    crop = _centre(image.height, image.width, size) if crop is None else crop
    pixels = _tensor_of(image, crop)
    return resize(pixels[None], size, interpolation)[0].contiguous()


def _tensor_of(image: Image.Image, crop: Sequence[float] | Tensor) -> Tensor:
    """The crop of an RGB image, uint8 3 h w, copied once."""
    view = np.asarray(image).transpose(2, 0, 1)  # H W 3 -> 3 H W
    return torch.from_numpy(np.array(cut(view, crop), order="K"))


def _centre(height: int, width: int, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The largest centred box with the aspect ratio of ``size``: top, left, height, width as fractions."""
    scale = min(height / size[0], width / size[1])
    high, wide = size[0] * scale / height, size[1] * scale / width
    return (1 - high) / 2, (1 - wide) / 2, high, wide


def crop_like_timm(
    image: Image.Image, size: tuple[int, int], interpolation: str, crop_pct: float, crop_mode: str
) -> Tensor:
    """RGB image -> uint8 3 H W of ``size`` (H, W) by timm's own transform: resize to size / crop_pct, then crop."""
    from timm.data import create_transform

    options = dict(interpolation=interpolation, crop_pct=crop_pct, crop_mode=crop_mode, normalize=False)
    return create_transform((3, *size), **options)(image)


def class_numbers(class_names: Sequence[str], synsets: Sequence[str] = ()) -> dict[str, int]:
    """Lower-case name of a folder -> index of its class: the class name (with spaces or _) or its synset."""
    numbers = {name.lower().replace(" ", "_"): i for i, name in enumerate(class_names)}
    return numbers | {name.lower(): i for i, name in enumerate(class_names)} | {s: i for i, s in enumerate(synsets)}


def photos_of(paths: Sequence[str], labels: Tensor, cfg: DataConfig) -> Photos:
    """Files as a dataset of ``cfg`` would read them; at most 256 are opened here, to find the size at which to keep them.

    An unreadable file raises ValueError only when it is read.
    """
    sizes = []
    for path in paths[:: max(1, len(paths) // 256)]:
        with contextlib.suppress(OSError), Image.open(path) as image:
            sizes.append((image.height, image.width))
    size = _stored_size(np.array(sizes), cfg) if sizes else cfg.size
    return Photos(list(paths), labels, size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode)


def known_classes(cfg: DataConfig, numbers: Mapping[str, int]) -> Photos:
    """Images in folders that are named after classes; ``numbers``: lower-case name -> index of the class.

    These folders may also lie in test/ or val/ of ``data.root``. Raises ValueError for a folder with another name.
    """
    root = Path(cfg.root)
    if not root.is_dir():
        raise ValueError(
            f"data.root = {root}: no such folder; give one with a folder of images per class: data.root=FOLDER"
        )
    folder = next((root / split for split in ("test", "val") if (root / split).is_dir()), root)
    found = list_classes(folder)
    unknown = [name for name in found.class_names if name.lower() not in numbers]
    if unknown:
        hint = did_you_mean(unknown[0].lower(), numbers, count=3)
        raise ValueError(
            f"{folder / unknown[0]}: the weights know no class of that name{hint}; name it as timm does, or by synset"
        )
    of_class = torch.tensor([numbers[name.lower()] for name in found.class_names])
    labels = of_class[torch.tensor(found.labels)]
    look = (cfg.size, cfg.photo_filter, cfg.crop_pct, cfg.crop_mode)
    return Photos(found.paths, labels, *look, root=cfg.root, left_out=tuple(found.left_out))


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


CIFAR_BYTES = {
    "cifar-10-python.tar.gz": 170_498_071,
    "cifar-10-batches-py/data_batch_1": 31_035_704,
    "cifar-10-batches-py/data_batch_2": 31_035_320,
    "cifar-10-batches-py/data_batch_3": 31_035_999,
    "cifar-10-batches-py/data_batch_4": 31_035_696,
    "cifar-10-batches-py/data_batch_5": 31_035_623,
    "cifar-10-batches-py/test_batch": 31_035_526,
    "cifar-100-python.tar.gz": 169_001_437,
    "cifar-100-python/train": 155_249_918,
    "cifar-100-python/test": 31_049_918,
}
"""Sizes of the files as they are published, for messages; torchvision checks their contents."""


def _cifar(cfg: DataConfig, name: str, folder: str, archive: str) -> tuple[dict[str, Source], list[str]]:
    """CIFAR-10 or CIFAR-100 (Krizhevsky 2009), 50,000 + 10,000 images of 32x32, through torchvision."""
    import torchvision

    root, make = Path(cfg.root), getattr(torchvision.datasets, name)
    sources = {}
    for split in ("train", "test"):
        try:
            dataset = make(root, train=split == "train")
        except RuntimeError:  # missing, or not as published
            _check_cifar_files(root, folder, archive)
            if not (root / archive).is_file():
                remedy = f"Put {archive} or the folder {folder} into {root}/ (key data.root), or use another dataset."
                address = "https://www.cs.toronto.edu"
                require_network(address, purpose=f"Downloading {cfg.dataset}", remedy=remedy)
            try:
                dataset = make(root, train=split == "train", download=True)
            except (OSError, RuntimeError) as error:
                raise ValueError(f"{cfg.dataset} could not be read from or downloaded to {root}: {error}") from None
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()  # N H W 3 -> N 3 H W
        sources[split] = Pixels(images, torch.tensor(dataset.targets))
    return sources, list(dataset.classes)


def _check_cifar_files(root: Path, folder: str, archive: str) -> None:
    """Raise ValueError if existing files are not as published, rather than downloading them again."""
    if (root / archive).is_file():  # the folder is unpacked from it
        names, again = [archive], root / archive
    elif (root / folder).is_dir():
        names, again = [name for name in CIFAR_BYTES if name.startswith(f"{folder}/")], root / folder
    else:
        return
    remedy = f"put a whole copy there, or remove {again} to download it again"
    for path, expected in ((root / name, CIFAR_BYTES[name]) for name in names):
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found:,} bytes"
            raise ValueError(f"{path} {state}, and {expected:,} bytes are expected; {remedy}")
    if len(names) > 1:
        raise ValueError(f"{again}: a file is not as it was published (torchvision compares checksums); {remedy}")


def _cifar10(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    return _cifar(cfg, "CIFAR10", "cifar-10-batches-py", "cifar-10-python.tar.gz")


def _cifar100(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    return _cifar(cfg, "CIFAR100", "cifar-100-python", "cifar-100-python.tar.gz")


def _imagefolder(cfg: DataConfig) -> tuple[dict[str, Source], list[str]]:
    """A folder with a folder of images per class, or with train/ and optionally val/ and test/, each of them such a folder."""
    root = Path(cfg.root)
    if not root.is_dir():
        raise ValueError(f"data.root = {root}: no such folder; imagefolder needs one folder of images per class in it")
    folders = {"train": root}
    if (root / "train").is_dir():
        folders = {split: root / split for split in ("train", "val", "test") if (root / split).is_dir()}
    elif (root / "val").is_dir() or (root / "test").is_dir():
        raise ValueError(
            f"{root} holds val/ or test/ but no train/; add train/, or set data.root to a folder of class folders"
        )
    listed = {split: list_classes(folder) for split, folder in folders.items()}
    class_names = listed["train"].class_names
    for split, found in listed.items():
        unknown = sorted(set(found.class_names) - set(class_names))
        if unknown:
            raise ValueError(f"{folders[split]} has classes that {folders['train']} lacks: {', '.join(unknown)}")
    paths = PathList(itertools.chain(*(found.paths for found in listed.values())))
    facts = index_images(
        paths, cfg.root, num_workers=cfg.num_readers
    )  # all splits first, so that unreadable files are found at once
    size = _stored_size(facts.sizes, cfg)
    sources, start = {}, 0
    for split, found in listed.items():
        numbers = torch.tensor([class_names.index(name) for name in found.class_names])
        part = slice(start, start + len(found.paths))
        start = part.stop
        sources[split] = Photos(
            found.paths,
            numbers[torch.tensor(found.labels)],
            size,
            cfg.photo_filter,
            cfg.crop_pct,
            cfg.crop_mode,
            root=cfg.root,
            facts=ImageFacts(facts.digests[part], facts.sizes[part]),
            left_out=tuple(found.left_out),
        )
    return sources, class_names


DATASETS: dict[str, Callable[[DataConfig], tuple[dict[str, Source], list[str]]]] = {
    "digits": _digits,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "imagefolder": _imagefolder,
}


def _stored_size(sizes: np.ndarray, cfg: DataConfig) -> tuple[int, int]:
    """The size at which photos are kept: their own if all have one size with the input's aspect ratio that is no larger.

    Such small images are resized on the device, like those of an array dataset; others are resized when they are read.
    """
    target = cfg.size
    if cfg.crop_pct or (sizes != sizes[0]).any():  # with crop_pct, the crop is taken from the photo itself
        return target
    height, width = sizes[0].tolist()
    return (height, width) if height <= target[0] and height * target[1] == width * target[0] else target
