"""Model factory: timm's registry, loading of pretrained weights, size and normalisation of the input, fine-tuning."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import timm
import torch
from timm.models import group_parameters
from torch import nn

from architectures.weights import find_weights, load_weights, misfits, pretrained_cfg, timm_name
from common.config import Config
from images.preprocessing import Preprocess

logger = logging.getLogger(__name__)

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}

# Arguments of timm.create_model that would load weights without `model.pretrained`, so that reports would not name them.
WEIGHT_KEYS = (
    "pretrained",
    "checkpoint_path",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "cache_dir",
)


@dataclass(frozen=True)
class InputSpec:
    """A model's input; size and normalisation are defined only here."""

    size: tuple[int, int]
    """Height and width in pixels."""
    mean: tuple[float, float, float]
    """Of each channel, for pixels in [0, 1]; so is ``std``."""
    std: tuple[float, float, float]
    interpolation: str
    """Filter that resizes an image to ``size``: bilinear or bicubic."""
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
    """The config with ``data.image_size`` set; if it is null, to the size that the model was designed for."""
    if cfg.data.image_size is not None:
        return cfg
    _, height, width = pretrained_cfg(cfg.model.name).input_size
    size = height if height == width else (height, width)
    return cfg.model_copy(update={"data": cfg.data.model_copy(update={"image_size": size})})


Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of each channel, of pixels in [0, 1]."""


def create_model(
    cfg: Config,
    *,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    with_head: bool = False,
    statistics: Callable[[], Statistics] | None = None,
) -> nn.Module:
    """Build ``cfg.model`` for ``data.image_size``, load its pretrained weights, and freeze layers as ``model.tune`` says.

    ``timm.create_model`` builds timm's models and ours. The model has its InputSpec: see `input_spec`.

    Args:
        class_names: the head of pretrained weights with other class names is not loaded, whatever its size.
        with_head: load the head in any case.
        statistics: measures the training images, if ``data.normalization`` needs it; without it timm's values are used.
    Raises:
        ValueError: an unknown name, arguments that the model refuses, or weights that do not fit.
    """
    model = _build(cfg, num_classes=num_classes)
    model.input_spec, model.pretrained_from = _input_spec(cfg, None, "none", statistics), None
    if cfg.model.pretrained:
        weights = find_weights(cfg.model.name, cfg.model.pretrained)
        saved, head = load_weights(model, weights.path, with_head=with_head, class_names=class_names)
        model.input_spec = _input_spec(cfg, saved or weights.normalization, weights.corpus, statistics)
        model.pretrained_from = weights.describe() | {"head": head}
    apply_tuning(model, cfg.model.tune)
    return model


def restore_model(cfg: Config, checkpoint: dict) -> nn.Module:
    """Rebuild the model of a run from its config and one of its checkpoints, in evaluation mode.

    Raises ValueError if the weights do not fit the model that the config describes.
    """
    model = _build(cfg, num_classes=len(checkpoint["class_names"]))
    problems = misfits(checkpoint["model"], model.state_dict())
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(
            f"{cfg.name}: the weights do not fit the model that config.yaml describes: {problems[0]}{more}; set model and "
            "data.image_size in config.yaml back to what was trained, or train again with --overwrite"
        )
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:  # such as sparse or quantised weights
        raise ValueError(f"{cfg.name}: the weights cannot be loaded: {str(error).splitlines()[-1].strip()}") from None
    model.input_spec = InputSpec.from_dict(checkpoint["input_spec"])
    return model.eval()


def input_spec(model: nn.Module) -> InputSpec:
    """The input of a ``model`` that this module made."""
    return model.input_spec


def preprocessing(model: nn.Module) -> Preprocess:
    """The module that turns uint8 images into the model's input, on the model's device."""
    spec = input_spec(model)
    return Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(next(model.parameters()).device)


def _build(cfg: Config, *, num_classes: int) -> nn.Module:
    kwargs = dict(cfg.model.kwargs)
    for key, owner in (
        ("img_size", "data.image_size"),
        ("num_classes", "the dataset"),
        *((key, "model.pretrained") for key in WEIGHT_KEYS),
    ):
        if key in kwargs:
            raise ValueError(f"model.kwargs.{key} is set by {owner}; remove it from model.kwargs")
    if pretrained_cfg(cfg.model.name).fixed_input_size:
        kwargs["img_size"] = cfg.data.image_size
    try:
        model = timm.create_model(timm_name(cfg.model.name), num_classes=num_classes, **kwargs)
    except Exception as error:  # models by many authors raise different errors
        hint = ""
        if "unexpected keyword argument 'pretrained_cfg'" in str(error):
            hint = "; register it with architectures.registry.register_variants, which does not pass timm's own arguments to it"
        elif "unexpected keyword argument" in str(error) and cfg.model.kwargs:
            hint = "; model.kwargs of the config are kept when model.name changes: model.kwargs={} clears them"
        raise ValueError(f"model {cfg.model.name} cannot be built with {kwargs}: {error}{hint}") from None
    if sum(isinstance(module, nn.Conv2d) for module in model.modules()) > 4:  # more than a patch embedding
        model = model.to(memory_format=torch.channels_last)
    if cfg.data.size != tuple(pretrained_cfg(cfg.model.name).input_size[1:]) or cfg.model.kwargs:
        for remark in _idle_shifts(model):
            logger.warning("%s: %s", cfg.model.name, remark)
    return model


def _input_spec(
    cfg: Config, saved: Mapping | None, corpus: str, statistics: Callable[[], Statistics] | None
) -> InputSpec:
    """The input as the config says; ``saved``: mean, std and interpolation stored with the weights, instead of timm's."""
    weights, pretrained = saved or vars(pretrained_cfg(cfg.model.name)), bool(cfg.model.pretrained)
    choice, filter_name = cfg.data.normalization, cfg.data.interpolation
    if choice == "auto":
        choice = "model" if pretrained else "dataset"
    if choice == "model" or (choice == "dataset" and statistics is None):
        mean, std = weights["mean"], weights["std"]
    elif choice == "dataset":
        mean, std = statistics()
    else:
        mean, std = NORMALIZATIONS[choice] if isinstance(choice, str) else choice
    if filter_name == "auto":
        filter_name = "model" if pretrained else "bicubic"
    if filter_name == "model":
        filter_name = weights["interpolation"]
    return InputSpec(
        cfg.data.size, tuple(mean), tuple(std), "bilinear" if filter_name == "bilinear" else "bicubic", corpus
    )


def _idle_shifts(model: nn.Module) -> list[str]:
    """Swin blocks that cannot shift their windows at this input size (timm shrinks the window to the grid)."""
    remarks = []
    for name, block in model.named_modules():
        if getattr(block, "target_shift_size", (0, 0)) != (0, 0) and tuple(block.shift_size) == (0, 0):
            height, width = getattr(block, "input_resolution", None) or block.feat_size  # timm's two names for it
            remarks.append(f"{name} never shifts: its {height}x{width} grid is one window")
    return remarks if len(remarks) < 3 else [f"{remarks[0]}; and {len(remarks) - 1} more blocks"]


# ---------------------------------------------------------------- fine-tuning


def apply_tuning(model: nn.Module, policy: str) -> None:
    """Freeze all but what ``policy`` names: ``full``, ``head``, or ``last-N`` blocks (with the final norm) and the head.

    Blocks are timm's layer groups, counted from the end over all stages. Raises ValueError if the model has fewer than N, or
    does not define its layer groups.
    """
    if policy == "full":
        return
    if not hasattr(model, "group_matcher"):  # the head may still be known
        if policy != "head" or not hasattr(model, "get_classifier"):
            raise ValueError(
                f"model.tune = {policy}: {type(model).__name__} does not say which layers these are; give it a group_matcher "
                "as in architectures/shallow_vit.py (for head, get_classifier is enough), or use full"
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
        raise ValueError(f"model.tune = {policy}: the model has {head - 1} blocks; use last-{head - 1} or full")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layer_of[name] >= head - count)


def checkpoint_activations(model: nn.Module) -> None:
    """Turn on ``train.grad_checkpointing``: compute activations a second time in the backward pass, to save memory.

    Raises ValueError if the model does not support it.
    """
    try:
        model.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        name = type(model).__name__
        raise ValueError(
            f"train.grad_checkpointing: {name} has none; set it to false, or raise grad_accum_steps"
        ) from None


def train_mode(model: nn.Module) -> None:
    """Set trained parts to training mode and frozen ones to evaluation mode: no dropout, fixed BatchNorm statistics."""
    model.train()
    for module in model.modules():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            module.eval()
