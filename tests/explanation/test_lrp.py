"""Layer-wise relevance propagation against models whose parts were exchanged by hand, and against what it promises."""

import copy

import pytest
import torch
from support import make_randomized
from torch import nn
from torch.nn import functional as F

from architectures.kernels import unfused_attention
from common.devices import autocast
from explanation.attribution import heat_maps
from explanation.layers import map_layer, usual_layers
from explanation.lrp import class_scores, relevance
from models import input_spec

SMALL_SWIN = dict(patch_size=2, window_size=4, embed_dim=24, depths=[2, 2], num_heads=[2, 4])
SMALL_VIT = dict(patch_size=8, depth=2, embed_dim=48, num_heads=3)
MODELS = {
    "class token": ("vit_tiny_patch16_224", SMALL_VIT, 32),
    "registers": ("vit_tiny_patch16_224", SMALL_VIT | dict(reg_tokens=3), 32),
    "mean": ("vit_tiny_patch16_224", SMALL_VIT | dict(class_token=False, global_pool="avg", fc_norm=False), 32),
    "distilled": ("deit_tiny_distilled_patch16_224", SMALL_VIT, 32),
    "shallow_vit": ("shallow_vit", dict(depth=2, embed_dim=48), 32),
    "vit_32px": ("vit_32px", dict(depth=2, embed_dim=48, tokenizer="shifted", locality=True), 32),
    "swin": ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32),
    "swinv2": ("swinv2_tiny_window8_256", SMALL_SWIN, 32),
    "swin, ours": ("swin_t", SMALL_SWIN, 40),  # grids that windows do not divide
}
TRANSFORMERS = list(MODELS)


def build(name):
    architecture, kwargs, size = MODELS[name]
    model = make_randomized({"name": architecture, "kwargs": kwargs}, size)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)  # SwinV2's begin at 0
    return model


def images_for(model, count=2):
    return torch.randn(count, 3, *input_spec(model).size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- by hand


class HeldNorm(nn.LayerNorm):
    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()
        return centred / deviation.detach() * self.weight + self.bias


class HeldGelu(nn.Module):
    def forward(self, x):
        return x * (F.gelu(x) / x).detach()


class Held(nn.Module):
    def forward(self, x):
        return x.detach()


def exchange_parts(module):
    """Every LayerNorm over tokens, GELU and attention dropout within ``module``, for parts that hold them constant."""
    for name, child in module.named_children():
        if isinstance(child, nn.LayerNorm) and type(child).__name__ != "LayerNorm2d":
            held = HeldNorm(child.normalized_shape, eps=child.eps)
            held.load_state_dict(child.state_dict())
            setattr(module, name, held.eval())
        elif type(child).__name__ == "GELU":  # torch's or timm's
            setattr(module, name, HeldGelu())
        elif name == "attn_drop":  # what comes out of the softmax
            setattr(module, name, Held())
        else:
            exchange_parts(child)


def by_hand(model, layer, images, targets):
    model = copy.deepcopy(model)
    exchange_parts(model)
    outputs = []
    model.get_submodule(layer.name).register_forward_hook(lambda module, args, output: outputs.append(output))
    with unfused_attention(model):
        logits = model(images.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits[range(len(targets)), targets].sum(), outputs)
    return (layer.to_maps(outputs[0]) * layer.to_maps(gradient)).sum(1).detach()


@pytest.mark.parametrize("place", ["embedded patches", "first norm1 of the last stage", "last norm1"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_relevance_equals_that_of_a_model_with_exchanged_parts(name, place):
    model = build(name)
    layer, images = map_layer(model, usual_layers(model)[place]), images_for(model)
    expected = by_hand(model, layer, images, [0, 3])
    result = relevance(model.requires_grad_(False), layer, images, [0, 3])
    assert result.shape == (2, *layer.grid) and expected.abs().max() > 0
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    maps, _ = heat_maps(model, layer, images, [0, 3], method="lrp")
    torch.testing.assert_close(torch.from_numpy(maps), expected.clamp(min=0), rtol=1e-3, atol=1e-4 * expected.max())


# ---------------------------------------------------------------- what it promises


@pytest.mark.parametrize("name", ["mean", "shallow_vit", "vit_32px", "swin", "swinv2", "swin, ours"])
def test_without_biases_the_relevance_of_all_patches_adds_up_to_the_logit(name):
    model = build(name)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(".bias") or key.endswith("_bias") or key == "pos_embed":
                parameter.zero_()
    images = images_for(model)
    logits = model(images)[range(2), [1, 4]].detach()
    total = relevance(model, map_layer(model, "patch_embed"), images, [1, 4]).sum(dim=(1, 2))
    torch.testing.assert_close(total, logits, rtol=1e-3, atol=1e-4)


def test_the_plain_gradient_conserves_nothing():
    """Why the rules are needed: behind a LayerNorm per token gradient x activation of a block's output sums to zero."""
    model = build("mean")
    layer, images, outputs = map_layer(model, "blocks.1"), images_for(model), []
    handle = layer.module.register_forward_hook(lambda module, args, output: outputs.append(output))
    logits = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), outputs)
    plain = (outputs[-1] * gradient).sum(dim=(1, 2))
    held = relevance(model, layer, images, [1, 1]).sum(dim=(1, 2))
    assert plain.abs().max() < 1e-3 * held.abs().max()


def test_a_resnet_gets_plain_gradient_times_activation():
    model = make_randomized({"name": "resnet18"}, 64)
    layer, images = map_layer(model, "layer3"), images_for(model)
    expected, _ = heat_maps(model, layer, images, [0, 3], method="hirescam")
    result, _ = heat_maps(model, layer, images, [0, 3], method="lrp")
    torch.testing.assert_close(torch.from_numpy(result), torch.from_numpy(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_each_class_has_a_map_of_its_own_and_each_image(name):
    model = build(name).requires_grad_(False)
    layer, images = map_layer(model, "patch_embed"), images_for(model)
    together = relevance(model, layer, images, [0, 3])
    assert not torch.allclose(together[0], relevance(model, layer, images[:1], [3])[0], rtol=0.1)
    torch.testing.assert_close(together[1:], relevance(model, layer, images[1:], [3]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["class token", "swin", "swin, ours"])
def test_the_model_is_left_as_it_was(name):
    model = build(name)
    images, layer = images_for(model), map_layer(model, "patch_embed")
    state, logits = copy.deepcopy(model.state_dict()), model(images)
    gradient = torch.autograd.grad(logits.sum(), model.patch_embed.proj.weight)[0]
    relevance(model, layer, images, [0, 3])
    after = model(images)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(logits, after)
    assert torch.equal(gradient, torch.autograd.grad(after.sum(), model.patch_embed.proj.weight)[0])
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_forward_pass_that_fails_leaves_no_hook():
    model = build("shallow_vit")
    layer, images = map_layer(model, "patch_embed"), images_for(model)
    with pytest.raises(IndexError):
        relevance(model, layer, images, [0, 99])
    with pytest.raises((RuntimeError, AssertionError)):
        relevance(model, layer, images[..., :7], [0, 3])
    assert not layer.module._forward_hooks


def test_a_layer_that_no_gradient_reaches_is_an_error():
    model = build("shallow_vit").requires_grad_(False)
    layer = map_layer(model, "patch_embed")
    model.blocks.register_forward_hook(lambda module, args, output: output.detach())
    for method in ("lrp", "sglrp"):
        with pytest.raises(
            ValueError, match=f"^{method} at patch_embed: no gradient of the class score reaches this layer"
        ):
            relevance(model, layer, images_for(model), [0, 3], method=method)


@pytest.mark.parametrize("name", ["class token", "swin"])
def test_bf16_gives_nearly_the_same_map(name):
    model = build(name).requires_grad_(False)
    layer, images = map_layer(model, "patch_embed"), images_for(model)
    exact = relevance(model, layer, images, [0, 3])
    rough = relevance(model, layer, images, [0, 3], context=lambda: autocast(images.device, "bf16"))
    assert rough.dtype == torch.float32
    assert torch.corrcoef(torch.stack([exact.flatten(), rough.flatten()]))[0, 1] > 0.98


# ---------------------------------------------------------------- against the other classes


@pytest.mark.parametrize("name", ["class token", "swin"])
def test_sglrp_is_the_relevance_of_the_class_less_that_of_its_rivals(name):
    model = build(name).requires_grad_(False)
    layer, images = map_layer(model, "patch_embed"), images_for(model)
    logits = model(images)
    shares = logits.scatter(1, torch.tensor([[0], [3]]), float("-inf")).softmax(dim=1)
    every = torch.stack([relevance(model, layer, images, [k, k]) for k in range(logits.shape[1])])  # K B h w
    expected = every[[0, 3], [0, 1]] - torch.einsum("bk,kbhw->bhw", shares, every)
    result = relevance(model, layer, images, [0, 3], method="sglrp")
    torch.testing.assert_close(result, expected, rtol=1e-3, atol=1e-4 * expected.abs().max().item())
    maps, _ = heat_maps(model, layer, images, [0, 3], method="sglrp")
    torch.testing.assert_close(torch.from_numpy(maps), result.clamp(min=0))


def test_what_adds_to_all_logits_alike_is_no_evidence():
    logits = torch.randn(2, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad(class_scores(logits, [1, 4], True).sum(), logits)
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(2))
    assert gradient[0, 1] == 1 and (gradient[0, [0, 2, 3, 4]] < 0).all()
    assert class_scores(logits[:, :1], [0, 0], True).equal(logits[:, 0])  # a single class has no rivals
