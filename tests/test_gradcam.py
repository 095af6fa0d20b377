import json

import numpy as np
import pytest
from PIL import Image

import gradcam
from analysis.attribution import heat_maps
from data import Preprocess, load_dataset
from models import cam_layer, input_spec, restore_model
from runs import Run
from sources import open_image


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(path)
    return path


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
    split = load_dataset(run.config.data, seed=0).test
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
