"""Several evaluated runs side by side: may they be compared, which differences are real, what do they cost.

Runs that differ in nothing but their seed count as one model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from pathlib import Path

from analysis.metrics import Predictions
from config import differing_values
from runs import Run

SEED_KEYS = {"name", "seed", "evaluate.batch_size"}  # in which runs of one model may differ


@dataclass(frozen=True)
class Entry:
    """One evaluated run."""

    name: str
    run: Run
    metrics: dict
    training: dict  # train.json
    predictions: Predictions
    class_names: list[str]
    corruptions: dict | None


# What may make a comparison unfair: title, what must be equal over models, what follows where it is not.
CAVEATS: Sequence[tuple[str, Callable[[Entry], object], str]] = (
    ("Pretraining differs", lambda e: e.metrics["corpus"], "corpora are compared, not architectures alone"),
    ("Input sizes differ", lambda e: size_of(e.metrics), "a larger input shows more and costs more"),
    ("Normalisation differs", lambda e: (e.metrics["mean"], e.metrics["std"]), "it is part of what is compared"),
    ("Training images differ", lambda e: e.metrics["train_fingerprint"][:8], "so may what could be learned"),
    ("Epochs differ", lambda e: e.training["epochs_run"], "so do the budgets"),
    ("Augmentation differs", lambda e: e.run.config.data.augment, "it is part of what is compared"),
    ("What is trained differs", lambda e: e.run.config.model.tune, "frozen layers keep what they had"),
    ("Selection differs", lambda e: e.training["selected_by"], "a best epoch is compared with a last one"),
    ("Latency was measured differently", lambda e: hardware_of(e.metrics), "milliseconds cannot be compared"),
)


def open_runs(directories: Sequence[Path], output: Path | None) -> list[Run]:
    """The finished runs in ``directories``, each once, for a comparison in ``output``.

    Raises ValueError where two have the same name, by which reports and their folders know them, and for an ``output``
    of a single run.
    """
    runs: dict[str, Run] = {}
    for directory in {path.resolve(): path for path in directories}.values():
        run = Run.open_finished(directory)
        other = runs.setdefault(run.config.name, run)
        if other is not run:
            raise ValueError(
                f"{other.directory} and {directory} are both named {run.config.name}; edit name in one's config.yaml"
            )
    if output and len(runs) == 1:
        raise ValueError("--output is the folder of a comparison; name another run, or leave --output out")
    return list(runs.values())


def evaluated_on(values: Mapping) -> str:
    """What was evaluated, by the ``split``, ``checkpoint`` and ``tta`` of ``metrics.json``, in words."""
    parts = [f"{values['split']} split"]
    parts += [f"{values['checkpoint']}.pt"] if values["checkpoint"] != "best" else []
    return ", ".join(parts + (["averaged with the mirrored image"] if values["tta"] else []))


def load_predictions(run: Run, name: str) -> tuple[Predictions, list[str]]:
    """What the model said, and the class names. Raises ValueError if the file is missing or damaged."""
    arrays = run.load_arrays(name, ("logits", "labels", "class_names"))
    return Predictions(arrays["logits"], arrays["labels"]), arrays["class_names"].tolist()


def read_entry(run: Run, suffix: str) -> Entry:
    metrics, corruptions = run.read_json(f"metrics{suffix}.json"), None
    if run.path(f"corruptions{suffix}.json").is_file():
        stored = run.read_json(f"corruptions{suffix}.json")
        corruptions = stored["corruptions"] if stored["checkpoint"] == metrics["checkpoint"] else None
    predictions, class_names = load_predictions(run, f"predictions{suffix}.npz")
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
            raise ValueError(
                f"{of} were not evaluated on the same images ({entry.metrics['num_images']:,} and "
                f"{first.metrics['num_images']:,}); compare runs of one dataset with the same data.split_seed and fractions"
            )


def group_by_seed(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Runs that differ only in their seed, under a name that they share."""
    alike: list[list[Entry]] = []
    for entry in entries:
        for group in alike:
            if differing_values([group[0].run.config, entry.run.config]).keys() <= SEED_KEYS:
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


def caveats(entries: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]) -> list[str]:
    """What makes the comparison less than fair, or less than certain."""
    found = []
    for title, read, consequence in CAVEATS:
        values = {name: read(group[0]) for name, group in groups.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            told = "; ".join(f"{name}: {short(value)}" for name, value in values.items())
            found.append(f"{title} ({told}): {consequence}.")
    for title, key, unit in (("Parameters", "params", 1e-6), ("GMACs", "gmacs", 1)):
        values = {name: unit * group[0].metrics[key] for name, group in groups.items()}
        if max(values.values()) > 2 * min(values.values()):
            times = max(values.values()) / min(values.values())
            told = "; ".join(f"{name}: {value:.3g}{' M' if key == 'params' else ''}" for name, value in values.items())
            found.append(f"{title} differ by a factor of {times:.3g} ({told}): sizes are compared, too.")
    counts = {name: len(group) for name, group in groups.items()}
    if set(counts.values()) == {1}:
        found.append(
            "One seed each: how accuracy varies from seed to seed is not known, and no interval here contains it."
        )
    elif min(counts.values()) < 3 or len(set(counts.values())) > 1:
        told = "; ".join(f"{name}: {count}" for name, count in counts.items())
        found.append(f"Numbers of seeds ({told}): fewer than three say little about the spread.")
    for name, group in groups.items():
        if len({entry.run.config.seed for entry in group}) < len(group):
            found.append(f"{name}: two of its runs have the same seed and count twice.")
    for entry in entries:
        if entry.training["diverged"]:
            found.append(f"{entry.name} diverged in training: its accuracy says nothing about its architecture.")
    return found


def size_of(metrics: Mapping) -> str:
    return "x".join(map(str, metrics["image_size"]))


def hardware_of(metrics: Mapping) -> str:
    return f"{metrics['device']}, {metrics['precision']}, {metrics['threads']} CPU threads"


def short(value) -> str:
    text = json.dumps(value.model_dump(exclude_unset=True)) if hasattr(value, "model_dump") else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
