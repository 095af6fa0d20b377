"""Where the places of the image are in a layer: over the families of timm, right or refused in words; never silent.

Legend: h w the grid of a layer, R regions of the image.
"""

import logging

import pytest
import torch
from support import make_config
from torch import nn

from explanation.attention import record_attention
from explanation.attribution import heat_maps
from explanation.layers import map_layer, map_layers
from explanation.place import Layout, Placement, find_layout, place_test
from models import create_model

ONE = {"depths": (1, 1, 1, 1)}
SMALL = {"depths": (2, 2), "window_size": 4, "num_heads": (2, 4)}

FAMILIES = [  # name, side in pixels, arguments; grids of at least 4x4 where the family allows it at a small size
    ("vit_tiny_patch16_224", 64, {"depth": 2}),
    ("deit3_small_patch16_224", 64, {"depth": 1}),
    ("deit_tiny_distilled_patch16_224", 64, {"depth": 1}),
    ("vit_small_patch14_reg4_dinov2", 56, {"depth": 1}),
    ("vit_small_patch16_dinov3", 64, {"depth": 1}),
    ("vit_base_patch16_siglip_224", 64, {"depth": 1, "embed_dim": 96, "num_heads": 2}),
    ("vit_pe_core_tiny_patch16_384", 64, {"depth": 1}),
    ("vit_relpos_small_patch16_224", 64, {"depth": 1}),
    ("vit_dwee_patch16_reg1_gap_256", 64, {"depth": 1}),
    ("eva02_tiny_patch14_224", 56, {"depth": 1}),
    ("beitv2_base_patch16_224", 64, {"depth": 1, "embed_dim": 96, "num_heads": 2}),
    ("cait_xxs24_224", 64, {"depth": 1}),
    ("convit_tiny", 64, {"depth": 2}),
    ("naflexvit_base_patch16_gap", 64, {"depth": 1, "embed_dim": 96, "num_heads": 2}),
    (
        "samvit_base_patch16_224",
        64,
        {"depth": 2, "global_attn_indexes": (1,), "window_size": 3, "embed_dim": 96, "num_heads": 2},
    ),
    ("xcit_nano_12_p16_224", 64, {"depth": 1}),
    ("volo_d1_224", 64, {}),
    ("tnt_s_patch16_224", 64, {"depth": 1}),
    ("mixer_s16_224", 64, {}),
    ("visformer_tiny", 128, {}),
    ("swin_tiny_patch4_window7_224", 64, {**SMALL, "embed_dim": 48}),
    ("swinv2_tiny_window8_256", 64, {**SMALL, "embed_dim": 48}),
    ("swinv2_cr_tiny_ns_224", 64, {"depths": (1, 1), "num_heads": (2, 4), "window_size": 4, "embed_dim": 48}),
    ("mvitv2_tiny", 64, {}),
    ("davit_tiny", 128, ONE),
    ("twins_svt_small", 128, ONE),
    ("twins_pcpvt_small", 128, ONE),
    ("pit_ti_224", 128, {}),
    ("gcvit_xxtiny", 128, {}),
    ("maxvit_tiny_rw_224", 128, ONE),
    ("maxxvit_rmlp_nano_rw_256", 128, ONE),
    ("coatnet_nano_rw_224", 128, ONE),
    ("coat_lite_tiny", 128, {"serial_depths": (1, 1, 1, 1)}),
    ("coat_tiny", 64, {"serial_depths": (1, 1, 1, 1), "parallel_depth": 1}),
    ("nest_tiny", 128, {}),
    ("levit_128s", 128, {}),
    ("tiny_vit_5m_224", 128, ONE),
    ("efficientformer_l1", 224, {}),
    ("sequencer2d_s", 64, {"layers": (1, 1, 1, 1)}),
    ("poolformer_s12", 128, {}),
    ("pvt_v2_b0", 128, {}),
    ("edgenext_xx_small", 128, {}),
    ("mobilevit_xxs", 128, {}),
    ("fastvit_t8", 128, {}),
    ("efficientvit_b0", 128, {}),
    ("convnext_atto", 128, ONE),
    ("resnet18", 128, {}),
    ("resnetv2_50", 128, {"layers": (1, 1, 1, 1)}),
    ("regnetx_002", 128, {}),
    ("hrnet_w18_small", 64, {}),
    ("mambaout_femto", 128, ONE),
    ("shvit_s1", 128, {}),
]

MIXING = {"visformer_tiny": None, "mvitv2_tiny": None, "levit_128s": None, "shvit_s1": "stages.2"}
"""Name -> the layer that is looked at; None: the default.

At these sizes the last stage mixes all places into all: each cell answers to the whole image, without a misplacement."""


def build(name, size, kwargs):
    torch.manual_seed(0)
    config = make_config(data={"image_size": size}, model={"name": name, "kwargs": kwargs})
    model = create_model(config, num_classes=5).eval()
    with torch.no_grad():  # norms that start at 0 would leave nothing to see
        for module in model.modules():
            if "Norm" in type(module).__name__ and getattr(module, "weight", None) is not None:
                module.weight.add_(0.5)
    return model


def reach(model, layer, size):
    """By corner of the grid: where the pixels lie, on the average, that move its cell; from gradients of the image."""
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1)).requires_grad_()
    outputs = []
    handle = layer.module.register_forward_hook(lambda module, args, output: outputs.append(output))
    model(image)
    handle.remove()
    maps = layer.to_maps(outputs[0])[0]  # C h w
    mixed = torch.einsum("chw,c->hw", maps, torch.randn(len(maps), generator=torch.Generator().manual_seed(2)))
    places = {}
    for row, column in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
        (gradient,) = torch.autograd.grad(mixed[row, column], image, retain_graph=True)
        energy, axis = gradient.square().sum(dim=(0, 1)), torch.linspace(0, 1, size)
        places[row, column] = [((energy.sum(dim=1 - d) * axis).sum() / energy.sum()).item() for d in (0, 1)]
    return places


@pytest.mark.parametrize(("name", "size", "kwargs"), FAMILIES, ids=[name for name, *_ in FAMILIES])
def test_the_default_layer_keeps_the_places_of_the_image(name, size, kwargs):
    model = build(name, size, kwargs)
    assert min(map_layer(model).grid) > 1
    layer = map_layer(model, MIXING.get(name))
    at = reach(model, layer, size)  # found in another way than the place test finds it
    apart = [at[-1, 0][0] - at[0, 0][0], at[-1, -1][0] - at[0, -1][0]]  # downwards
    apart += [at[0, -1][1] - at[0, 0][1], at[-1, -1][1] - at[-1, 0][1]]  # to the right
    if name in MIXING:
        assert max(map(abs, apart)) < 0.07, apart
    else:
        assert min(apart) > 0.02, apart


def test_a_model_that_does_not_run_at_this_size_is_refused():
    with pytest.raises(
        ValueError, match=r"EfficientFormer does not run on images of 64x64 px: .*the size that it was made for"
    ):
        map_layer(build("efficientformer_l1", 64, {}))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet18", "ResNet has no attention layers"),
        ("levit_128s", r"LevitDistilled has its own kind of attention \(Attention, AttentionDownsample\)"),
        ("tiny_vit_5m_224", r"TinyVit has its own kind of attention \(Attention\)"),
        ("efficientvit_b0", r"EfficientVit has its own kind of attention \(LiteMLA\)"),
        ("twins_svt_small", "blocks.0.0.attn of Twins does not share out attention from each patch to each patch"),
        ("samvit_base_patch16_224", "VisionTransformerSAM does not share out attention"),
        ("vit_dwee_patch16_reg1_gap_256", "VisionTransformer does not share out attention"),
    ],
)
def test_attention_that_cannot_be_followed_is_refused_in_true_words(name, words):
    size, kwargs = next((size, kwargs) for known, size, kwargs in FAMILIES if known == name)
    model = build(name, size, kwargs)
    with pytest.raises(ValueError, match=words):
        record_attention(model, torch.randn(1, 3, size, size))


def test_a_model_that_keeps_tables_between_passes_can_be_explained_after_a_prediction():
    model = build("convit_tiny", 64, {"depth": 2})
    images = torch.randn(1, 3, 64, 64)
    maps, _ = heat_maps(model, map_layer(model), images, [1], method="gradcam")
    assert maps.shape == (1, 4, 4)


# ---------------------------------------------------------------- the test itself


class Shuffled(nn.Module):
    """Patches of 4 px, then, behind them, the cells in another order (or all mixed into all)."""

    def __init__(self, mix=None):
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, 64, 4, 4), nn.BatchNorm2d(64)
        self.head, self.mix = nn.Linear(64, 5), mix

    def forward(self, x):
        x = self.patches(x)
        if self.mix == "permuted":
            order = torch.randperm(36, generator=torch.Generator().manual_seed(0))
            x = x.flatten(2)[:, :, order].unflatten(2, (6, 6))
        elif self.mix == "transposed":
            x = x.transpose(2, 3)
        elif self.mix == "mean":
            x = x.mean(dim=(2, 3), keepdim=True).expand_as(x) + 0
        return self.head(self.norm(x).mean(dim=(2, 3)))


def shuffled(mix):
    torch.manual_seed(0)
    model = Shuffled(mix).eval()
    model.input_spec = create_model(make_config(data={"image_size": 24}), num_classes=5).input_spec
    return model


@pytest.mark.parametrize(
    ("mix", "verdict"), [(None, "right"), ("permuted", "wrong"), ("transposed", "wrong"), ("mean", "mixed")]
)
def test_the_place_test_tells_right_from_wrong_and_from_no_proof(mix, verdict):
    model = shuffled(mix)
    found = place_test(model, {"patches": Layout((6, 6), 1), "norm": Layout((6, 6), 1)})
    assert found["patches"].verdict == "right" and found["patches"].share == 1
    assert found["norm"].verdict == verdict


def test_misplaced_layers_are_refused_and_left_out_and_mixed_ones_are_named(caplog):
    model = shuffled("permuted")
    with pytest.raises(ValueError, match=r"--layer norm: its output does not keep the places of the image: only \d+%"):
        map_layer(model, "norm")
    assert [layer.name for layer, _ in map_layers(model)] == ["patches"]
    assert map_layer(model).name == "patches"
    with caplog.at_level(logging.WARNING):
        assert map_layer(shuffled("mean"), "norm").grid == (6, 6)
    assert "norm of Shuffled: all parts of the image move all of its cells alike" in caplog.text


def test_the_model_stays_in_its_mode_and_without_hooks():
    model = shuffled(None).train()
    place_test(model, {"norm": Layout((6, 6), 1)})
    assert model.training and not model.norm._forward_hooks


def test_grids_must_have_the_shape_of_the_image():
    model = build("resnet18", 64, {})
    assert find_layout(model, "layer4", (1, 512, 2, 2)) == Layout((2, 2), 1)
    assert find_layout(model, "layer4", (1, 512, 2, 40)) is None  # channels read as columns
    assert find_layout(model, "layer4", (2, 512, 2, 2)) is None  # windows in the batch
    assert find_layout(model, "layer4", None) is None
    wide = create_model(make_config(data={"image_size": (32, 64)}, model={"name": "resnet18"}), num_classes=5)
    assert find_layout(wide, "layer2", (1, 128, 4, 8)) == Layout((4, 8), 1)
    assert find_layout(wide, "layer2", (1, 128, 8, 4)) is None


def test_placements_judge_by_share_and_contrast():
    assert Placement(0.5, 9).verdict == "right"
    assert Placement(0.49, 1.5).verdict == "wrong"
    assert Placement(0.49, 1.4).verdict == "mixed"
