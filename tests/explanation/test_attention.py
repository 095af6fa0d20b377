"""Recorded attention matrices against what the layers themselves made of them."""

import pytest
import torch
from support import make_config, make_randomized

from explanation.attention import record_attention
from models import create_model, input_spec

MODELS = {
    "shallow_vit": ({"name": "shallow_vit", "kwargs": {"depth": 2}}, 16),
    "vit": ({"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8, "depth": 2, "embed_dim": 48}}, [16, 32]),
    "swin": (
        {
            "name": "swin_tiny_patch4_window7_224",
            "kwargs": {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
        },
        [20, 28],  # grids 10 x 14 and 5 x 7: neither is whole windows
    ),
    "own_swin": ({"name": "swin_32px", "kwargs": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}}, [20, 28]),
    "own_swin_as_timms": (
        {
            "name": "swin_32px",
            "kwargs": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "mask_padding": False},
        },
        [20, 28],
    ),
    "own_swin_whole_windows": (
        {"name": "swin_32px", "kwargs": {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}},
        32,
    ),
}


def build(name):
    model = make_randomized(*MODELS[name])
    return model, torch.randn(2, 3, *input_spec(model).size)


@pytest.mark.parametrize("name", MODELS)
def test_recording_leaves_the_model_as_it_was_and_rows_sum_to_one(name):
    model, images = build(name)
    before = model(images)
    logits, layers = record_attention(model, images)
    torch.testing.assert_close(logits, before, rtol=1e-4, atol=1e-5)
    assert torch.equal(model(images), before)  # fused again, no hook left
    assert [layer.name for layer in layers] == [n for n, module in model.named_modules() if n.endswith("attn")]
    for layer in layers:
        torch.testing.assert_close(layer.weights.sum(-1), torch.ones(layer.weights.shape[:-1]))
        cells = layer.positions[layer.positions >= 0]
        assert sorted(cells.tolist()) == list(range(layer.grid[0] * layer.grid[1]))  # each cell in one window


@pytest.mark.parametrize("name", MODELS)
def test_a_cell_reaches_exactly_the_cells_that_the_weights_name(name):
    """The oracle: the input's gradient. What a layer's output cell depends on is what its recorded row says."""
    model, images = build(name)
    _, layers = record_attention(model, images)
    for layer in layers:
        block = model.get_submodule(layer.name.removesuffix(".attn"))
        recorded = {}
        handle = block.register_forward_pre_hook(lambda module, args, r=recorded: r.update(x=args[0].detach()))
        model(images)
        handle.remove()
        x = block.norm1(recorded["x"][:1]).detach().requires_grad_()
        attend = block._attn if hasattr(block, "_attn") else block.attn
        output = attend(x).flatten(1, -2)
        prefix = output.shape[1] - layer.grid[0] * layer.grid[1]
        for cell in (0, 3, layer.grid[0] * layer.grid[1] - 1):
            (gradient,) = torch.autograd.grad(output[0, prefix + cell].norm(), x, retain_graph=True)
            reached = (gradient.flatten(1, -2)[0, prefix:].abs().sum(-1) > 1e-12).nonzero().flatten().tolist()
            window, row = (layer.positions == cell).nonzero()[0].tolist()
            keys = layer.weights[0, window, :, row].amax(0) > 1e-12  # what Swin masks out keeps exp(-100)
            named = layer.positions[window][keys]
            assert sorted(named[named >= 0].tolist()) == reached


def test_gradients_reach_the_weights_of_a_frozen_model():
    model, images = build("swin")
    logits, layers = record_attention(model.requires_grad_(False), images, gradients=True)
    gradients = torch.autograd.grad(logits[:, 0].sum(), [layer.weights for layer in layers])
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_models_without_attention_are_refused():
    model = create_model(make_config(data={"image_size": 32}, model={"name": "resnet18"}), num_classes=5).eval()
    with pytest.raises(ValueError, match="no attention layers"):
        record_attention(model, torch.zeros(1, 3, 32, 32))
