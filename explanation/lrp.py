"""Layer-wise relevance propagation for transformers, as gradient x activation of a linearised model.

Ali et al. 2022, "XAI for Transformers: Better Explanations through Conservative Propagation" (ICML, equations 8 to 12):
attention matrices, LayerNorm's deviations and the ratio GELU(x) / x are treated as constants. The rest is linear in a layer's
output a: the class score is the sum of a x gradient over all of its tokens, plus the contributions of later biases. HiResCAM,
which differentiates LayerNorm, loses evidence that already points at the class: LayerNorm's output does not depend on its
input's length, so that the plain gradient has no component along the input.

Legend: B images, C channels, h w the layer's grid.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from explanation.layers import MapLayer

SOFTMAX = (torch.softmax, F.softmax, Tensor.softmax)
ACTIVATIONS = (F.gelu, F.silu)  # ReLU needs no rule: its gradient is its ratio


def relevance(
    model: nn.Module,
    layer: MapLayer,
    images: Tensor,
    targets: Sequence[int],
    *,
    method: str = "lrp",
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> Tensor:
    """The contribution of each cell of the layer to the score of one class per image; one forward and one backward pass.

    The model is not changed; the rules apply only within this call. Parameters may be frozen. For a model without attention,
    LayerNorm, GELU and SiLU this is plain gradient x activation.

    Args:
        images: preprocessed B 3 H W.
        targets: the class to explain, one per image.
        method: sglrp explains the class's log-odds against all others, any other its logit; also the name in errors.
        context: creates the context in which the model runs, such as autocast.
    Returns:
        float32 B h w, of either sign, in logits.
    Raises:
        ValueError: no gradient of the class score reaches the layer.
    """
    with torch.enable_grad(), context(), _cut_graph(layer.module) as outputs, LinearRules():
        logits = model(images)
    scores = class_scores(logits, targets, method == "sglrp").sum()
    gradient = None
    if outputs and scores.requires_grad:
        (gradient,) = torch.autograd.grad(scores, outputs[-1], allow_unused=True)
    if gradient is None:
        raise ValueError(
            f"{method} at {layer.name}: no gradient of the class score reaches this layer; leave out --layer, or choose another"
        )
    return (layer.to_maps(outputs[-1].detach()).float() * layer.to_maps(gradient).float()).sum(dim=1)


def class_scores(logits: Tensor, targets: Sequence[int], against_others: bool) -> Tensor:
    """B: each image's logit of its class, from logits B K; or the class's log-odds against all others.

    Log-odds do not change if all logits rise by the same amount, and evidence for another class counts against this one.
    LRP then starts as in Iwana et al. (2019), "Explaining Convolutional Neural Networks using Softmax Gradient Layer-wise
    Relevance Propagation": with 1 at the class and minus the softmax over the other classes at these.
    """
    own = logits[torch.arange(len(logits)), list(targets)]
    if not against_others or logits.shape[1] == 1:
        return own
    chosen = torch.tensor(list(targets), device=logits.device)[:, None]
    return own - logits.float().scatter(1, chosen, float("-inf")).logsumexp(dim=1)


@contextmanager
def _cut_graph(module: nn.Module) -> Iterator[list[Tensor]]:
    """Start the graph at the module's output; yields the list of its outputs."""
    outputs: list[Tensor] = []

    def cut(module, args, output):
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # which may be changed in place

    with module.register_forward_hook(cut):
        yield outputs


class LinearRules(TorchFunctionMode):
    """Within this mode torch's LayerNorm, softmax, attention, GELU and SiLU have the same values but other gradients."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func in SOFTMAX:
            return func(args[0].detach(), *args[1:], **kwargs)
        if func is F.scaled_dot_product_attention:  # only the values get a gradient, not queries and keys
            return func(args[0].detach(), args[1].detach(), *args[2:], **kwargs)
        if func in ACTIVATIONS:
            return _FixedRatio.apply(args[0], func(args[0].detach(), *args[1:], **kwargs))
        return func(*args, **kwargs)


def _layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return _FixedDeviation.apply(x, normalized_shape, weight, bias, eps)


class _FixedDeviation(torch.autograd.Function):
    """LayerNorm whose deviation is a constant: (x - mean x) / deviation, scaled and shifted."""

    @staticmethod
    def forward(ctx, x: Tensor, shape, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        # float32 within autocast as well: there x and the weights may differ in precision.
        out, _, inverse_deviation = torch.native_layer_norm(x.float(), shape, weight, bias, eps)
        ctx.save_for_backward(weight, inverse_deviation)
        ctx.dims, ctx.dtype = tuple(range(-len(shape), 0)), x.dtype
        return out

    @staticmethod
    def backward(ctx, gradient: Tensor):
        weight, inverse_deviation = ctx.saved_tensors
        if weight is not None:
            gradient = gradient * weight
        gradient = (gradient - gradient.mean(ctx.dims, keepdim=True)) * inverse_deviation
        return gradient.to(ctx.dtype), None, None, None, None


class _FixedRatio(torch.autograd.Function):
    """An activation f, treated as x times the constant f(x) / x; at 0 the ratio of GELU and SiLU is 1/2."""

    @staticmethod
    def forward(ctx, x: Tensor, out: Tensor) -> Tensor:
        ctx.save_for_backward(torch.where(x == 0, 0.5, out / x))
        return out.view_as(out)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        return gradient * ctx.saved_tensors[0], None
