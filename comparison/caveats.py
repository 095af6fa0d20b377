"""Caveats of a comparison: what makes it unfair or uncertain, above all other settings in which the runs differ."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.config import Config
from common.config_files import differing_values
from comparison.entries import Entry, size_of

ARCHITECTURE = "More than the architecture is compared"
TRAINING = "The runs were trained differently"
MEASUREMENT = "The runs were measured differently"
CERTAINTY = "How certain it is"
WEIGHTS = (ARCHITECTURE, TRAINING, MEASUREMENT, CERTAINTY)
"""Groups of caveats, the most important first."""


@dataclass(frozen=True)
class Caveat:
    weight: str
    """One of WEIGHTS."""
    text: str


@dataclass(frozen=True)
class Aspect:
    """Settings that belong together, and the consequence if they differ."""

    weight: str
    title: str
    keys: tuple[str, ...]
    """Keys of `settings`; one that ends with a dot stands for all keys that begin with it."""
    consequence: str


ASPECTS = (
    Aspect(
        ARCHITECTURE, "Pretraining", ("corpus", "model.pretrained"), "Corpora are compared, not architectures alone"
    ),
    Aspect(ARCHITECTURE, "Pretrained weights", ("weights.",), "Runs of one model started from different files"),
    Aspect(
        ARCHITECTURE,
        "Training images",
        ("training images", "number of training images", "data.val_fraction", "data.test_fraction", "data.split_seed"),
        "So may what could be learned",
    ),
    Aspect(
        ARCHITECTURE,
        "Epochs",
        ("train.epochs", "epochs run", "train.patience", "train.stop_at", "train.stop_at_fraction_of."),
        "So do the budgets",
    ),
    Aspect(ARCHITECTURE, "What is trained", ("model.tune",), "Frozen layers keep what they had"),
    Aspect(ARCHITECTURE, "Input size", ("input size", "data.image_size"), "A larger input shows more and costs more"),
    Aspect(
        TRAINING,
        "Learning rate",
        (
            *("learning rate", "train.sched", "train.sched_on_updates", "train.warmup_epochs", "train.warmup_lr"),
            *("train.min_lr", "train.layer_decay"),
        ),
        "Each model may have met a rate that suits it more or less",
    ),
    Aspect(
        TRAINING,
        "Optimizer",
        ("train.opt", "train.weight_decay", "train.clip_grad"),
        "It is part of what is compared",
    ),
    Aspect(
        TRAINING,
        "Batches",
        ("train.batch_size", "train.grad_accum_steps", "processes"),
        "So do the number and the noise of the steps",
    ),
    Aspect(
        TRAINING,
        "Augmentation",
        ("data.augment.", "data.residency", "data.resident_budget_mb"),
        "It is part of what is compared",
    ),
    Aspect(
        TRAINING,
        "Mixed or smoothed labels",
        ("train.mixup", "train.cutmix", "train.mixup_prob", "train.mixup_switch_prob", "train.smoothing"),
        "They act on accuracy and on calibration",
    ),
    Aspect(TRAINING, "Averaged weights", ("train.model_ema", "train.model_ema_decay"), "They smooth the result"),
    Aspect(TRAINING, "Dropout and stochastic depth", ("model.kwargs.",), "They are part of what is compared"),
    Aspect(
        TRAINING,
        "Preprocessing",
        ("mean", "std", "interpolation", "data.normalization", "data.interpolation", "data.crop_pct", "data.crop_mode"),
        "It is part of what is compared",
    ),
    Aspect(TRAINING, "Selection", ("selected by",), "A best epoch is compared with a last one"),
    Aspect(
        MEASUREMENT,
        "Precision",
        ("precision of training", "precision of evaluation", "train.deterministic"),
        "Accuracy may move a little, and speed a lot",
    ),
    Aspect(
        MEASUREMENT,
        "Hardware of training",
        ("training device", "training processor", "training threads", "train.compile"),
        "Training times cannot be compared, and rounding differs",
    ),
    Aspect(
        MEASUREMENT,
        "How latency was measured",
        ("device", "threads", "attention kernel", "timed in turn with", "evaluate.batch_size"),
        "Milliseconds cannot be compared",
    ),
    Aspect(
        MEASUREMENT,
        "Versions",
        ("python", "packages.", "code"),
        "What a library or this project changed between them is compared too",
    ),
)
OTHER = Aspect(TRAINING, "Other settings", (), "They are part of what is compared")

COMPARED = ("name", "seed", "model.name", "train.lr", "train.amp", "train.log_test", "data.root")
"""Config keys that are compared on purpose, have no effect on a result, or whose effect is recorded elsewhere."""

EFFECTIVE: Mapping[str, Callable[[Config], object]] = {
    "train.mixup_prob": lambda c: c.train.mixup or c.train.cutmix,
    "train.mixup_switch_prob": lambda c: c.train.mixup and c.train.cutmix,
    "train.model_ema_decay": lambda c: c.train.model_ema,
    "data.augment.ratio": lambda c: c.data.augment.scale,
    "data.crop_mode": lambda c: c.data.crop_pct,
    "train.warmup_lr": lambda c: c.train.warmup_epochs,
}
"""Keys that have an effect only if another setting is on."""

UNKNOWN = object()


def caveats(entries: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]) -> list[Caveat]:
    """The caveats of a comparison, the most important first.

    Args:
        groups: name -> the runs of a model, one per seed.
    """
    found = [*_between(entries, groups), *_sizes(groups)]
    for name, group in groups.items():
        found += _within(name, group)
    found += [*_seeds(groups), *_images(entries)]
    for entry in entries:
        if entry.training["diverged"]:
            text = f"{entry.name} diverged in training, so its accuracy does not characterise its architecture."
            found.append(Caveat(CERTAINTY, text))
    for name, group in groups.items():
        timed_once = all(entry.metrics["latency_ms"] == group[0].metrics["latency_ms"] for entry in group)
        costs = {name: group[0].metrics} if timed_once else {entry.name: entry.metrics for entry in group}
        found += [Caveat(MEASUREMENT, text) for end, metrics in costs.items() for text in doubtful_costs(end, metrics)]
    return sorted(found, key=lambda caveat: WEIGHTS.index(caveat.weight))


def settings(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """Settings in which runs differ: key -> each run's value, UNKNOWN if it is not recorded or has no effect."""
    configs = [entry.run.config for entry in entries]
    rows = {key: row for key, row in differing_values(configs).items() if key not in COMPARED}
    for key, acts in EFFECTIVE.items():
        if key in rows:
            rows[key] = [value if acts(config) else UNKNOWN for value, config in zip(rows[key], configs)]
    for key in [key for key in rows if key.startswith("model.kwargs.") and "drop" not in key]:
        del rows[key]  # the architecture, which is compared
    facts = [_facts(entry) for entry in entries]
    rows |= {key: [known.get(key, UNKNOWN) for known in facts] for key in dict.fromkeys(k for f in facts for k in f)}
    return {key: row for key, row in rows.items() if _distinct(row) > 1}


def doubtful_costs(name: str, metrics: Mapping) -> list[str]:
    """A sentence for each latency whose 90th percentile is above 1.5 medians, and one if the two counts of GMACs disagree."""
    found = [
        f"The latency of {name} at batch {size} was unsteady: its 90th percentile is {times['p90'] / times['median']:.1f} "
        "times its median; measure it again on a machine that does nothing else."
        for size, times in metrics["latency_ms"].items()
        if times["p90"] > 1.5 * times["median"]
    ]
    gmacs, check = metrics["gmacs"], metrics.get("gmacs_torch")
    if check and abs(check - gmacs) > 0.05 * gmacs:
        found.append(
            f"GMACs of {name}: fvcore counts {gmacs:.4g} and PyTorch's own counter {check:.4g}; one of them does not know an "
            "operation of the model."
        )
    return found


def _facts(entry: Entry) -> dict[str, object]:
    """Facts about a run that are not in its config."""
    metrics, training, config = entry.metrics, entry.training, entry.run.config
    environment = entry.run.read_json("environment.json")
    facts = {
        "corpus": metrics.get("corpus"),
        "training images": metrics.get("train_fingerprint", "")[:8],
        "number of training images": training["num_images"]["train"],
        "epochs run": training["epochs_run"],
        "input size": size_of(metrics),
        "learning rate": config.learning_rate,
        "processes": training.get("processes"),
        "mean": metrics.get("mean"),
        "std": metrics.get("std"),
        "interpolation": metrics.get("interpolation"),
        "selected by": training["selected_by"],
        "precision of training": training.get("precision"),
        "precision of evaluation": metrics.get("precision"),
        "training device": environment.get("device"),
        "training processor": environment.get("cpu"),
        "training threads": environment.get("threads"),
        "device": metrics.get("device"),
        "threads": metrics.get("threads"),
        "attention kernel": None if metrics.get("attention_kernel") == "none" else metrics.get("attention_kernel"),
        "timed in turn with": ", ".join(metrics.get("latency_timed_with", [])),
        "python": environment.get("python"),
        "code": (environment.get("git_commit") or "")[:10],
    }
    facts |= {f"packages.{name}": version for name, version in environment.get("packages", {}).items()}
    weights = environment.get("pretrained") or {}
    facts[f"weights.{config.model.name}"] = weights.get("sha256", "")[:12]  # only runs of one model share the key
    return {key: value for key, value in facts.items() if value not in (None, "")}


def _between(entries: Sequence[Entry], groups: Mapping[str, Sequence[Entry]]) -> list[Caveat]:
    places = {id(entry): place for place, entry in enumerate(entries)}
    rows = {}
    for key, row in settings(entries).items():
        sets = [{_text(row[places[id(entry)]]) for entry in group} - {_text(UNKNOWN)} for group in groups.values()]
        if any(known != other for known in sets for other in sets if known and other):
            rows[key] = row
    labels = []
    for row in rows.values():
        labels.append({})
        for name, group in groups.items():
            values = {_text(row[places[id(entry)]]): None for entry in group}
            for entry in group:
                label = name if len(values) == 1 else entry.name
                labels[-1].setdefault(_text(row[places[id(entry)]]), {})[label] = None
    told = {
        key: ", ".join(f"{value} ({', '.join(names)})" for value, names in found.items() if value != _text(UNKNOWN))
        for key, found in zip(rows, labels)
    }
    return [
        Caveat(
            aspect.weight, f"{aspect.title}: {'; '.join(f'{key} {told[key]}' for key in keys)}. {aspect.consequence}."
        )
        for aspect, keys in _by_aspect(told).items()
    ]


def _within(name: str, group: Sequence[Entry]) -> list[Caveat]:
    """A caveat if the runs of one model differ in more than their seed."""
    told = []
    for key, row in settings(group).items():
        values = [f"{_text(value)} ({entry.name})" for entry, value in zip(group, row) if value is not UNKNOWN]
        told.append(f"{key} {', '.join(values)}")
    if not told:
        return []
    text = f"The seeds of {name} differ in more than their seed: {'; '.join(told)}. Their spread holds that too."
    return [Caveat(CERTAINTY, text)]


def _images(entries: Sequence[Entry]) -> list[Caveat]:
    """Caveats about evaluated images that are copies of training images, or that have changed since the training."""
    found = []
    copies = {entry.name: entry.metrics.get("num_copies") or 0 for entry in entries}
    if any(copies.values()):
        counts = set(copies.values())
        count = f"{counts.pop():,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
        rest = [(entry.name, entry.metrics.get("accuracy_without_copies")) for entry in entries if copies[entry.name]]
        told = "; ".join(f"{name}: {'no image is left' if share is None else f'{share:.2%}'}" for name, share in rest)
        are, them = ("is an exact copy", "it") if count == "1" else ("are exact copies", "them")
        text = f"{count} of the images {are} of training or validation images. Accuracy without {them}: {told}."
        found.append(Caveat(CERTAINTY, text))
    for entry in entries:
        if entry.metrics.get("images_since_training") == "changed":
            text = f"The images that {entry.name} was evaluated on were changed since it was trained."
            found.append(Caveat(CERTAINTY, text))
    return found


def _by_aspect(keys: Mapping[str, object]) -> dict[Aspect, list[str]]:
    owner = {
        key: next(
            (a for a in ASPECTS if any(key == k or (k.endswith(".") and key.startswith(k)) for k in a.keys)), OTHER
        )
        for key in keys
    }
    return {a: chosen for a in (*ASPECTS, OTHER) if (chosen := [key for key in keys if owner[key] is a])}


def _sizes(groups: Mapping[str, Sequence[Entry]]) -> list[Caveat]:
    found = []
    for title, key, unit in (("Parameters", "params", 1e-6), ("GMACs", "gmacs", 1)):
        values = {name: unit * group[0].metrics[key] for name, group in groups.items()}
        if max(values.values()) > 2 * min(values.values()):
            times = max(values.values()) / min(values.values())
            told = "; ".join(f"{name}: {value:.3g}{' M' if key == 'params' else ''}" for name, value in values.items())
            text = f"{title} differ by a factor of {times:.3g} ({told}): sizes are also compared."
            found.append(Caveat(ARCHITECTURE, text))
    return found


def _seeds(groups: Mapping[str, Sequence[Entry]]) -> list[Caveat]:
    counts, found = {name: len(group) for name, group in groups.items()}, []
    if set(counts.values()) != {1} and (min(counts.values()) < 3 or len(set(counts.values())) > 1):
        told = "; ".join(f"{name}: {count}" for name, count in counts.items())
        found.append(Caveat(CERTAINTY, f"Numbers of seeds ({told}): fewer than three say little about the spread."))
    for name, group in groups.items():
        if len({entry.run.config.seed for entry in group}) < len(group):
            found.append(Caveat(CERTAINTY, f"{name}: two of its runs have the same seed and count twice."))
    return found


def _distinct(row: Sequence[Any]) -> int:
    return len({_text(value) for value in row if value is not UNKNOWN})


def _text(value: Any) -> str:
    """A value as text; different values have different texts."""
    return "\0" if value is UNKNOWN else value if isinstance(value, str) else json.dumps(value)
