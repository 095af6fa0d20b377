"""The ViT for small data: each switch against what its paper says, written out by hand."""

import pytest
import timm
import torch
from support import make_config
from torch import nn

import train
from architectures.small_vit import LocalityAttention, SequencePool, ShiftedCopies, convolutions
from explanation.attention import record_attention
from explanation.attribution import heat_maps
from explanation.layers import map_layer
from explanation.rollout import attention_rollout
from models import create_model

SWITCHES = [{}, {"tokenizer": "shifted"}, {"tokenizer": "conv"}, {"locality": True}, {"pool": "sequence"}]


def build(**kwargs):
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    cfg = make_config(data={"image_size": 16}, model={"name": "vit_32px", "kwargs": sizes | kwargs})
    model = create_model(cfg, num_classes=5)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model.eval()


def images(count=3):
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_the_published_size():
    model = timm.create_model("vit_32px", num_classes=10)
    assert len(model.blocks) == 9
    assert 2.6e6 < sum(p.numel() for p in model.parameters()) < 2.8e6


@pytest.mark.parametrize("switch", SWITCHES[1:], ids=str)
def test_every_switch_changes_the_output(switch):
    plain, switched = build(), build(**switch)
    shared = plain.state_dict()
    switched.load_state_dict({k: v for k, v in shared.items() if not k.startswith("patch_embed.proj")}, strict=False)
    if switch.get("locality"):  # at first the temperature is that of usual attention: only the diagonal is different
        nn.init.ones_(switched.blocks[0].attn.q_norm.factor)
        nn.init.ones_(switched.blocks[1].attn.q_norm.factor)
    assert (plain(images()) - switched(images())).abs().max() > 1e-3


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
def test_every_parameter_gets_a_gradient_and_every_model_is_explained(switch):
    model = build(**switch)
    model(images()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    layer = map_layer(model)
    assert layer.grid == (4, 4)
    maps, _ = heat_maps(model, layer, images(), [0, 1, 2], method="hirescam")
    assert maps.shape == (3, 4, 4) and maps.std() > 0
    if switch.get("pool") == "sequence":  # its weights differ from image to image
        with pytest.raises(ValueError, match="that of SmallViT reads all places, weighted by a learned score"):
            attention_rollout(model, images())
    else:
        assert attention_rollout(model, images()).shape == (3, 4, 4)


def test_shifted_copies_are_the_image_moved_to_each_corner():
    x = images()
    copies = ShiftedCopies(2)(x).unflatten(1, (5, 3))
    assert torch.equal(copies[:, 0], x)
    for copy, (down, across) in zip(copies[:, 1:].unbind(1), [(2, 2), (2, -2), (-2, 2), (-2, -2)]):
        moved = x.roll((down, across), (2, 3))
        moved[:, :, slice(0, down) if down > 0 else slice(down, None)] = 0
        moved[:, :, :, slice(0, across) if across > 0 else slice(across, None)] = 0
        assert torch.equal(copy, moved)


def test_shifted_patches_see_five_images_and_their_own_grid():
    model = build(tokenizer="shifted")
    x = images(1).requires_grad_()
    model.patch_embed(x)[0, 5].sum().backward()  # the patch in row 1, column 1
    seen = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[2:10, 2:10] = True  # 4..8, and 2 pixels on every side
    assert torch.equal(seen, expected)


def test_convolutions_double_their_width_up_to_that_of_the_tokens():
    widths = [layer.out_channels for layer in convolutions(3, 24, 8) if isinstance(layer, nn.Conv2d)]
    assert widths == [6, 12, 24]


def test_locality_attention_leaves_out_the_token_itself():
    attn = LocalityAttention(8, 2, num_tokens=6).eval()
    nn.init.constant_(attn.q_norm.factor, 1.7)
    x = torch.randn(3, 6, 8)
    q, k, v = attn.qkv(x).reshape(3, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = 1.7 * q @ k.transpose(-2, -1) / 4**0.5
    weights = scores.masked_fill(torch.eye(6, dtype=torch.bool), float("-inf")).softmax(-1)
    expected = attn.proj((weights @ v).transpose(1, 2).reshape(3, 6, 8))
    for attn.fused_attn in (True, False):
        torch.testing.assert_close(attn(x), expected, rtol=1e-4, atol=1e-5)
    assert "others" not in attn.state_dict()  # so that weights fit a model for another number of tokens
    LocalityAttention(8, 2, num_tokens=2)
    _, (first, _) = record_attention(build(locality=True), images())
    assert (first.weights.diagonal(dim1=-2, dim2=-1) == 0).all()


def test_sequence_pooling_is_a_weighted_mean():
    pool, x = SequencePool(8), torch.randn(2, 6, 8)
    weights = torch.softmax(x @ pool.score.weight[0] + pool.score.bias, dim=1)
    torch.testing.assert_close(pool(x), torch.einsum("bn,bnc->bc", weights, x))
    nn.init.zeros_(pool.score.weight)
    torch.testing.assert_close(pool(x), x.mean(1))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"tokenizer": "words"}, "none of patch, shifted, conv"),
        ({"tokenizer": "conv", "patch_size": 8, "embed_dim": 24}, None),
        ({"tokenizer": "conv", "patch_size": 1}, "power of two"),
        ({"tokenizer": "shifted", "patch_size": 1}, "at least 2"),
        ({"pool": "max"}, "neither mean nor sequence"),
        ({"locality": True, "attention": False}, "set it to false"),
        ({"locality": True, "patch_size": 16}, "two tokens"),
    ],
)
def test_switches_that_do_not_fit(kwargs, words):
    if words is None:
        assert build(**kwargs).patch_embed.grid_size == (2, 2)
    else:
        with pytest.raises(ValueError, match=words):
            build(**kwargs)


def test_training_with_every_switch(tmp_path):
    config = tmp_path / "small.yaml"
    config.write_text(
        "data: {dataset: digits, image_size: 16}\n"
        "model:\n  name: vit_32px\n"
        "  kwargs: {embed_dim: 24, depth: 1, num_heads: 2, tokenizer: conv, locality: true, pool: sequence}\n"
        "train: {epochs: 1, amp: bf16}\n"
    )
    train.main([str(config), f"output_root={tmp_path}", "--device", "cpu"])
    assert (tmp_path / "small" / "best.pt").is_file()
