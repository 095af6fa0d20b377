"""Register variants of an architecture under names that ``timm.create_model`` knows."""

import inspect
import sys

import torch
from timm.models import build_model_with_cfg, checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn


class Classifier(nn.Module):
    """Base class with the methods that timm expects; the last layer is ``head``, with ``num_features`` inputs."""

    grad_checkpointing = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether activations inside blocks are computed a second time in the backward pass instead of kept."""
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
    """Apply ``blocks`` one after another; if ``checkpointed``, keep only their inputs for the backward pass."""
    return checkpoint_seq(blocks, x) if checkpointed and torch.is_grad_enabled() else blocks(x)


def register_variants(model_class: type[nn.Module], variants: dict[str, dict]) -> None:
    """Register each name with its arguments; call it at the end of the module that defines ``model_class``.

    That module may also define ``default_cfgs`` and ``checkpoint_filter_fn``, as timm's modules do. A name without a default
    cfg gets timm's (224 px, ImageNet's normalisation); a class that takes ``img_size`` is built for the size of the images.
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
        # timm adds in_chans; a model for three channels need not have that argument.
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
