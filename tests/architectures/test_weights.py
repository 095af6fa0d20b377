"""Weights from files, runs, folders and the cache load as they are, or say what does not fit."""

import hashlib
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from support import FAMILIES, build, make_config, write_config
from timm.models._hub import save_for_hf

import train
from architectures.weights import corpus_of, find_weights, pretrained_cfg
from models import create_model, input_spec, resolve_image_size


def save_weights(model, path):
    state = {key: tensor.contiguous() for key, tensor in model.state_dict().items()}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return str(path)


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
    assert "more" not in str(caught.value)


@pytest.mark.parametrize(
    ("count", "end"), [(6, "extra5 is not part of the model"), (7, " and 1 more"), (9, " and 3 more")]
)
def test_of_many_keys_that_do_not_fit_six_are_listed(tmp_path, count, end):
    state = build("vit").state_dict() | {f"extra{i}": torch.zeros(1) for i in range(count)}
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="does not fit") as caught:
        build("vit", pretrained=str(tmp_path / "weights.pth"))
    assert str(caught.value).endswith(end) and str(caught.value).count("is not part of") == 6


def test_only_like_names_are_proposed():
    with pytest.raises(ValueError, match="nor one of the project's own; nearest: vit_tiny_patch16_224"):
        pretrained_cfg("vit_tinny_patch16_224")
    with pytest.raises(ValueError, match=r"nor one of the project's own$"):
        pretrained_cfg("####")


@pytest.mark.parametrize(
    ("model", "purpose", "remedy"),
    [
        ({"name": "resnet18", "pretrained": True}, "Downloading the weights of resnet18", "set model.pretrained (for"),
        (
            {"name": "hf-hub:owner/model"},
            "Downloading the config of hf-hub:owner/model",
            "set model.name to local-dir:FOLDER",
        ),
    ],
)
def test_without_a_network_it_is_said_which_file_goes_where(monkeypatch, model, purpose, remedy):
    asked = {}

    def refuse(address, **words):
        asked.update(words)
        raise ValueError("no network")

    monkeypatch.setattr("architectures.weights.require_network", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args, **version: None)
    with pytest.raises(ValueError, match="no network"):
        create_model(make_config(data={"image_size": 32}, model=model), num_classes=3)
    assert asked["purpose"] == purpose and remedy in asked["remedy"]
    assert ("model.pretrained=false" in asked["remedy"]) == bool(model.get("pretrained"))


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
    with pytest.raises(ValueError, match="its weights are of vit_tiny_patch16_224, not of resnet18"):
        build("resnet18", pretrained=f"{tmp_path}/weights")
    (tmp_path / "weights" / "pytorch_model.bin").write_bytes(b"older")
    assert find_weights("vit_tiny_patch16_224", f"{tmp_path}/weights").path.name == "model.safetensors"
    (tmp_path / "weights" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"needs a config\.json as timm writes it"):
        build("vit", pretrained=f"local-dir:{tmp_path}/weights")


def test_a_name_may_be_a_folder_or_a_repository_of_the_hub(tmp_path, monkeypatch):
    source = timm.create_model("vit_tiny_patch16_224", img_size=16, num_classes=7, patch_size=8, depth=1).eval()
    save_for_hf(source, tmp_path, model_args={"img_size": 16, "patch_size": 8, "depth": 1}, safe_serialization=True)
    images = torch.randn(2, 3, 16, 16)
    cached = lambda repository, file: str(tmp_path / file) if repository == "someone/vit" else None  # noqa: E731
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    for name in (f"local-dir:{tmp_path}", "hf-hub:someone/vit"):
        config = resolve_image_size(make_config(data={"image_size": None}, model={"name": name, "pretrained": True}))
        assert config.data.image_size == 16
        model = create_model(config, num_classes=7).eval()
        assert torch.equal(model(images), source(images))
        assert create_model(config, num_classes=3).head.out_features == 3
    (tmp_path / "config.json").write_text('{"architecture": "no_such_model", "pretrained_cfg": {}}')
    with pytest.raises(ValueError, match="neither timm nor the project has its no_such_model"):
        create_model(config, num_classes=7)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json as timm writes it"):
        resolve_image_size(make_config(data={"image_size": None}, model={"name": f"local-dir:{tmp_path}"}))


def test_the_corpus_is_read_from_the_tag():
    assert corpus_of("augreg_in21k_ft_in1k") == "ImageNet-21k then ImageNet-1k (augreg_in21k_ft_in1k)"
    assert corpus_of("ms_in22k_ft_in1k").startswith("ImageNet-21k then ImageNet-1k")
    assert corpus_of("something_else") == "something_else"
