"""Pictures of explanations: one map with its image and probabilities, or a grid of many."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from common.plotting import MARKS
from explanation.figures import cam_grid, cam_overview
from explanation.maps import Explanation, MapSet

TARGETS = {None: "the predicted class", "label": "the true class"}


def overview(column: MapSet, explanation: Explanation) -> Figure:
    """One image, its map, the overlay and the likeliest classes."""
    names, picture = column.class_names, explanation.picture
    truth = "" if picture.label is None else f"label {names[picture.label]}, "
    verdict = (
        f"{truth}{MARKS[explanation.correct][0]}predicted {_probability(explanation, explanation.prediction, names)}"
    )
    return cam_overview(
        _pixels(explanation),
        explanation.map,
        title=f"{column.run.config.name}: {column.place} for {names[explanation.target]}\n{picture.name}: {verdict}",
        probabilities=list(zip(names, explanation.probabilities.tolist())),
        scale_note=f"raw {column.method}, negative cut to 0",
    )


def grid(columns: Sequence[MapSet], *, shared_scale: bool = False) -> Figure:
    """Rows images; columns are titled with that in which they differ (run, method, layer, target), the figure with the rest."""
    layers = [
        {c.layer.name for c in columns if c.layer and c.run is run}
        for run in {id(c.run): c.run for c in columns}.values()
    ]
    told_apart = {
        "run": len({id(column.run) for column in columns}) > 1,
        "method": len({column.method for column in columns}) > 1,
        "layer": any(len(names) > 1 for names in layers),  # default ones differ between architectures
        "target": len({column.target for column in columns}) > 1,
    }

    def describe(column: MapSet) -> dict[str, str]:
        target = TARGETS.get(column.target, f"class {column.target}")
        layer = column.layer.name if column.layer else "all layers"
        return {"run": column.run.config.name, "method": column.method, "layer": layer, "target": target}

    rows = []
    for cells in zip(*(column.explanations for column in columns)):
        picture, names = cells[0].picture, columns[0].class_names
        label = picture.name if picture.label is None else f"{picture.name}: {names[picture.label]}"
        drawn = [(e.map, caption(e, column.class_names), e.correct) for e, column in zip(cells, columns)]
        rows.append({"image": _pixels(cells[0]), "label": label, "cells": drawn})
    titles = ["\n".join(v for k, v in describe(column).items() if told_apart[k]) or column.place for column in columns]
    shared = {k: v for k, v in describe(columns[0]).items() if not told_apart[k] and k != "layer"}
    title = ", ".join(filter(None, [shared.get("run"), " of ".join(v for k, v in shared.items() if k != "run")]))
    return cam_grid(rows, titles, title=title, shared_scale=shared_scale)


def caption(explanation: Explanation, class_names: list[str]) -> str:
    """The prediction, and the class that is explained where it is another."""
    text = _probability(explanation, explanation.prediction, class_names)
    if explanation.target != explanation.prediction:
        text += f"; map of {_probability(explanation, explanation.target, class_names)}"
    return text


def _probability(explanation: Explanation, index: int, class_names: list[str]) -> str:
    return f"{class_names[index]} ({explanation.probabilities[index]:.0%})"


def _pixels(explanation: Explanation) -> np.ndarray:
    return explanation.picture.pixels.permute(1, 2, 0).numpy()  # 3 H W -> H W 3
