"""CKA against its definition, and the comparison of runs by it."""

import json

import numpy as np
import pytest
import torch
from support import make_config

import gradcam
from explanation.similarity import blocks_of, cka, unbiased_hsic
from models import create_model


def gram(features):
    centred = features - features.mean(0)
    return (centred @ centred.T).double()


def brute_force_hsic(k, m):
    """Song et al. 2012, equation 5, term by term."""
    n = len(k)
    k, m = k.clone().fill_diagonal_(0), m.clone().fill_diagonal_(0)
    ones = torch.ones(n, dtype=torch.float64)
    terms = (
        torch.trace(k @ m)
        + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
        - 2 / (n - 2) * (ones @ k @ m @ ones)
    )
    return float(terms / (n * (n - 3)))


def features(seed, count=40, width=8):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hsic_is_its_definition():
    k, m = gram(features(0)), gram(features(1))
    assert unbiased_hsic(k, m) == pytest.approx(brute_force_hsic(k, m), rel=1e-10)
    with pytest.raises(ValueError, match="at least 4"):
        unbiased_hsic(k[:3, :3], m[:3, :3])


def test_cka_of_equal_turned_and_unrelated_features():
    x = features(0)
    turn, _ = torch.linalg.qr(features(3, 8, 8))
    grams = torch.stack([gram(x), gram(3 * x @ turn), gram(x + 5)])
    np.testing.assert_allclose(cka(grams, grams), 1, atol=1e-9)
    unrelated = [cka(gram(features(s))[None], gram(features(s + 50))[None])[0, 0] for s in range(20)]
    assert abs(np.mean(unrelated)) < 0.05  # the biased estimator gives about 8 / 40


def test_blocks_are_the_links_of_the_chain():
    names = {
        "vit_tiny_patch16_224": {"patch_size": 8, "depth": 2},
        "swin_tiny_patch4_window7_224": {"patch_size": 2, "window_size": 3, "depths": [2, 1], "num_heads": [3, 6]},
        "resnet18": {},
    }
    expected = {
        "vit_tiny_patch16_224": ["blocks.0", "blocks.1"],
        "swin_tiny_patch4_window7_224": ["layers.0.blocks.0", "layers.0.blocks.1", "layers.1.blocks.0"],
        "resnet18": [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)],
    }
    for name, kwargs in names.items():
        model = create_model(
            make_config(data={"image_size": 24}, model={"name": name, "kwargs": kwargs}), num_classes=5
        )
        assert list(blocks_of(model)) == expected[name]


def test_runs_are_compared_layer_by_layer(family_runs, tmp_path, drawn, capsys):
    runs = [str(family_runs[name]) for name in ("vit", "swin", "resnet")]
    gradcam.main([*runs, "--similarity", "8", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "resnet has no attention over one grid" in printed
    result = json.loads((tmp_path / "similarity.json").read_text())
    assert [pair["names"] for pair in result["pairs"]] == [["vit", "swin"], ["vit", "resnet"], ["swin", "resnet"]]
    for pair in result["pairs"]:
        assert np.shape(pair["cka"]) == tuple(map(len, pair["layers"]))
    assert list(result["attention_distance"]["vit"]) == ["blocks.0.attn", "blocks.1.attn"]
    assert all((tmp_path / f"{name}.png").stat().st_size > 5000 for name in ("similarity", "attention_distance"))
    gradcam.main([runs[0], "--similarity", "8"])
    (pair,) = json.loads((family_runs["vit"] / "gradcam/similarity.json").read_text())["pairs"]
    np.testing.assert_allclose(np.diag(pair["cka"]), 1, atol=1e-6)
    capsys.readouterr()
    gradcam.main([runs[0], "--similarity", "99"])
    assert "note: --similarity 99: the test split has 36 images, all are taken" in capsys.readouterr().err
