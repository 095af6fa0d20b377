"""Where in a model a heat map can be taken, and how a layer's output becomes one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from common.console import did_you_mean
from explanation.pooling import pooling
from models import input_spec


@dataclass(frozen=True)
class MapLayer:
    """A layer whose output is a map: which module, and how its output becomes B C h w."""

    name: str
    module: nn.Module
    grid: tuple[int, int]
    to_maps: Callable[[Tensor], Tensor]
    rule: str = ""
    """Why this one, where it is the default."""


def map_layer(model: nn.Module, name: str | None = None, *, method: str = "gradcam") -> MapLayer:
    """The layer ``name``, or by default the first of `default_layer_names` that sees more than one place.

    Where there is none: the last of `map_layers` that a gradient reaches. One forward pass on the model's device finds the
    grid.
    Raises ValueError for a name that the model lacks (nearest names) or whose output is no map.
    """
    modules = dict(model.named_modules())
    if name is not None and name not in modules:
        hint = did_you_mean(name, modules, count=3, cutoff=0.4)
        raise ValueError(f"--layer {name}: the model has no such layer{hint}; --list-layers shows all")
    shapes = _output_shapes(model)
    candidates, rule = ([name], "") if name else default_layer_names(model, method, shapes)
    for candidate in candidates:
        layer = _describe_layer(model, candidate, shapes.get(candidate))
        if layer and (name or layer.grid != (1, 1)):
            return replace(layer, rule=rule)
    listed = [] if name else map_layers(model)
    if listed:
        last = ([layer for layer, reached in listed if reached] or [layer for layer, _ in listed])[-1]
        return replace(last, rule="the last layer that keeps places and that a gradient reaches")
    raise ValueError(
        f"--layer {name}: its output {shapes.get(name)} is not a map over the image; --list-layers shows those that are"
        if name
        else f"no layer of {type(model).__name__} keeps a grid larger than 1x1 at this image size; train at a larger one"
    )


def map_layers(model: nn.Module) -> list[tuple[MapLayer, bool]]:
    """Every layer with weights whose output is a map of more than one cell, in the order of computation.

    Beside each: whether the gradient of the logits reaches its cells; where it does not, maps by gradient are blank.
    """
    modules = dict(model.named_modules())
    found = [_describe_layer(model, name, shape) for name, shape in _output_shapes(model).items()]
    layers = [x for x in found if x and x.grid != (1, 1) and any(True for _ in modules[x.name].parameters())]
    if not layers:
        return []
    outputs: dict[str, Tensor] = {}
    with _outputs(model, {layer.name: layer.module for layer in layers}, outputs.__setitem__), torch.enable_grad():
        images = torch.randn(1, 3, *input_spec(model).size, device=next(model.parameters()).device)
        logits = model(images.requires_grad_())
        wanted = [outputs[layer.name] for layer in layers]
        gradients = torch.autograd.grad(logits.sum(), wanted, allow_unused=True) if logits.requires_grad else ()
    reached = [
        gradient is not None and bool(layer.to_maps(gradient).any()) for layer, gradient in zip(layers, gradients)
    ]
    return list(zip(layers, reached or [False] * len(layers)))


def default_layer_names(
    model: nn.Module, method: str, shapes: dict[str, tuple[int, ...]] | None = None
) -> tuple[list[str], str]:
    """Where a map of ``method`` is taken by default: names of layers, best first, and the rule that chose them, in words.

    The one place where this is decided. What the classifier reads is in `pooling`; a layer whose grid is one cell is passed
    over for the next name. ``shapes``: of the outputs by module, where they are known.
    """
    # Of ``a.b.c`` the last part is the kind: a block without attention has no first norm.
    names = [name for name, module in model.named_modules() if not isinstance(module, nn.Identity)]
    for suffix in ("norm1", "norm2"):
        norms = [name for name in names if name.endswith(f".{suffix}") and "blocks." in name]
        if norms:
            behind = "behind it the class token alone reaches the classifier"
            pooled = pooling(model, shapes)
            reads = behind if pooled.kind == "token" else f"the classifier reads {pooled.words}"
            return norms[::-1], f"the {suffix} of the last block ({reads})"
    return [info["module"] for info in getattr(model, "feature_info", [])][::-1], "the last stage"


def stage_starts(model: nn.Module) -> list[str]:
    """The first ``norm1`` of each stage of transformer blocks: one for a ViT, one per grid for a Swin, none for a ResNet."""
    norms = [name for name, _ in model.named_modules() if name.endswith(".norm1") and "blocks." in name]
    first_of = {}  # stage -> its first norm
    for name in norms:
        first_of.setdefault(name[: name.rindex("blocks.")], name)
    attends = any(hasattr(module, "attn_drop") for module in model.modules())
    return list(first_of.values()) if attends else []


def usual_layers(model: nn.Module) -> dict[str, str]:
    """Where heat maps are usually taken: the place in words -> the layer's name. Only what is a map at this image size."""
    starts, names = stage_starts(model), [name for name, _ in model.named_modules()]
    if starts:
        last = [name for name in names if name.endswith(".norm1") and "blocks." in name][-1]
        usual = {"embedded patches": "patch_embed", "first norm1 of the last stage": starts[-1]}
        usual["start of the last stage"] = starts[-1].rpartition("blocks.0.")[0] + "downsample"
        usual |= {"last norm1": last, "last block": last.removesuffix(".norm1"), "final norm": "norm"}
    else:
        usual = {f"stage {i + 1}": info["module"] for i, info in enumerate(getattr(model, "feature_info", []))}
    shapes = _output_shapes(model)
    layers = {place: _describe_layer(model, name, shapes.get(name)) for place, name in usual.items() if name in names}
    return {place: layer.name for place, layer in layers.items() if layer and layer.grid != (1, 1)}


@contextmanager
def _outputs(model: nn.Module, modules: dict[str, nn.Module], see: Callable[[str, Tensor], None]) -> Iterator[None]:
    """The model in evaluation mode, ``see(name, output)`` called for each of the modules that runs."""

    def hook_of(name):
        return lambda module, args, output: see(name, output) if isinstance(output, Tensor) else None

    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules.items() if name]
    training = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()


def _output_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """By module, for one image, in the order in which they are done."""
    shapes: dict[str, tuple[int, ...]] = {}
    see = lambda name, output: shapes.__setitem__(name, tuple(output.shape))  # noqa: E731
    with _outputs(model, dict(model.named_modules()), see), torch.inference_mode():
        model(torch.zeros(1, 3, *input_spec(model).size, device=next(model.parameters()).device))
    return shapes


def _describe_layer(model: nn.Module, name: str, shape: tuple[int, ...] | None) -> MapLayer | None:
    """How an output of this shape (for one image) becomes a map; None if it is none."""
    module, above = model.get_submodule(name), [model.get_submodule(n) for n in _ancestors(name)]
    inside_attention = any(hasattr(parent, "qkv") for parent in above)  # heads, windows, shifted grids: no places
    if shape is None or len(shape) not in (3, 4) or shape[0] != 1 or inside_attention:
        return None
    if len(shape) == 4:
        # Swin in timm carries B h w C everywhere but in the convolution that embeds the patches.
        if getattr(model, "output_fmt", "NCHW") == "NHWC" and not isinstance(module, nn.Conv2d):
            return MapLayer(name, module, tuple(shape[1:3]), lambda x: x.permute(0, 3, 1, 2))  # B h w C -> B C h w
        return MapLayer(name, module, tuple(shape[2:]), lambda x: x)
    # B N C tokens: class and register tokens first (behind the patch embedding), then the grid row by row.
    prefix = getattr(model, "num_prefix_tokens", 0)
    owner = next((parent for parent in reversed(above) if hasattr(parent, "input_resolution")), None)
    known = owner.input_resolution if owner else getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if known and shape[1] == known[0] * known[1]:
        prefix, (rows, columns) = 0, known
    else:  # of the same shape as the patches or the image
        height, width = known or input_spec(model).size
        rows = max(1, round(((shape[1] - prefix) * height / width) ** 0.5))
        columns = (shape[1] - prefix) // rows
    if rows * columns != shape[1] - prefix:
        return None
    return MapLayer(
        name, module, (rows, columns), lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
    )


def _ancestors(name: str) -> list[str]:
    """Of ``a.b.c``: the model itself, ``a``, ``a.b``."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]
