"""Attention as a heat map: every token is found in its place, and no weight is lost."""

import json

import numpy as np
import pytest
import torch
from support import make_randomized
from timm.utils import AttentionExtract

import gradcam
from explanation.attention import record_attention
from explanation.attention_maps import asked_by, attention_layer, attention_maps, attention_of
from models import input_spec

VIT = {"patch_size": 8, "depth": 2}
SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
MODELS = {
    "vit": ("vit_tiny_patch16_224", VIT, (24, 32)),
    "gap": ("vit_tiny_patch16_224", VIT | {"global_pool": "avg", "class_token": False}, 24),
    "swin": ("swin_tiny_patch4_window7_224", SWIN | {"patch_size": 2, "window_size": 4}, 32),
    "ours": ("swin_32px", SWIN, 36),
}


def build(family):
    name, kwargs, size = MODELS[family]
    return make_randomized({"name": name, "kwargs": kwargs}, size)


def images_for(model, count=2):
    return torch.randn(count, 3, *input_spec(model).size, generator=torch.Generator().manual_seed(1))


def test_the_class_token_looks_as_timm_extracts_it():
    model = build("vit")
    images, layer = images_for(model), attention_layer(model)
    assert (layer.name, layer.grid) == ("blocks.1.attn", (3, 4))
    maps = attention_of(model, images, layer.name)
    for block in model.blocks:
        block.attn.fused_attn = False  # timm finds no softmax in the fused kernel
    weights = AttentionExtract(model, method="fx")(images)["blocks.1.attn.softmax"]
    torch.testing.assert_close(maps, weights[:, :, 0, 1:].unflatten(2, (3, 4)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(maps.sum((2, 3)) + weights[:, :, 0, 0], torch.ones(2, 3))
    assert asked_by(model, None) == "the class token"


@pytest.mark.parametrize("family", MODELS)
def test_what_one_patch_looks_at_sums_to_one(family):
    model = build(family)
    images = images_for(model)
    for layer in record_attention(model, images)[1]:
        for patch in ((0, 0), (layer.grid[0] - 1, layer.grid[1] // 2)):
            maps = attention_maps(layer, patch)
            assert maps.shape[2:] == layer.grid and maps.min() >= 0
            elsewhere = layer.weights[:, 0, :, 1:, 0] if family == "vit" else None
            total = maps.sum((2, 3))
            if elsewhere is not None:
                total = total + elsewhere[:, :, patch[0] * layer.grid[1] + patch[1]]
            torch.testing.assert_close(total, torch.ones_like(total), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["swin", "ours"])
def test_a_patch_of_a_swin_sees_its_own_window_alone(family):
    model = build(family)
    layer = record_attention(model, images_for(model, 1))[1][1]  # shifted
    window = next(row for row in layer.positions.tolist() if 0 in row)
    seen = attention_maps(layer, (0, 0))[0].sum(0).flatten().nonzero().flatten().tolist()
    assert set(seen) <= set(window) and 0 < len(seen) < layer.grid[0] * layer.grid[1]


@pytest.mark.parametrize("family", ["gap", "swin"])
def test_all_patches_look_on_average(family):
    model = build(family)
    for layer in record_attention(model, images_for(model))[1]:
        rows, columns = layer.grid
        each = torch.stack([attention_maps(layer, (r, c)) for r in range(rows) for c in range(columns)])
        torch.testing.assert_close(attention_maps(layer), each.mean(0), rtol=1e-4, atol=1e-6)


def test_what_is_no_attention_layer_or_patch():
    model = build("vit")
    with pytest.raises(
        ValueError, match=r"--layer norm is no attention layer; those are blocks\.0\.attn, blocks\.1\.attn"
    ):
        attention_layer(model, "norm")
    assert attention_layer(model, "blocks.0").name == "blocks.0.attn"
    with pytest.raises(ValueError, match=r"--patch 3 0: blocks\.1\.attn has 3 x 4 patches"):
        attention_of(model, images_for(model), "blocks.1.attn", (3, 0))


def test_attention_is_drawn_head_by_head(family_runs, drawn, capsys):
    run = family_runs["swin"]
    gradcam.main(
        [str(run), "--index", "0", "--method", "attention", "--layer", "layers.0.blocks.1", "--patch", "1", "2"]
    )
    printed = capsys.readouterr().out
    assert '"layer": "layers.0.blocks.1.attn"' in printed and "heads.png" in printed
    (figure,) = (run / "gradcam").glob("*attention*heads.png")
    assert figure.stat().st_size > 5000
    (raw,) = (run / "gradcam").glob("test-0-attention*.npy")
    assert np.load(raw).sum() == pytest.approx(1, abs=1e-4)
    values = json.loads(raw.with_suffix(".json").read_text())
    assert values["grid"] == [12, 12]
    with pytest.raises(ValueError, match="is for --method attention"):
        gradcam.main([str(run), "--index", "0", "--patch", "1", "2"])
    with pytest.raises(ValueError, match="has no attention layers"):
        gradcam.main([str(family_runs["resnet"]), "--index", "0", "--method", "attention"])
