"""Images that occur in two splits, as exact or near copies, and sentences and figures about them."""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from data import SPLITS, Dataset, Split
from evaluation.figures import image_grid
from images.duplicates import SIDE, NearCopies, copies_of, near_copies, thumbnails
from images.files import describe_left_out, printable
from images.sources import Photos

HELD_OUT = (("test", "train"), ("test", "val"), ("val", "train"))
"""Pairs of splits that should not share images: one for measuring, one for learning or selection."""
WORDS = {"train": "training", "val": "validation", "test": "test"}
MOST_DRAWN = 40


def left_out(dataset: Dataset) -> list[str]:
    """Paths of files that are not read as images."""
    sources = {id(source): source for source in (dataset.split(name).source for name in SPLITS)}.values()
    return [path for source in sources if isinstance(source, Photos) for path in source.left_out]


def data_notes(dataset: Dataset) -> list[str]:
    """Sentences about files that are left out and images that occur in two splits; empty if there are none."""
    notes = [sentence for sentence in [describe_left_out(left_out(dataset))] if sentence]
    for (held_out, seen), rows in exact_copies(dataset).items():
        if not len(rows):
            continue
        here, there = dataset.split(held_out), dataset.split(seen)
        other = int((here.labels[rows[:, 0]] != there.labels[rows[:, 1]]).sum())
        labels = f", {other:,} of them of another class" if other else ""
        result = "; evaluate.py also gives the accuracy without them" if held_out == "test" else ""
        such = f"{name_of(here, rows[0, 0])} is {name_of(there, rows[0, 1])}"
        notes.append(
            f"{len(rows):,} of {len(here):,} {WORDS[held_out]} images are exact copies of {WORDS[seen]} images{labels} "
            f"({such}){result}"
        )
    return notes


def print_notes(dataset: Dataset) -> None:
    for note in data_notes(dataset):
        print(f"note: {note}", file=sys.stderr)


def exact_copies(dataset: Dataset) -> dict[tuple[str, str], np.ndarray]:
    """For each pair of splits, the images of the first that are also in the second: int64 P 2, positions in both."""
    found = {}
    for pair in HELD_OUT:
        places = copies_of(*(dataset.split(name).digests for name in pair))
        images = np.flatnonzero(places >= 0)
        found[pair] = np.stack([images, places[images]], axis=1)
    return found


def find_near_copies(dataset: Dataset) -> dict[tuple[str, str], NearCopies]:
    """For each pair of splits, the images of the first that look like one of the second without being exact copies."""
    small = {name: thumbnails_of(dataset.split(name)) for name in SPLITS}
    found = {}
    for pair in HELD_OUT:
        here, there = (dataset.split(name).digests for name in pair)
        near = near_copies(*(small[name] for name in pair))
        other = (here[near.images] != there[near.others]).any(axis=1)
        found[pair] = NearCopies(near.images[other], near.others[other], near.correlation[other], near.mirrored[other])
    return found


def describe_near(dataset: Dataset, held_out: str, seen: str, near: NearCopies) -> str:
    here, there = dataset.split(held_out), dataset.split(seen)
    same = int((here.labels[near.images] == there.labels[near.others]).sum())
    such = f"{name_of(here, near.images[0])} and {name_of(there, near.others[0])}"
    return (
        f"{len(near.images):,} of {len(here):,} {WORDS[held_out]} images look like {WORDS[seen]} images, {same:,} of them of "
        f"the same class ({such}): look at near_copies.png"
    )


def draw_pairs(dataset: Dataset, near: dict[tuple[str, str], NearCopies]):
    """A figure of pairs side by side: the most similar ones, and those just above the threshold, which help to judge it."""
    pairs = list(_rows(dataset, near))
    pairs.sort(key=lambda row: -row[4])
    if len(pairs) > MOST_DRAWN:
        pairs = pairs[: MOST_DRAWN // 2] + pairs[-MOST_DRAWN // 2 :]
    pictures, captions = [], []
    for here, i, there, j, correlation, mirrored in pairs:
        left, right = (thumbnails(split.image(int(k))[None])[0] for split, k in ((here, i), (there, j)))
        gap = torch.full((3, SIDE, 2), 255, dtype=torch.uint8)
        pictures.append(torch.cat([left, gap, right], dim=2).permute(1, 2, 0).numpy())
        classes = " / ".join(dict.fromkeys(dataset.class_names[s.labels[k]] for s, k in ((here, i), (there, j))))
        names = f"{here.name}-{i} / {there.name}-{j}"
        captions.append(f"{correlation:.3f}{', mirrored' if mirrored else ''}: {classes}\n{names}")
    return image_grid(pictures, captions, columns=5, title="Near copies")


def name_of(split: Split, i: int) -> str:
    """The path of an image's file relative to the data's folder; without a file, its split and position."""
    if isinstance(split.source, Photos):
        return printable(os.path.relpath(split.source.paths[int(split.indices[i])], split.source.root))
    return f"{split.name}-{i}"


def thumbnails_of(split: Split) -> Tensor:
    """A thumbnail of every image of a split, uint8 N 3 32 32."""
    parts = [thumbnails(images) for images, _ in split.batches(256, torch.device("cpu"))]
    return torch.cat(parts) if parts else torch.zeros(0, 3, SIDE, SIDE, dtype=torch.uint8)


def _rows(dataset: Dataset, near: dict[tuple[str, str], NearCopies]) -> Iterator[tuple]:
    for pair, found in near.items():
        here, there = (dataset.split(name) for name in pair)
        for i, j, r, m in zip(found.images, found.others, found.correlation, found.mirrored):
            yield here, int(i), there, int(j), float(r), bool(m)


def write_copies(path: Path, dataset: Dataset, exact: dict, near: dict) -> None:
    """Write a CSV file with a row for each exact copy, then for each near copy."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "class", "copy of", "its class", "correlation", "mirrored"))
        rows = [
            (dataset.split(a), int(i), dataset.split(b), int(j), 1.0, False)
            for (a, b), pairs in exact.items()
            for i, j in pairs
        ]
        for here, i, there, j, r, m in [*rows, *_rows(dataset, near)]:
            labels = (dataset.class_names[split.labels[k]] for split, k in ((here, i), (there, j)))
            names = (name_of(here, i), name_of(there, j))
            kind = "exact" if r == 1.0 else f"{r:.3f}"
            table.writerow((names[0], next(labels), names[1], next(labels), kind, "yes" if m else "no"))
