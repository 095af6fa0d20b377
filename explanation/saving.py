"""The files of explanations: pictures, raw maps and JSON of each image, grids; and the printed table."""

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from common.comparisons import comparison_folder
from common.console import print_result, print_table
from common.runs import Folder, Run
from explanation.figures import head_panels
from explanation.gallery import caption, grid, layers, overlay, overview
from explanation.maps import Explanation, MapSet
from explanation.overlays import Style, View, scale_of
from explanation.quality.form import map_statistics


def save_run(run: Run, columns: list[MapSet], args: argparse.Namespace) -> None:
    """Write pictures, raw maps and JSON of a run, and a grid if there are several; print a table of them all."""
    weights = run.checksum(f"{args.checkpoint}.pt")
    written = [save_map(c, e, args, weights) for c in columns for e in c.explanations if e.map is not None]
    if sum(len(column.explanations) for column in columns) > 1:
        pages = grid(columns, shared_scale=args.shared_scale, style=style_of(args))
        written += save_pages(run, f"gradcam/{grid_name(args, columns)}", pages)
    rows = [
        (
            e.picture.name,
            "-" if e.picture.label is None else column.class_names[e.picture.label],
            caption(e, column.class_names),
            column.class_names[e.target],
            column.place,
            e.fault or f"{e.map.max():.3g}",
            f"{e.seconds:.3g}",
        )
        for column in columns
        for e in column.explanations
    ]
    print_table(rows, header=("image", "label", "prediction", "explained", "by", "largest value", "seconds"))
    maps = [column.to_dict() for column in columns]
    result = {"run": str(run.directory), "images": len(columns[0].explanations)}
    print_result(result | (maps[0] if len(maps) == 1 else {"maps": maps}), written)


def save_heads(run: Run, columns: list[MapSet], args: argparse.Namespace) -> None:
    """Write a figure for each picture, with a panel for each head of an attention layer."""
    for column in columns:
        for explanation, heads in zip(column.explanations, column.heads):
            picture = explanation.picture
            title = f"{run.config.name}: where {column.asked_by} looks at {column.layer.name}\n{picture.name}"
            seen = View.whole(picture.pixels.permute(1, 2, 0).numpy())  # 3 H W -> H W 3
            figure = head_panels(seen, heads, title=title, patch=args.patch, style=style_of(args))
            print(f"wrote {run.save_figure(f'gradcam/{stem(column, explanation, args)}-heads.png', figure)}")


def save_map(column: MapSet, explanation: Explanation, args: argparse.Namespace, weights: str) -> Path:
    """Pictures, raw map and JSON of one image, by ``weights`` of this SHA-256. Returns the path of the main picture."""
    run, names, path = column.run, column.class_names, f"gradcam/{stem(column, explanation, args)}"
    label, target = explanation.picture.label, explanation.target
    values = {
        "image": explanation.picture.name,
        "image_sha256": explanation.picture.digest,
        "method": column.method,
        "layer": column.layer.name if column.layer else None,
        "grid": list(explanation.map.shape),
        "target": names[target],
        "target_index": target,
        "probability": float(explanation.probabilities[target]),
        "prediction": names[explanation.prediction],
        "label": None if label is None else names[label],
        "checkpoint": args.checkpoint,
        "checkpoint_sha256": weights,
        "precision": args.precision,
        "channels": args.channels if column.method == "scorecam" else None,
        "seconds": explanation.seconds,
        "statistics": {"max": explanation.map.max()}
        | {name: value[0] for name, value in map_statistics(explanation.map[None]).items()},
    }
    photo, heat = layers(explanation.picture.view(), explanation.map, scale_of([explanation.map]), style_of(args))
    run.write(f"{path}-photo.png", lambda path: Image.fromarray(photo).save(path))
    run.write(f"{path}-heat.png", lambda path: Image.fromarray(heat).save(path))
    run.write(f"{path}.npy", lambda path: np.save(path, explanation.map))
    run.save_json(f"{path}.json", values)
    run.save_figure(f"{path}-overlay.png", overlay(explanation, style_of(args)))
    return run.save_figure(f"{path}.png", overview(column, explanation, style_of(args)))


def save_comparison(runs: list[Run], columns: list[MapSet], args: argparse.Namespace) -> None:
    """Write one grid with all runs; raises ValueError if they do not have the same classes and images."""
    labels = [[e.picture.label for e in column.explanations] for column in columns]
    if any(column.class_names != columns[0].class_names for column in columns) or any(x != labels[0] for x in labels):
        raise ValueError(
            "the runs differ in their classes or test images, so that a grid would mix them up; each run's own maps are "
            "in its gradcam/"
        )
    pages = grid(columns, shared_scale=args.shared_scale, style=style_of(args))
    folder = comparison_folder(runs, args.output, "-last" if args.checkpoint == "last" else "")
    written = save_pages(folder, grid_name(args, columns), pages)
    maps = [{"run": column.run.config.name} | column.to_dict() for column in columns]
    about = {"pages": [path.name for path in written], "maps": maps, "checkpoint": args.checkpoint}
    about["checkpoint_sha256"] = {run.config.name: run.checksum(f"{args.checkpoint}.pt") for run in runs}
    folder.save_json(f"{grid_name(args, columns)}.json", about)
    print_result({"runs": [run.config.name for run in runs], "maps": [column.to_dict() for column in columns]}, written)


def save_pages(folder: Folder, name: str, pages: list[Figure]) -> list[Path]:
    """Write the pages, the first under ``name`` itself; old pages of an earlier, longer grid with this name are deleted."""
    for old in folder.directory.glob(f"{name}-page*.*"):
        old.unlink()
    names = [name, *[f"{name}-page{i}" for i in range(2, len(pages) + 1)]]
    return [folder.save_figure(f"{one}.png", page) for one, page in zip(names, pages)]


def style_of(args: argparse.Namespace) -> Style:
    return Style(args.cmap, args.overlay, tuple(args.contour or ()))


# ---------------------------------------------------------------- names: they contain all options, so that none overwrites


def stem(column: MapSet, explanation: Explanation, args: argparse.Namespace) -> str:
    """The beginning of the names of one map's files."""
    parts = [explanation.picture.name, column.method]
    parts += [column.layer.name] if column.layer and args.layer else []
    parts += [column.target] if column.target else []
    return file_name([*parts, *_variant(args, column.method)])


def grid_name(args: argparse.Namespace, columns: list[MapSet]) -> str:
    parts = ["grid", *args.method, *(args.layer or []), *(args.target or [])]
    return file_name([*parts, *_images(args, columns), *_variant(args, *args.method)])


def _images(args: argparse.Namespace, columns: list[MapSet]) -> list[str]:
    """The images of a grid, as parts of its name."""
    split = [args.split] if args.split != "test" else []
    if args.image:
        return [explanation.picture.name for explanation in columns[0].explanations]
    if args.index:
        return [*split, "index", *map(str, args.index)]
    seed = [f"seed{args.seed}"] if args.seed else []
    return [*split, f"random{args.random}" if args.random else f"each{args.per_class}", *seed]


def _variant(args: argparse.Namespace, *methods: str) -> list[str]:
    """Other options that change the map of an image, if they are not the defaults, as parts of a name."""
    parts = [f"channels{args.channels}"] if args.channels and "scorecam" in methods else []
    parts += ["patch", *map(str, args.patch)] if args.patch and "attention" in methods else []
    parts += ["last"] if args.checkpoint == "last" else []
    return parts + (["bf16"] if args.precision == "bf16" else [])


def file_name(parts: list[str], longest: int = 150) -> str:
    """The parts joined to a file name without blanks or separators, of bounded length; other parts get another name.

    A changed part is followed by the start of its hash, so that "a b" and "a_b" get different names.
    """
    safe = [_safe(part) for part in parts]
    name = "-".join(safe)
    return name if len(name) <= longest else f"{name[:longest]}-{_hash(name)}"


def _safe(text: str) -> str:
    safe = re.sub(r"[^\w.+-]+", "_", text)
    return safe if safe == text else f"{safe}-{_hash(text)}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]
