import pytest
import timm
import torch
from support import FAMILIES, build, make_config
from torch import nn

import models
from models import apply_tuning, create_model, input_spec, restore_model, train_mode

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


def test_the_size_that_a_model_was_designed_for_is_the_default():
    cfg = make_config(data={"image_size": None}, model={"name": "vit_base_patch16_384"})
    assert models.resolve_image_size(cfg).data.image_size == 384
    cfg = make_config(data={"image_size": 48}, model={"name": "vit_base_patch16_384"})
    assert models.resolve_image_size(cfg).data.image_size == 48


def test_normalisation_comes_from_the_weights_or_by_name():
    half, imagenet = ((0.5,) * 3, (0.5,) * 3), models.NORMALIZATIONS["imagenet"]
    measured = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    for family, data_section, expected in (
        ("vit", {}, measured),  # from scratch all are fed alike
        ("swin", {}, measured),
        ("vit", {"normalization": "model"}, half),
        ("swin", {"normalization": "model"}, imagenet),
        ("vit", {"normalization": "imagenet"}, imagenet),
        ("swin", {"normalization": "cifar10"}, models.NORMALIZATIONS["cifar10"]),
        ("swin", {"normalization": [[0, 0, 0], [1, 1, 1]]}, ((0, 0, 0), (1, 1, 1))),
    ):
        cfg = make_config(data={"image_size": 32, **data_section}, model=FAMILIES[family])
        spec = input_spec(create_model(cfg, num_classes=3, statistics=lambda: measured))
        assert (spec.mean, spec.std) == expected and spec.interpolation == "bicubic"
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
