"""Predict a folder of photos with a run: predictions.csv, with a row for each file, and predictions.json.

The table is written batch by batch, and a second call continues where the first one ended. The row of a file that cannot
be read has the reason and no classes.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from common.console import print_result, print_table
from common.devices import autocast, select_precision
from common.documents import format_interval
from common.intervals import wilson_interval
from common.runs import Folder, Run
from evaluation.predictions import Predictions, predict
from images.files import list_images, printable
from images.sources import Photos, class_numbers, photos_of
from models import preprocessing, restore_model

TOP = 5
"""How many classes a row names, if there are that many."""


def predict_folder(run: Run, folder: Path, *, checkpoint: str, device: torch.device, output: Path | None) -> None:
    """Predict every photo in ``folder`` and its subfolders, and print a summary.

    The files are written into ``output``, or into ``images/<folder's name>`` of the run. A photo's label is the name of the
    folder that contains it, if that is the name of a class.
    Raises ValueError for a folder without photos, and for an output that holds predictions of another folder.
    """
    paths = list_images(folder)
    stored = run.load_checkpoint(f"{checkpoint}.pt")
    class_names = list(stored["class_names"])
    numbers = class_numbers(class_names, stored.get("synsets", []))
    labels = torch.tensor([numbers.get(Path(path).parent.name.lower(), -1) for path in paths])
    target = Folder(output or run.path("images") / folder.resolve().name)
    about = {
        "folder": str(folder.resolve()),
        "checkpoint": checkpoint,
        "weights": _digest(run.path(f"{checkpoint}.pt")),
    }
    about["files"] = _listing_digest(folder, paths)
    done = rows_done(target, about)
    if done < len(paths):
        if not done:
            target.save_json("predictions.json", about)
        model = restore_model(run.config, stored).to(device)
        source = photos_of(paths, labels, run.config.data)
        rows = predicted_rows(run, model, source, class_names, first=done, device=device)
        _append(target.path("predictions.csv"), folder, rows, _columns(len(class_names)), new=not done)
    found = summarize_rows(target.path("predictions.csv"))
    target.save_json("predictions.json", about | found)
    print_table(summary(run, folder, found))
    short = {key: found[key] for key in ("num_photos", "num_labelled", "accuracy", "accuracy_ci95")}
    print_result({"run": str(run.directory)} | short, map(target.path, ("predictions.csv", "predictions.json")))


def summary(run: Run, folder: Path, found: dict) -> list[tuple[str, object]]:
    """The rows of the table that ends the script."""
    unreadable, taken = found["unreadable"], list(found["predicted"].items())
    more = f", and {len(taken) - 5} more classes" if len(taken) > 5 else ""
    rows = [
        ("run", run.directory),
        ("photos", f"{found['num_photos']:,} in {folder}"),
        ("taken for", ", ".join(f"{name} {count:,}" for name, count in taken[:5]) + more),
    ]
    if unreadable:
        rows.append(("unreadable", f"{len(unreadable):,}, such as {unreadable[0]}; see the column error"))
    if found["num_labelled"]:
        interval = format_interval(found["accuracy_ci95"])
        rows.append(
            ("accuracy", f"{found['accuracy']:.2%} of {found['num_labelled']:,} in folders of classes ({interval})")
        )
    return rows


def rows_done(target: Folder, about: dict) -> int:
    """How many rows of the table already exist; a table of other weights or other files is deleted and counts as none.

    An incomplete last row, left by a killed process, is removed. Raises ValueError for the table of another folder.
    """
    table, stated = target.path("predictions.csv"), target.path("predictions.json")
    if not stated.exists() and not table.exists():
        return 0
    try:
        before = dict(json.loads(stated.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        before = {}
    if before.get("folder") != about["folder"]:
        of = f"the predictions of {before['folder']}" if "folder" in before else "a predictions.csv of something else"
        raise ValueError(f"{target.directory} holds {of}; name another folder with --output")
    if any(before.get(key) != value for key, value in about.items()) or not table.is_file():
        table.unlink(missing_ok=True)
        return 0
    text = table.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        target.write("predictions.csv", lambda path: path.write_bytes(whole))
    return max(0, sum(1 for _ in csv.reader(whole.decode().splitlines(True))) - 1)


def predicted_rows(
    run: Run, model: nn.Module, source: Photos, class_names: list[str], *, first: int, device: torch.device
) -> Iterator[list[tuple[str, list]]]:
    """Yield batches of rows, from photo ``first`` on: the path, and the cells of the other columns."""
    size, precision = run.config.evaluate.batch_size, select_precision(run.config.train.amp, device)
    workers = run.config.data.num_workers
    loader = DataLoader(
        _Files(source, first), size, num_workers=min(4, workers) if workers else 0, collate_fn=lambda samples: samples
    )
    preprocess, top = preprocessing(model), min(TOP, len(class_names))
    with tqdm(total=len(source.paths), initial=first, desc="predicting photos", unit=" photos", leave=False) as bar:
        for samples in loader:
            readable = [sample for sample in samples if isinstance(sample[1], Tensor)]
            reasons = {
                i: [_label(source, i, class_names), "", str(error)] for i, error in samples if isinstance(error, str)
            }
            if readable:
                images = preprocess(torch.stack([image for _, image in readable]).to(device))
                labels = torch.tensor([int(source.labels[i]) for i, _ in readable])
                (found,) = predict(model, [(images, labels)], context=lambda: autocast(device, precision))
                reasons |= dict(zip((i for i, _ in readable), _cells(found, class_names, top)))
            yield [(source.paths[i], reasons[i]) for i, _ in samples]
            bar.update(len(samples))


class _Files(Dataset):
    """Position and image of each photo, or position and the reason why it cannot be read."""

    def __init__(self, source: Photos, first: int):
        self.source, self.first = source, first

    def __len__(self) -> int:
        return len(self.source.paths) - self.first

    def __getitem__(self, item: int) -> tuple[int, Tensor | str]:
        try:
            return self.first + item, self.source.read(self.first + item)
        except ValueError as error:
            return self.first + item, str(error)


def _label(source: Photos, i: int, class_names: list[str]) -> str:
    label = int(source.labels[i])
    return class_names[label] if label >= 0 else ""


def _cells(found: Predictions, class_names: list[str], top: int) -> Iterator[list]:
    order = (-found.logits).argsort(axis=1, kind="stable")[:, :top]
    for label, ranks, probabilities in zip(found.labels, order, found.probabilities):
        known = label >= 0
        cells = [class_names[label] if known else "", ("no", "yes")[int(label == ranks[0])] if known else "", ""]
        yield cells + [cell for k in ranks for cell in (class_names[k], f"{probabilities[k]:.6f}")]


def _columns(num_classes: int) -> list[str]:
    ranks = range(1, min(TOP, num_classes) + 1)
    return ["file", "label", "correct", "error", *(f"{what}_{k}" for k in ranks for what in ("class", "probability"))]


def _append(table: Path, folder: Path, batches, columns: list[str], *, new: bool) -> None:
    try:
        with table.open("w" if new else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            if new:
                writer.writerow(columns)
            for rows in batches:
                for path, cells in rows:
                    cells = [_name(path, folder), *cells]
                    writer.writerow(cells + [""] * (len(columns) - len(cells)))
                file.flush()
    except OSError as error:
        raise ValueError(
            f"{table} cannot be written ({error.strerror}); the same command continues from there"
        ) from None


def summarize_rows(table: Path) -> dict:
    """Counts from the table: photos, unreadable files, predicted classes, and accuracy over photos with a label."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    judged = [row["correct"] == "yes" for row in rows if row["correct"]]
    found = {
        "num_photos": len(rows),
        "unreadable": [row["file"] for row in rows if row["error"]],
        "predicted": dict(Counter(row["class_1"] for row in rows if not row["error"]).most_common()),
        "num_labelled": len(judged),
        "accuracy": None,
        "accuracy_ci95": None,
    }
    if judged:
        interval = wilson_interval(sum(judged), len(judged)).tolist()
        found |= {"accuracy": sum(judged) / len(judged), "accuracy_ci95": interval}
    return found


def _name(path: str, folder: Path) -> str:
    return printable(os.path.relpath(path, folder))


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _listing_digest(folder: Path, paths: list[str]) -> str:
    """SHA-256 of the files' names, sizes and modification times, to notice that the folder has changed."""
    digest = hashlib.sha256()
    for path in paths:
        status = os.stat(path)
        facts = (_name(path, folder), status.st_size, status.st_mtime_ns)
        digest.update(json.dumps(facts).encode())
    return digest.hexdigest()
