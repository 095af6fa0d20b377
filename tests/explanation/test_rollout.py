"""Attention rollout against full token matrices that are put together cell by cell."""

import pytest
import torch
from support import make_config, make_randomized

from architectures.kernels import unfused_attention
from explanation.attention import record_attention
from explanation.rollout import attention_rollout, gradient_rollout, roll_out
from models import create_model, input_spec

VIT = {"patch_size": 8, "depth": 3, "embed_dim": 24, "num_heads": 3}
SWIN = {"patch_size": 2, "window_size": 4, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 3]}
SWIN_NAME = "swin_tiny_patch4_window7_224"
MODELS = {
    "shallow_vit": ({"name": "shallow_vit", "kwargs": {"depth": 2, "embed_dim": 24, "num_heads": 2}}, 16),
    "vit": ({"name": "vit_tiny_patch16_224", "kwargs": VIT}, [16, 32]),
    "vit_mean": ({"name": "vit_tiny_patch16_224", "kwargs": {**VIT, "global_pool": "avg"}}, 24),
    "vit_registers": ({"name": "vit_tiny_patch16_224", "kwargs": {**VIT, "reg_tokens": 2}}, 24),
    "swin": ({"name": SWIN_NAME, "kwargs": SWIN}, [16, 32]),  # grids 8 x 16 and 4 x 8
    "swin_padded": ({"name": SWIN_NAME, "kwargs": SWIN}, [20, 28]),  # 10 x 14 and 5 x 7: no whole windows
    "swin_odd": ({"name": SWIN_NAME, "kwargs": {**SWIN, "window_size": 3}}, [18, 14]),  # 9 x 7, merged to 5 x 4
    "swin_merged": ({"name": SWIN_NAME, "kwargs": {**SWIN, "depths": [1, 2]}}, 16),  # merged after the first block
}
WINDOWS = {"swin": 4, "swin_padded": 4, "swin_odd": 3, "swin_merged": 4}


def build(name):
    model = make_randomized(*MODELS[name], std=0.3)
    return model, torch.randn(2, 3, *input_spec(model).size)


# ---------------------------------------------------------------- the oracle: B T T of every block, by loops


def attention_of_every_block(model, images, targets):
    """Softmax outputs (B*windows M N N) and their gradients, by block, as autograd keeps them."""
    kept = {}

    def keep(name):
        def hook(module, args, output):
            output.retain_grad()
            kept[name] = output

        return hook

    blocks = {n.removesuffix(".attn"): m for n, m in model.named_modules() if n.endswith(".attn")}
    handles = [module.attn_drop.register_forward_hook(keep(name)) for name, module in blocks.items()]
    with unfused_attention(model):
        logits = model(images)
    for handle in handles:
        handle.remove()
    logits[torch.arange(len(images)), targets].sum().backward()
    return {name: (output.detach().double(), output.grad.double()) for name, output in kept.items()}


def place_windows(windows, count, grid, window, shift):
    """Windows (B*W N N) -> B T T over the grid; attention to padding is left out."""
    height, width = grid
    rows, columns = -(-height // window), -(-width // window)
    windows = windows.reshape(count, rows, columns, window * window, window * window)
    full = torch.zeros(count, height * width, height * width, dtype=torch.float64)

    def cell(row, column, token):
        y, x = row * window + token // window, column * window + token % window
        return ((y + shift[0]) % height) * width + (x + shift[1]) % width if y < height and x < width else None

    for row in range(rows):
        for column in range(columns):
            cells = [cell(row, column, token) for token in range(window * window)]
            for i, query in enumerate(cells):
                for j, key in enumerate(cells):
                    if query is not None and key is not None:
                        full[:, query, key] = windows[:, row, column, i, j]
    return full


def merging(grid, merged):
    """T' T: each merged token is the mean of its (up to four) parts."""
    matrix = torch.zeros(merged[0] * merged[1], grid[0] * grid[1], dtype=torch.float64)
    for y in range(grid[0]):
        for x in range(grid[1]):
            matrix[(y // 2) * merged[1] + x // 2, y * grid[1] + x] = 1
    return matrix / matrix.sum(1, keepdim=True)


def brute_force(name, model, images, targets, combine):
    """``combine(weights, gradients, place)`` makes a block's B T T; returns the product of all and the first grid."""
    blocks = attention_of_every_block(model, images, targets)
    size, product, before = input_spec(model).size, None, None
    for block_name, (weights, gradients) in blocks.items():
        if name in WINDOWS:
            stage, index = int(block_name.split(".")[1]), int(block_name.split(".")[3])
            grid = tuple(side // 2 for side in size)
            for _ in range(stage):
                grid = tuple((side + 1) // 2 for side in grid)
            window = WINDOWS[name]
            shift = tuple(window // 2 if index % 2 and window < side else 0 for side in grid)
            place = lambda x, g=grid, w=window, s=shift: place_windows(x, len(images), g, w, s)  # noqa: E731
        else:
            grid, place = tuple(side // model.patch_embed.patch_size[0] for side in size), lambda x: x
        matrix = combine(weights, gradients, place)
        if product is None:
            product, first = matrix, grid
        else:
            product = matrix @ (merging(before, grid) @ product if grid != before else product)
        before = grid
    return product, first


def read_out(model, matrix, grid):
    """What the classifier reads of B T' T: class token, or mean of the patches."""
    prefix = getattr(model, "num_prefix_tokens", 0)
    rows = matrix[:, 0] if getattr(model, "global_pool", "avg") == "token" else matrix[:, prefix:].mean(1)
    return rows[:, prefix:].unflatten(1, grid).float()


@pytest.mark.parametrize("name", MODELS)
def test_rollout_equals_the_product_of_the_token_matrices(name):
    model, images = build(name)

    def residual(weights, gradients, place):
        matrix = place(weights.mean(1))
        matrix = matrix / matrix.sum(-1, keepdim=True)
        return (matrix + torch.eye(matrix.shape[-1], dtype=torch.float64)) / 2

    product, grid = brute_force(name, model, images, [0, 3], residual)
    torch.testing.assert_close(attention_rollout(model, images), read_out(model, product, grid), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_rollout_equals_the_product_of_the_relevance_matrices(name):
    model, images = build(name)

    def relevance(weights, gradients, place):
        matrix = place((weights * gradients).clamp(min=0).mean(1))
        return matrix + torch.eye(matrix.shape[-1], dtype=torch.float64)

    product, grid = brute_force(name, model, images, [0, 3], relevance)
    identity, _ = brute_force(name, model, images, [0, 3], lambda w, g, place: relevance(w * 0, g, place))
    expected = read_out(model, product - identity, grid)
    actual = gradient_rollout(model.requires_grad_(False), images, [0, 3])
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-4 * expected.max().item())


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_the_rollout_sum_to_one(name):
    model, images = build(name)
    _, layers = record_attention(model, images)
    prefix = getattr(model, "num_prefix_tokens", 0)
    tokens = prefix + layers[-1].grid[0] * layers[-1].grid[1]
    matrix = roll_out(layers, torch.eye(tokens).expand(2, -1, -1), prefix)  # every row of the token matrix
    assert matrix.shape == (2, tokens, prefix + layers[0].grid[0] * layers[0].grid[1])
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, tokens))
    assert matrix.min() >= 0


# ---------------------------------------------------------------- a mirrored image has the mirrored map


def make_symmetric(model):
    """Weights for which left and right are the same."""
    with torch.no_grad():
        kernel = model.patch_embed.proj.weight
        kernel.copy_((kernel + kernel.flip(3)) / 2)
        if hasattr(model, "pos_embed"):
            prefix, grid = getattr(model, "num_prefix_tokens", 0), model.patch_embed.grid_size
            positions = model.pos_embed[:, prefix:].unflatten(1, grid)
            positions.copy_((positions + positions.flip(2)) / 2)
        for module in model.modules():
            if hasattr(module, "relative_position_bias_table"):
                side = 2 * module.window_size[1] - 1
                table = module.relative_position_bias_table.unflatten(0, (-1, side))
                table.copy_((table + table.flip(1)) / 2)
            if hasattr(module, "reduction"):  # patch merging: its input is left column, then right column
                left, right = module.reduction.weight.chunk(2, dim=1)
                right.copy_(left)
    return model


@pytest.mark.parametrize("name", ["shallow_vit", "vit", "swin"])
def test_a_mirrored_image_has_the_mirrored_map(name):
    model, images = build(name)
    model = make_symmetric(model)
    for method in (attention_rollout, lambda m, x: gradient_rollout(m, x, [1, 4])):
        map_, mirrored = method(model, images), method(model, images.flip(3))
        torch.testing.assert_close(mirrored, map_.flip(2), rtol=1e-3, atol=1e-3 * map_.max().item())
        assert (map_ - map_.flip(2)).abs().max() > 0.05 * map_.max()  # the map itself is not symmetric


def test_models_that_pool_otherwise_are_refused():
    kwargs = {**VIT, "global_pool": "map", "class_token": False}
    config = make_config(data={"image_size": 16}, model={"name": "vit_tiny_patch16_224", "kwargs": kwargs})
    with pytest.raises(ValueError, match="VisionTransformer reads all places through an attention"):
        attention_rollout(create_model(config, num_classes=5).eval(), torch.zeros(1, 3, 16, 16))
