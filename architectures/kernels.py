"""Which attention kernel a model uses: torch's fused one, or explicit products whose matrices can be seen."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn


def unfused_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Let timm's attention layers compute their attention matrix in the open."""
    return _attention(model, fused=False)


def fused_attention(model: nn.Module) -> AbstractContextManager[None]:
    """Let all of timm's attention layers use the fused kernel, Swin's too, which timm leaves out: faster, the same result."""
    return _attention(model, fused=True)


def training_attention(model: nn.Module, device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The kernel to train with: the explicit products in bf16 on CPU, where the fused kernel's backward pass is slow.

    Elsewhere, and in evaluation, the model's own choice, which is the fused one for ViT. The losses are the same.
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
    """How attention is computed, which a latency depends on: fused, unfused, mixed, or none."""
    kinds = {bool(module.fused_attn) for module in model.modules() if hasattr(module, "fused_attn")}
    return {(): "none", (True,): "fused", (False,): "unfused"}.get(tuple(kinds), "mixed")
