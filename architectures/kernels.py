"""Which attention kernel a model uses: torch's fused one, or explicit matrix products, whose matrices can be recorded."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def unfused_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Within this context timm's attention layers compute their attention matrix explicitly, so that hooks can see it."""
    return _attention(model, fused=False)


def fused_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Within this context all of timm's attention layers use the fused kernel, also Swin's: faster, with the same result."""
    return _attention(model, fused=True)


def training_attention(model: nn.Module, device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The kernel to train with: explicit products in bf16 on CPU, where the fused kernel's backward pass is slow.

    Elsewhere the model's own choice, which for a ViT is the fused kernel. Both give the same losses.
    """
    return unfused_attention(model) if device.type == "cpu" and precision == "bf16" else nullcontext()


@contextmanager
def _attention(model: nn.Module, *, fused: bool) -> Iterator[None]:
    layers = [module for module in model.modules() if hasattr(module, "fused_attn")]
    before = [layer.fused_attn for layer in layers]
    try:
        for layer in layers:
            layer.fused_attn = fused
        yield
    finally:
        for layer, kernel in zip(layers, before):
            layer.fused_attn = kernel


def attention_kernel(model: nn.Module) -> str:
    """Which kernel computes attention, since the latency depends on it: fused, unfused, mixed, or none."""
    kinds = {bool(module.fused_attn) for module in model.modules() if hasattr(module, "fused_attn")}
    return {(): "none", (True,): "fused", (False,): "unfused"}.get(tuple(kinds), "mixed")
