"""What the project's own models are if nothing is said: sizes, switches, initial weights, what timm is told of them."""

import inspect

import pytest
import timm
import torch
from torch import nn

from architectures.shallow_vit import ShallowViT
from architectures.small_vit import SmallViT
from architectures.swin import Swin

DEFAULTS = {
    ShallowViT: dict(img_size=32, patch_size=4, in_chans=3, num_classes=10, embed_dim=192, depth=1, num_heads=3)
    | dict(mlp_ratio=4.0, pos_embed=True, attention=True, ffn=True),
    SmallViT: dict(tokenizer="patch", locality=False, pool="mean"),
    Swin: dict(img_size=224, patch_size=4, in_chans=3, num_classes=1000, embed_dim=96, depths=(2, 2, 6, 2))
    | dict(num_heads=(3, 6, 12, 24), window_size=7, mlp_ratio=4.0, drop_path_rate=0.1, shift=True)
    | dict(relative_position_bias=True, absolute_position=False, merging="concat", global_attention=False)
    | dict(mask_padding=True),
}
NAMES = {"shallow_vit": {}, "vit_32px": {"depth": 2}, "swin_32px": {"depths": (1, 2), "num_heads": (2, 4)}}


def build(name, **kwargs):
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=7, **NAMES[name], **kwargs).eval()


@pytest.mark.parametrize("architecture", DEFAULTS)
def test_arguments_have_their_published_defaults(architecture):
    parameters = inspect.signature(architecture).parameters.values()
    stated = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert stated == DEFAULTS[architecture]


@pytest.mark.parametrize("name", NAMES)
def test_weights_start_as_a_truncated_normal_of_0_02(name):
    model = build(name, **{"absolute_position": True} if "swin" in name else {})
    names = {key: value for key, value in model.named_parameters()}
    for key, module in model.named_modules():
        if isinstance(module, nn.Linear):
            assert 0.018 < module.weight.std() < 0.022 and abs(module.weight.mean()) < 0.002, key
            assert module.bias is None or not module.bias.any(), key
    tables = [value for key, value in names.items() if key.endswith(("pos_embed", "relative_position_bias_table"))]
    assert len(tables) == (4 if "swin" in name else 1)
    assert all(0.016 < table.std() < 0.024 and table.abs().max() < 0.12 for table in tables)


@pytest.mark.parametrize("name", NAMES)
def test_features_before_the_head_are_what_the_head_reads(name):
    model, images = build(name), torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        features = model.forward_features(images)
        pooled = model.forward_head(features, pre_logits=True)
        assert pooled.shape == (2, model.num_features)
        torch.testing.assert_close(model.head(pooled), model(images))
        torch.testing.assert_close(model.forward_head(features), model(images))


@pytest.mark.parametrize(
    ("name", "mean", "std", "filter_"),
    [
        ("shallow_vit", (0.5,) * 3, (0.5,) * 3, "bilinear"),
        ("vit_32px", (0.5,) * 3, (0.5,) * 3, "bilinear"),
        ("swin_32px", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic"),
    ],
)
def test_what_timm_is_told_of_a_model(name, mean, std, filter_):
    cfg = timm.get_pretrained_cfg(name)
    assert (cfg.mean, cfg.std, cfg.interpolation) == (mean, std, filter_)
    assert cfg.input_size == (3, 32, 32) and cfg.fixed_input_size is True
    assert (cfg.first_conv, cfg.classifier) == ("patch_embed.proj", "head")


@pytest.mark.parametrize(("tokenizer", "sizes"), [("shifted", (2, 4)), ("conv", (2, 4, 8))])
def test_tokenizers_make_the_grid_of_their_patches(tokenizer, sizes):
    for side in sizes:
        model = build("vit_32px", tokenizer=tokenizer, patch_size=side)
        assert model.patch_embed(torch.zeros(1, 3, 32, 32)).shape == (1, (32 // side) ** 2, 192)
    for side in (1, 3, 6) if tokenizer == "conv" else (1,):
        with pytest.raises(ValueError, match="power of two above 1" if tokenizer == "conv" else "must be at least 2"):
            SmallViT(tokenizer=tokenizer, patch_size=side, img_size=24)
