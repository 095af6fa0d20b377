"""The layers of a model whose output can become a heat map, and how it does."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from timm.layers import PatchEmbed
from torch import Tensor, nn

from common.console import did_you_mean
from explanation.place import Layout, find_layout, is_inside_attention, place_test, watch_outputs
from explanation.pooling import pooling
from models import input_spec

logger = logging.getLogger(__name__)

PLACED = ("VisionTransformer", "SwinTransformer", "SwinTransformerV2", "ResNet", "ShallowViT", "SmallViT", "Swin")
"""Classes whose layout is known; a layer of any other class has to pass the place test."""


@dataclass(frozen=True)
class MapLayer:
    """A layer whose output is a map: which module, and how its output becomes B C h w."""

    name: str
    module: nn.Module
    grid: tuple[int, int]
    to_maps: Callable[[Tensor], Tensor]
    rule: str = ""
    """Why this layer is the default, in words; empty for other layers."""


SMALLEST_GRID = 4
"""Cells per side that a default stage should have, since coarser maps locate little."""
STAGE = "the last stage of 4x4 cells or more"


def map_layer(model: nn.Module, name: str | None = None, *, method: str = "gradcam") -> MapLayer:
    """The layer ``name``, or by default the first of `default_layer_names` with more than one cell (for stages, 4x4 or more).

    If no stage has 4x4 cells, the last stage with more than one; if there is none, the last of `map_layers` that a gradient
    reaches. A forward pass on the model's device finds the grid; for an unknown architecture, a second one tests that the
    layer's cells correspond to places of the image.
    Raises ValueError for a name that the model lacks (with similar names) or whose output is no map, and for a model without
    any map.
    """
    if name is not None:
        return _named_layer(model, name)
    shapes = _output_shapes(model)
    names, rule = default_layer_names(model, method, shapes)
    coarse = None
    for candidate in names:
        layout = find_layout(model, candidate, shapes.get(candidate))
        if layout and layout.grid != (1, 1) and not _misplacement(model, candidate, layout):
            if rule != STAGE or min(layout.grid) >= SMALLEST_GRID:
                return _layer(model, candidate, layout, rule)
            coarse = coarse or _layer(model, candidate, layout, "the last stage of more than one cell")
    if coarse:
        return coarse
    listed = map_layers(model)
    reached = [layer for layer, reached in listed if reached] or [layer for layer, _ in listed]
    if reached:
        rule = "the last layer that keeps places and that a gradient reaches"
        return _layer(model, reached[-1].name, find_layout(model, reached[-1].name, shapes[reached[-1].name]), rule)
    raise ValueError(
        f"no layer of {type(model).__name__} keeps a grid larger than 1x1 of places at {_pixels(model)}; train at a larger size"
    )


def map_layers(model: nn.Module) -> list[tuple[MapLayer, bool]]:
    """Every layer with weights whose output is a map of more than one cell, in the order of computation.

    Layers that fail the place test are left out. Each comes with whether the gradient of the logits reaches its cells; if it
    does not, gradient-based maps are blank.
    """
    modules = dict(model.named_modules())
    weighted = {
        name: shape for name, shape in _output_shapes(model).items() if any(True for _ in modules[name].parameters())
    }
    layouts = {name: find_layout(model, name, shape) for name, shape in weighted.items()}
    layouts = {name: layout for name, layout in layouts.items() if layout and layout.grid != (1, 1)}
    if type(model).__name__ not in PLACED and layouts:
        placements = place_test(model, layouts)
        layouts = {n: x for n, x in layouts.items() if n not in placements or placements[n].verdict != "wrong"}
    layers = [_layer(model, name, layout) for name, layout in layouts.items()]
    return list(zip(layers, _reached(model, layers)))


def _reached(model: nn.Module, layers: list[MapLayer]) -> list[bool]:
    """Whether a gradient of the logits reaches the cells of each layer."""
    outputs: dict[str, Tensor] = {}
    modules = {layer.name: layer.module for layer in layers}
    with watch_outputs(model, modules, outputs.__setitem__), torch.enable_grad():
        images = torch.randn(1, 3, *input_spec(model).size, device=next(model.parameters()).device)
        logits = model(images.requires_grad_())
        if not logits.requires_grad or not layers:
            return [False] * len(layers)
        wanted = [outputs[layer.name] for layer in layers]
        gradients = torch.autograd.grad(logits.sum(), wanted, allow_unused=True)
    return [gradient is not None and bool(layer.to_maps(gradient).any()) for layer, gradient in zip(layers, gradients)]


def _named_layer(model: nn.Module, name: str) -> MapLayer:
    modules = dict(model.named_modules())
    if name not in modules:
        hint = did_you_mean(name, modules, count=3, cutoff=0.4)
        raise ValueError(f"--layer {name}: the model has no such layer{hint}; --list-layers shows all")
    shape = _output_shapes(model).get(name)
    layout = find_layout(model, name, shape)
    if layout:
        fault = _misplacement(model, name, layout)
    elif is_inside_attention(model, name):
        fault = "it lies inside an attention layer, whose output is not a map over the image"
    else:
        made = f"its output {shape}" if shape else "what does not run once per image, with one output,"
        fault = f"{made} is not a map over the image of {_pixels(model)}"
    if fault:
        raise ValueError(f"--layer {name}: {fault}; --list-layers shows those that are")
    return _layer(model, name, layout)


def _layer(model: nn.Module, name: str, layout: Layout, rule: str = "") -> MapLayer:
    return MapLayer(name, model.get_submodule(name), layout.grid, layout.to_maps, rule)


def _misplacement(model: nn.Module, name: str, layout: Layout) -> str | None:
    """Why a layer of an unknown family fails the place test, or None; a test without a clear result gives a warning."""
    if type(model).__name__ in PLACED:
        return None
    placement = place_test(model, {name: layout}).get(name)
    if placement and placement.verdict == "mixed":
        logger.warning(
            "%s of %s: all parts of the image move all of its cells alike (%.0f %% of them most by what lies there); "
            "a map of it can say little about places",
            *(name, type(model).__name__, 100 * placement.share),
        )
    if placement is None or placement.verdict != "wrong":
        return None
    rows, columns = layout.grid
    return (
        f"its output does not keep the places of the image: only {placement.share:.0%} of the {rows}x{columns} cells change "
        "most when the part of the image above them does"
    )


def default_layer_names(
    model: nn.Module, method: str, shapes: dict[str, tuple[int, ...]] | None = None
) -> tuple[list[str], str]:
    """The default layers of ``method``: names of layers, the best first, and the rule that chose them, in words.

    Only this function decides it. `pooling` describes what the classifier reads; `map_layer` skips a layer that is too coarse
    and takes the next name. ``shapes``: module -> shape of its output, if known.
    """
    # Norms with an activation are those of convolutional blocks.
    norms_only = [n for n, m in model.named_modules() if not isinstance(m, nn.Identity) and not hasattr(m, "act")]
    for suffix in ("norm1", "norm2"):  # a block without attention has no first norm
        norms = [name for name in norms_only if re.search(rf"blocks\d*\..*\b{suffix}$", name)]
        if norms:
            return norms[::-1], f"the {suffix} of the last block; the classifier reads {pooling(model, shapes).words}"
    modules = dict(model.named_modules())
    stages = [name for info in getattr(model, "feature_info", []) if (name := info["module"]) in modules]
    # Without weights it is the activation behind a stem.
    weighted = [name for name in stages if any(True for _ in modules[name].parameters())]
    return weighted[::-1], STAGE


def stage_starts(model: nn.Module) -> list[str]:
    """The first ``norm1`` of each stage of transformer blocks: one for a ViT, one per grid for a Swin, none for a ResNet."""
    norms = [name for name, _ in model.named_modules() if name.endswith(".norm1") and "blocks." in name]
    first_of = {}  # stage -> its first norm
    for name in norms:
        first_of.setdefault(name[: name.rindex("blocks.")], name)
    attends = any(hasattr(module, "attn_drop") for module in model.modules())
    return list(first_of.values()) if attends else []


def embedded_tokens(model: nn.Module) -> str | None:
    """The module that embeds the patches of a model whose ``blocks`` keep these tokens but have no attention, or None.

    Such models are MLP-Mixer, ResMLP, gMLP, and a ViT without its attention.
    """
    embeddings = [name for name, module in model.named_modules() if isinstance(module, PatchEmbed)]
    if stage_starts(model) or len(embeddings) != 1 or not isinstance(getattr(model, "blocks", None), nn.Sequential):
        return None
    return embeddings[0]


def usual_layers(model: nn.Module) -> dict[str, str]:
    """The layers that are commonly used for heat maps: description -> name; only those that `map_layer` takes by name."""
    starts, names = stage_starts(model), [name for name, _ in model.named_modules()]
    if starts:
        last = [name for name in names if name.endswith(".norm1") and "blocks." in name][-1]
        usual = {"embedded patches": "patch_embed", "first norm1 of the last stage": starts[-1]}
        usual["start of the last stage"] = starts[-1].rpartition("blocks.0.")[0] + "downsample"
        usual |= {"last norm1": last, "last block": last.removesuffix(".norm1"), "final norm": "norm"}
    elif embedding := embedded_tokens(model):
        usual = {"embedded patches": embedding, "first block": "blocks.0"}
        usual["last block"] = f"blocks.{len(model.blocks) - 1}"
        last = default_layer_names(model, "gradcam")[0][0]
        usual |= {f"last {last.rpartition('.')[2]}": last} if "norm" in last else {}
        usual["final norm"] = "norm"
    else:
        usual = {f"stage {i + 1}": info["module"] for i, info in enumerate(getattr(model, "feature_info", []))}
    shapes = _output_shapes(model)
    layouts = {place: find_layout(model, name, shapes.get(name)) for place, name in usual.items() if name in names}
    maps = {place: layout for place, layout in layouts.items() if layout and layout.grid != (1, 1)}
    return {place: usual[place] for place, layout in maps.items() if not _misplacement(model, usual[place], layout)}


def _output_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Module -> shape of its output for one image, in the order of execution; () if a module runs more than once."""
    shapes: dict[str, tuple[int, ...]] = {}

    def see(name, output):
        shapes[name] = () if name in shapes else tuple(output.shape)

    with watch_outputs(model, dict(model.named_modules()), see), torch.no_grad():
        try:
            model(torch.zeros(1, 3, *input_spec(model).size, device=next(model.parameters()).device))
        except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{type(model).__name__} does not run on images of {_pixels(model)}: {reason}; "
                "take the size that it was made for"
            ) from None
    return shapes


def _pixels(model: nn.Module) -> str:
    height, width = input_spec(model).size
    return f"{height}x{width} px"
