import json
import shutil

import numpy as np
import pytest
from PIL import Image

import evaluate
import gradcam
from common.runs import Run
from data import Preprocess, load_dataset
from explanation import tasks
from explanation.attribution import heat_maps
from explanation.layers import map_layer
from explanation.maps import Explanation, MapSet
from explanation.pictures import Picture, pick_pictures
from images.sources import open_image
from models import input_spec, restore_model


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 60, 3)).astype(np.uint8)).save(path)
    return path


# ---------------------------------------------------------------- the script


def read(run, name):
    return json.loads((run / "gradcam" / f"{name}.json").read_text()), np.load(run / "gradcam" / f"{name}.npy")


def test_random_images_are_explained(vit_run, drawn, capsys):
    gradcam.main([str(vit_run), "--random", "3", "--method", "hirescam"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert result["layer"] == "blocks.0.norm1" and result["grid"] == [4, 4] and result["images"] == 3
    assert (vit_run / "gradcam" / "grid-hirescam-random3.png").stat().st_size > 5000
    assert len(list((vit_run / "gradcam").glob("test-*-hirescam.png"))) == 3


def test_images_of_each_class(vit_run):
    run = Run.open(vit_run)
    checkpoint = run.load_checkpoint("best.pt")
    pictures = pick_pictures(run, "test", checkpoint, per_class=2, seed=3)
    assert [picture.label for picture in pictures] == [label for label in range(10) for _ in range(2)]
    assert len({picture.name for picture in pictures}) == 20
    others = pick_pictures(run, "test", checkpoint, per_class=2, seed=4)
    assert {picture.name for picture in others} != {picture.name for picture in pictures}
    assert len(pick_pictures(run, "test", checkpoint, per_class=10**6)) == 180  # all there are
    gradcam.main([str(vit_run), "--per-class", "1", "--method", "layercam"])


def test_the_written_map_is_that_of_the_image_and_the_class(vit_run):
    gradcam.main([str(vit_run), "--index", "7", "--target", "3", "--method", "gradcam"])
    values, map_ = read(vit_run, "test-7-gradcam-3")
    run = Run.open(vit_run)
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    spec, layer = input_spec(model), map_layer(model)
    split = load_dataset(run.config.data, seed=0).test
    images = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation)(split.image(7)[None])
    np.testing.assert_allclose(map_, heat_maps(model, layer, images, [3])[0][0], rtol=1e-5)
    assert values["target"] == "3" and values["label"] == str(int(split.labels[7]))
    assert values["probability"] == pytest.approx(model(images).softmax(1)[0, 3].item())
    assert values["statistics"]["max"] == pytest.approx(float(map_.max()))


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_image_files_of_any_size_and_mode(family_runs, photo, tmp_path, family, mode):
    path = tmp_path / f"{mode}.png"
    open_image(photo).convert(mode).save(path)
    gradcam.main([str(family_runs[family]), "--image", str(path), "--method", "layercam", "--target", "dog"])
    values, map_ = read(family_runs[family], f"{mode}-layercam-dog")
    assert values["label"] is None and values["target"] == "dog"
    assert map_.shape == tuple(values["grid"]) and min(map_.shape) > 1 and map_.max() > map_.min()


def test_several_runs_make_one_grid(family_runs, tmp_path, drawn):
    runs = [str(family_runs[name]) for name in ("vit", "swin", "resnet")]
    arguments = [*runs, "--index", "0", "5", "--method", "eigencam", "--output", str(tmp_path / "grid")]
    gradcam.main([*arguments, "--target", "label"])
    assert (tmp_path / "grid" / "grid-eigencam-label-index-0-5.png").stat().st_size > 5000
    assert (
        read(family_runs["swin"], "test-5-eigencam-label")[0]["target"]
        == read(family_runs["vit"], "test-5-eigencam-label")[0]["label"]
    )


def test_blank_maps_are_named_after_the_rest_is_written(family_runs, capsys):
    with pytest.raises(ValueError, match=r"lrp at blocks\.1: 2 of 2 maps are unusable \(test-0: the map is blank"):
        gradcam.main([str(family_runs["vit"]), "--index", "0", "1", "--layer", "blocks.1"])
    printed = capsys.readouterr().out
    assert printed.count("the map is blank") == 2 and "grid-lrp-blocks.1-index-0-1.png" in printed
    assert not list((family_runs["vit"] / "gradcam").glob("test-*-lrp.png"))


def test_some_blank_maps_are_a_warning(capsys):
    def column(*faults):
        maps = [
            Explanation(Picture(f"test-{i}", None, None), 0, np.ones(1), None if fault else np.ones((2, 2)), fault, 0.1)
            for i, fault in enumerate(faults)
        ]
        return MapSet(None, ["cat"], "gradcam", None, None, maps, "try another" if any(faults) else None)

    tasks.report_faults([column(None, None)])
    assert not capsys.readouterr().err
    tasks.report_faults([column(None, None), column(None, "the map is blank")])
    assert "warning: gradcam: 1 of 2 maps are unusable (test-1: the map is blank); try" in capsys.readouterr().err
    tasks.report_faults([column(None, "blank"), column("blank", "blank")])  # the other run's maps go into the report
    assert "warning: gradcam: 2 of 2 maps are unusable" in capsys.readouterr().err
    with pytest.raises(ValueError, match="2 of 2 maps are unusable"):
        tasks.report_faults([column("blank", "blank"), column("blank", "blank")])


def test_a_folder_with_one_finished_run_is_explained_without_a_comparison(vit_run, tmp_path, capsys):
    """As a study calls it, whose other runs may have failed."""
    shutil.copytree(vit_run, tmp_path / "study" / "one")
    shutil.copytree(vit_run, tmp_path / "study" / "other")
    (tmp_path / "study" / "other" / "train.json").unlink()
    for main, arguments in ((gradcam.main, ["--index", "0", "--method", "layercam"]), (evaluate.main, [])):
        main([str(tmp_path / "study"), *arguments, "--output", str(tmp_path / "report")])
        assert "other is left out: it is unfinished" in capsys.readouterr().err
    assert (tmp_path / "study" / "one" / "report.html").is_file() and not (tmp_path / "report").exists()


def test_a_folder_for_a_comparison_needs_one(vit_run, tmp_path):
    with pytest.raises(ValueError, match="--output is the folder of a comparison"):
        gradcam.main([str(vit_run), "--index", "0", "--output", str(tmp_path / "grid")])


def test_runs_of_different_images_make_no_grid(vit_run, family_runs):
    with pytest.raises(ValueError, match="differ in their classes or test images"):
        gradcam.main([str(vit_run), str(family_runs["resnet"]), "--index", "0", "--method", "layercam"])


# ---------------------------------------------------------------- several methods, layers and targets


def result_of(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))


def test_auto_is_the_default_and_says_what_it_chose(family_runs, capsys):
    chosen = {}
    for name, run in family_runs.items():
        gradcam.main([str(run), "--index", "3", "--target", "label"])
        chosen[name] = result_of(capsys)
        gradcam.main([str(run), "--list-layers"])
        listed = result_of(capsys)["auto"]
        assert (listed["method"], listed["layer"]) == (chosen[name]["method"], chosen[name]["layer"])
    assert chosen["resnet"]["method"] == "gradcam" and chosen["resnet"]["layer"].startswith("layer")
    assert chosen["vit"]["layer"] == "patch_embed" and chosen["swin"]["layer"].startswith("layers.1.")
    gradcam.main([str(family_runs["vit"]), "--index", "3", "--method", "auto", chosen["vit"]["method"]])
    assert "maps" not in result_of(capsys)  # the same map is drawn once


def test_a_layer_without_a_method_is_explained_by_relevance(family_runs, capsys):
    gradcam.main([str(family_runs["vit"]), "--index", "3", "--layer", "blocks.1.norm1", "--target", "label"])
    assert result_of(capsys)["method"] == "lrp"
    with pytest.raises(ValueError, match="--layer has no effect on auto"):
        gradcam.main([str(family_runs["vit"]), "--index", "3", "--layer", "norm", "--method", "auto"])


def test_several_methods_make_one_map_each_and_a_grid(family_runs, drawn, capsys):
    methods = ["hirescam", "scorecam", "rollout", "gradrollout"]
    gradcam.main([str(family_runs["swin"]), "--index", "2", "--method", *methods, "--channels", "8"])
    maps = result_of(capsys)["maps"]
    assert [m["method"] for m in maps] == methods
    assert [m["grid"] for m in maps] == [[6, 6], [6, 6], [12, 12], [12, 12]]
    assert [m["layer"] is None for m in maps] == [False, False, True, True]
    assert (
        family_runs["swin"] / "gradcam" / "grid-hirescam-scorecam-rollout-gradrollout-index-2-channels8.png"
    ).stat().st_size > 5000
    assert read(family_runs["swin"], "test-2-rollout")[1].sum() == pytest.approx(1, rel=1e-4)
    assert read(family_runs["swin"], "test-2-scorecam-channels8")[0]["channels"] == 8


def test_several_targets_explain_one_class_each(vit_run):
    gradcam.main([str(vit_run), "--index", "7", "--target", "label", "3", "4", "--method", "layercam"])
    label = json.loads((vit_run / "gradcam" / "test-7-layercam-label.json").read_text())["label"]
    assert read(vit_run, "test-7-layercam-label")[0]["target"] == label
    three, four = read(vit_run, "test-7-layercam-3"), read(vit_run, "test-7-layercam-4")
    assert (three[0]["target"], four[0]["target"]) == ("3", "4")
    assert not np.allclose(three[1], four[1])
    assert (vit_run / "gradcam" / "grid-layercam-label-3-4-index-7.png").is_file()


def test_a_layer_is_looked_at_in_the_runs_that_have_it(family_runs, tmp_path, capsys):
    runs = [str(family_runs["vit"]), str(family_runs["resnet"])]
    layers = ["--layer", "layer2", "blocks.0", "default"]
    gradcam.main([*runs, "--index", "1", "--method", "layercam", "--output", str(tmp_path), *layers])
    assert [m["layer"] for m in result_of(capsys)["maps"]] == ["blocks.0", "blocks.1.norm1", "layer2", "layer1"]
    with pytest.raises(ValueError, match="vit has none of the layers layer2; add --layer default"):
        gradcam.main([*runs, "--index", "1", "--layer", "layer2"])
    with pytest.raises(ValueError, match="--layer layer9: no run has such a layer"):
        gradcam.main(
            [runs[0], runs[0] + "/../vit", "--index", "1", "--method", "layercam", "--layer", "layer9", "default"]
        )
    with pytest.raises(ValueError, match=r"--layer layer9: the model has no such layer \(did you mean layer"):
        gradcam.main([runs[1], "--index", "1", "--layer", "layer9", "default"])


def test_layers_are_listed_with_their_grids(family_runs, capsys):
    gradcam.main([str(family_runs["vit"]), "--list-layers"])
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines()}
    assert lines["blocks.1.norm1"].endswith("3x3   default") and "blank" in lines["blocks.1.norm2"]
    layers = json.loads(printed.splitlines()[-1].removeprefix("result: "))["layers"]
    assert layers["patch_embed"] == [3, 3] and "blocks.1" not in layers
    run = Run.open(family_runs["vit"])
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    assert all(map_layer(model, name).grid == tuple(grid) for name, grid in layers.items())


def test_files_of_one_name_are_told_apart(vit_run, photo, tmp_path):
    paths = [tmp_path / folder / "photo.png" for folder in ("cat", "dog")]
    for path in paths:
        path.parent.mkdir()
        open_image(photo).rotate(90 * len(path.parent.name)).save(path)
    gradcam.main([str(vit_run), "--image", *map(str, paths), "--method", "eigencam"])
    assert {read(vit_run, f"{name}-photo-eigencam")[0]["image"] for name in ("cat", "dog")} == {
        "cat-photo",
        "dog-photo",
    }


def test_an_exif_rotation_turns_the_map(vit_run, photo, tmp_path):
    upright, exif = open_image(photo).crop((0, 0, 40, 40)), Image.Exif()
    exif[0x0112] = 3  # turned by half
    upright.save(tmp_path / "upright.png")
    upright.rotate(180).save(tmp_path / "turned.png", exif=exif)
    files = [str(tmp_path / f"{name}.png") for name in ("upright", "turned")]
    gradcam.main([str(vit_run), "--image", *files, "--method", "eigencam"])
    np.testing.assert_array_equal(read(vit_run, "upright-eigencam")[1], read(vit_run, "turned-eigencam")[1])


def test_the_remedy_for_a_blank_map_works(family_runs, capsys):
    arguments = [str(family_runs["vit"]), "--index", "0"]
    with pytest.raises(ValueError, match="are unusable") as failure:
        gradcam.main([*arguments, "--layer", "norm"])
    remedy = str(failure.value).split("; ")[-1].removesuffix(" gives one").split()
    assert remedy[0] == "--layer"
    gradcam.main([*arguments, *remedy])


def test_methods_by_attention_need_attention(family_runs):
    with pytest.raises(ValueError, match="ResNet has no attention layers; this needs a transformer"):
        gradcam.main([str(family_runs["resnet"]), "--index", "0", "--method", "gradrollout"])
