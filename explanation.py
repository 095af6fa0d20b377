"""Explanations of single images: which pictures, which classes, and the maps with what they are about."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from analysis.attribution import heat_maps, uses_layer
from data import Split, load_dataset
from devices import autocast
from inference import preprocessing
from models import CamLayer, cam_layer
from runs import Run
from sources import fit_image, open_image

STREAMED = ("scorecam", "ablationcam")  # a pass for each channel of each image: shown image by image


@dataclass(frozen=True)
class Picture:
    name: str
    """What its files are called."""
    pixels: Tensor
    """uint8 3 H W."""
    label: int | None
    """True class, where it is known."""


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
class Column:
    """One map of every picture: one run, method, layer and target."""

    run: Run
    class_names: list[str]
    method: str
    layer: CamLayer | None
    """None where the method looks at none."""
    target: str | None
    """As it was asked for; None: the predicted class."""
    explanations: list[Explanation]
    remedy: str | None
    """What to do about its first fault, if it has any."""

    @property
    def place(self) -> str:
        return f"{self.method} at {self.layer.name}" if self.layer else self.method

    def to_dict(self) -> dict:
        grids = [list(e.map.shape) for e in self.explanations if e.map is not None]
        layer = self.layer.name if self.layer else None
        return {"method": self.method, "layer": layer, "target": self.target, "grid": grids[0] if grids else None}


# ---------------------------------------------------------------- what is explained


def read_pictures(run: Run, paths: Sequence[Path]) -> list[Picture]:
    """Image files of any size and mode, as ``run``'s model is fed them. Files of one name are told apart by their folder."""
    cfg = run.config.data
    names = [path.stem for path in paths]
    repeated = {name for name, count in Counter(names).items() if count > 1}
    names = [f"{p.resolve().parent.name}-{p.stem}" if p.stem in repeated else p.stem for p in paths]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"--image: two files would be called {twice[0]}; give each file once, or rename one")
    images = [open_image(path) for path in paths]
    for path, image in zip(paths, images):
        if min(image.size) < 2:
            raise ValueError(
                f"{path}: of {image.width}x{image.height} pixels one remains; there is nothing to locate in it"
            )
    return [Picture(name, fit_image(x, cfg.size, cfg.photo_filter), None) for name, x in zip(names, images)]


def load_split(run: Run, name: str, checkpoint: dict) -> Split:
    """Images of a run that trained ``checkpoint``; ValueError if the data have changed since."""
    dataset = load_dataset(run.config.data, seed=run.config.data.split_seed)
    dataset.check_images(checkpoint.get("images", {}))
    return dataset.split(name)


def pick_pictures(
    run: Run,
    split_name: str,
    checkpoint: dict,
    *,
    indices: Sequence[int] | None = None,
    random: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
) -> list[Picture]:
    """Images of one of ``run``'s splits: at ``indices``, or drawn with ``seed``: ``random`` ones, or some of each class."""
    split = load_split(run, split_name, checkpoint)
    if random is not None:
        indices = sample_indices(split, random, seed, option="--random")
    elif per_class is not None:
        indices = sample_each_class(split, per_class, seed)
    return [Picture(f"{split_name}-{i}", split.image(i), int(split.labels[i])) for i in dict.fromkeys(indices)]


def sample_indices(split: Split, count: int, seed: int, *, option: str) -> list[int]:
    """``count`` seeded positions of a split, ascending. Raises ValueError, naming the option, for more than there are."""
    if not 1 <= count <= len(split):
        raise ValueError(f"{option} {count}: the {split.name} split has {len(split)} images; ask for 1 to that")
    return np.sort(np.random.default_rng(seed).choice(len(split), count, replace=False)).tolist()


def sample_each_class(split: Split, count: int, seed: int) -> list[int]:
    """Seeded positions of ``count`` images of each class, class by class; all of a class that has fewer."""
    if count < 1:
        raise ValueError(f"--per-class {count}: ask for one image of each class at least")
    shuffled = np.random.default_rng(seed).permutation(len(split))
    labels = np.asarray(split.labels)[shuffled]
    return [int(i) for label in np.unique(labels) for i in shuffled[labels == label][:count]]


def find_class(name: str, class_names: list[str]) -> int:
    """Its index, by name or number. Raises ValueError, with the classes, if there is none such."""
    if name in class_names:  # first, since a class may be called by a number
        return class_names.index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    raise ValueError(f"--target {name}: not a class; classes: {', '.join(class_names)}, or 0 to {len(class_names) - 1}")


def check_targets(targets: Sequence[str], class_names: list[str], pictures: Sequence[Picture]) -> None:
    """Raise ValueError for what is no class, for a class that is given twice, and for labels that are not known."""
    seen = {}
    for target in targets:
        if target == "label" and target not in class_names:
            if any(picture.label is None for picture in pictures):
                raise ValueError("--target label: an image file has no label; name a class")
            key = "label"
        else:
            key = class_names[find_class(target, class_names)]
        if key in seen:
            raise ValueError(f"--target {seen[key]} {target}: both are class {key}; give each class once")
        seen[key] = target


def choose_targets(
    target: str | None, class_names: list[str], pictures: Sequence[Picture], probabilities: np.ndarray
) -> list[int]:
    """The class to explain in each picture: the predicted one (None), the true one ("label"), or the one class named."""
    if target is None:
        return probabilities.argmax(axis=1).tolist()
    if target == "label" and target not in class_names:
        return [picture.label for picture in pictures]
    return [find_class(target, class_names)] * len(pictures)


# ---------------------------------------------------------------- explanations


def predict_pictures(model: nn.Module, pictures: Sequence[Picture], batch_size: int) -> np.ndarray:
    """Probabilities, float32 N K."""
    preprocess, device = preprocessing(model), next(model.parameters()).device
    parts = []
    with torch.inference_mode():
        for start in range(0, len(pictures), batch_size):
            images = torch.stack([picture.pixels for picture in pictures[start : start + batch_size]])
            parts.append(model(preprocess(images.to(device))).float().softmax(dim=1).cpu().numpy())
    return np.concatenate(parts)


def explain(
    model: nn.Module,
    layer: CamLayer | None,
    pictures: Sequence[Picture],
    targets: Sequence[int],
    probabilities: np.ndarray,
    *,
    method: str,
    batch_size: int,
    precision: str = "fp32",
    channels: int | None = None,
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
            begin, faults = time.perf_counter(), {}
            maps = heat_maps(
                model,
                layer and layer.module,
                layer and layer.to_maps,
                preprocess(torch.stack([picture.pixels for picture in batch]).to(device)),
                chosen,
                method=method,
                layer_name=layer.name if layer else "no layer",
                faults=faults,
                context=lambda: autocast(device, precision),
                channels=channels,
            )
            seconds = (time.perf_counter() - begin) / len(batch)
            for i, picture in enumerate(batch):
                map_ = None if i in faults else maps[i]
                about = (chosen[i], probabilities[start + i], seconds)
                explanations.append(Explanation(picture, map_, faults.get(i), *about))
            bar.update(len(batch))
    return explanations


def find_remedy(model: nn.Module, method: str, layer: CamLayer | None, faulty: Explanation) -> str:
    """What to ask for instead of a map that says nothing: the first of a few that works on this very picture."""
    layers = {default.name: default for default in ([cam_layer(model)] + [layer] * bool(layer))}
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
