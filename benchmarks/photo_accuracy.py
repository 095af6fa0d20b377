"""Do the pixels that photos are read as change what a model learns? One config, trained on these and on PIL's.

    python -m benchmarks.photo_accuracy configs/flowers/vit_head.yaml data.root=FOLDER --seeds 0 1 2

"here" is as train.py reads photos: crops at whole pixels, large JPEGs decoded at a fraction of their size, resized as uint8
tensors. "PIL" decodes the whole photo and resizes the crop's own box, at fractions of pixels. Crops, order and seeds are the
same, and each model is tested on pixels of its own kind. Prints test accuracies by seed, and the difference of the means with
the interval of a comparison over images and seeds.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import default_loader

import evaluate
import train
from common.cache import VARIABLE
from common.console import run_script
from common.runs import Run
from comparison.significance import compare_pairs
from evaluation.predictions import load_predictions
from images.sources import Photos, _centre


def read_with_pil(
    source: Photos, index: int, crop: Tensor | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """As `Photos.read`: uint8 3 H W."""
    image, (height, width) = default_loader(source.paths[index]), size or source.size
    shares = _centre(image.height, image.width, (height, width)) if crop is None else crop.tolist()
    top, left, high, wide = shares
    box = (left * image.width, top * image.height, (left + wide) * image.width, (top + high) * image.height)
    box = (max(0, box[0]), max(0, box[1]), min(image.width, box[2]), min(image.height, box[3]))
    resized = image.resize((width, height), Image.Resampling[source.interpolation.upper()], box=box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


READERS = {"here": Photos.read, "PIL": read_with_pil}


def measure(config: Path, seeds: Sequence[int], overrides: Sequence[str], folder: Path) -> dict[str, np.ndarray]:
    """Of each way to read photos which test images are recognised, bool S N."""
    hits = {}
    for way, reader in READERS.items():
        Photos.read = reader
        os.environ[VARIABLE] = str(folder / way / "cache")  # pixels of one kind never serve the other
        found = []
        for seed in seeds:
            name = f"{way}-{seed}"
            fixed = [f"output_root={folder}", f"name={name}", f"seed={seed}", "data.num_workers=0"]
            train.main([str(config), *fixed, *overrides])
            evaluate.main([str(folder / name)])
            predictions, _ = load_predictions(Run.open(folder / name), "predictions.npz")
            found.append(predictions.correct)
        hits[way] = np.stack(found)
    Photos.read = READERS["here"]
    return hits


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("outputs/photo_accuracy.json"), help="where the results go")
    args = parser.parse_intermixed_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        hits = measure(args.config, args.seeds, args.overrides, Path(folder))
    accuracies = {way: rows.mean(axis=1).tolist() for way, rows in hits.items()}
    (pair,) = compare_pairs(list(hits), list(hits.values()))
    for way, values in accuracies.items():
        print(f"{way:<5}", *(f"{100 * value:6.2f}" for value in values), f"  mean {100 * np.mean(values):.2f} %")
    print(pair["sentence"])
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"accuracy": accuracies, "pair": pair}, indent=2) + "\n")
    print(f"wrote {args.output}")


if __name__ == "__main__":
    run_script(main)
