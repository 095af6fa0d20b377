"""Where a map can be taken: places stay apart, and what is no map is refused."""

import pytest
import torch
from support import build, make_randomized

from explanation.layers import map_layer, map_layers, usual_layers
from models import input_spec

# ---------------------------------------------------------------- where a CAM looks


@pytest.mark.parametrize(
    ("family", "image_size", "kwargs", "name", "grid"),
    [
        ("shallow_vit", 32, {}, "blocks.0.norm1", (8, 8)),
        ("shallow_vit", 32, {"attention": False}, "blocks.0.norm2", (8, 8)),
        ("vit", [32, 64], {}, "blocks.1.norm1", (8, 16)),
        ("vit", 32, {"global_pool": "avg"}, "blocks.1.norm1", (8, 8)),
        ("vit", 32, {"reg_tokens": 4}, "blocks.1.norm1", (8, 8)),
        ("vit", 32, {"patch_size": (16, 4)}, "blocks.1.norm1", (2, 8)),
        ("pvt_v2_b0", 64, {}, "stages.3.blocks.1.norm1", (2, 2)),
        ("swin", [32, 64], {}, "layers.1.blocks.1.norm1", (8, 16)),
        ("swin_tiny_patch4_window7_224", 32, {}, "layers.2.blocks.5.norm1", (2, 2)),  # the last stage is 1x1
        ("resnet", 32, {}, "layer2", (4, 4)),  # here, too
        ("resnet", [64, 96], {}, "layer3", (4, 6)),
    ],
)
def test_the_default_cam_layer_sees_more_than_one_place(family, image_size, kwargs, name, grid):
    model = build(family, image_size=image_size, kwargs=kwargs).eval()
    layer = map_layer(model)
    assert (layer.name, layer.grid) == (name, grid)
    maps = []
    handle = layer.module.register_forward_hook(lambda module, args, output: maps.append(layer.to_maps(output)))
    model(torch.zeros(2, 3, *input_spec(model).size))
    handle.remove()
    assert maps[0].shape[0] == 2 and maps[0].shape[2:] == grid


@pytest.mark.parametrize("family", ["shallow_vit", "vit", "swin", "resnet"])
def test_maps_keep_places_apart(family):
    """Brighten one corner of the image: the map changes most in that corner."""
    torch.manual_seed(0)
    model = build(family, image_size=64).eval()
    name = {"resnet": "layer2", "swin": "layers.0.blocks.0.norm1"}.get(family, "blocks.0.norm1")
    layer, outputs = map_layer(model, name), []
    handle = layer.module.register_forward_hook(lambda module, args, output: outputs.append(layer.to_maps(output)))
    image = torch.zeros(1, 3, 64, 64)
    model(image)
    image[..., :16, 48:] = 1  # top right
    model(image)
    handle.remove()
    change = (outputs[1] - outputs[0]).abs().sum(1)[0]
    row, column = divmod(int(change.argmax()), change.shape[1])
    assert row < layer.grid[0] / 3 and column >= layer.grid[1] * 2 / 3


@pytest.mark.parametrize("family", ["shallow_vit", "vit", "swin", "resnet"])
def test_listed_layers_are_maps_that_keep_places_apart(family):
    """The oracle: a bright corner changes each map most in that corner, as far as the layer's grid tells it apart."""
    torch.manual_seed(0)
    model = build(family, image_size=[32, 64]).eval()
    layers = [layer for layer, _ in map_layers(model)]
    assert map_layer(model).name in [layer.name for layer in layers] and len(layers) > 8
    assert not [layer.name for layer in layers if ".attn." in layer.name]  # heads and windows are no places
    maps = {}
    hooks = [
        layer.module.register_forward_hook(lambda m, args, output, x=layer: maps.setdefault(x.name, []).append(output))
        for layer in layers
    ]
    dark = torch.zeros(1, 3, 32, 64)
    bright = dark.clone()
    bright[..., 16:, :16] = 1
    with torch.no_grad():
        model(dark), model(bright)
    for hook in hooks:
        hook.remove()
    for layer in layers[:2]:  # further on attention and wide kernels mix places
        before, after = map(layer.to_maps, maps[layer.name])
        row, column = divmod(int((after - before).abs().sum(1).argmax()), layer.grid[1])
        assert row >= layer.grid[0] / 2 and column < layer.grid[1] / 4
    for layer in layers:
        assert tuple(layer.to_maps(maps[layer.name][0]).shape[2:]) == layer.grid and layer.grid[1] == 2 * layer.grid[0]


def test_layers_behind_the_last_attention_have_no_gradient():
    reached = {layer.name: has for layer, has in map_layers(build("vit").requires_grad_(False))}
    assert reached["blocks.1.norm1"] and reached["blocks.0"] and reached["patch_embed"]
    assert not any(reached[name] for name in ("blocks.1.attn", "blocks.1.norm2", "blocks.1", "norm"))
    pooled = {layer.name: has for layer, has in map_layers(build("vit", kwargs={"global_pool": "avg"}))}
    assert all(pooled.values())


def test_layers_that_do_not_exist_or_are_no_maps():
    model = build("vit")
    with pytest.raises(ValueError, match=r"did you mean .*blocks\.1\.norm1"):
        map_layer(model, "blocks.1.norm3")
    with pytest.raises(ValueError, match="is not a map"):
        map_layer(model, "head")
    with pytest.raises(ValueError, match="is not a map"):  # heads x tokens x width
        map_layer(model, "blocks.1.attn.q_norm")
    with pytest.raises(ValueError, match="is not a map"):  # windows x tokens x width
        map_layer(build("swin"), "layers.0.blocks.0.attn")


def test_the_usual_layers_are_those_that_can_be_named():
    model = make_randomized({"name": "resmlp_12_224"}, 64)
    assert usual_layers(model)["last block"] == "blocks.11"
    mirror = model.blocks[-1].linear_tokens.weight
    mirror.data.copy_(torch.eye(len(mirror)).flip(0))
    model.blocks[-1].ls1.data.fill_(1000)  # each cell of the last block shows the opposite cell
    with pytest.raises(ValueError, match="does not keep the places"):
        map_layer(model, "blocks.11")
    found = usual_layers(model)
    assert found["embedded patches"] == "stem" and "last block" not in found
