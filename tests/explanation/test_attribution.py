"""Heat maps against grad-cam called by hand, and against definitions worked out with loops."""

import os

os.environ["TQDM_DISABLE"] = "1"  # grad-cam shows a bar per image

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam import AblationCAM, FinerCAM, ScoreCAM
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from scipy.stats import spearmanr
from support import make_config, make_randomized
from torch import nn

from common.devices import autocast
from explanation.attention_maps import attention_layer, attention_of
from explanation.attribution import Options, _find_fault, heat_maps
from explanation.layers import MapLayer, map_layer
from explanation.methods import LIBRARY, METHODS, uses_layer
from models import create_model, input_spec

FAMILIES = {
    "shallow_vit": ({"name": "shallow_vit"}, 32),
    "vit": ({"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8, "depth": 2}}, [32, 48]),
    "vit_mean": ({"name": "vit_tiny_patch16_224", "kwargs": {"depth": 2, "global_pool": "avg", "patch_size": 8}}, 32),
    "swin": (
        {
            "name": "swin_tiny_patch4_window7_224",
            "kwargs": {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
        },
        32,
    ),
    "resnet": ({"name": "resnet18"}, 64),
}


def build(family):
    return make_randomized(*FAMILIES[family], num_classes=6)


def random_images(model, count):
    return torch.randn(count, 3, *input_spec(model).size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------- maps against grad-cam called by hand


@pytest.mark.parametrize("method", [*LIBRARY, "scorecam"])
@pytest.mark.parametrize("family", FAMILIES)
def test_maps_equal_grad_cam_called_by_hand(family, method):
    model = build(family)
    few = family == "resnet" and method == "scorecam"  # channels
    images, layer = random_images(model, 2 if method == "scorecam" else 4), map_layer(model, "layer1" if few else None)
    logits = model(images).detach()
    targets = logits.argmax(1).tolist()  # what speaks for them makes a map that is not blank
    scores = [ClassifierOutputTarget(target) for target in targets]
    if method == "finercam":
        ranked = logits.argsort(1, descending=True)[:, 1:4].tolist()
        scores = [FinerWeightedTarget(target, others, 1) for target, others in zip(targets, ranked)]
    library = {"scorecam": ScoreCAM, "finercam": FinerCAM}.get(method) or getattr(pytorch_grad_cam, LIBRARY[method])
    module = model.get_submodule(layer.name)
    cam = library(model, [module], reshape_transform=by_hand(family, model, layer.grid))
    expected = cam(images, scores)
    getattr(cam, "base_cam", cam).activations_and_grads.release()

    maps, _ = heat_maps(model, layer, images, targets, method=method)
    assert maps.shape == (len(images), *layer.grid)
    for ours, theirs in zip(maps, expected):
        np.testing.assert_allclose(
            as_the_library_scales(ours, images), theirs, atol=1e-4 if method == "scorecam" else 1e-3
        )


def by_hand(family, model, grid):
    """The reshape_transform that the library's users write."""
    if family == "resnet":
        return None
    if family == "swin":
        return lambda x: x.permute(0, 3, 1, 2)
    prefix = getattr(model, "num_prefix_tokens", 0)
    return lambda x: x[:, prefix:].reshape(len(x), *grid, -1).permute(0, 3, 1, 2)


def as_the_library_scales(map_, images):
    return scale_cam_image(scale_cam_image(map_[None], images.shape[:1:-1]))[0]


def test_ablation_cam_equals_the_librarys_behind_a_relu():
    """Elsewhere the library replaces a channel by -10^7."""
    model = build("resnet")
    with torch.no_grad():
        model.fc.bias.add_(10)  # the library divides by the score with its sign
    images, layer = random_images(model, 2), map_layer(model, "layer1")
    cam = AblationCAM(model, [model.layer1])
    expected = cam(images, [ClassifierOutputTarget(2), ClassifierOutputTarget(5)])
    cam.activations_and_grads.release()
    maps, _ = heat_maps(model, layer, images, [2, 5], method="ablationcam")
    for ours, theirs in zip(maps, expected):
        np.testing.assert_allclose(as_the_library_scales(ours, images), theirs, atol=1e-3)


@pytest.mark.parametrize("family", ["shallow_vit", "vit", "swin"])
def test_ablation_cam_equals_its_definition(family):
    model = build(family)
    layer = map_layer(model)
    images = random_images(model, 1)
    module = model.get_submodule(layer.name)

    def score_without(channel):
        """The layer's output without one channel, by the class token kept: only what the map shows is taken away."""

        def ablate(module, args, output):
            output = output.clone()
            if channel is not None:
                output[:, 1 if family == "vit" else 0 :, ..., channel] = 0
            kept.append(output)
            return output

        kept = []
        handle = module.register_forward_hook(ablate)
        with torch.no_grad():
            score = model(images)[0, 4].item()
        handle.remove()
        return score, kept[0]

    score, output = score_without(None)
    maps = by_hand(family, model, layer.grid)(output) if family != "resnet" else output
    drops = [(score - score_without(channel)[0]) / abs(score) for channel in range(maps.shape[1])]
    expected = sum(drop * maps[0, channel] for channel, drop in enumerate(drops)).clamp(min=0).numpy()
    (ours,), _ = heat_maps(model, layer, images, [4], method="ablationcam")
    np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-3 * expected.max())


def test_score_cam_of_all_channels_is_score_cam():
    model = build("swin")
    images, layer = random_images(model, 2), map_layer(model)
    maps = {
        k: heat_maps(model, layer, images, [0, 1], method="scorecam", options=Options(channels=k))[0]
        for k in (None, 48, 12)
    }
    np.testing.assert_allclose(maps[48], maps[None], rtol=1e-4, atol=1e-6)
    assert np.abs(maps[12] - maps[None]).max() > 1e-3
    with pytest.raises(ValueError, match="option of scorecam, not of gradcam"):
        heat_maps(model, layer, images, [0, 1], options=Options(channels=12))


@pytest.mark.parametrize("method", ["gradcam", "scorecam", "rollout"])
def test_bf16_hardly_changes_a_map(method):
    model = build("swin")
    images, layer = random_images(model, 1), map_layer(model)
    half = Options(context=lambda: autocast(images.device, "bf16"))
    full, rounded = (
        heat_maps(model, layer, images, [0], method=method, options=options)[0] for options in (Options(), half)
    )
    assert rounded.dtype == np.float32 and np.abs(full - rounded).max() > 0
    assert spearmanr(full.ravel(), rounded.ravel()).statistic > 0.9


def test_masked_passes_keep_nothing():
    """Score-CAM's passes make no graph, and no more than a part of the masks exists at once."""
    model = build("swin")
    images, layer, seen = random_images(model, 1), map_layer(model), []
    handle = model.register_forward_hook(lambda module, args, output: seen.append((len(args[0]), output.requires_grad)))
    heat_maps(model, layer, images, [0], method="scorecam")
    handle.remove()
    assert sum(count for count, _ in seen) == 1 + 48 and max(count for count, _ in seen) <= 16
    assert not any(graph for _, graph in seen)


def test_each_image_has_its_own_target():
    model = build("vit")
    images, layer = random_images(model, 1).expand(2, -1, -1, -1), map_layer(model)
    both, _ = heat_maps(model, layer, images, [1, 4])
    alone = [heat_maps(model, layer, images[:1], [target])[0][0] for target in (1, 4)]
    np.testing.assert_allclose(both, alone, rtol=1e-4, atol=1e-7)
    assert np.abs(both[0] - both[1]).max() > 1e-4


def test_frozen_models_are_explained():
    model = build("vit").requires_grad_(False)
    layer = map_layer(model)
    maps, faults = heat_maps(model, layer, random_images(model, 1), [0])
    assert maps.max() > 0 and not faults


def test_no_gradient_of_parameters_is_computed():
    model = build("vit")
    heat_maps(model, map_layer(model), random_images(model, 1), [0])
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_hooks_are_gone_afterwards():
    model = build("vit")
    layer, images = map_layer(model), random_images(model, 2)
    before = model(images)
    heat_maps(model, layer, images, [0, 1])
    assert not layer.module._forward_hooks
    assert torch.equal(model(images), before)


# ---------------------------------------------------------------- no silently wrong map


@pytest.mark.parametrize("name", ["blocks.1", "norm", "blocks.1.norm2"])
def test_behind_the_last_attention_a_class_token_gives_a_blank_map(name):
    model = build("vit")
    layer = map_layer(model, name)
    maps, faults = heat_maps(model, layer, random_images(model, 1), [0])
    assert not maps.any() and "blank" in faults[0]


def test_unusable_maps_are_named():
    model = build("resnet")
    layer = map_layer(model)
    images = random_images(model, 1)
    with pytest.raises(ValueError, match="did you mean gradcam"):
        heat_maps(model, layer, images, [0], method="grad-cam")
    with torch.no_grad():
        model.conv1.weight.fill_(float("nan"))
    assert "NaN or infinite" in heat_maps(model, layer, images, [0])[1][0]
    small = create_model(make_config(data={"image_size": 32}, model={"name": "resnet18"}), num_classes=6).eval()
    layer = map_layer(small, "layer4")
    assert "grid is 1x1" in heat_maps(small, layer, random_images(small, 1), [0])[1][0]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ([[1.0, float("nan")]], "NaN or infinite"),
        ([[1.0, float("inf")]], "NaN or infinite"),
        ([[1.0]], "1x1"),
        ([[0.0, 0.0]], "blank"),
        ([[-1.0, 0.0]], "blank"),
        ([[2.0, 2.0]], "the same everywhere"),
        ([[1.0, 1 - 5e-7]], "the same everywhere"),
        ([[1.0, 1 - 5e-6]], None),
        ([[0.0, 1e-9]], None),
        ([[100.0, 100 - 5e-5]], "the same everywhere"),
    ],
)
def test_what_is_wrong_with_a_map(values, fault):
    found = _find_fault(np.array(values))
    assert found is None if fault is None else fault in found


class Detached(nn.Module):
    """A classifier whose score cannot be differentiated."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 8, stride=8)

    def forward(self, x):
        return self.conv(x).round().detach().mean((2, 3))


@pytest.mark.parametrize("method", ["gradcam", "layercam", "eigengradcam", "finercam"])
def test_methods_by_gradient_say_that_there_is_none(method):
    model, images = Detached().eval(), torch.rand(2, 3, 32, 32) * 20
    layer = MapLayer("conv", model.conv, (4, 4), lambda x: x)
    with pytest.raises(ValueError, match=f"{method} at conv: no gradient of the class score reaches.*eigencam"):
        heat_maps(model, layer, images, [0, 1], method=method)
    assert heat_maps(model, layer, images, [0, 1], method="eigencam")[0].max() > 0


def test_a_layer_in_front_of_an_in_place_activation():
    model = build("resnet")
    layer, images = map_layer(model, "layer3.1.bn2"), random_images(model, 1)  # act2 works in place
    outputs = []
    handle = layer.module.register_forward_hook(lambda module, args, output: outputs.append(output.detach().clone()))
    (map_,), _ = heat_maps(model, layer, images, [0], method="fem")
    handle.remove()
    mean, std = outputs[0].mean((2, 3), keepdim=True), outputs[0].std((2, 3), keepdim=True, correction=0)
    expected = (outputs[0] * (outputs[0] > mean + 2 * std).float().mean((2, 3), keepdim=True)).sum(1)
    np.testing.assert_allclose(map_[None], expected.clamp(min=0).numpy(), rtol=1e-4, atol=1e-5)


def test_rollouts_look_at_no_layer():
    assert [method for method in METHODS if not uses_layer(method)] == ["auto", "rollout", "gradrollout"]
    model = build("vit")
    images = random_images(model, 20)  # more than are kept at once
    for method in ("rollout", "gradrollout"):
        together, _ = heat_maps(model, None, images, [1] * 20, method=method)
        alone, _ = heat_maps(model, None, images[17:18], [1], method=method)
        assert together.shape == (20, 4, 6)
        np.testing.assert_allclose(together[17], alone[0], rtol=1e-3, atol=1e-6)
    with pytest.raises(ValueError, match="ResNet has no attention layers"):
        heat_maps(build("resnet"), None, images, [0] * 20, method="rollout")


def test_attention_is_the_mean_over_heads_of_any_number_of_images():
    model = build("vit")
    images, layer = random_images(model, 18), attention_layer(model)  # more than are kept at once
    for patch in (None, (1, 2)):
        maps, _ = heat_maps(model, layer, images, [0] * 18, method="attention", options=Options(patch=patch))
        expected = attention_of(model, images[16:], layer.name, patch).mean(1)
        assert maps.shape == (18, *layer.grid)
        np.testing.assert_allclose(maps[16:], expected.detach().numpy(), rtol=1e-4, atol=1e-7)


def test_lrprollout_is_gradient_rollout_times_relevance():
    model = build("swin")
    images, layer = random_images(model, 2), map_layer(model, "layers.1.blocks.0.norm1")
    (rollouts, _), (factor, _) = (heat_maps(model, layer, images, [1, 4], method=m) for m in ("gradrollout", "lrp"))
    assert factor.shape[1:] == (8, 8) and rollouts.shape[1:] == (16, 16)
    factor = nn.functional.interpolate(torch.from_numpy(factor)[:, None], (16, 16), mode="bilinear")[:, 0].numpy()
    maps, _ = heat_maps(model, layer, images, [1, 4], method="lrprollout")
    np.testing.assert_allclose(maps, rollouts * factor, rtol=1e-3, atol=1e-4 * maps.max())
