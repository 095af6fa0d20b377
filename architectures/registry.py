"""Variants of an architecture -> models that ``timm.create_model`` knows by name."""

import sys

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn


class Classifier(nn.Module):
    """What timm asks of a model whose last layer is ``head``, on ``num_features`` channels."""

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes)


def register_variants(model_class: type[nn.Module], variants: dict[str, dict]) -> None:
    """Register each name with its arguments; called at the end of the module that defines ``model_class``.

    That module also holds ``default_cfgs`` and ``checkpoint_filter_fn``, as timm's do.
    """
    for name, arguments in variants.items():
        register_model(_entrypoint(model_class, name, arguments))


def _entrypoint(model_class: type[nn.Module], name: str, arguments: dict):
    def build(pretrained: bool = False, **kwargs) -> nn.Module:
        filter_fn = sys.modules[model_class.__module__].checkpoint_filter_fn
        kwargs = {**arguments, **kwargs}
        return build_model_with_cfg(model_class, name, pretrained, pretrained_filter_fn=filter_fn, **kwargs)

    build.__name__, build.__module__ = name, model_class.__module__
    return build
