"""Comparison of cross-validated models: the runs of one configuration, one per fold, count as one model that is tested once.

Each image is tested by the run of the fold that did not train on it. The predictions of all folds are joined, and models
are compared on them as single runs are. Folds are not independent repetitions: any two of them share most of their training
images, so that their spread is not a standard error (Bengio and Grandvalet 2004).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common import documents
from common.comparisons import comparison_folder
from common.config_files import differing_values
from common.console import print_result, print_table
from common.documents import Section, format_interval
from common.runs import Run
from comparison.caveats import CERTAINTY, WEIGHTS, Caveat, caveats
from comparison.entries import SEED_KEYS, Entry, check_comparable, read_entries, shorten_names
from comparison.significance import accuracy_interval, compare_pairs, rule_notes
from evaluation.tables import data_name

MAY_DIFFER = SEED_KEYS - {"seed"} | {"data.fold"}
IN_NAMES = re.compile(r"[-_.]?fold[-_]?\d+(_(of_)?\d+)?")


def are_folds(runs: Sequence[Run]) -> bool:
    """Whether these are runs of different folds."""
    return len({run.config.data.fold for run in runs}) > 1


def group_by_fold(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Configurations by name, each with its folds in order. Raises ValueError unless each has all of the same folds."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if entry.run.config.data.fold is None:
            raise ValueError(
                f"{entry.run.directory} has no data.fold, but other runs have; compare folds only with folds"
            )
        alike = (g for g in groups if differing_values([g[0].run.config, entry.run.config]).keys() <= MAY_DIFFER)
        group = next(alike, None)
        if group is None:
            groups.append([entry])
        else:
            group.append(entry)
    for group in groups:
        group.sort(key=fold_of)
    named = dict(zip(names_of(groups), groups))
    for name, group in named.items():
        check_complete(name, group)
    first, *others = named.values()
    for group in others:
        if len(group) != len(first):
            raise ValueError(
                f"{group[0].run.directory} has {len(group)} folds and {first[0].run.directory} {len(first)}; compare "
                "configurations that have the same folds"
            )
        for one, other in zip(first, group):
            check_comparable([one, other])
    return named


def names_of(groups: Sequence[Sequence[Entry]]) -> list[str]:
    """A name for each group: its runs' name without the fold and the common beginning; if two are equal, the first run's."""
    names = [IN_NAMES.sub("", group[0].run.config.name) for group in groups]
    return shorten_names(names if len(set(names)) == len(names) else [group[0].run.config.name for group in groups])


def fold_of(entry: Entry) -> tuple[int, int]:
    """Number and count of ``data.fold``."""
    number, count = map(int, entry.run.config.data.fold.split("/"))
    return number, count


def check_complete(name: str, group: Sequence[Entry]) -> None:
    """Raise ValueError unless the runs of a configuration test each image of its data once."""
    folds = [entry.run.config.data.fold for entry in group]
    counts = {fold_of(entry)[1] for entry in group}
    if len(counts) > 1:
        raise ValueError(f"{name}: its folds are {', '.join(folds)}; all should have the same n in k/n")
    count = counts.pop()
    missing = [f"{k}/{count}" for k in range(1, count + 1) if f"{k}/{count}" not in folds]
    twice = sorted({fold for fold in folds if folds.count(fold) > 1})
    if missing:
        raise ValueError(f"{name}: data.fold {', '.join(missing)} is missing; train and name all {count} folds")
    if twice:
        raise ValueError(f"{name}: data.fold {', '.join(twice)} occurs twice; name one run of each fold")
    if any(entry.class_names != group[0].class_names for entry in group):
        raise ValueError(f"{name}: its folds have different classes; train all of them on the same data")
    held = [entry.training["num_images"] for entry in group]
    whole = {sum(numbers.values()) for numbers in held} if group[0].run.config.data.train_fraction == 1 else set()
    tested = sum(len(entry.predictions.labels) for entry in group)
    if len({entry.metrics["fingerprint"] for entry in group}) < len(group) or (whole and whole != {tested}):
        raise ValueError(f"{name}: its folds are not of the same images; train all of them on the same data")


def compare_folds(runs: Sequence[Run], suffix: str, output: Path | None, about: Mapping[str, str]) -> None:
    """Write the report on cross-validated configurations, from the files with ``suffix`` in their names.

    ``about``: date, command and code. Raises ValueError if a configuration lacks a fold, has one twice or none, or if the
    configurations have different folds, images or classes.
    """
    entries = read_entries(runs, suffix)
    if entries[0].metrics["split"] != "test":
        raise ValueError("folds are put together on their test images; leave out --split")
    groups = group_by_fold(entries)
    count = len(next(iter(groups.values())))
    hits = [np.concatenate([entry.predictions.correct for entry in group])[None] for group in groups.values()]
    scope = f"between these two sets of {count} models, one per fold, on such images"
    pairs = compare_pairs(list(groups), hits, scope=scope)
    found = {name: summarize(group, right) for (name, group), right in zip(groups.items(), hits)}
    warnings = find_caveats(groups)
    folder = comparison_folder(runs, output, suffix)
    rows, verdicts = fold_rows(found), [pair["sentence"] for pair in pairs]
    lead = (
        f"Data set {data_name(runs[0].config)}: {hits[0].shape[1]:,} images, each tested once, by the model of the fold that "
        f"did not learn from it; {count} folds."
    )
    told = [describe(name, summary) for name, summary in found.items()]
    sections = [
        Section("", text=(verdicts or told)[0]),
        Section("Accuracy", table=rows, findings=told if verdicts else []),
        Section("Which differences are real?", findings=verdicts),
        Section("Before you conclude", findings=[caveat.text for caveat in warnings]),
        Section("How it was computed", findings=[*rule_notes([1] * len(groups)), WHAT_IS_CLAIMED]),
    ]
    sections = [s for s in sections if s.text or s.table or s.findings]
    title = f"{' vs '.join(groups)}, {count} folds"
    texts = [caveat.text for caveat in warnings]
    stored = {"pairs": pairs, "groups": found, "caveats": texts, "runs": [run.config.name for run in runs]}
    stored |= {"claim": WHAT_IS_CLAIMED} | about
    lines = [about["date"], about["command"]]
    written = [
        folder.save_text("report.html", documents.to_html(title, sections, {}, lead=lead, about=lines)),
        folder.save_text("report.md", documents.to_markdown(title, sections, lead=lead, about=lines)),
        folder.save_json("comparison.json", stored),
    ]
    print_table([list(row.values()) for row in rows], header=list(rows[0]))
    for line in (verdicts or told) + [f"caveat: {text}" for text in texts] + [WHAT_IS_CLAIMED]:
        print(line)
    print_result({"runs": stored["runs"], "accuracy": {name: f["mean"] for name, f in found.items()}}, written)


WHAT_IS_CLAIMED = (
    "Folds are joined, not averaged as repetitions: the statements hold for these models, one per fold, on other such images. "
    "They do not show how an architecture varies with its seed and its training images."
)


def summarize(group: Sequence[Entry], hits: np.ndarray) -> dict:
    """Accuracy over all images with Wilson's interval, and of each fold; ``hits``: bool 1 N."""
    summary = {"n": 1, "mean": float(hits.mean()), "std": None, "mean_ci95": None, "num_images": hits.shape[1]}
    return summary | {
        "accuracy_ci95": accuracy_interval(hits),
        "folds": [entry.predictions.accuracy for entry in group],
    }


def describe(name: str, summary: Mapping) -> str:
    interval = format_interval(summary["accuracy_ci95"])
    return (
        f"{name} recognises {100 * summary['mean']:.2f} % of {summary['num_images']:,} images (95 % interval {interval}), "
        f"by {len(summary['folds'])} models, one per fold."
    )


def fold_rows(found: Mapping[str, Mapping]) -> list[dict[str, str]]:
    return [
        {
            "model": name,
            "accuracy (%)": f"{100 * summary['mean']:.2f}",
            "95 % interval (%)": format_interval(summary["accuracy_ci95"], unit=""),
            "lowest fold (%)": f"{100 * min(summary['folds']):.2f}",
            "highest fold (%)": f"{100 * max(summary['folds']):.2f}",
        }
        for name, summary in found.items()
    ]


def find_caveats(groups: Mapping[str, Sequence[Entry]]) -> list[Caveat]:
    """The caveats between the first folds of the configurations, and those on certainty of all other folds."""
    firsts = {name: [group[0]] for name, group in groups.items()}
    found = caveats([entry for [entry] in firsts.values()], firsts)
    for entry in (entry for group in groups.values() for entry in group[1:]):
        found += [c for c in caveats([entry], {entry.name: [entry]}) if c.weight == CERTAINTY]
    return sorted(dict.fromkeys(found), key=lambda caveat: WEIGHTS.index(caveat.weight))
