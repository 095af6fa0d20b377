"""`--method auto`: which method, at which layer, for which architecture. Chosen by benchmarks/planted_pattern.py."""

from dataclasses import dataclass

from torch import nn

from explanation.layers import MapLayer, map_layer, stage_starts


@dataclass(frozen=True)
class Choice:
    method: str
    layer: MapLayer | None
    """None where the method looks at none."""
    rule: str
    """Why, in words."""


def choose(model: nn.Module) -> Choice:
    """The method and the layer for this architecture.

    docs/explanations.md has the measurements: each rule is the best mean over the models of its family, with real photos.
    """
    starts = stage_starts(model)
    if not starts:
        return Choice("gradcam", map_layer(model), "convolutional network: Grad-CAM at the last stage")
    if len(starts) == 1:
        return Choice("lrp", map_layer(model, "patch_embed"), "one grid of patches: lrp at the embedded patches")
    return Choice("lrp", next_stage(model, starts), "stages of patches")


def next_stage(model, starts):
    for name in reversed(starts):
        layer = map_layer(model, name)
        if layer.grid != (1, 1):
            return layer
