"""Photo files -> uint8 tensors of a model's size: how many per CPU-second, and how far from PIL's pixels.

    python -m benchmarks.photos                                 # synthetic photos of 12 MP, 3 MP and about 10 KB
    python -m benchmarks.photos --folder FOLDER                 # photos of yours, enlarged or shrunk to these sizes

Each reads the file, cuts a random crop of 35 to 100 % of its area, and makes it SIZE x SIZE pixels, in one process on one
thread; what a loader does afterwards is the same for all. They take turns photo by photo, so that other work on the machine
disturbs all alike. `torchvision, PIL` is what most scripts do: ImageFolder's loader and RandomResizedCrop; `timm` is the
transform that its create_loader makes; `torchvision, tensors` is decode_image and v2.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision.transforms as T
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from images.augmentation import random_crops
from images.sources import Photos

SIZES = {"12 MP": 12e6, "3 MP": 3e6, "10 KB": None}
SCALE, SIZE = (0.35, 1.0), 224


def synthetic_photos(count: int) -> list[Image.Image]:
    """Pictures of 4:3 with large forms, fine texture and some noise, as photos have."""
    random, pictures = np.random.default_rng(0), []
    for _ in range(count):
        pixels = np.zeros((600, 800, 3))
        for side in (4, 16, 64, 256):
            coarse = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
            pixels += np.asarray(coarse.resize((800, 600), Image.Resampling.BICUBIC), dtype=float) / side**0.5
        pixels = (pixels - pixels.min()) / np.ptp(pixels) * 255
        pictures.append(Image.fromarray((pixels + random.normal(0, 3, pixels.shape)).clip(0, 255).astype(np.uint8)))
    return pictures


def write_photos(pictures: list[Image.Image], folder: Path, pixels: float | None) -> list[str]:
    """JPEGs of about so many pixels, or, without a number, of about 10 KB."""
    folder.mkdir()
    for i, picture in enumerate(pictures):
        factor = ((pixels or 256 * 192) / (picture.width * picture.height)) ** 0.5
        size = (round(picture.width * factor), round(picture.height * factor))
        content, quality = io.BytesIO(), 90
        while True:
            content.seek(0)
            content.truncate()
            picture.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=quality)
            if pixels or content.tell() <= 11_000 or quality <= 20:
                break
            quality -= 5
        (folder / f"{i}.jpg").write_bytes(content.getvalue())
    return [str(path) for path in sorted(folder.iterdir())]


def readers(paths: list[str], size: int) -> dict[str, Callable[[int], Tensor]]:
    """What reads photo i at a random crop, by name."""
    bicubic = T.InterpolationMode.BICUBIC
    habit = T.Compose([T.RandomResizedCrop(size, SCALE, interpolation=bicubic), T.PILToTensor()])
    timms = create_transform(
        size, is_training=True, use_prefetcher=True, scale=SCALE, hflip=0, color_jitter=None, interpolation="bicubic"
    )
    tensors = v2.RandomResizedCrop(size, SCALE, interpolation=bicubic, antialias=True)
    source = Photos(paths, torch.zeros(len(paths)), (size, size), "bicubic")
    crops = make_crops(len(paths))
    return {
        "torchvision, PIL": lambda i: habit(default_loader(paths[i])),
        "timm": lambda i: timms(default_loader(paths[i])),
        "torchvision, tensors": lambda i: tensors(decode_image(paths[i], ImageReadMode.RGB)),
        "here": lambda i: source.read(i, crops[i]),
    }


def make_crops(count: int) -> Tensor:
    return random_crops(count, SCALE, (3 / 4, 4 / 3), aspect=(3, 4), generator=torch.Generator().manual_seed(0))


def measure(paths: list[str], size: int, seconds: float) -> dict[str, float]:
    """Photos per CPU-second of each reader, in turn, until so many CPU-seconds are spent."""
    ways, spent, count = readers(paths, size), {}, 0
    for read in ways.values():
        read(0)  # warm-up
    while sum(spent.values()) < seconds:
        for name, read in ways.items():
            start = time.process_time()
            read(count % len(paths))
            spent[name] = spent.get(name, 0) + time.process_time() - start
        count += 1
    return {name: count / value for name, value in spent.items()}


def pil_pixels(path: str, crop: Tensor, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """uint8 H W 3 of ``size`` from a crop (top, left, height, width as fractions) of a photo that PIL decodes whole."""
    image = default_loader(path)
    top, left, high, wide = crop.tolist()
    box = (left * image.width, top * image.height, (left + wide) * image.width, (top + high) * image.height)
    # float32 fractions may end a hair beyond an edge
    box = (max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3]))
    return np.array(image.resize(size[::-1], Image.Resampling[interpolation.upper()], box=box))


def grey_levels(paths: list[str], size: int) -> dict[str, float]:
    """How far the pixels are from those of a photo that PIL decodes whole and resizes."""
    source, differences = Photos(paths, torch.zeros(len(paths)), (size, size), "bicubic"), []
    for i, (path, crop) in enumerate(zip(paths, make_crops(len(paths)))):
        theirs = pil_pixels(path, crop, (size, size), "bicubic").astype(float)
        differences.append(np.abs(source.read(i, crop).permute(1, 2, 0).numpy() - theirs))
    quantiles = [float(np.quantile(d, 0.99)) for d in differences]
    return {"mean": float(np.mean(differences)), "99 %": statistics.mean(quantiles)}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="photos to take instead of synthetic ones, at any depth")
    parser.add_argument("--count", type=int, default=8, help="photos of each size")
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--image-size", type=int, default=SIZE, help="side of the tensors, in pixels")
    parser.add_argument("--seconds", type=float, default=20, help="CPU-seconds for each size")
    parser.add_argument("--output", type=Path, default=Path("outputs/photos.json"), help="where the results go")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if args.folder:
        files = sorted(args.folder.rglob("*.jpg"))
        if not files:
            parser.error(f"{args.folder} holds no .jpg files")
        pictures = [default_loader(str(path)) for path in files[:: max(1, len(files) // args.count)][: args.count]]
    else:
        pictures = synthetic_photos(args.count)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.sizes:
            paths = write_photos(pictures, Path(folder) / name.replace(" ", ""), SIZES[name])
            rates = measure(paths, args.image_size, args.seconds)
            size = statistics.mean(Path(path).stat().st_size for path in paths)
            results[name] = {"bytes": size, "per_cpu_second": rates, "grey_levels": grey_levels(paths, args.image_size)}
            print(f"{name} ({size / 1e3:,.0f} KB)", flush=True)
            for way, rate in rates.items():
                print(f"  {way:<22} {rate:8.1f} photos per CPU-second, {rate / rates['torchvision, PIL']:5.2f}x")
            print(f"  grey levels from PIL's: {results[name]['grey_levels']}", flush=True)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
