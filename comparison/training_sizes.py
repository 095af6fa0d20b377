"""Accuracy against the number of training images, for models that were trained on several numbers of them.

Legend: N test images, S runs (seeds) of a model on one number of training images.
"""

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from common.config_files import differing_values
from common.plotting import PLAIN_TICKS, new_figure, run_style, shared_legend, tidy
from comparison.entries import SEED_KEYS, Entry
from comparison.significance import Difference, Hits, accuracy_interval, two_way_difference

FREE_KEYS = SEED_KEYS | {"data.train_fraction", "train.epochs", "train.warmup_epochs"}
"""Keys in which the runs of one curve may differ; epochs are among them so that all runs can have equally many steps."""


@dataclass(frozen=True)
class Curve:
    """One model trained on several numbers of training images, ascending."""

    name: str
    hits: dict[int, np.ndarray]
    """Number of training images -> bool S N, which test images its runs get right."""

    def accuracy(self) -> np.ndarray:
        return np.array([hits.mean() for hits in self.hits.values()])

    def intervals(self) -> np.ndarray:
        """95 % bounds of each accuracy, sizes 2: over images (Wilson) for a single run, over images and seeds for several."""
        return np.array([accuracy_interval(hits) for hits in self.hits.values()])


def find_curves(entries: Sequence[Entry]) -> list[Curve]:
    """Curves of runs that differ only in FREE_KEYS; a model with a single number of training images has no curve."""
    families: list[list[Entry]] = []
    for entry in entries:
        for family in families:
            if differing_values([family[0].run.config, entry.run.config]).keys() <= FREE_KEYS:
                family.append(entry)
                break
        else:
            families.append([entry])
    curves = []
    for family in families:
        counts = sorted({entry.training["num_images"]["train"] for entry in family})
        if len(counts) > 1:
            hits = {n: np.stack([e.predictions.correct for e in family if _count(e) == n]) for n in counts}
            curves.append(Curve(_name(family), hits))
    return curves


def crossings(curves: Sequence[Curve], *, level: float = 0.05) -> list[str]:
    """A sentence for every two models: where their curves cross, or that they do not.

    The intervals of the differences are simultaneous for all pairs and numbers of images (Bonferroni).
    """
    pairs = list(itertools.combinations(curves, 2))
    shared = [sorted(first.hits.keys() & second.hits.keys()) for first, second in pairs]
    sentences = []
    for (first, second), counts in zip(pairs, shared):
        if len(counts) < 2:
            sentences.append(f"{first.name} and {second.name} share fewer than two numbers of training images.")
            continue
        found = [two_way_difference(Hits.of(first.hits[count]), Hits.of(second.hits[count])) for count in counts]
        sentences.append(_sentence((first.name, second.name), counts, found, level / sum(map(len, shared))))
    return sentences


def draw_curves(curves: Sequence[Curve], *, title: str | None = None) -> Figure:
    """Accuracy with its interval against the number of training images, one line per model."""
    figure = new_figure(7, 4.4, title)
    axes = figure.subplots()
    for index, curve in enumerate(curves):
        counts, accuracy, bounds = list(curve.hits), 100 * curve.accuracy(), 100 * curve.intervals()
        look = run_style(index) | {"marker": run_style(index).get("marker") or "o"}
        axes.fill_between(counts, *bounds.T, color=look["color"], alpha=0.15, linewidth=0)
        axes.plot(counts, accuracy, label=curve.name, **look)
    counts = sorted(set().union(*(curve.hits for curve in curves)))
    axes.set_xscale("log")
    axes.set_xticks(counts)
    axes.xaxis.set_major_formatter(PLAIN_TICKS)
    axes.minorticks_off()
    axes.set(xlabel="training images", ylabel="test accuracy (%)")
    tidy(axes)
    shared_legend(figure)
    return figure


def _sentence(names: tuple[str, str], counts: list[int], differences: list[Difference], level: float) -> str:
    signs = np.sign([difference.value for difference in differences])
    sure = [_sure_sign(difference, level) for difference in differences]
    ends = f"{counts[0]:,} and {counts[-1]:,} training images"
    leads = [names[0] if sign > 0 else names[1] for sign in signs]
    turns = [i for i in range(1, len(counts)) if signs[i] * signs[i - 1] < 0]
    if not turns:
        ahead = f"{leads[0]} is above {names[1] if leads[0] == names[0] else names[0]}"
        some = ", ".join(f"{count:,}" for count, sign in zip(counts, sure) if sign)
        where = "at each number of images" if all(sure) else f"at {some}" if some else "nowhere"
        return f"{ahead} throughout; no crossing between {ends}. The difference is more than chance explains {where}."
    places = ", ".join(f"between {counts[i - 1]:,} and {counts[i]:,} ({leads[i]} takes over)" for i in turns)
    before, after = set(sure[: turns[0]]) - {0}, set(sure[turns[-1] :]) - {0}
    real = before == {signs[turns[0] - 1]} and after == {signs[turns[-1]]}
    verdict = "chance does not explain it" if real else "chance may explain it: on one side no difference is certain"
    return f"{names[0]} and {names[1]} cross {places}; {verdict}."


def _sure_sign(difference: Difference, level: float) -> int:
    low, high = difference.interval(level)
    return 0 if low <= 0 <= high else int(np.sign(difference.value))


def _count(entry: Entry) -> int:
    return entry.training["num_images"]["train"]


def _name(family: Sequence[Entry]) -> str:
    """The common beginning of the runs' names, without numbers; if it is empty, the architecture's name."""
    shared = os.path.commonprefix([entry.name for entry in family])
    return re.sub(r"[-_.]*(train_fraction)?[-_./\d]*$", "", shared) or family[0].run.config.model.name
