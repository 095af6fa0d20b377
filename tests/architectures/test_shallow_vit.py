"""The parts of a shallow ViT can be left out one by one."""

import pytest
import timm
import torch
from support import build
from torch import nn


@pytest.mark.parametrize("switch", ["pos_embed", "attention", "ffn"])
def test_every_switch_of_the_shallow_vit_changes_the_output(switch):
    outputs = []
    for kwargs in ({}, {switch: False}):
        torch.manual_seed(0)
        model = build("shallow_vit", kwargs=kwargs).eval()
        torch.manual_seed(0)
        for name, parameter in sorted(model.named_parameters()):
            nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(len(name)))
        outputs.append(model(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))))
    assert (outputs[0] - outputs[1]).abs().max() > 1e-3


def test_the_variants_of_the_shallow_vit_differ_in_one_thing_each(caplog):
    variants = {
        name: timm.create_model(f"shallow_vit_{name}", num_classes=100) for name in ("a0", "a1", "a2", "a3", "a4")
    }
    parts = {
        name: {kind for key, _ in model.named_parameters() for kind in ("pos_embed", "attn", "mlp") if kind in key}
        for name, model in variants.items()
    }
    everything = {"pos_embed", "attn", "mlp"}
    assert parts["a0"] == parts["a4"] == everything
    assert [everything - parts[name] for name in ("a1", "a2", "a3")] == [{"pos_embed"}, {"attn"}, {"mlp"}]
    assert [variants[name].patch_embed.grid_size for name in ("a0", "a4")] == [(8, 8), (4, 4)]
    assert 1.0e6 < sum(p.numel() for p in variants["a0"].parameters()) < 1.15e6
    assert not caplog.text
    timm.create_model("shallow_vit", attention=False, ffn=False)
    assert "its blocks are empty" in caplog.text


def test_the_shallow_vit_without_attention_and_positions_ignores_the_order_of_patches():
    image = torch.randn(1, 3, 32, 32)
    swapped = torch.cat([image[..., 16:], image[..., :16]], -1)
    plain = build("shallow_vit", kwargs={"attention": False, "pos_embed": False}).eval()
    torch.testing.assert_close(plain(image), plain(swapped))
    full = build("shallow_vit").eval()
    nn.init.normal_(full.pos_embed)
    assert (full(image) - full(swapped)).abs().max() > 1e-3
