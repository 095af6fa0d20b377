"""Load evaluated runs, check that they may be compared, and group them into models.

Runs that differ only in their seed count as one model.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os.path import commonprefix

from common.config_files import differing_values
from common.runs import Run
from evaluation.predictions import ORIGIN, Predictions, load_predictions

SEED_KEYS = {"name", "seed", "evaluate.batch_size", "data.root"}
"""Keys in which runs of one model may differ. Another folder is allowed, since its images are compared by their pixels."""
IMAGES = ("train_fingerprint", "val_fingerprint")  # what a model was trained on and selected by


@dataclass(frozen=True)
class Entry:
    """One evaluated run."""

    name: str
    """The name in the report, without the common beginning of all runs' names."""
    run: Run
    metrics: dict
    training: dict  # train.json
    predictions: Predictions
    class_names: list[str]
    corruptions: dict | None


@dataclass(frozen=True)
class Comparison:
    """Everything that a report is made from."""

    entries: Sequence[Entry]
    groups: Mapping[str, Sequence[Entry]]
    """Models by name, each with one run per seed."""
    pairs: Sequence[dict]
    """From `significance.compare_pairs`."""
    seeds: Mapping[str, dict]
    """Model -> result of `significance.summarize_seeds`."""
    reference: str
    """The model with which the others are compared."""

    @property
    def seeded(self) -> bool:
        """Whether a model has several seeds."""
        return len(self.groups) < len(self.entries)

    @property
    def models(self) -> dict[str, str] | None:
        """Name of each run -> its model; None if there is only one model."""
        named = {entry.name: model for model, group in self.groups.items() for entry in group}
        return named if len(self.groups) > 1 else None

    @property
    def firsts(self) -> list[Entry]:
        """The first run of each model; if there is only one model, all its runs."""
        return [group[0] for group in self.groups.values()] if len(self.groups) > 1 else list(self.entries)


def shorten_names(names: Sequence[str]) -> list[str]:
    """The names without their common beginning, up to a separator after which each name begins with a letter."""
    shared = commonprefix(names)
    for end in sorted({match.end() for match in re.finditer(r"[/_.+-]", shared)}, reverse=True):
        rests = [name[end:] for name in names]
        if len(names) > 1 and all(rest[:1].isalpha() for rest in rests):
            return rests
    return list(names)


def read_entries(runs: Sequence[Run], suffix: str) -> list[Entry]:
    """Load the runs, each with a short name, from the files with ``suffix`` in their names."""
    names = shorten_names([run.config.name for run in runs])
    return [replace(read_entry(run, suffix), name=name) for run, name in zip(runs, names)]


def read_entry(run: Run, suffix: str) -> Entry:
    metrics, corruptions = run.read_json(f"metrics{suffix}.json"), None
    if run.path(f"corruptions{suffix}.json").is_file():
        stored = run.read_json(f"corruptions{suffix}.json")
        same = "benchmark" in stored and all(stored.get(key) == metrics.get(key) for key in ("checkpoint", *ORIGIN))
        corruptions = stored["corruptions"] if same else None
    predictions, class_names = load_predictions(run, f"predictions{suffix}.npz")
    if list(metrics["per_class"]) != class_names:
        files = f"metrics{suffix}.json and predictions{suffix}.npz"
        raise ValueError(f"{files} in {run.directory} have different classes; run evaluate.py again")
    return Entry(run.config.name, run, metrics, run.read_json("train.json"), predictions, class_names, corruptions)


def check_comparable(entries: Sequence[Entry]) -> None:
    """Raise ValueError unless all runs were evaluated on the same images of the same dataset."""
    first = entries[0]
    for entry in entries[1:]:
        of = f"{entry.run.directory} and {first.run.directory}"
        here, there = entry.run.config.data, first.run.config.data
        if here.dataset != there.dataset:
            raise ValueError(f"{of} cannot be compared: their data are {here.dataset} and {there.dataset}")
        if entry.class_names != first.class_names:
            raise ValueError(f"{of} cannot be compared: they have different classes")
        if entry.metrics["fingerprint"] != first.metrics["fingerprint"]:
            counts = f"{entry.metrics['num_images']:,} and {first.metrics['num_images']:,}"
            raise ValueError(
                f"{of} were not evaluated on the same images ({counts}; told by their pixels and labels); compare runs of "
                "one dataset with the same data.split_seed and fractions"
            )


def group_by_seed(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Common name -> runs that were trained on the same images and differ only in their seed."""
    alike: list[list[Entry]] = []
    for entry in entries:
        for group in alike:
            same_config = differing_values([group[0].run.config, entry.run.config]).keys() <= SEED_KEYS
            if same_config and all(group[0].metrics.get(key) == entry.metrics.get(key) for key in IMAGES):
                group.append(entry)
                break
        else:
            alike.append([entry])
    groups: dict[str, list[Entry]] = {}
    for group in alike:
        shared = commonprefix([entry.name for entry in group]).removesuffix("seed").rstrip("-_./")
        name = group[0].name if len(group) == 1 or not shared else shared
        if len(group) > 1 and name in [entry.name for entry in entries]:
            name += f" ({len(group)} seeds)"
        groups[name if name not in groups else group[0].name] = group
    return groups


def size_of(metrics: Mapping) -> str:
    return "x".join(map(str, metrics["image_size"]))


def hardware_of(metrics: Mapping) -> str:
    return f"{metrics['device']}, {metrics['precision']}, {metrics['threads']} CPU threads"
