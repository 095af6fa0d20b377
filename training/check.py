"""``train.py --check``: check the data and the model of a run, and measure its cost, before it is trained."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from common.config import Config
from common.console import print_result, print_table
from common.devices import keep_freed_memory
from common.runs import Folder, Run
from data import SPLITS, Dataset, load_dataset
from images.files import printable
from images.index import UnreadableImages
from training.copies import (
    data_notes,
    describe_near,
    draw_pairs,
    exact_copies,
    find_near_copies,
    left_out,
    write_copies,
)
from training.preview import Cost, create_trainer, draw_inputs, measure_cost
from training.progress import start_line
from training.rehearsal import prepare

FILES = ("check.json", "copies.csv", "files.csv", "inputs.png", "near_copies.png")


def check(config: Config, directory: Path, device: torch.device, *, coming: Sequence[Path] = ()) -> Folder:
    """Print what a run would be trained on and what it would cost; write ``checks/<name>`` below ``output_root``.

    ``directory``: the run's, in which nothing is changed. ``coming``: runs that will exist when it is trained.
    Raises ValueError for everything that would stop the run, after printing what is known until then.
    """
    folder = Folder(Path(config.output_root) / "checks" / config.name)
    for name in FILES:
        folder.path(name).unlink(missing_ok=True)  # results of an earlier check may be outdated
    dataset = _load(config, folder)
    print_table(class_rows(dataset), header=("class", *SPLITS))
    values, written = _check_data(config, dataset, folder)
    keep_freed_memory()  # as in training; not earlier, or memory of the search for copies would count as the run's
    prepared = prepare(config, directory, device, resume=False, coming=coming, dataset=dataset)
    trainer = create_trainer(Run(directory, prepared.config), prepared, device)
    print(start_line(dataset, prepared.model, config.model.name, device, prepared.precision))
    written.append(folder.save_figure("inputs.png", draw_inputs(trainer)))
    cost = measure_cost(trainer, prepared)
    written.insert(0, folder.save_json("check.json", values | {"cost": asdict(cost)}))
    print_table(_summary(values, cost))
    shown = {key: values[key] for key in ("exact_copies", "near_copies", "num_images", "left_out")}
    print_result({"check": config.name, **shown, "cost": asdict(cost)}, written)
    return folder


def class_rows(dataset: Dataset, most: int = 20) -> list[tuple]:
    """Rows of a table: images of each class in each split, and in sum; of many classes only the largest and smallest."""
    counts = [dataset.split(n).labels.bincount(minlength=len(dataset.class_names)).tolist() for n in SPLITS]
    rows = [(printable(name), *numbers) for name, *numbers in zip(dataset.class_names, *counts)]
    if len(rows) > most:
        ordered = sorted(rows, key=lambda row: -row[1])
        rows = [*ordered[: most // 2], ("...", *[""] * len(SPLITS)), *ordered[-most // 2 :]]
    return [*rows, ("all", *(sum(numbers) for numbers in counts))]


def _load(config: Config, folder: Folder) -> Dataset:
    """Load the dataset, which opens every file; if some cannot be read, list them in files.csv and raise their error."""
    try:
        return load_dataset(config.data, seed=config.data.split_seed)
    except UnreadableImages as error:
        print(f"wrote {_write_files(folder, error.reasons)}")
        raise


def _check_data(config: Config, dataset: Dataset, folder: Folder) -> tuple[dict, list[Path]]:
    """Check the data -> the values for ``check.json``, and the other files that were written."""
    notes = data_notes(dataset)
    exact, near = exact_copies(dataset), find_near_copies(dataset)
    notes += [describe_near(dataset, *pair, found) for pair, found in near.items() if len(found.images)]
    print("\n".join(f"note: {note}" for note in notes) or "no image stands in two splits, and no file is left out")
    skipped = left_out(dataset)
    labels = {name: dataset.split(name).labels.bincount(minlength=len(dataset.class_names)).tolist() for name in SPLITS}
    values = {
        "config": config.name,
        "exact_copies": {" in ".join(pair): len(rows) for pair, rows in exact.items()},
        "near_copies": {" in ".join(pair): len(found.images) for pair, found in near.items()},
        "num_images": {name: len(dataset.split(name)) for name in SPLITS},
        "left_out": len(skipped),
        "class_names": dataset.class_names,
        "per_class": labels,
        "notes": notes,
    }
    written = [folder.write("copies.csv", lambda path: write_copies(path, dataset, exact, near))]
    if skipped:
        written.append(_write_files(folder, dict.fromkeys(skipped, "left out: no image by its name")))
    if any(len(found.images) for found in near.values()):
        written.append(folder.save_figure("near_copies.png", draw_pairs(dataset, near)))
    return values, written


def _write_files(folder: Folder, reasons: Mapping[str, str]) -> Path:
    """Write ``files.csv``: each file that would not be used, and why."""

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("file", "why"))
            table.writerows(
                (printable(name), why.removeprefix(f"{printable(name)}: ")) for name, why in reasons.items()
            )

    return folder.write("files.csv", write)


def _summary(values: dict, cost: Cost) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count:,} {name}" for name, count in values["num_images"].items())
    copies = [sum(values[kind].values()) for kind in ("exact_copies", "near_copies")]
    return [
        ("images", f"{counts}; all of them can be read, {values['left_out']:,} other files are left out"),
        ("in two splits", f"{copies[0]:,} exact copies, {copies[1]:,} that look alike"),
        *cost.rows(),
    ]
