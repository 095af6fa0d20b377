"""What `--method auto` picks, and whether it points at planted evidence."""

import json

import numpy as np
import pytest
import torch
from support import make_randomized

from benchmarks import planted_pattern
from benchmarks.planted_images import MODELS, TASKS, planted_images
from explanation.attribution import heat_maps
from explanation.automatic import choose, default_layer
from models import input_spec

SMALL_SWIN = dict(patch_size=2, window_size=4, embed_dim=24, num_heads=[2, 4, 8], depths=[2, 2, 2])
EXPECTED = [
    ("vit_tiny_patch16_224", dict(patch_size=8, depth=2), 32, "patch_embed"),
    ("vit_32px", dict(depth=2, embed_dim=48), 32, "patch_embed"),
    ("swin_tiny_patch4_window7_224", SMALL_SWIN, 32, "layers.2.downsample"),
    ("swin_t", SMALL_SWIN, 32, "layers.2.downsample"),
    ("swin_t", SMALL_SWIN, 16, "layers.1.downsample"),  # the last stage has 2x2 cells
    ("swin_t", SMALL_SWIN, 8, "patch_embed"),  # the last stage is a single cell, the one before it has 2x2
    ("resnet18", {}, 128, "layer4"),
    ("resnet18", {}, 64, "layer3"),
    ("resnet18", {}, 16, "layer1"),
    ("resnet18", {}, 8, "layer1"),  # 2x2 cells, and none is finer
    ("convnext_atto", {}, 128, "stages.3"),
    ("shallow_vit_a2", {}, 32, "patch_embed"),  # tokens without attention
    ("mixer_s16_224", {}, 64, "stem"),
    ("gmlp_ti16_224", {}, 64, "stem"),
]


@pytest.mark.parametrize(("name", "kwargs", "size", "layer"), EXPECTED)
def test_the_layer_follows_from_the_architecture(name, kwargs, size, layer):
    model = make_randomized({"name": name, "kwargs": kwargs}, size)
    chosen = choose(model)
    assert chosen.layer.name == layer and min(chosen.layer.grid) > 1
    assert chosen.rule and default_layer(model, chosen.method).name == layer
    images = torch.randn(2, 3, *input_spec(model).size, generator=torch.Generator().manual_seed(1))
    targets = model(images).argmax(dim=1).tolist()
    maps, _ = heat_maps(model, None, images, targets, method="auto")
    expected, _ = heat_maps(model, chosen.layer, images, targets, method=chosen.method)
    np.testing.assert_array_equal(maps, expected)


def test_lrprollout_is_the_product_of_its_parts():
    model = make_randomized({"name": "vit_32px", "kwargs": dict(depth=2, embed_dim=48)}, 32)
    layer, images = default_layer(model, "lrprollout"), torch.randn(2, 3, 32, 32)
    parts = [heat_maps(model, layer, images, [1, 2], method=method)[0] for method in ("lrp", "gradrollout")]
    product, _ = heat_maps(model, layer, images, [1, 2], method="lrprollout")
    np.testing.assert_allclose(product, parts[0] * parts[1], rtol=1e-4, atol=1e-8)


# ---------------------------------------------------------------- the benchmark


@pytest.mark.parametrize("task", TASKS)
def test_planted_images_hold_a_patch_of_their_class_at_the_mask(task):
    side, step = TASKS[task]
    for patches in (1, 2):
        images, labels, masks = planted_images(task, 20, torch.Generator().manual_seed(0), patches)
        assert images.shape == (20, 3, 32, 32) and labels.shape == (patches, 20)
        assert masks.sum(dim=(2, 3)).eq(side**2).all() and (masks.sum(dim=0) <= 1).all()  # apart from each other
        tops = masks.any(dim=3).int().argmax(dim=2)
        assert (tops % step == 0).all() and tops.unique().numel() > 2
    assert (labels[0] != labels[1]).all()
    inside, outside = images[masks.any(dim=0)[:, None].expand_as(images)], images[0][:, ~masks[:, 0].any(dim=0)]
    assert inside.std() > 1.4 * outside.std()


def test_a_maximum_counts_where_the_patch_covers_a_cell():
    masks = torch.zeros(3, 8, 8, dtype=torch.bool)
    masks[:, 2:6, 2:6] = True  # a quarter of each of four cells of a 2x2 grid; four whole cells of a 4x4 one
    maps = torch.zeros(3, 4, 4)
    maps[0, 1, 2] = maps[1, 0, 1] = 1
    assert planted_pattern.point(maps, masks).tolist() == [1, 0, planted_pattern.NO_MAP]
    assert planted_pattern.point(torch.ones(3, 4, 4), masks).tolist() == [0.25] * 3
    assert planted_pattern.point(torch.eye(2).expand(3, 2, 2), masks).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["shallow_vit", "shallow_vit, FFN only"])
def test_auto_points_at_the_planted_evidence_and_the_tables_are_written(tmp_path, name):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- planted_pattern: begin -->\nold\n<!-- planted_pattern: end -->\nafter\n")
    arguments = ["--models", name, "--tasks", "picture", "--seeds", "0", "--images", "40", "--steps", "120"]
    arguments += ["--weights", str(tmp_path), "--output", str(tmp_path / "planted.json"), "--write", str(page)]
    (result,) = planted_pattern.main(arguments).values()
    assert result["accuracy"] > 0.95
    assert result["one"]["**auto**"] >= 0.9 and result["one"]["a random map"] < 0.5
    own, other = result["two"]["**auto**"]
    assert own > 0.8 and other < 0.2
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "old" not in text
    assert "| **auto** | " in text and "1 trained models of 1 architectures" in text
    seconds = json.loads((tmp_path / "planted.json").read_text())[f"{name}/picture/0"]["seconds"]
    assert planted_pattern.main(arguments)[f"{name}/picture/0"]["seconds"] == seconds  # nothing is measured twice
    page.write_text("no markers")
    with pytest.raises(ValueError, match="lacks the lines"):
        planted_pattern.main(arguments)


def test_the_benchmark_has_ten_models_or_more_of_four_families():
    assert len(MODELS) >= 10 and len(planted_pattern.FAMILIES) == 4
