import hashlib
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from support import make_config, write_config
from timm.models._hub import save_for_hf
from torch import nn

import models
import train
from architectures.weights import corpus_of, pretrained_cfg
from explanation.layers import map_layer, map_layers
from models import apply_tuning, create_model, input_spec, restore_model, train_mode

SWIN = {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
FAMILIES = {
    "shallow_vit": {"name": "shallow_vit"},
    "vit": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 4, "depth": 2}},
    "swin": {"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN},
    "resnet": {"name": "resnet18"},
}


def build(family, *, image_size=32, num_classes=5, **model):
    values = FAMILIES.get(family, {"name": family})
    values = {**values, **model, "kwargs": {**values.get("kwargs", {}), **model.get("kwargs", {})}}
    return create_model(make_config(data={"image_size": image_size}, model=values), num_classes=num_classes)


def save_weights(model, path):
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


# ---------------------------------------------------------------- building


@pytest.mark.parametrize("image_size", [32, [32, 64]])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_the_image_size_and_the_classes(family, image_size):
    model = build(family, image_size=image_size)
    height, width = input_spec(model).size
    assert (height, width) == ((32, 32) if image_size == 32 else (32, 64))
    assert model.eval()(torch.zeros(2, 3, height, width)).shape == (2, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_gets_a_gradient(family):
    torch.manual_seed(0)
    model = build(family)
    for parameter in model.parameters():  # out of special points such as a zero-initialised table
        nn.init.normal_(parameter, std=0.1)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("switch", ["pos_embed", "attention", "ffn"])
def test_every_switch_of_the_shallow_vit_changes_the_output(switch):
    outputs = []
    for kwargs in ({}, {switch: False}):
        torch.manual_seed(0)
        model = build("shallow_vit", kwargs=kwargs).eval()
        torch.manual_seed(0)
        for name, parameter in sorted(model.named_parameters()):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        outputs.append(model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_the_variants_of_the_shallow_vit_differ_in_one_thing_each(caplog):
    variants = {
        name: timm.create_model(f"shallow_vit_{name}", num_classes=100) for name in ("a0", "a1", "a2", "a3", "a4")
    }
    parts = {
        name: {kind for key, _ in model.named_parameters() for kind in ("pos_embed", "attn", "mlp") if kind in key}
        for name, model in variants.items()
    }
    everything = {"pos_embed", "attn", "mlp"}
    assert parts["a0"] == parts["a4"] == everything
    assert [everything - parts[name] for name in ("a1", "a2", "a3")] == [{"pos_embed"}, {"attn"}, {"mlp"}]
    assert [variants[name].patch_embed.grid_size for name in ("a0", "a4")] == [(8, 8), (4, 4)]
    assert 1.0e6 < sum(p.numel() for p in variants["a0"].parameters()) < 1.15e6
    assert not caplog.text
    timm.create_model("shallow_vit", attention=False, ffn=False)
    assert "its blocks are empty" in caplog.text


def test_the_resnet_for_small_images_keeps_their_pixels():
    small, usual = build("resnet18_32px"), build("resnet18")
    assert map_layer(small).grid == (4, 4) and map_layer(usual, "layer4").grid == (1, 1)
    x = torch.zeros(1, 3, 32, 32)
    assert small.eval().forward_features(x).shape == (1, 512, 4, 4)
    assert {k: v.shape for k, v in small.state_dict().items() if "layer" in k} == {
        k: v.shape for k, v in usual.state_dict().items() if "layer" in k
    }


def test_the_shallow_vit_without_attention_and_positions_ignores_the_order_of_patches():
    image = torch.randn(1, 3, 32, 32)
    swapped = torch.cat([image[..., 16:], image[..., :16]], -1)
    plain = build("shallow_vit", kwargs={"attention": False, "pos_embed": False}).eval()
    torch.testing.assert_close(plain(image), plain(swapped))
    full = build("shallow_vit").eval()
    nn.init.normal_(full.pos_embed)
    assert (full(image) - full(swapped)).abs().max() > 1e-3


def test_the_size_that_a_model_was_designed_for_is_the_default():
    cfg = make_config(data={"image_size": None}, model={"name": "vit_base_patch16_384"})
    assert models.resolve_image_size(cfg).data.image_size == 384
    cfg = make_config(data={"image_size": 48}, model={"name": "vit_base_patch16_384"})
    assert models.resolve_image_size(cfg).data.image_size == 48


def test_normalisation_comes_from_the_weights_or_by_name():
    half, imagenet = ((0.5,) * 3, (0.5,) * 3), models.NORMALIZATIONS["imagenet"]
    for family, data_section, expected in (
        ("vit", {}, half),
        ("swin", {}, imagenet),
        ("vit", {"normalization": "imagenet"}, imagenet),
        ("swin", {"normalization": "cifar10"}, models.NORMALIZATIONS["cifar10"]),
        ("swin", {"normalization": [[0, 0, 0], [1, 1, 1]]}, ((0, 0, 0), (1, 1, 1))),
    ):
        cfg = make_config(data={"image_size": 32, **data_section}, model=FAMILIES[family])
        spec = input_spec(create_model(cfg, num_classes=3))
        assert (spec.mean, spec.std) == expected
        assert spec.corpus == "none"
    assert models.InputSpec.from_dict(spec.to_dict()) == spec


def test_a_model_is_restored_as_it_was():
    cfg = make_config(data={"image_size": 32}, model=FAMILIES["swin"])
    model = create_model(cfg, num_classes=3).eval()
    checkpoint = {
        "model": model.state_dict(),
        "class_names": ["a", "b", "c"],
        "input_spec": input_spec(model).to_dict(),
    }
    restored = restore_model(cfg, checkpoint)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(restored(images), model(images)) and input_spec(restored) == input_spec(model)


def test_swin_blocks_that_cannot_shift_are_reported(caplog):
    build("swin_tiny_patch4_window7_224", image_size=64)
    assert "never shifts" in caplog.text
    caplog.clear()
    build("swin", image_size=64)
    assert "never shifts" not in caplog.text


# ---------------------------------------------------------------- pretrained weights


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_local_weights_load_with_a_new_head(tmp_path, family, suffix):
    source = build(family, num_classes=7)
    path = save_weights(source, tmp_path / f"weights{suffix}")
    model = build(family, num_classes=5, pretrained=path)
    head = pretrained_cfg(FAMILIES[family]["name"]).classifier
    for key, tensor in model.state_dict().items():
        if key.startswith(f"{head}."):
            assert len(tensor) == 5
        else:
            assert torch.equal(tensor, source.state_dict()[key]), key
    assert input_spec(model).corpus == path
    same = build(family, num_classes=7, pretrained=path)
    assert torch.equal(same.get_classifier().weight, source.get_classifier().weight)


@pytest.mark.parametrize("family", ["shallow_vit", "vit", "swin"])
def test_weights_of_another_image_size_are_interpolated(tmp_path, family):
    path = save_weights(build(family, image_size=32), tmp_path / "weights.pth")
    model = build(family, image_size=64, pretrained=path)
    assert model.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_a_checkpoint_of_a_run_brings_its_normalisation(tmp_path, vit_run):
    checkpoint = torch.load(vit_run / "best.pt", weights_only=True)
    checkpoint["input_spec"]["mean"] = [0.1, 0.2, 0.3]
    torch.save(checkpoint, tmp_path / "best.pt")
    kwargs = {"embed_dim": 32, "num_heads": 2}
    model = build("shallow_vit", image_size=32, kwargs=kwargs, pretrained=str(tmp_path / "best.pt"))
    assert input_spec(model).mean == (0.1, 0.2, 0.3) and input_spec(model).size == (32, 32)
    assert torch.equal(model.blocks[0].attn.qkv.weight, checkpoint["model"]["blocks.0.attn.qkv.weight"])


def test_weights_that_do_not_fit_list_the_keys(tmp_path):
    state = build("vit").state_dict()
    del state["blocks.1.norm1.weight"]
    state["blocks.0.norm1.bias"] = torch.zeros(7)
    state["surprise"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not fit") as caught:
        build("vit", pretrained=str(tmp_path / "weights.pth"))
    for part in (
        "blocks.1.norm1.weight is missing",
        "surprise is not part of the model",
        "blocks.0.norm1.bias is [7], the model has [192]",
    ):
        assert part in str(caught.value)


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        build("vit", pretrained=str(tmp_path / "missing.pth"))
    for name in ("text.pth", "text.safetensors"):
        (tmp_path / name).write_text("not weights")
        with pytest.raises(ValueError, match="is not a file of weights"):
            build("vit", pretrained=str(tmp_path / name))


def test_weights_in_the_hub_cache_need_no_network(tmp_path, monkeypatch):
    source = build("resnet18", num_classes=1000)
    path = save_weights(source, tmp_path / "model.safetensors")
    asked = []
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: asked.append(args) or path)
    model = build("resnet18", num_classes=5, pretrained=True)
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors")]
    assert torch.equal(model.conv1.weight, source.conv1.weight)
    assert input_spec(model).corpus == "ImageNet-1k (a1_in1k)"


def test_a_folder_of_timms_is_fine_tuned_from(tmp_path, folder_root):
    kwargs = {"patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 2}
    source = timm.create_model("vit_tiny_patch16_224", img_size=24, num_classes=7, **kwargs)
    source.pretrained_cfg |= {"tag": "test_in21k", "license": "mit", "mean": (0.1, 0.2, 0.3), "input_size": (3, 24, 24)}
    save_for_hf(source, tmp_path / "weights", safe_serialization=True)
    values = {
        "data": {"dataset": "imagefolder", "root": str(folder_root), "image_size": 24, "val_fraction": 0.2},
        "model": {"name": "vit_tiny_patch16_224", "pretrained": f"local-dir:{tmp_path}/weights", "tune": "head"},
        "train": {"epochs": 1, "batch_size": 8},
    }
    values["model"]["kwargs"] = kwargs
    train.main([str(write_config(tmp_path, values)), f"output_root={tmp_path}"])
    checkpoint = torch.load(tmp_path / "tiny" / "best.pt", weights_only=True)
    for key, tensor in source.state_dict().items():
        assert key.startswith("head.") or torch.equal(checkpoint["model"][key], tensor), key
    assert checkpoint["input_spec"]["mean"] == [0.1, 0.2, 0.3]
    started = json.loads((tmp_path / "tiny" / "environment.json").read_text())["pretrained"]
    digest = hashlib.sha256((tmp_path / "weights" / "model.safetensors").read_bytes()).hexdigest()
    assert (started["corpus"], started["license"]) == ("ImageNet-21k (test_in21k)", "mit")
    assert started["sha256"] == digest
    with pytest.raises(ValueError, match="it holds a vit_tiny_patch16_224, not a resnet18"):
        build("resnet18", pretrained=f"{tmp_path}/weights")
    (tmp_path / "weights" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"needs a config\.json as timm writes it"):
        build("vit", pretrained=f"local-dir:{tmp_path}/weights")


def test_the_corpus_is_read_from_the_tag():
    assert corpus_of("augreg_in21k_ft_in1k") == "ImageNet-21k then ImageNet-1k (augreg_in21k_ft_in1k)"
    assert corpus_of("ms_in22k_ft_in1k").startswith("ImageNet-21k then ImageNet-1k")
    assert corpus_of("something_else") == "something_else"


# ---------------------------------------------------------------- fine-tuning policy


@pytest.mark.parametrize(
    ("family", "policy", "trained"),
    [
        ("vit", "head", ("head",)),
        ("vit", "last-1", ("blocks.1", "norm", "head")),
        ("vit", "last-2", ("blocks", "norm", "head")),
        ("swin", "head", ("head",)),
        ("swin", "last-1", ("layers.1.blocks.1", "norm", "head")),
        ("swin", "last-3", ("layers.0.blocks.1", "layers.1", "norm", "head")),
        ("resnet", "last-1", ("layer4.1", "fc")),
        ("shallow_vit", "last-1", ("blocks.0", "norm", "head")),
    ],
)
def test_tuning_trains_what_it_names(family, policy, trained):
    model = build(family, tune=policy)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == name.startswith(tuple(f"{prefix}." for prefix in trained)), name


def test_frozen_parts_stay_in_evaluation_mode():
    model = build("resnet", tune="last-1")
    train_mode(model)
    frozen = model.bn1.running_mean.clone()
    trained = model.layer4[1].bn1.running_mean.clone()
    model(torch.randn(4, 3, 64, 64))
    assert torch.equal(model.bn1.running_mean, frozen)
    assert not torch.equal(model.layer4[1].bn1.running_mean, trained)
    apply_tuning(model, "full")
    train_mode(build("resnet"))


def test_more_blocks_than_there_are():
    with pytest.raises(ValueError, match="last-99: the model has 2 blocks"):
        build("vit", tune="last-99")


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
        ("resnet", 32, {}, "layer3", (2, 2)),  # here, too
        ("resnet", [64, 96], {}, "layer4", (2, 3)),
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
    with pytest.raises(ValueError, match=r"nearest: .*blocks\.1\.norm1"):
        map_layer(model, "blocks.1.norm3")
    with pytest.raises(ValueError, match="is not a map"):
        map_layer(model, "head")
    with pytest.raises(ValueError, match="is not a map"):  # heads x tokens x width
        map_layer(model, "blocks.1.attn.q_norm")
    with pytest.raises(ValueError, match="is not a map"):  # windows x tokens x width
        map_layer(build("swin"), "layers.0.blocks.0.attn")


# ---------------------------------------------------------------- mistakes


def test_unknown_models_name_the_nearest():
    with pytest.raises(ValueError, match="nearest: vit_tiny_patch16_224"):
        build("vit_tiny_patch16_22")
    for name in ("vit_tinny", "vit_tiny"):  # far longer in full
        with pytest.raises(ValueError, match=r"nearest: .*vit_tiny_patch16_224"):
            build(name)
    with pytest.raises(ValueError, match=r"own$"):
        build("zzz_qqq")
    with pytest.raises(ValueError, match="no weights of that tag"):
        build("resnet18.no_such_tag")


@pytest.mark.parametrize("kwargs", [{"img_size": 32}, {"no_such_argument": 1}, {"patch_size": 5}, {"num_heads": 7}])
def test_arguments_that_a_model_refuses_are_named(kwargs):
    with pytest.raises(ValueError, match=r"img_size|no_such_argument|patch|7"):
        build("shallow_vit", kwargs=kwargs)


def test_arguments_of_another_architecture_say_how_to_clear_them():
    with pytest.raises(
        ValueError, match=r"'depth'; model\.kwargs of the config are kept .* model\.kwargs=\{\} clears them"
    ):
        build("swin_tiny_patch4_window7_224", kwargs={"depth": 2})


def test_the_projects_models_are_timms():
    assert timm.is_model("shallow_vit")
    assert sum(p.numel() for p in timm.create_model("shallow_vit", num_classes=10).parameters()) == 468874
