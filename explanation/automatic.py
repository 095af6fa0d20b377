"""`--method auto`: which method, at which layer, for which architecture.

The rules follow from benchmarks/planted_pattern.py and benchmarks/real_photos.py; docs/explanations.md has the tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from explanation.layers import SMALLEST_GRID, MapLayer, embedded_tokens, map_layer, stage_starts
from explanation.rollout import attention_rollout
from models import input_spec


@dataclass(frozen=True)
class Choice:
    method: str
    layer: MapLayer | None
    """None if the method uses no layer."""
    rule: str
    """Why, in words."""


def choose(model: nn.Module) -> Choice:
    """The method and the layer for this architecture. Raises ValueError if no layer of the model gives a map."""
    stages = len(stage_starts(model))
    if not stages and embedded_tokens(model):
        rule = "tokens without attention: relevance of the patches against the other classes"
        return Choice("sglrp", relevance_layer(model), rule)
    if not stages:
        layer = map_layer(model)
        return Choice("gradcam", layer, f"no attention: Grad-CAM at {layer.rule}")
    layer = relevance_layer(model)
    if stages > 1:
        rule = "stages of patches: relevance against the other classes, where the last stage begins that is fine enough"
        return Choice("sglrp", layer, rule)
    if _can_roll_out(model):
        return Choice("lrprollout", layer, "attention over one grid: relevance of the patches times gradient rollout")
    return Choice("lrp", layer, "attention that cannot be rolled out: relevance of the patches")


def relevance_layer(model: nn.Module) -> MapLayer:
    """The best layer for relevance: the start of a Swin's last stage with a grid fine enough, or else the embedded patches.

    For models without tokens, and if these layers give no map: the default layer of the other methods.
    """
    starts = stage_starts(model)
    places = [name for start in reversed(starts[1:]) for name in (start.rpartition("blocks.")[0] + "downsample", start)]
    places.append("patch_embed" if starts else embedded_tokens(model))
    layers = [layer for name in places if name and (layer := _layer_or_none(model, name))]
    return _first_fine(layers) or map_layer(model)


def _first_fine(layers: Sequence[MapLayer]) -> MapLayer | None:
    """The first layer with at least `SMALLEST_GRID` cells per side, or else the first with more than one cell."""
    usable = [layer for layer in layers if layer.grid != (1, 1)]
    return next((layer for layer in usable if min(layer.grid) >= SMALLEST_GRID), usable[0] if usable else None)


def _layer_or_none(model: nn.Module, name: str) -> MapLayer | None:
    try:
        return map_layer(model, name)
    except ValueError:  # no such layer, or no map
        return None


def default_layer(model: nn.Module, method: str) -> MapLayer:
    """The layer that ``method`` uses if none is named."""
    return relevance_layer(model) if method in ("lrp", "sglrp", "lrprollout") else map_layer(model)


def _can_roll_out(model: nn.Module) -> bool:
    image = torch.zeros(1, 3, *input_spec(model).size, device=next(model.parameters()).device)
    try:
        with torch.no_grad():
            attention_rollout(model, image)
    except ValueError:
        return False
    return True
