"""Cascading randomisation of weights (Adebayo et al. 2018): does a heat map depend on what the model has learned?"""

import copy
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from scipy.stats import rankdata
from timm.models import group_parameters
from torch import nn


def cascade(model: nn.Module, untrained: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield (name of the group, model) as one group of layers after the other is replaced, from the head to the stem.

    It is one copy of ``model`` that is yielded again and again; ``model`` itself stays as it is.

    Args:
        untrained: the same architecture with fresh weights.
    """
    randomized = copy.deepcopy(model)
    owned, fresh = randomized.state_dict(), untrained.state_dict()
    for name, keys in layer_groups(model)[::-1]:
        with torch.no_grad():
            for key in keys:
                owned[key].copy_(fresh[key])
        yield name, randomized


def layer_groups(model: nn.Module) -> list[tuple[str, list[str]]]:
    """(name, keys of the state) of timm's layer groups, from stem to head; a module's buffers go with its parameters.

    A model that does not say what its groups are has one for every module, in the order of their definition.
    """
    if not hasattr(model, "group_matcher"):
        of_name: dict[str, list[str]] = {}
        for key in model.state_dict():
            of_name.setdefault(key.rpartition(".")[0] or "stem", []).append(key)
        return list(of_name.items())
    layer_of = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    of_module = {name.rpartition(".")[0]: layer for name, layer in layer_of.items()}
    groups: dict[int, list[str]] = {}
    for key in model.state_dict():
        layer = layer_of.get(key, of_module.get(key.rpartition(".")[0]))
        if layer is not None:
            groups.setdefault(layer, []).append(key)
    first, last = min(groups), max(groups)
    return [(_group_name(groups[layer], layer == first, layer == last), groups[layer]) for layer in sorted(groups)]


def correlation_with_depth(
    maps_of: Callable[[nn.Module], np.ndarray], model: nn.Module, untrained: nn.Module
) -> tuple[list[str], np.ndarray]:
    """Rank correlation of each image's map with that of the ever more randomised model.

    Args:
        maps_of: model -> B h w for a fixed batch and fixed classes; a faulty map is NaN.
    Returns:
        Names of the G groups in the order of their randomisation, and Spearman's correlation, float64 B G, NaN where a
        map is faulty.
    """
    original, names, columns = maps_of(model), [], []
    for name, randomized in cascade(model, untrained):
        names.append(name)
        columns.append(rank_correlation(original, maps_of(randomized)))
    return names, np.stack(columns, 1)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's correlation of B pairs of maps (B h w each), with mean ranks for ties; NaN if one is constant or NaN."""
    ranks = [rankdata(maps.reshape(len(maps), -1), axis=1, nan_policy="propagate") for maps in (first, second)]
    a, b = (r - r.mean(axis=1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))


def _group_name(keys: list[str], first: bool, last: bool) -> str:
    """stem, head, or what its numbered layers share: the final norm, which timm adds to the last block, has no number."""
    if first or last:
        return "stem" if first else "head"
    parts = [key.split(".") for key in keys if any(part.isdecimal() for part in key.split("."))] or [keys[0].split(".")]
    shared = [column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*parts))]
    return ".".join(shared) or parts[0][0]
