"""Similarity of two networks: centred kernel alignment of their layers' representations of the same images.

Legend: N images, P numbers in a layer's output for an image.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import Split
from explanation.attention import record_attention
from explanation.quality.heads import attention_distance
from models import input_spec, preprocessing

BATCH = 16


@dataclass(frozen=True)
class Representations:
    """Representations of some images in a model's blocks."""

    names: list[str]
    """Of the blocks, first to last."""
    grams: Tensor
    """float64 L N N: inner products of the images' representations, block by block."""
    distances: dict[str, np.ndarray]
    """Mean attention distance of each head in pixels of the input, by attention layer; empty without attention."""


def blocks_of(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks of a network (ViT and Swin blocks, residual blocks) by name, first to last.

    These are the members of lists and sequences that have submodules, innermost ones only.
    """
    chains = (nn.ModuleList, nn.Sequential)
    units = {
        name: module
        for parent_name, parent in model.named_modules()
        if isinstance(parent, chains)
        for child, module in parent.named_children()
        for name in [f"{parent_name}.{child}"]
        if not isinstance(module, chains) and len(list(module.children())) > 1
    }
    return {name: unit for name, unit in units.items() if not any(other.startswith(f"{name}.") for other in units)}


def represent(model: nn.Module, split: Split, indices: Sequence[int], *, title: str = "") -> Representations:
    """Representations of images of a split; only the inner products between images are kept, not the blocks' outputs."""
    blocks, preprocess = blocks_of(model), preprocessing(model)
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no blocks in a row whose outputs could be compared")
    device = next(model.parameters()).device
    kept: dict[str, list[Tensor]] = {}
    distances: dict[str, Tensor] = {}
    parts: dict[str, list[Tensor]] = {}

    def hook_of(name):
        return lambda module, args, output: kept.setdefault(name, []).append(output)

    with ExitStack() as hooks:
        for name, block in blocks.items():
            hooks.enter_context(block.register_forward_hook(hook_of(name)))
        for start in tqdm(range(0, len(indices), BATCH), title, leave=False):
            chosen = indices[start : start + BATCH]
            images = preprocess(torch.stack([split.image(int(i)) for i in chosen]).to(device))
            kept.clear()
            with torch.no_grad():
                for name, distance in _forward(model, images).items():
                    distances[name] = distances.get(name, 0) + distance
            for name, outputs in kept.items():
                if isinstance(outputs[0], Tensor) and len(outputs[0]) == len(chosen):
                    parts.setdefault(name, []).append(_compact(outputs[0].flatten(1)))
    names = [name for name in blocks if name in parts]
    grams = torch.stack([_gram(torch.cat(parts.pop(name))) for name in names])
    return Representations(names, grams, {n: (d / len(indices)).cpu().numpy() for n, d in distances.items()})


def _forward(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """One pass -> layer: its heads' attention distances, summed over the images; empty for a model without attention."""
    try:
        layers = record_attention(model, images)[1]
    except ValueError:  # no attention over one grid
        model(images)
        return {}
    return {layer.name: attention_distance(layer, input_spec(model).size).sum(0) for layer in layers}


def _compact(features: Tensor) -> Tensor:
    """The features in half precision, if no value is too large for it."""
    return (features.half() if features.abs().max() < 60_000 else features).cpu()


def _gram(features: Tensor) -> Tensor:
    """N P -> float64 N N of centred features; summed over columns a part at a time, since P can be large."""
    gram = torch.zeros(len(features), len(features), dtype=torch.float64)
    for part in features.split(65_536, dim=1):
        centred = part.float() - part.float().mean(dim=0)
        gram += (centred @ centred.T).double()
    return gram


def unbiased_hsic(first: Tensor, second: Tensor) -> float:
    """Hilbert-Schmidt independence criterion of two N N Gram matrices, its unbiased estimator (Song et al. 2012, eq. 5)."""
    count = len(first)
    if count < 4:
        raise ValueError(f"{count} images are too few for the unbiased estimator; take at least 4")
    k, m = (gram.double() - torch.diag(gram.double().diagonal()) for gram in (first, second))
    trace = (k * m).sum()
    sums = k.sum() * m.sum() / ((count - 1) * (count - 2))
    cross = 2 / (count - 2) * (k.sum(dim=0) @ m.sum(dim=1))
    return float((trace + sums - cross) / (count * (count - 3)))


def cka(first: Tensor, second: Tensor) -> np.ndarray:
    """Linear centred kernel alignment (Kornblith et al. 2019) of every layer of L1 N N with every one of L2 N N; L1 L2.

    With the unbiased estimator (Nguyen et al. 2021, eq. 3): 1 for equal representations, about 0 for unrelated ones, the
    same after a rotation or a change of scale.
    """
    own = [np.array([unbiased_hsic(gram, gram) for gram in grams]) for grams in (first, second)]
    cross = np.array([[unbiased_hsic(a, b) for b in second] for a in first])
    return cross / np.sqrt(np.clip(own[0], 1e-300, None)[:, None] * np.clip(own[1], 1e-300, None))
