"""Model factory: one registry (timm's), weights that load or say why not, fine-tuning policy, where a CAM looks."""

import difflib
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import timm
import torch
from timm.models import group_parameters
from torch import Tensor, nn

from config import Config
from weights import find_weights, load_weights, misfits, pretrained_cfg

logger = logging.getLogger(__name__)

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


@dataclass(frozen=True)
class InputSpec:
    """What a model is fed; the one owner of size and normalisation."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, float, float]
    """Per channel, for pixels in [0, 1]."""
    std: tuple[float, float, float]
    interpolation: str
    """Filter that brings an image to ``size``: bilinear or bicubic."""
    corpus: str
    """What the weights were trained on before this run; "none" from scratch."""

    def to_dict(self) -> dict:
        """Plain values, for checkpoints and JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "InputSpec":
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


# ---------------------------------------------------------------- building


def resolve_image_size(cfg: Config) -> Config:
    """The config with ``data.image_size`` set: where it is null, the size that the model was designed for."""
    if cfg.data.image_size is not None:
        return cfg
    _, height, width = pretrained_cfg(cfg.model.name).input_size
    size = height if height == width else (height, width)
    return cfg.model_copy(update={"data": cfg.data.model_copy(update={"image_size": size})})


def create_model(cfg: Config, *, num_classes: int) -> nn.Module:
    """Build ``cfg.model`` for ``data.image_size``, load its pretrained weights, and freeze what ``model.tune`` says.

    ``timm.create_model`` does the work, for timm's models and ours. The model carries its InputSpec: see `input_spec`.
    Raises ValueError for an unknown name, arguments that the model refuses, and weights that do not fit.
    """
    model = _build(cfg, num_classes=num_classes)
    model.input_spec, model.pretrained_from = _input_spec(cfg, None, "none"), None
    if cfg.model.pretrained:
        weights = find_weights(cfg.model.name, cfg.model.pretrained)
        saved = load_weights(model, weights.path) or weights.normalization
        model.input_spec, model.pretrained_from = _input_spec(cfg, saved, weights.corpus), weights.describe()
    apply_tuning(model, cfg.model.tune)
    return model


def restore_model(cfg: Config, checkpoint: dict) -> nn.Module:
    """Rebuild the model of a run from its config and one of its checkpoints, in evaluation mode.

    Raises ValueError if the config has been changed since, so that its model is another one.
    """
    model = _build(cfg, num_classes=len(checkpoint["class_names"]))
    problems = misfits(checkpoint["model"], model.state_dict())
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(
            f"{cfg.name}: the weights do not fit the model that config.yaml describes: {problems[0]}{more}; put model and "
            "data.image_size in config.yaml back to what was trained, or train again with --overwrite"
        )
    model.load_state_dict(checkpoint["model"])
    model.input_spec = InputSpec.from_dict(checkpoint["input_spec"])
    return model.eval()


def input_spec(model: nn.Module) -> InputSpec:
    """What ``model``, made by this module, is fed."""
    return model.input_spec


def _build(cfg: Config, *, num_classes: int) -> nn.Module:
    kwargs = dict(cfg.model.kwargs)
    for key, owner in (
        ("img_size", "data.image_size"),
        ("num_classes", "the dataset"),
        ("pretrained", "model.pretrained"),
    ):
        if key in kwargs:
            raise ValueError(f"model.kwargs.{key} is set by {owner}; remove it from model.kwargs")
    if pretrained_cfg(cfg.model.name).fixed_input_size:
        kwargs["img_size"] = cfg.data.image_size
    try:
        model = timm.create_model(cfg.model.name, num_classes=num_classes, **kwargs)
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        hint = ""
        if "unexpected keyword argument 'pretrained_cfg'" in str(error):
            hint = (
                "; register it with architectures.registry.register_variants, which keeps timm's own arguments from it"
            )
        elif "unexpected keyword argument" in str(error) and cfg.model.kwargs:
            hint = "; model.kwargs of the config are kept when model.name changes: model.kwargs={} clears them"
        raise ValueError(f"model {cfg.model.name} cannot be built with {kwargs}: {error}{hint}") from None
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 4:  # not just a patch embedding
        model = model.to(memory_format=torch.channels_last)
    if cfg.data.size != tuple(pretrained_cfg(cfg.model.name).input_size[1:]) or cfg.model.kwargs:
        for remark in _idle_shifts(model):
            logger.warning("%s: %s", cfg.model.name, remark)
    return model


def _input_spec(cfg: Config, saved: Mapping | None, corpus: str) -> InputSpec:
    """Size from the config; normalisation and filter from the weights (``saved`` or timm's), unless the config names them."""
    weights = saved or vars(pretrained_cfg(cfg.model.name))
    if cfg.data.normalization == "model":
        mean, std = weights["mean"], weights["std"]
    elif isinstance(cfg.data.normalization, str):
        mean, std = NORMALIZATIONS[cfg.data.normalization]
    else:
        mean, std = cfg.data.normalization
    filter_name = weights["interpolation"] if cfg.data.interpolation == "model" else cfg.data.interpolation
    return InputSpec(
        cfg.data.size, tuple(mean), tuple(std), "bilinear" if filter_name == "bilinear" else "bicubic", corpus
    )


def _idle_shifts(model: nn.Module) -> list[str]:
    """Swin blocks that cannot shift their windows at this input size (timm shrinks the window to the grid)."""
    remarks = []
    for name, block in model.named_modules():
        if getattr(block, "target_shift_size", (0, 0)) != (0, 0) and tuple(block.shift_size) == (0, 0):
            height, width = block.input_resolution
            remarks.append(f"{name} never shifts: its {height}x{width} grid is one window")
    return remarks if len(remarks) < 3 else [f"{remarks[0]}; and {len(remarks) - 1} blocks more"]


# ---------------------------------------------------------------- fine-tuning


def apply_tuning(model: nn.Module, policy: str) -> None:
    """Leave trainable what ``policy`` names: ``full``, ``head``, or ``last-N`` blocks (with the final norm) and the head.

    Blocks are timm's layer groups, counted from the end over all stages. Raises ValueError if there are fewer than N.
    """
    if policy == "full":
        return
    if not hasattr(model, "group_matcher"):  # the head is known all the same
        if policy != "head" or not hasattr(model, "get_classifier"):
            raise ValueError(
                f"model.tune = {policy}: {type(model).__name__} does not say which layers these are; give it a group_matcher "
                "as in architectures/shallow_vit.py (for head a get_classifier will do), or take full"
            )
        model.requires_grad_(False)
        model.get_classifier().requires_grad_(True)
        return
    layer_of = group_parameters(
        model, model.group_matcher(coarse=False), reverse=True
    )  # parameter -> stem, blocks, head
    head = max(layer_of.values())
    count = 0 if policy == "head" else int(policy.removeprefix("last-"))
    if count >= head:
        raise ValueError(f"model.tune = {policy}: the model has {head - 1} blocks; last-{head - 1} or full is the most")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layer_of[name] >= head - count)


def train_mode(model: nn.Module) -> None:
    """Put the trained parts into training mode and leave frozen ones in evaluation mode: no dropout, fixed BatchNorm."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()


# ---------------------------------------------------------------- where a CAM looks


@dataclass(frozen=True)
class CamLayer:
    """A layer whose output is a map: which module, and how its output becomes B C h w."""

    name: str
    module: nn.Module
    grid: tuple[int, int]
    to_maps: Callable[[Tensor], Tensor]


def cam_layer(model: nn.Module, name: str | None = None) -> CamLayer:
    """The layer ``name``, or by default the last one that sees more than one place and still feeds the logits.

    Transformers: the ``norm1`` of the last block (behind it, a class token alone reaches the logits, and a map of the
    patch tokens is blank). Convolutional networks: the last stage. Else: the last of `cam_layers` that a gradient reaches.
    One forward pass on the model's device finds the grid.
    Raises ValueError for a name that the model lacks (nearest names) or whose output is no map.
    """
    modules = dict(model.named_modules())
    if name is not None and name not in modules:
        nearest = difflib.get_close_matches(name, modules, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(nearest) or 'none'}; --list-layers shows all"
        raise ValueError(f"--layer {name}: the model has no such layer; {hint}")
    shapes = _output_shapes(model)
    for candidate in [name] if name else reversed(_default_cam_layers(model)):
        layer = _describe_layer(model, candidate, shapes.get(candidate))
        if layer and (name or layer.grid != (1, 1)):
            return layer
    listed = [] if name else cam_layers(model)
    if listed:
        return ([layer for layer, reached in listed if reached] or [layer for layer, _ in listed])[-1]
    raise ValueError(
        f"--layer {name}: its output {shapes.get(name)} is not a map over the image; --list-layers shows those that are"
        if name
        else f"no layer of {type(model).__name__} keeps a grid larger than 1x1 at this image size; train at a larger one"
    )


def cam_layers(model: nn.Module) -> list[tuple[CamLayer, bool]]:
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


def _default_cam_layers(model: nn.Module) -> list[str]:
    """Candidates, first to last."""
    names = [name for name, module in model.named_modules() if not isinstance(module, nn.Identity)]
    for suffix in (".norm1", ".norm2"):  # a block without attention has no first norm
        found = [name for name in names if name.endswith(suffix) and "blocks." in name]
        if found:
            return found
    return [info["module"] for info in getattr(model, "feature_info", [])]


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


def _describe_layer(model: nn.Module, name: str, shape: tuple[int, ...] | None) -> CamLayer | None:
    """How an output of this shape (for one image) becomes a map; None if it is none."""
    module, above = model.get_submodule(name), [model.get_submodule(n) for n in _ancestors(name)]
    inside_attention = any(hasattr(parent, "qkv") for parent in above)  # heads, windows, shifted grids: no places
    if shape is None or len(shape) not in (3, 4) or shape[0] != 1 or inside_attention:
        return None
    if len(shape) == 4:
        # Swin in timm carries B h w C everywhere but in the convolution that embeds the patches.
        if getattr(model, "output_fmt", "NCHW") == "NHWC" and not isinstance(module, nn.Conv2d):
            return CamLayer(name, module, tuple(shape[1:3]), lambda x: x.permute(0, 3, 1, 2))  # B h w C -> B C h w
        return CamLayer(name, module, tuple(shape[2:]), lambda x: x)
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
    return CamLayer(
        name, module, (rows, columns), lambda x: x[:, prefix:].transpose(1, 2).unflatten(2, (rows, columns))
    )


def _ancestors(name: str) -> list[str]:
    """Of ``a.b.c``: the model itself, ``a``, ``a.b``."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]
