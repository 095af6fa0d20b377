"""Pictures of explanations: one map with its photo and probabilities, the overlay alone, or a grid of many."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from common.plotting import MARKS
from explanation.figures import cam_overview
from explanation.grids import Cell, cam_grid
from explanation.maps import Explanation, MapSet
from explanation.methods import CLASSLESS
from explanation.overlays import Style, View, overlay_alone, scale_of

TARGETS = {None: "the predicted class", "label": "the true class"}
LAYER_SIDE = 400  # pixels of the longer side of a layer; a page shows it at half this size
THUMBNAIL = 600  # pixels of the longer side of a photo in a grid; more would not be visible


def overview(column: MapSet, explanation: Explanation, style: Style) -> Figure:
    """One photo, its map, the overlay and the likeliest classes."""
    names, picture = column.class_names, explanation.picture
    truth = "" if picture.label is None else f"label {names[picture.label]}, "
    verdict = (
        f"{truth}{MARKS[explanation.correct][0]}predicted {_probability(explanation, explanation.prediction, names)}"
    )
    about = f"for {names[explanation.target]}"
    if column.method in CLASSLESS:
        about = f"of {column.asked_by}" if column.asked_by else "(of no one class)"
    return cam_overview(
        picture.view(),
        explanation.map,
        title=f"{column.run.config.name}: {column.place} {about}\n{picture.name}: {verdict}",
        probabilities=list(zip(names, explanation.probabilities.tolist())),
        explained=explanation.target,
        scale_note="share of the attention"
        if column.method == "attention"
        else f"raw {column.method}, negative cut to 0",
        style=style,
    )


def overlay(explanation: Explanation, style: Style) -> Figure:
    """The photo with its map on top, without axes and text."""
    return overlay_alone(explanation.picture.view(), explanation.map, scale_of([explanation.map]), style)


def layers(view: View, cam: np.ndarray, scale: float, style: Style) -> tuple[np.ndarray, np.ndarray]:
    """The photo, uint8 H W 3, and its map as a transparent layer over it, uint8 H W 4; large photos are shrunk."""
    height, width = view.photo.shape[:2]
    times = min(1.0, LAYER_SIDE / max(height, width))
    size = max(1, round(times * width)), max(1, round(times * height))
    photo = np.asarray(Image.fromarray(view.photo).resize(size, Image.Resampling.BILINEAR)) if times < 1 else view.photo
    left, top, right, bottom = (round(times * edge) for edge in view.seen)
    values = np.clip(np.asarray(cam, np.float32) / scale, 0, 1)
    spread = Image.fromarray(values).resize((max(1, right - left), max(1, bottom - top)), Image.Resampling.BILINEAR)
    whole = Image.new("F", size)
    whole.paste(spread, (left, top))
    values = np.asarray(whole)
    colors = np.concatenate([colormaps[style.cmap](values)[..., :3], style.opacity(values)[..., None]], axis=-1)
    return photo, (255 * colors).round().astype(np.uint8)


def grid(columns: Sequence[MapSet], *, shared_scale: bool = False, style: Style) -> list[Figure]:
    """Pages of maps: rows are images; columns are titled with what differs between them (run, method, layer, target).

    What they have in common is the title of the figures.
    """
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

    rows = [_row(explanations, columns) for explanations in zip(*(column.explanations for column in columns))]
    titles = ["\n".join(v for k, v in describe(column).items() if told_apart[k]) or column.place for column in columns]
    shared = {k: v for k, v in describe(columns[0]).items() if not told_apart[k] and k != "layer"}
    title = ", ".join(filter(None, [shared.get("run"), " of ".join(v for k, v in shared.items() if k != "run")]))
    return cam_grid(rows, titles, title=title, shared_scale=shared_scale, style=style)


def _row(explanations: Sequence[Explanation], columns: Sequence[MapSet]) -> list[Cell]:
    """One image, then its map of each column."""
    picture, names = explanations[0].picture, columns[0].class_names
    label = picture.name if picture.label is None else f"{picture.name}: {names[picture.label]}"
    cells = [
        Cell(e.picture.view(THUMBNAIL), caption(e, column.class_names), e.correct, e.map, e.fault or "")
        for e, column in zip(explanations, columns)
    ]
    return [Cell(cells[0].view, label), *cells]


def caption(explanation: Explanation, class_names: list[str]) -> str:
    """The predicted class, and the explained class if it is another."""
    text = _probability(explanation, explanation.prediction, class_names)
    if explanation.target != explanation.prediction:
        text += f"; map of {_probability(explanation, explanation.target, class_names)}"
    return text


def _probability(explanation: Explanation, index: int, class_names: list[str]) -> str:
    return f"{class_names[index]} ({explanation.probabilities[index]:.0%})"
