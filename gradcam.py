"""Explain predictions: where in an image is the evidence for a class?

    python gradcam.py outputs/quickstart --random 6
    python gradcam.py outputs/quickstart --image photo.jpg --target 3
    python gradcam.py outputs/vit outputs/swin --index 3 17 42
    python gradcam.py outputs/vit outputs/swin --analyze 500

Writes for each image gradcam/<image>-<method>.png, .npy (raw map on the layer's grid) and .json into the run; for several
images a grid beside them, for several runs a grid of images x runs in outputs/comparisons/. --analyze measures the maps
instead: gradcam/statistics.json with figures, and for several runs explanations.json in outputs/comparisons/.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import explanation_quality
from analysis import cam_figures
from analysis.attribution import METHODS, REMEDY, check_method, heat_maps, map_statistics
from console import print_result, print_table, run_script
from data import Preprocess, Split, load_dataset
from devices import select_device
from models import CamLayer, cam_layer, input_spec, restore_model
from runs import Run, comparison_folder
from sources import fit_image, open_image


@dataclass(frozen=True)
class Picture:
    name: str
    """What its files are called."""
    pixels: Tensor
    """uint8 3 H W."""
    label: int | None
    """True class, where it is known."""


@dataclass(frozen=True)
class Explanation:
    picture: Picture
    map: np.ndarray | None
    """float32 h w, raw; None if something is wrong with it."""
    fault: str | None
    """What is wrong with the map."""
    target: int
    """The class that is explained."""
    probabilities: np.ndarray
    """K."""

    @property
    def prediction(self) -> int:
        return int(self.probabilities.argmax())


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_method(args.method)
    device = select_device(args.device)
    runs = [Run.open_finished(directory) for directory in dict.fromkeys(args.runs)]
    if args.analyze is not None:
        analyze(runs, args, device)
        return
    columns = []
    for run in runs:
        checkpoint = run.load_checkpoint(f"{args.checkpoint}.pt")
        class_names = checkpoint["class_names"]
        model = restore_model(run.config, checkpoint).to(device)
        layer = cam_layer(model, args.layer)
        pictures = choose_pictures(args, run)
        targets = choose_targets(args.target, class_names, pictures)
        start = time.perf_counter()
        explanations = explain(model, layer, pictures, targets, args.method, run.config.evaluate.batch_size)
        seconds = (time.perf_counter() - start) / len(pictures)
        written = save(run, explanations, layer, args, class_names, seconds)
        report(run, explanations, layer, class_names, written)
        columns.append((run.config.name, class_names, explanations))
    if len(runs) > 1:
        save_comparison(runs, columns, args)
    faulty = [e for _, _, explanations in columns for e in explanations if e.fault]
    if faulty:
        first = f"{faulty[0].picture.name}: {faulty[0].fault}"
        raise ValueError(f"{args.method} at {layer.name}: {len(faulty)} of the maps say nothing ({first}); {REMEDY}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories that train.py wrote")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--image", nargs="+", type=Path, metavar="FILE", help="image files of any size and mode")
    images.add_argument("--index", nargs="+", type=int, metavar="I", help="positions in the split, from 0")
    images.add_argument("--random", type=int, metavar="N", help="N random images of the split")
    images.add_argument("--analyze", type=int, metavar="N", help="measure the maps of N random images of the split")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="where the images come from")
    parser.add_argument("--seed", type=int, default=0, help="of --random and --analyze")
    parser.add_argument("--method", default="gradcam", help=f"{', '.join(METHODS)}")
    parser.add_argument("--layer", help="name of the layer to look at (default: chosen by the architecture)")
    parser.add_argument("--target", metavar="CLASS", help="class to explain, by name or number; 'label': the true one")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to explain")
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    return parser.parse_args(argv)


def analyze(runs: list[Run], args: argparse.Namespace, device: torch.device) -> None:
    """--analyze: numbers instead of pictures, of the usual methods and of --method."""
    if args.target is not None:
        raise ValueError("--analyze explains the predicted class of every image; leave --target away")
    written = explanation_quality.analyze_runs(
        runs,
        args.analyze,
        split_name=args.split,
        methods=list(dict.fromkeys([*explanation_quality.METHODS, args.method])),
        layer_name=args.layer,
        checkpoint_name=args.checkpoint,
        seed=args.seed,
        device=device,
        output=args.output,
    )
    print_result({"runs": [run.config.name for run in runs], "images": args.analyze}, written)


def choose_pictures(args: argparse.Namespace, run: Run) -> list[Picture]:
    """The images that the command line asks for, as ``run``'s model is fed them."""
    if args.image:
        cfg = run.config.data
        images = [fit_image(open_image(path), cfg.size, cfg.photo_filter) for path in args.image]
        return [Picture(path.stem, image, None) for path, image in zip(args.image, images)]
    split: Split = load_dataset(run.config.data, seed=run.config.data.split_seed).split(args.split)
    indices = args.index
    if args.random is not None:
        if not 1 <= args.random <= len(split):
            raise ValueError(
                f"--random {args.random}: the {args.split} split has {len(split)} images; ask for 1 to that"
            )
        indices = np.sort(np.random.default_rng(args.seed).choice(len(split), args.random, replace=False)).tolist()
    return [Picture(f"{args.split}-{i}", split.image(i), int(split.labels[i])) for i in indices]


def choose_targets(target: str | None, class_names: list[str], pictures: list[Picture]) -> list[int] | None:
    """The class to explain in each picture; None: the predicted one."""
    if target is None:
        return None
    if target in class_names:  # first, since a class may be called by a number
        return [class_names.index(target)] * len(pictures)
    if target == "label":
        if any(picture.label is None for picture in pictures):
            raise ValueError("--target label: an image file has no label; name a class")
        return [picture.label for picture in pictures]
    if target.isdecimal() and int(target) < len(class_names):
        return [int(target)] * len(pictures)
    raise ValueError(
        f"--target {target}: not a class; classes: {', '.join(class_names)}, or 0 to {len(class_names) - 1}"
    )


def explain(
    model: nn.Module,
    layer: CamLayer,
    pictures: list[Picture],
    targets: list[int] | None,
    method: str,
    batch_size: int,
) -> list[Explanation]:
    """Probabilities and heat maps in float32, in batches."""
    spec, device = input_spec(model), next(model.parameters()).device
    preprocess = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(device)
    explanations = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size]
        images = preprocess(torch.stack([picture.pixels for picture in batch]).to(device))
        with torch.no_grad():
            probabilities = model(images).float().softmax(dim=1).cpu().numpy()
        chosen = probabilities.argmax(axis=1).tolist() if targets is None else targets[start : start + batch_size]
        faults: dict[int, str] = {}
        maps = heat_maps(
            model, layer.module, layer.to_maps, images, chosen, method=method, layer_name=layer.name, faults=faults
        )
        for i, picture in enumerate(batch):
            map_ = None if i in faults else maps[i]
            explanations.append(Explanation(picture, map_, faults.get(i), chosen[i], probabilities[i]))
    return explanations


def save(
    run: Run,
    explanations: list[Explanation],
    layer: CamLayer,
    args: argparse.Namespace,
    class_names: list[str],
    seconds: float,
) -> list[Path]:
    """Picture, raw map and JSON of each image, and a grid of several. Returns the pictures' paths."""
    written = []
    for explanation in explanations:
        if explanation.map is None:
            continue
        stem = f"gradcam/{explanation.picture.name}-{args.method}"
        label, target = explanation.picture.label, explanation.target
        values = {
            "image": explanation.picture.name,
            "method": args.method,
            "layer": layer.name,
            "grid": list(layer.grid),
            "target": class_names[target],
            "target_index": target,
            "probability": float(explanation.probabilities[target]),
            "prediction": class_names[explanation.prediction],
            "label": None if label is None else class_names[label],
            "checkpoint": args.checkpoint,
            "seconds": seconds,
            "statistics": map_statistics(explanation.map),
        }
        run.write(f"{stem}.npy", lambda path, e=explanation: np.save(path, e.map))
        run.save_json(f"{stem}.json", values)
        figure = cam_figures.cam_overview(
            pixels(explanation.picture),
            explanation.map,
            title=f"{run.config.name}: {args.method} for {class_names[target]}\n{describe(explanation, class_names)}",
            probabilities=list(zip(class_names, explanation.probabilities.tolist())),
            scale_note=f"raw {args.method}",
        )
        written.append(run.save_figure(f"{stem}.png", figure))
    if len(explanations) > 1:
        figure = grid_figure([(run.config.name, class_names, explanations)], args)
        written.append(run.save_figure(f"gradcam/grid-{args.method}.png", figure))
    return written


def grid_figure(columns: list[tuple[str, list[str], list[Explanation]]], args: argparse.Namespace) -> Figure:
    """Rows images, columns runs; ``columns`` holds (name, class names, explanations)."""
    explained = {None: "the predicted class", "label": "the true class"}.get(args.target, f"class {args.target}")
    rows = []
    for cells in zip(*(explanations for _, _, explanations in columns)):
        picture, names = cells[0].picture, columns[0][1]
        rows.append(
            {
                "image": pixels(picture),
                "label": picture.name if picture.label is None else f"{picture.name}: {names[picture.label]}",
                "cells": [
                    (cell.map, caption(cell, class_names), is_correct(cell))
                    for cell, (_, class_names, _) in zip(cells, columns)
                ],
            }
        )
    return cam_figures.cam_grid(rows, [name for name, _, _ in columns], title=f"{args.method} of {explained}")


def save_comparison(runs: list[Run], columns: list, args: argparse.Namespace) -> None:
    """One grid over all runs, which must have been shown the same images."""
    labels = [[e.picture.label for e in explanations] for _, _, explanations in columns]
    if any(names != columns[0][1] for _, names, _ in columns) or any(row != labels[0] for row in labels):
        raise ValueError(
            "the runs differ in their classes or test images, so that a grid would mix them up; each run's own maps are "
            "in its gradcam/"
        )
    path = comparison_folder(runs, args.output).save_figure(f"grid-{args.method}.png", grid_figure(columns, args))
    print_result({"runs": [run.config.name for run in runs], "method": args.method}, [path])


def describe(explanation: Explanation, class_names: list[str]) -> str:
    label = explanation.picture.label
    truth = "" if label is None else f"label {class_names[label]}, "
    return f"{explanation.picture.name}: {truth}predicted {caption(explanation, class_names)}"


def caption(explanation: Explanation, class_names: list[str]) -> str:
    return f"{class_names[explanation.prediction]} ({explanation.probabilities.max():.0%})"


def is_correct(explanation: Explanation) -> bool | None:
    return None if explanation.picture.label is None else explanation.prediction == explanation.picture.label


def pixels(picture: Picture) -> np.ndarray:
    return picture.pixels.permute(1, 2, 0).numpy()  # 3 H W -> H W 3


def report(
    run: Run, explanations: list[Explanation], layer: CamLayer, class_names: list[str], written: list[Path]
) -> None:
    rows = [
        (
            e.picture.name,
            "-" if e.picture.label is None else class_names[e.picture.label],
            caption(e, class_names),
            class_names[e.target],
            e.fault or f"{e.map.max():.3g}",
        )
        for e in explanations
    ]
    print_table(rows, header=("image", "label", "prediction", "explained", "largest value"))
    result = {"run": str(run.directory), "layer": layer.name, "grid": list(layer.grid), "images": len(explanations)}
    print_result(result, written)


if __name__ == "__main__":
    run_script(main)
