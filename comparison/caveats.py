"""What makes a comparison less than fair, or less than certain."""

import json
from collections.abc import Callable, Mapping, Sequence

from comparison.entries import Entry, hardware_of, size_of

# What may make a comparison unfair: title, what must be equal over models, what follows where it is not.
CAVEATS: Sequence[tuple[str, Callable[[Entry], object], str]] = (
    ("Pretraining differs", lambda e: e.metrics["corpus"], "corpora are compared, not architectures alone"),
    ("Input sizes differ", lambda e: size_of(e.metrics), "a larger input shows more and costs more"),
    ("Normalisation differs", lambda e: (e.metrics["mean"], e.metrics["std"]), "it is part of what is compared"),
    ("Training images differ", lambda e: e.metrics["train_fingerprint"][:8], "so may what could be learned"),
    ("Epochs differ", lambda e: e.training["epochs_run"], "so do the budgets"),
    ("Augmentation differs", lambda e: e.run.config.data.augment, "it is part of what is compared"),
    ("What is trained differs", lambda e: e.run.config.model.tune, "frozen layers keep what they had"),
    ("BatchPlan differs", lambda e: e.training["selected_by"], "a best epoch is compared with a last one"),
    ("Latency was measured differently", lambda e: hardware_of(e.metrics), "milliseconds cannot be compared"),
)


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
    if set(counts.values()) != {1} and (min(counts.values()) < 3 or len(set(counts.values())) > 1):
        told = "; ".join(f"{name}: {count}" for name, count in counts.items())
        found.append(f"Numbers of seeds ({told}): fewer than three say little about the spread.")
    for name, group in groups.items():
        if len({entry.run.config.seed for entry in group}) < len(group):
            found.append(f"{name}: two of its runs have the same seed and count twice.")
    for entry in entries:
        if entry.training["diverged"]:
            found.append(f"{entry.name} diverged in training: its accuracy says nothing about its architecture.")
    return found


def short(value) -> str:
    text = json.dumps(value.model_dump(exclude_unset=True)) if hasattr(value, "model_dump") else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
