"""Architectures that no library has; importing this package registers them with timm."""

from architectures import resnet, shallow_vit, small_vit, swin  # noqa: F401
