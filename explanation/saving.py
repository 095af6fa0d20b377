"""What explanations write: pictures, raw maps and JSON of each image, grids, the table."""

import argparse
import re
from pathlib import Path

import numpy as np

from common.console import print_result, print_table
from common.runs import Run, comparison_folder
from explanation.figures import head_panels
from explanation.gallery import caption, grid, overview
from explanation.maps import Explanation, MapSet
from explanation.quality.form import map_statistics


def save_run(run: Run, columns: list[MapSet], args: argparse.Namespace) -> None:
    """Pictures, raw maps and JSON of a run, a grid where there are several, and the table of them all."""
    written = [save_map(column, e, args) for column in columns for e in column.explanations if e.map is not None]
    if sum(len(column.explanations) for column in columns) > 1:
        written.append(run.save_figure(f"gradcam/{grid_name(args)}.png", grid(columns, shared_scale=args.shared_scale)))
    rows = [
        (
            e.picture.name,
            "-" if e.picture.label is None else column.class_names[e.picture.label],
            caption(e, column.class_names),
            column.class_names[e.target],
            column.place,
            e.fault or f"{e.map.max():.3g}",
        )
        for column in columns
        for e in column.explanations
    ]
    print_table(rows, header=("image", "label", "prediction", "explained", "by", "largest value"))
    maps = [column.to_dict() for column in columns]
    result = {"run": str(run.directory), "images": len(columns[0].explanations)}
    print_result(result | (maps[0] if len(maps) == 1 else {"maps": maps}), written)


def save_heads(run: Run, columns: list[MapSet]) -> None:
    """A figure for each picture with a panel for each head of an attention layer."""
    for column in columns:
        for explanation, heads in zip(column.explanations, column.heads):
            picture = explanation.picture
            title = f"{run.config.name}: where {column.asked_by} looks at {column.layer.name}\n{picture.name}"
            stem = file_name(f"{picture.name}-attention-{column.layer.name}-{column.asked_by}-heads")
            image = picture.pixels.permute(1, 2, 0).numpy()  # 3 H W -> H W 3
            print(f"wrote {run.save_figure(f'gradcam/{stem}.png', head_panels(image, heads, title=title))}")


def save_map(column: MapSet, explanation: Explanation, args: argparse.Namespace) -> Path:
    """Picture, raw map and JSON of one image. Returns the picture's path."""
    run, names = column.run, column.class_names
    parts = [explanation.picture.name, column.method]
    parts += [column.layer.name] if column.layer and len(args.layer or []) > 1 else []
    parts += [column.target] if len(args.target or []) > 1 else []
    stem = f"gradcam/{file_name('-'.join(parts))}"
    label, target = explanation.picture.label, explanation.target
    values = {
        "image": explanation.picture.name,
        "method": column.method,
        "layer": column.layer.name if column.layer else None,
        "grid": list(explanation.map.shape),
        "target": names[target],
        "target_index": target,
        "probability": float(explanation.probabilities[target]),
        "prediction": names[explanation.prediction],
        "label": None if label is None else names[label],
        "checkpoint": args.checkpoint,
        "precision": args.precision,
        "channels": args.channels if column.method == "scorecam" else None,
        "seconds": explanation.seconds,
        "statistics": {"max": explanation.map.max()}
        | {name: value[0] for name, value in map_statistics(explanation.map[None]).items()},
    }
    run.write(f"{stem}.npy", lambda path: np.save(path, explanation.map))
    run.save_json(f"{stem}.json", values)
    return run.save_figure(f"{stem}.png", overview(column, explanation))


def save_comparison(runs: list[Run], columns: list[MapSet], args: argparse.Namespace) -> None:
    """One grid over all runs, which must have been shown the same images."""
    labels = [[e.picture.label for e in column.explanations] for column in columns]
    if any(column.class_names != columns[0].class_names for column in columns) or any(x != labels[0] for x in labels):
        raise ValueError(
            "the runs differ in their classes or test images, so that a grid would mix them up; each run's own maps are "
            "in its gradcam/"
        )
    path = comparison_folder(runs, args.output).save_figure(
        f"{grid_name(args)}.png", grid(columns, shared_scale=args.shared_scale)
    )
    print_result({"runs": [run.config.name for run in runs], "maps": [column.to_dict() for column in columns]}, [path])


def grid_name(args: argparse.Namespace) -> str:
    parts = [*args.method, *((args.layer or []) if len(args.layer or []) > 1 else [])]
    parts += args.target if len(args.target or []) > 1 else []
    return file_name("-".join(["grid", *parts]))


def file_name(text: str) -> str:
    """The text as part of a file's name: no blanks or separators, of bounded length."""
    return re.sub(r"[^\w.+-]+", "_", text)[:150]
