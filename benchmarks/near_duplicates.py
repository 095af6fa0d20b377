"""How well near copies are found: planted ones by kind of change, those of a data set itself, and false alarms.

    python -m benchmarks.near_duplicates data/cifar10_jpeg

The folder holds train/ and test/. Of every kind, copies of seeded training images are made at their stored size and looked
for among all training images. A planted copy is found if its own original comes back; another image that comes back instead
is a false alarm. The test split is then looked for in the same way: a pair of two classes is a false alarm, too.
"""

import argparse
import io
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from common.config import DataConfig
from common.console import print_table
from data import load_dataset
from images.duplicates import THRESHOLD, near_copies, thumbnails
from training.copies import thumbnails_of

THRESHOLDS = (0.90, 0.94, THRESHOLD, 0.98)


def reencode(quality: int) -> Callable[[Tensor], Tensor]:
    def change(image: Tensor) -> Tensor:
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)

    return change


def resize(scale: float) -> Callable[[Tensor], Tensor]:
    return lambda image: F.interpolate(
        image[None].float(), scale_factor=scale, mode="bicubic", antialias=True, align_corners=False
    )[0].clamp(0, 255).to(torch.uint8)  # fmt: skip


def shift(down: float, right: float) -> Callable[[Tensor], Tensor]:
    """By fractions of the side; the edge is repeated."""

    def change(image: Tensor) -> Tensor:
        rows, columns = (round(part * side) for part, side in zip((down, right), image.shape[1:]))
        padding = (max(columns, 0), max(-columns, 0), max(rows, 0), max(-rows, 0))
        moved = F.pad(image[None].float(), padding, "replicate")[0].to(torch.uint8)
        top, left = max(-rows, 0), max(-columns, 0)
        return moved[:, top : top + image.shape[1], left : left + image.shape[2]]

    return change


def crop(margin: float) -> Callable[[Tensor], Tensor]:
    """Without this fraction of the side at each edge."""

    def change(image: Tensor) -> Tensor:
        rows, columns = (round(margin * side) for side in image.shape[1:])
        return image[:, rows : image.shape[1] - rows, columns : image.shape[2] - columns]

    return change


CHANGES = {
    "JPEG, quality 50": reencode(50),
    "JPEG, quality 20": reencode(20),
    "resized to 75 %": resize(0.75),
    "resized to 200 %": resize(2),
    "mirrored": lambda image: image.flip(-1),
    "darker, less contrast": lambda image: (image * 0.7 + 20).to(torch.uint8),
    "shifted by 1/32": shift(1 / 32, 1 / 32),
    "shifted by 2/32": shift(2 / 32, -2 / 32),
    "shifted by 3/32 along one side": shift(3 / 32, 0),
    "1/32 cut off at each edge": crop(1 / 32),
    "2/32 cut off at each edge": crop(2 / 32),
    "mirrored, JPEG 50, shifted by 1/32": lambda image: shift(1 / 32, 0)(reencode(50)(image.flip(-1))),
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="folder with train/ and test/")
    parser.add_argument("--count", type=int, default=500, help="planted copies of each kind (default: 500)")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cfg = DataConfig(dataset="imagefolder", root=args.root, image_size=64, val_fraction=0)
    dataset = load_dataset(cfg, seed=0)
    among = thumbnails_of(dataset.train)
    chosen = np.random.default_rng(0).choice(len(among), args.count, replace=False)
    rows = []
    for name, change in CHANGES.items():
        planted = torch.cat([thumbnails(change(dataset.train.image(int(i)))[None]) for i in chosen])
        found = near_copies(planted, among, threshold=THRESHOLDS[0])
        own = found.others == chosen[found.images]
        counted = [(own & (found.correlation >= t)).sum() for t in THRESHOLDS]
        wrong = (~own & (found.correlation >= THRESHOLD)).sum()
        rows.append((name, *(f"{100 * c / args.count:.1f}" for c in counted), wrong))
    print_table(rows, header=("change", *(f"found at {t:.2f} (%)" for t in THRESHOLDS), "other image found"))
    own, start = thumbnails_of(dataset.test), time.process_time()
    found = near_copies(own, among, threshold=THRESHOLDS[0])
    seconds = time.process_time() - start
    same = (dataset.test.labels[found.images] == dataset.train.labels[found.others]).numpy()
    print(f"\n{len(own):,} test images among {len(among):,} training images, {seconds:.1f} CPU-seconds on one thread")
    over = [found.correlation >= t for t in THRESHOLDS]
    header = ("threshold", "test images with a near copy", "of them of another class", "of them mirrored")
    print_table(
        [(f"{t:.2f}", m.sum(), (m & ~same).sum(), (m & found.mirrored).sum()) for t, m in zip(THRESHOLDS, over)],
        header=header,
    )


if __name__ == "__main__":
    main()
