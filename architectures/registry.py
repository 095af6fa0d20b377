"""Variants of an architecture -> models that ``timm.create_model`` knows by name."""

import inspect
import sys

import torch
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn


class Classifier(nn.Module):
    """What timm asks of a model whose last layer is ``head``, on ``num_features`` channels."""

    grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether what happens inside of blocks is computed again in the backward pass instead of kept."""
        for module in self.modules():
            if hasattr(module, "grad_checkpointing"):
                module.grad_checkpointing = enable

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)


def run_blocks(blocks: nn.Sequential, x: Tensor, *, checkpointed: bool) -> Tensor:
    """``blocks`` one after another; of checkpointed ones only the inputs are kept for the backward pass."""
    return checkpoint_seq(blocks, x) if checkpointed and torch.is_grad_enabled() else blocks(x)


def register_variants(model_class: type[nn.Module], variants: dict[str, dict]) -> None:
    """Register each name with its arguments; called at the end of the module that defines ``model_class``.

    That module may also hold ``default_cfgs`` and ``checkpoint_filter_fn``, as timm's do. A name without a default cfg gets
    timm's (224 px, ImageNet's normalisation); a class that takes ``img_size`` is then built for the size of the images.
    """
    module = sys.modules[model_class.__module__]
    plain = dict(fixed_input_size="img_size" in inspect.signature(model_class).parameters, classifier="head")
    stated = getattr(module, "default_cfgs", {})
    module.default_cfgs = {**generate_default_cfgs({f"{name}.untrained": plain for name in variants}), **stated}
    for name, arguments in variants.items():
        register_model(_entrypoint(model_class, name, arguments))


def _entrypoint(model_class: type[nn.Module], name: str, arguments: dict):
    def build(pretrained: bool = False, **kwargs) -> nn.Module:
        kwargs = {**arguments, **kwargs}
        taken = inspect.signature(model_class).parameters
        # timm adds the number of channels; a model that is always fed three need not take it.
        takes_channels = (
            "in_chans" in kwargs or "in_chans" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values())
        )
        options = dict(
            pretrained_filter_fn=getattr(sys.modules[model_class.__module__], "checkpoint_filter_fn", None),
            kwargs_filter=None if takes_channels else ("in_chans",),
        )
        return build_model_with_cfg(model_class, name, pretrained, **options, **kwargs)

    build.__name__, build.__module__ = name, model_class.__module__
    return build
