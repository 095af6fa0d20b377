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
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

import evaluate
import train
from benchmarks.photos import pil_pixels
from common.cache import VARIABLE
from common.console import run_script
from common.runs import Run
from comparison.significance import compare_pairs
from evaluation.predictions import load_predictions
from images.sources import Photos


def read_with_pil(
    source: Photos, index: int, crop: Tensor | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """As `Photos.read`: uint8 3 H W."""
    crop = source.centre_crops(torch.tensor([index]))[0] if crop is None else crop
    pixels = pil_pixels(source.paths[index], crop, size or source.size, source.interpolation)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


READERS = {"here": Photos.read, "PIL": read_with_pil}


def measure(config: Path, seeds: Sequence[int], overrides: Sequence[str], folder: Path) -> dict[str, np.ndarray]:
    """Of each way to read photos which test images are recognised, bool S N."""
    hits = {}
    for way, reader in READERS.items():
        runs = [folder / f"{way}-{seed}" for seed in seeds]
        cache = {VARIABLE: str(folder / way / "cache")}  # pixels of one kind never serve the other
        with patch.object(Photos, "read", reader), patch.dict(os.environ, cache):
            for seed, run in zip(seeds, runs):
                fixed = [f"output_root={folder}", f"name={run.name}", f"seed={seed}", "data.num_workers=0"]
                train.main([str(config), *fixed, *overrides])
                evaluate.main([str(run)])
        hits[way] = np.stack([load_predictions(Run.open(run), "predictions.npz")[0].correct for run in runs])
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
