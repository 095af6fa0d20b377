"""Heat maps of pictures with class and prediction, and a remedy if a map is unusable."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common.runs import Run
from explanation.attention_maps import asked_by, attention_of
from explanation.attribution import DEFAULTS, Options, heat_maps
from explanation.layers import MapLayer, map_layer
from explanation.methods import uses_layer
from explanation.pictures import Picture
from models import preprocessing

STREAMED = ("scorecam", "ablationcam")  # a pass for each channel of each image, so that progress is shown by image


@dataclass(frozen=True)
class Question:
    """A picture and the class that is to be explained in it."""

    picture: Picture
    target: int
    """The class that is explained."""
    probabilities: np.ndarray
    """K: the model's probabilities, see `predict_pictures`."""

    @property
    def prediction(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def correct(self) -> bool | None:
        """Whether the prediction is right; None if the true class is not known."""
        return None if self.picture.label is None else self.prediction == self.picture.label


@dataclass(frozen=True)
class Explanation(Question):
    """A question with its heat map."""

    map: np.ndarray | None
    """float32 h w, raw; None if something is wrong with it."""
    fault: str | None
    """What is wrong with the map."""
    seconds: float
    """Computation time of the map: its share of the batch's."""


@dataclass(frozen=True)
class MapSet:
    """One map of every picture: one run, method, layer and target."""

    run: Run
    class_names: list[str]
    method: str
    layer: MapLayer | None
    """None if the method uses no layer."""
    target: str | None
    """As given by --target; None: the predicted class."""
    explanations: list[Explanation]
    remedy: str | None
    """What to do about its first fault, if it has any."""
    heads: list[np.ndarray] | None = None
    """For method attention: M h w for each picture, one map per head."""
    asked_by: str = ""
    """For method attention: the query in words."""

    @property
    def place(self) -> str:
        return f"{self.method} at {self.layer.name}" if self.layer else self.method

    @property
    def seconds(self) -> float:
        """What a map took, the median over the pictures."""
        return statistics.median(explanation.seconds for explanation in self.explanations)

    def to_dict(self) -> dict:
        grids = [list(e.map.shape) for e in self.explanations if e.map is not None]
        layer = self.layer.name if self.layer else None
        about = {"method": self.method, "layer": layer, "target": self.target, "grid": grids[0] if grids else None}
        return about | {"seconds_per_map": self.seconds}


# ---------------------------------------------------------------- explanations


def predict_pictures(model: nn.Module, pictures: Sequence[Picture], batch_size: int) -> np.ndarray:
    """Probabilities, float32 N K."""
    preprocess, device = preprocessing(model), next(model.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(pictures), batch_size):
            images = torch.stack([picture.pixels for picture in pictures[start : start + batch_size]])
            parts.append(model(preprocess(images.to(device))).float().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def explain(
    model: nn.Module,
    layer: MapLayer | None,
    questions: Sequence[Question],
    *,
    method: str,
    batch_size: int,
    options: Options = DEFAULTS,
) -> list[Explanation]:
    """A heat map for each question, in batches; see `attribution.heat_maps`.

    ``layer`` is None for a method that uses none.
    """
    preprocess, device = preprocessing(model), next(model.parameters()).device
    explanations = []
    step = 1 if method in STREAMED else batch_size
    with tqdm(total=len(questions), desc=method, unit=" maps", leave=False) as bar:
        for start in range(0, len(questions), step):
            batch = questions[start : start + step]
            begin = time.perf_counter()
            maps, faults = heat_maps(
                model,
                layer,
                preprocess(torch.stack([question.picture.pixels for question in batch]).to(device)),
                [question.target for question in batch],
                method=method,
                options=options,
            )
            seconds = (time.perf_counter() - begin) / len(batch)
            for i, question in enumerate(batch):
                asked = (question.picture, question.target, question.probabilities)
                answer = (None if i in faults else maps[i], faults.get(i), seconds)
                explanations.append(Explanation(*asked, *answer))
            bar.update(len(batch))
    return explanations


def attention_of_heads(
    model: nn.Module, layer: MapLayer, pictures: Sequence[Picture], patch: tuple[int, int] | None
) -> dict:
    """The fields of a MapSet that only method attention has: the map of each head, and the query in words."""
    preprocess, device = preprocessing(model), next(model.parameters()).device
    with torch.no_grad():
        heads = [attention_of(model, preprocess(p.pixels[None].to(device)), layer.name, patch)[0] for p in pictures]
    return {"heads": [one.cpu().numpy() for one in heads], "asked_by": asked_by(model, patch)}


def find_remedy(model: nn.Module, method: str, layer: MapLayer | None, faulty: Explanation) -> str:
    """Options to use instead of an unusable map: the first layer and method of a few that gives a map of this picture."""
    layers = {default.name: default for default in ([map_layer(model)] + [layer] * bool(layer))}
    tried = [(m, x) for m in (method, "layercam", "hirescam", "gradcamelementwise") for x in layers.values()]
    if not uses_layer(method):
        tried = tried[len(layers) :]
    for other, place in tried:
        if layer and (other, place.name) == (method, layer.name):
            continue
        (attempt,) = explain(model, place, [faulty], method=other, batch_size=1)
        if attempt.fault is None:
            return f"--layer {place.name} --method {other} gives one"
    return "no other layer or method that was tried gives one either"
