"""Do heat maps point at the evidence? Images whose class is decided by a patch at a known place, the rest clutter.

    python benchmarks/planted_pattern.py
    python benchmarks/planted_pattern.py --models vit --steps 300 --output planted.json

A quarter of each image shows the pattern of one of four classes; the clutter is made of the same pixels, shuffled, so that
nothing else tells the class. *Tiles* repeat a small picture that every cell of the models sees whole: the evidence is
local. *Stripes* in one of four directions, at any phase, show only over several cells: a model must combine them. Small
models learn both in seconds. Then each method is scored on images that were predicted right: pointing game (is the map's
maximum in the patch?) and energy (share of the map's mass in it); chance is 25 % for both.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from analysis.attribution import METHODS, heat_maps
from analysis.faithfulness import centre_map, random_maps
from analysis.map_statistics import energy_inside, pointing_game
from analysis.statistics import mean_interval
from config import Config
from console import print_table
from models import cam_layer, create_model

SIDE, PATCH, CELL, NUM_CLASSES = 32, 16, 4, 4
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
    parser.add_argument("--pattern", choices=("tiles", "stripes"), default="tiles")
    parser.add_argument("--steps", type=int, default=200, help="of training, 128 images each")
    parser.add_argument("--images", type=int, default=500, help="that the maps are scored on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    args = parser.parse_args(argv)
    results = {name: score_model(name, args) for name in args.models}
    for name, result in results.items():
        print(
            f"\n{name}, {args.pattern}: accuracy {result['accuracy']:.1%} after {args.steps} steps in {result['seconds']:.0f} s; "
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


def planted_images(pattern: str, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """float32 B 3 SIDE SIDE around 0, labels int64 B, and bool B SIDE SIDE, where the patch is (on a grid of CELL pixels)."""
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    places = CELL * torch.randint((SIDE - PATCH) // CELL + 1, (count, 2), generator=generator)
    if pattern == "tiles":
        pictures = torch.rand(NUM_CLASSES, CELL * CELL, generator=torch.Generator().manual_seed(0)).argsort(1) % 2
        shown = (2.0 * pictures - 1).view(-1, CELL, CELL)[labels].repeat(1, SIDE // CELL, SIDE // CELL)
    else:
        shown = stripes(labels, generator)
    shuffled = torch.rand(count, SIDE * SIDE, generator=generator).argsort(dim=1)
    clutter = shown.flatten(1).gather(1, shuffled).view_as(shown)
    axis = torch.arange(SIDE)
    inside = (axis >= places[..., None]) & (axis < places[..., None] + PATCH)  # B 2 SIDE
    masks = inside[:, 0, :, None] & inside[:, 1, None, :]
    pixels = torch.where(masks, shown, clutter)[:, None].expand(-1, 3, -1, -1)
    return pixels + 0.3 * torch.randn(pixels.shape, generator=generator), labels, masks


def stripes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """-1 and 1, B SIDE SIDE: stripes 6 pixels apart, in the direction of the class and at a random phase."""
    axis = torch.arange(SIDE)
    angles, phases = labels * math.pi / NUM_CLASSES, 2 * math.pi * torch.rand(len(labels), generator=generator)
    along = axis[:, None] * angles.sin()[:, None, None] + axis * angles.cos()[:, None, None]
    return torch.sin(2 * math.pi / 6 * along + phases[:, None, None]).sign()


def train(model: nn.Module, pattern: str, steps: int, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    model.train()
    for _ in tqdm(range(steps), "training", leave=False):
        images, labels, _ = planted_images(pattern, 128, generator)
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
    train(model, args.pattern, args.steps, generator)
    seconds = time.perf_counter() - start
    images, labels, masks = planted_images(args.pattern, args.images, generator)
    with torch.no_grad():
        right = torch.cat([model(batch).argmax(1) for batch in images.split(100)]) == labels
    images, labels, layer = images[right], labels[right], cam_layer(model)
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
        found = heat_maps(
            model, layer.module, layer.to_maps, batch, targets.tolist(), method=method, layer_name=layer.name, faults={}
        )
        parts.append(np.nan_to_num(found))
    return np.concatenate(parts)


def score(measure, maps: np.ndarray, regions: np.ndarray) -> list[float]:
    """Mean and interval over the images; a blank map points nowhere and has no energy: 0."""
    values, good = np.zeros(len(maps)), maps.max(axis=(1, 2)) > 0
    values[good] = measure(maps[good], regions[good])
    mean, interval = mean_interval(values)
    return [float(mean), *interval.tolist()]


if __name__ == "__main__":
    main()
