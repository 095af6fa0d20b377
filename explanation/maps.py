"""Heat maps of pictures with what they are about, and what to do where one cannot be drawn."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from common.devices import autocast
from common.runs import Run
from explanation.attention_maps import asked_by, attention_of
from explanation.attribution import heat_maps
from explanation.layers import MapLayer, map_layer
from explanation.methods import uses_layer
from explanation.pictures import Picture
from models import preprocessing

STREAMED = ("scorecam", "ablationcam")  # a pass for each channel of each image: shown image by image


@dataclass(frozen=True)
class Explanation:
    picture: Picture
    map: np.ndarray | None
    """float32 h w, raw; None if something is wrong with it."""
    fault: str | None
    """What is wrong with the map."""
    target: int
    """The class that is explained."""
    probabilities: np.ndarray
    """K."""
    seconds: float
    """That the map took: its share of the batch."""

    @property
    def prediction(self) -> int:
        return int(self.probabilities.argmax())

    @property
    def correct(self) -> bool | None:
        """None where the true class is not known."""
        return None if self.picture.label is None else self.prediction == self.picture.label


@dataclass(frozen=True)
class MapSet:
    """One map of every picture: one run, method, layer and target."""

    run: Run
    class_names: list[str]
    method: str
    layer: MapLayer | None
    """None where the method looks at none."""
    target: str | None
    """As it was asked for; None: the predicted class."""
    explanations: list[Explanation]
    remedy: str | None
    """What to do about its first fault, if it has any."""
    heads: list[np.ndarray] | None = None
    """Of method attention: M h w for each picture, every head by itself."""
    asked_by: str = ""
    """Of method attention: who looks, in words."""

    @property
    def place(self) -> str:
        return f"{self.method} at {self.layer.name}" if self.layer else self.method

    def to_dict(self) -> dict:
        grids = [list(e.map.shape) for e in self.explanations if e.map is not None]
        layer = self.layer.name if self.layer else None
        return {"method": self.method, "layer": layer, "target": self.target, "grid": grids[0] if grids else None}


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
    pictures: Sequence[Picture],
    targets: Sequence[int],
    probabilities: np.ndarray,
    *,
    method: str,
    batch_size: int,
    precision: str = "fp32",
    channels: int | None = None,
    patch: tuple[int, int] | None = None,
) -> list[Explanation]:
    """A heat map for one class of each picture, in batches; see `attribution.heat_maps`.

    ``layer`` is None for a method that looks at none; ``probabilities`` (N K) are those of `predict_pictures`.
    """
    preprocess, device = preprocessing(model), next(model.parameters()).device
    explanations = []
    step = 1 if method in STREAMED else batch_size
    with tqdm(total=len(pictures), desc=method, unit=" maps", leave=False) as bar:
        for start in range(0, len(pictures), step):
            batch, chosen = pictures[start : start + step], targets[start : start + step]
            begin = time.perf_counter()
            maps, faults = heat_maps(
                model,
                layer,
                preprocess(torch.stack([picture.pixels for picture in batch]).to(device)),
                chosen,
                method=method,
                context=lambda: autocast(device, precision),
                channels=channels,
                patch=patch,
            )
            seconds = (time.perf_counter() - begin) / len(batch)
            for i, picture in enumerate(batch):
                map_ = None if i in faults else maps[i]
                about = (chosen[i], probabilities[start + i], seconds)
                explanations.append(Explanation(picture, map_, faults.get(i), *about))
            bar.update(len(batch))
    return explanations


def attention_of_heads(
    model: nn.Module, layer: MapLayer, pictures: Sequence[Picture], patch: tuple[int, int] | None
) -> dict:
    """What a MapSet of method attention holds beside the mean over the heads."""
    preprocess, device = preprocessing(model), next(model.parameters()).device
    with torch.no_grad():
        heads = [attention_of(model, preprocess(p.pixels[None].to(device)), layer.name, patch)[0] for p in pictures]
    return {"heads": [one.cpu().numpy() for one in heads], "asked_by": asked_by(model, patch)}


def find_remedy(model: nn.Module, method: str, layer: MapLayer | None, faulty: Explanation) -> str:
    """What to ask for instead of an unusable map: the first of a few that works on this very picture."""
    layers = {default.name: default for default in ([map_layer(model)] + [layer] * bool(layer))}
    tried = [(m, x) for m in (method, "layercam", "hirescam", "gradcamelementwise") for x in layers.values()]
    if not uses_layer(method):
        tried = tried[len(layers) :]
    for other, place in tried:
        if layer and (other, place.name) == (method, layer.name):
            continue
        about = dict(method=other, batch_size=1)
        (attempt,) = explain(model, place, [faulty.picture], [faulty.target], faulty.probabilities[None], **about)
        if attempt.fault is None:
            return f"--layer {place.name} --method {other} gives one"
    return "no other layer or method that was tried gives one either"
