"""Files are named by all that was asked for: no command overwrites what another one wrote."""

import dataclasses

import pytest
from PIL import Image

import gradcam
from explanation.layers import MapLayer
from explanation.maps import Explanation, MapSet
from explanation.pictures import Picture
from explanation.saving import file_name, grid_name, stem


def test_names_are_of_bounded_length_and_differ_where_the_parts_do():
    texts = ["a b", "a_b", "a  b", "a/b", "a:b", "x" * 200, "x" * 201, "ü", "tiger cat", "tiger_cat"]
    names = [file_name([text, "lrp"]) for text in texts]
    assert len(set(names)) == len(names)
    assert all(len(name) < 170 and not set(name) & set(" /:\\") for name in names)
    assert file_name(["test-7", "lrp", "blocks.0.norm1"]) == "test-7-lrp-blocks.0.norm1"


ASKED = [
    ["--image", "a.png", "b.png"],
    ["--image", "a.png", "b.png", "--layer", "norm"],
    ["--image", "a.png", "b.png", "--layer", "patch_embed"],
    ["--image", "a.png", "b.png", "--method", "layercam"],
    ["--image", "a.png", "b.png", "--method", "layercam", "--target", "tiger cat"],
    ["--image", "a.png", "b.png", "--method", "layercam", "--target", "4"],
    ["--image", "a.png", "b.png", "--method", "layercam", "--target", "4", "--checkpoint", "last"],
    ["--image", "a.png", "b.png", "--method", "layercam", "--target", "4", "--precision", "bf16"],
    ["--image", "a.png", "b.png", "--method", "scorecam", "--channels", "4"],
    ["--image", "a.png", "b.png", "--method", "scorecam", "--channels", "5"],
    ["--image", "a.png", "b.png", "--method", "attention", "--patch", "0", "1"],
    ["--image", "a.png", "b.png", "--method", "attention", "--patch", "1", "0"],
]


def test_no_second_command_overwrites_the_maps_or_the_grid_of_the_first():
    maps, grids = set(), set()
    for words in ASKED:
        args = gradcam.parse_arguments(["run", *words])
        layer = args.layer and MapLayer(args.layer[0], None, (2, 2), None)
        column = MapSet(None, [], args.method[0], layer, args.target and args.target[0], [], None)
        explanation = Explanation(Picture("a", None, None), 0, None, None, None, 0)
        maps.add(stem(column, explanation, args))
        grids.add(grid_name(args, [dataclasses.replace(column, explanations=[explanation])]))
    assert len(maps) == len(grids) == len(ASKED)
    images = [["--index", "3", "4"], ["--index", "34"], ["--random", "2"], ["--random", "3"], ["--per-class", "2"]]
    images += [["--random", "2", "--seed", "1"], ["--random", "2", "--split", "val"]]
    grids |= {grid_name(gradcam.parse_arguments(["run", *words]), []) for words in images}
    assert len(grids) == len(ASKED) + len(images)


def test_files_whose_names_differ_in_a_blank_are_two(vit_run, tmp_path):
    for name, color in (("a b.png", "red"), ("a_b.png", "blue")):
        Image.new("RGB", (20, 20), color).save(tmp_path / name)
    gradcam.main([str(vit_run), "--image", *map(str, tmp_path.iterdir()), "--method", "eigencam"])
    assert len(list((vit_run / "gradcam").glob("a_b*-eigencam.npy"))) == 2
    assert len(list((vit_run / "gradcam").glob("a_b*-eigencam-overlay.png"))) == 2


def test_another_file_of_the_same_name_leaves_the_maps_of_the_first(vit_run, tmp_path):
    commands = []
    for folder, color in (("first", "red"), ("second", "blue")):
        (tmp_path / folder).mkdir()
        for name in ("one.png", "two.png"):
            Image.new("RGB", (20, 20), color).save(tmp_path / folder / name)
        files = [str(tmp_path / folder / name) for name in ("one.png", "two.png")]
        commands.append([str(vit_run), "--image", *files, "--method", "eigencam"])
    gradcam.main(commands[0])
    before = {path: path.read_bytes() for path in (vit_run / "gradcam").iterdir()}
    gradcam.main(commands[1])
    assert {path: path.read_bytes() for path in before} == before
    added = {path.name for path in set((vit_run / "gradcam").iterdir()) - set(before)}
    assert [name for name in added if name.startswith("grid-eigencam-one-") and len(name) > 40]
    gradcam.main(commands[1])
    assert {path.name for path in (vit_run / "gradcam").iterdir()} - {path.name for path in before} == added


def test_maps_of_training_images_are_not_taken_for_other_files_of_the_run(vit_run, tmp_path):
    for name in ("photo.png", "metrics-1.png"):
        Image.new("RGB", (20, 20), "green").save(tmp_path / name)
    gradcam.main([str(vit_run), "--split", "train", "--index", "5", "--method", "eigencam"])
    for name in ("metrics-1.png", "photo.png"):  # the second reads the JSON of those before
        gradcam.main([str(vit_run), "--image", str(tmp_path / name), "--method", "eigencam"])
    assert (vit_run / "gradcam" / "photo-eigencam.json").is_file()


def test_what_is_wrong_with_how_maps_are_drawn(tmp_path):
    for options, message in (
        (["--overlay", "1.5"], "--overlay 1.5: an opacity lies between 0 and 1"),
        (["--contour", "0.5", "2"], "--contour 2: shares of a map's maximum"),
        (["--cmap", "plasmo"], r"--cmap plasmo: matplotlib has no such colours \(did you mean plasma"),
    ):
        with pytest.raises(ValueError, match=message):
            gradcam.main(["outputs/none", "--random", "1", *options])
