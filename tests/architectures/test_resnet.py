"""ResNets for small images keep their pixels."""

import torch
from support import build

from explanation.layers import map_layer


def test_the_resnet_for_small_images_keeps_their_pixels():
    small, usual = build("resnet18_32px"), build("resnet18")
    assert map_layer(small).grid == (4, 4) and map_layer(usual, "layer4").grid == (1, 1)
    x = torch.zeros(1, 3, 32, 32)
    assert small.eval().forward_features(x).shape == (1, 512, 4, 4)
    assert {k: v.shape for k, v in small.state_dict().items() if "layer" in k} == {
        k: v.shape for k, v in usual.state_dict().items() if "layer" in k
    }


def test_a_stem_of_stride_2_halves_every_grid_and_changes_no_weight():
    full, strided = build("resnet18_32px"), build("resnet18_32px", kwargs={"stem_stride": 2})
    x = torch.zeros(1, 3, 32, 32)
    assert strided.eval().forward_features(x).shape == (1, 512, 2, 2)
    assert {k: v.shape for k, v in strided.state_dict().items()} == {k: v.shape for k, v in full.state_dict().items()}
