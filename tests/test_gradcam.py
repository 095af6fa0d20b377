import json

import numpy as np
import pytest
import torch
from conftest import make_config
from PIL import Image
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

import gradcam
from analysis.attribution import METHODS, heat_maps
from data import Preprocess
from models import cam_layer, create_model, input_spec, restore_model
from runs import Run
from sources import open_image

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
    """A model with random weights that are large enough for its maps to have structure."""
    torch.manual_seed(0)
    model, size = FAMILIES[family]
    model = create_model(make_config(data={"image_size": size}, model=model), num_classes=6).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    return model


def random_images(model, count):
    return torch.randn(count, 3, *input_spec(model).size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(path)
    return path


# ---------------------------------------------------------------- maps against grad-cam called by hand


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", FAMILIES)
def test_maps_equal_grad_cam_called_by_hand(family, method):
    model = build(family)
    images, layer = random_images(model, 4), cam_layer(model)
    targets = model(images).argmax(1).tolist()  # what speaks for them makes a map that is not blank
    (rows, columns), prefix = layer.grid, getattr(model, "num_prefix_tokens", 0)
    by_hand = {
        "resnet": None,
        "swin": lambda x: x.permute(0, 3, 1, 2),
    }.get(family, lambda x: x[:, prefix:].reshape(len(x), rows, columns, -1).permute(0, 3, 1, 2))
    module = dict(model.named_modules())[layer.name]
    library = METHODS[method](model, [module], reshape_transform=by_hand)
    expected = library(images, [ClassifierOutputTarget(target) for target in targets])
    library.activations_and_grads.release()

    maps = heat_maps(model, layer.module, layer.to_maps, images, targets, method=method, faults={})
    assert maps.shape == (4, rows, columns)
    for ours, theirs in zip(maps, expected):
        scaled = scale_cam_image(scale_cam_image(ours[None], images.shape[:1:-1]))[0]  # as the library does
        np.testing.assert_allclose(scaled, theirs, atol=1e-3)


def test_each_image_has_its_own_target():
    model = build("vit")
    images, layer = random_images(model, 1).expand(2, -1, -1, -1), cam_layer(model)
    both = heat_maps(model, layer.module, layer.to_maps, images, [1, 4])
    alone = [heat_maps(model, layer.module, layer.to_maps, images[:1], [target])[0] for target in (1, 4)]
    np.testing.assert_allclose(both, alone, rtol=1e-4, atol=1e-7)
    assert np.abs(both[0] - both[1]).max() > 1e-4


def test_frozen_models_are_explained():
    model = build("vit").requires_grad_(False)
    layer = cam_layer(model)
    assert heat_maps(model, layer.module, layer.to_maps, random_images(model, 1), [0]).max() > 0


def test_hooks_are_gone_afterwards():
    model = build("vit")
    layer, images = cam_layer(model), random_images(model, 2)
    before = model(images)
    heat_maps(model, layer.module, layer.to_maps, images, [0, 1])
    assert not layer.module._forward_hooks
    assert torch.equal(model(images), before)


# ---------------------------------------------------------------- no silently wrong map


@pytest.mark.parametrize("name", ["blocks.1", "norm", "blocks.1.norm2"])
def test_behind_the_last_attention_a_class_token_gives_a_blank_map(name):
    model = build("vit")
    layer = cam_layer(model, name)
    with pytest.raises(ValueError, match=rf"gradcam at {name}: the map is blank.*norm1"):
        heat_maps(model, layer.module, layer.to_maps, random_images(model, 1), [0], layer_name=name)


def test_maps_that_say_nothing_are_errors():
    model = build("resnet")
    layer = cam_layer(model)
    images = random_images(model, 1)
    with pytest.raises(ValueError, match="did you mean gradcam"):
        heat_maps(model, layer.module, layer.to_maps, images, [0], method="grad-cam")
    with torch.no_grad():
        model.conv1.weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="NaN or infinite"):
        heat_maps(model, layer.module, layer.to_maps, images, [0])
    small = create_model(make_config(data={"image_size": 32}, model={"name": "resnet18"}), num_classes=6).eval()
    layer = cam_layer(small, "layer4")
    with pytest.raises(ValueError, match="grid is 1x1"):
        heat_maps(small, layer.module, layer.to_maps, random_images(small, 1), [0])


# ---------------------------------------------------------------- the script


def read(run, name):
    return json.loads((run / "gradcam" / f"{name}.json").read_text()), np.load(run / "gradcam" / f"{name}.npy")


def test_random_images_are_explained(vit_run, capsys):
    gradcam.main([str(vit_run), "--random", "3", "--method", "hirescam"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert result["layer"] == "blocks.0.norm1" and result["grid"] == [4, 4] and result["images"] == 3
    assert (vit_run / "gradcam" / "grid-hirescam.png").stat().st_size > 5000
    assert len(list((vit_run / "gradcam").glob("test-*-hirescam.png"))) == 3


def test_the_written_map_is_that_of_the_image_and_the_class(vit_run):
    gradcam.main([str(vit_run), "--index", "7", "--target", "3"])
    values, map_ = read(vit_run, "test-7-gradcam")
    run = Run.open(vit_run)
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    spec, layer = input_spec(model), cam_layer(model)
    split = gradcam.load_dataset(run.config.data, seed=0).test
    images = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation)(split.image(7)[None])
    np.testing.assert_allclose(map_, heat_maps(model, layer.module, layer.to_maps, images, [3])[0], rtol=1e-5)
    assert values["target"] == "3" and values["label"] == str(int(split.labels[7]))
    assert values["probability"] == pytest.approx(model(images).softmax(1)[0, 3].item())
    assert values["statistics"]["max"] == pytest.approx(float(map_.max()))


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_image_files_of_any_size_and_mode(family_runs, photo, tmp_path, family, mode):
    path = tmp_path / f"{mode}.png"
    open_image(photo).convert(mode).save(path)
    gradcam.main([str(family_runs[family]), "--image", str(path), "--method", "layercam", "--target", "dog"])
    values, map_ = read(family_runs[family], f"{mode}-layercam")
    assert values["label"] is None and values["target"] == "dog"
    assert map_.shape == tuple(values["grid"]) and min(map_.shape) > 1 and map_.max() > map_.min()


def test_several_runs_make_one_grid(family_runs, tmp_path):
    runs = [str(family_runs[name]) for name in ("vit", "swin", "resnet")]
    arguments = [*runs, "--index", "0", "5", "--method", "eigencam", "--output", str(tmp_path / "grid")]
    gradcam.main([*arguments, "--target", "label"])
    assert (tmp_path / "grid" / "grid-eigencam.png").stat().st_size > 5000
    assert (
        read(family_runs["swin"], "test-5-eigencam")[0]["target"]
        == read(family_runs["vit"], "test-5-eigencam")[0]["label"]
    )


def test_blank_maps_are_named_after_the_rest_is_written(family_runs, capsys):
    with pytest.raises(ValueError, match=r"gradcam at blocks\.1: 2 of the maps say nothing \(test-0: the map is blank"):
        gradcam.main([str(family_runs["vit"]), "--index", "0", "1", "--layer", "blocks.1"])
    printed = capsys.readouterr().out
    assert printed.count("the map is blank") == 2 and "grid-gradcam.png" in printed
    assert not list((family_runs["vit"] / "gradcam").glob("test-*-gradcam.png"))


def test_runs_of_different_images_make_no_grid(vit_run, family_runs):
    with pytest.raises(ValueError, match="differ in their classes or test images"):
        gradcam.main([str(vit_run), str(family_runs["resnet"]), "--index", "0", "--method", "layercam"])
