"""Do heat maps point at the evidence? Images whose class is decided by a patch at a known place, the rest clutter.

    python -m benchmarks.planted_pattern
    python -m benchmarks.planted_pattern --models vit --steps 300 --output planted.json

A quarter of each image is one of ten pictures, each of which is a class; the rest is weaker noise. Small models learn it
in seconds. Then each method is scored on images that were predicted right: pointing game (is the map's maximum in the
patch?) and energy (share of the map's mass in it); chance is 25 % for both.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from common.config import Config
from common.console import print_table
from common.intervals import mean_interval
from explanation.attribution import heat_maps
from explanation.layers import map_layer
from explanation.methods import METHODS
from explanation.quality.faithfulness import centre_map, random_maps
from explanation.quality.form import energy_inside, pointing_game
from models import create_model

SIDE, PATCH, CELL, NUM_CLASSES = 32, 16, 4, 10
MODELS = {
    "vit": {"name": "shallow_vit", "kwargs": {"embed_dim": 64, "num_heads": 4, "patch_size": CELL}},
    "swin": {
        "name": "swin_tiny_patch4_window7_224",
        "kwargs": {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
    },
}
"""Both look at 8 x 8 cells: a one-block ViT, and a Swin of two stages of two blocks."""


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--layer", help="to look at, such as norm for the Swin (default: as gradcam.py)")
    parser.add_argument("--steps", type=int, default=150, help="of training, 128 images each")
    parser.add_argument("--images", type=int, default=500, help="that the maps are scored on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(argv)
    results = {name: score_model(name, args) for name in args.models}
    for name, result in results.items():
        print(
            f"\n{name}: accuracy {result['accuracy']:.1%} after {args.steps} steps in {result['seconds']:.0f} s; "
            f"{result['images']} images, target {result['layer']}, grid {'x'.join(map(str, result['grid']))}"
        )
        rows = [
            (method, *(f"{scores[key][0]:.1%} [{scores[key][1]:.1%}, {scores[key][2]:.1%}]" for key in scores))
            for method, scores in result["methods"].items()
        ]
        print_table(rows, header=("method", "pointing game", "energy in the patch"))
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")
    return results


def planted_images(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """float32 B 3 SIDE SIDE around 0, labels int64 B, and bool B SIDE SIDE, where the patch is (on a grid of CELL pixels)."""
    pictures = torch.randn(NUM_CLASSES, 3, PATCH, PATCH, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    places = CELL * torch.randint((SIDE - PATCH) // CELL + 1, (count, 2), generator=generator)
    images = 0.5 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    masks = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    for image, mask, label, (top, left) in zip(images, masks, labels, places.tolist()):
        image[:, top : top + PATCH, left : left + PATCH] = pictures[label]
        mask[top : top + PATCH, left : left + PATCH] = True
    return images + 0.3 * torch.randn(images.shape, generator=generator), labels, masks


def train(model: nn.Module, steps: int, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in tqdm(range(steps), "training", leave=False):
        images, labels, _ = planted_images(128, generator)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


def score_model(name: str, args: argparse.Namespace) -> dict:
    """Train a model and score every method and the two baselines on it; each score is [mean, lower, upper]."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    values = {"name": name, "data": {"dataset": "digits", "image_size": SIDE}, "model": MODELS[name]}
    model, start = create_model(Config.model_validate(values), num_classes=NUM_CLASSES), time.perf_counter()
    train(model, args.steps, generator)
    seconds = time.perf_counter() - start
    images, labels, masks = planted_images(args.images, generator)
    with torch.no_grad():
        right = torch.cat([model(batch).argmax(1) for batch in images.split(100)]) == labels
    images, labels, layer = images[right], labels[right], map_layer(model, args.layer)
    regions = masks[right].unfold(1, SIDE // layer.grid[0], SIDE // layer.grid[0])
    regions = regions.unfold(2, SIDE // layer.grid[1], SIDE // layer.grid[1]).all(-1).all(-1).numpy()  # B h w
    maps = {method: explain(model, layer, images, labels, method) for method in args.methods}
    maps["random map"] = random_maps(len(images), layer.grid, generator).numpy()
    maps["centred Gaussian"] = centre_map(layer.grid).expand(len(images), -1, -1).numpy()
    return {
        "accuracy": right.float().mean().item(),
        "seconds": seconds,
        "images": len(images),
        "layer": layer.name,
        "grid": list(layer.grid),
        "methods": {
            method: {"pointing": score(pointing_game, found, regions), "energy": score(energy_inside, found, regions)}
            for method, found in maps.items()
        },
    }


def explain(model: nn.Module, layer, images: Tensor, labels: Tensor, method: str) -> np.ndarray:
    parts = []
    for batch, targets in zip(images.split(100), labels.split(100)):
        maps, _ = heat_maps(model, layer, batch, targets.tolist(), method=method)
        parts.append(np.nan_to_num(maps))
    return np.concatenate(parts)


def score(measure, maps: np.ndarray, regions: np.ndarray) -> list[float]:
    """Mean and interval over the images; a blank map points nowhere and has no energy: 0."""
    values, good = np.zeros(len(maps)), maps.max(axis=(1, 2)) > 0
    values[good] = measure(maps[good], regions[good])
    mean, interval = mean_interval(values)
    return [float(mean), *interval.tolist()]


if __name__ == "__main__":
    main()
