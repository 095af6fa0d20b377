"""architectures/swin.py against timm's Swin, and each of its switches against what it should do."""

import pytest
import timm
import torch
from support import make_config, write_config
from torch import nn

import evaluate
import gradcam
import train
from architectures.kernels import attention_kernel, unfused_attention
from architectures.swin import VARIANTS, Swin, checkpoint_filter_fn
from architectures.windows import attention_mask, window_partition, window_reverse
from evaluation.cost import count_gmacs
from explanation.layers import map_layer
from models import apply_tuning, create_model

SMALL = {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]}
TIMMS = {"swin_t": "swin_tiny", "swin_s": "swin_small", "swin_b": "swin_base", "swin_l": "swin_large"}


def randomise(model, std=0.2):
    """Random parameters, away from special values such as 0 and 1; the same name and shape give the same ones."""
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        nn.init.normal_(parameter, std=std, generator=generator)
    return model.eval()


def small(**kwargs):
    return Swin(**{"img_size": 32, "num_classes": 5, **SMALL, **kwargs})


def images(size=32, seed=0):
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def difference(ours, timms, size):
    ours.load_state_dict(checkpoint_filter_fn(timms.state_dict(), ours))
    with torch.inference_mode():
        logits, expected = ours.eval()(images(size)), timms(images(size))
    assert expected.std() > 0.05
    return (logits - expected).abs().max()


# ---------------------------------------------------------------- timm is the oracle


@pytest.mark.parametrize(
    "name", ["swin_t", *(pytest.param(name, marks=pytest.mark.slow) for name in ("swin_s", "swin_b"))]
)
def test_logits_are_timms(name):
    timms = randomise(timm.create_model(f"{TIMMS[name]}_patch4_window7_224"), std=0.05)
    assert difference(timm.create_model(name), timms, 224) < 1e-4


NARROW = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}


@pytest.mark.parametrize("size", [112, 225, (56, 115)])  # an odd grid is merged; pixels beyond the last patch; oblong
def test_logits_are_timms_at_odd_sizes(size):
    timms = randomise(timm.create_model("swin_tiny_patch4_window7_224", img_size=size, **NARROW))
    assert difference(timm.create_model("swin_t", img_size=size, **NARROW), timms, size) < 1e-4


def test_where_windows_are_padded_only_the_mask_differs_from_timm():
    size = (100, 131)
    timms = randomise(timm.create_model("swin_tiny_patch4_window7_224", img_size=size, **NARROW))
    ours = [timm.create_model("swin_t", img_size=size, mask_padding=mask, **NARROW) for mask in (False, True)]
    assert difference(ours[0], timms, size) < 1e-4
    assert difference(ours[1], timms, size) > 1e-3


@pytest.mark.parametrize("name", TIMMS)
def test_parameter_counts_are_timms(name, monkeypatch):
    monkeypatch.setattr(
        "architectures.swin.trunc_normal_", lambda tensor, **kwargs: tensor
    )  # values do not matter here
    with torch.device("meta"):
        timms = timm.create_model(f"{TIMMS[name]}_patch4_window7_224")
    ours = {key: value.shape for key, value in timm.create_model(name).named_parameters()}
    renamed = {key.replace("head.fc", "head"): value.shape for key, value in timms.named_parameters()}
    assert ours == renamed


def test_a_file_of_timms_weights_loads_at_another_size(tmp_path):
    kwargs = {**SMALL, "window_size": 4}
    timms = randomise(timm.create_model("swin_tiny_patch4_window7_224", img_size=32, num_classes=7, **kwargs))
    torch.save(timms.state_dict(), tmp_path / "timm.pth")
    model = {"name": "swin_t", "kwargs": kwargs, "pretrained": str(tmp_path / "timm.pth")}
    same = create_model(make_config(data={"image_size": 32}, model=model), num_classes=7).eval()
    torch.testing.assert_close(same(images()), timms(images()), rtol=1e-4, atol=1e-4)
    other = {**model, "kwargs": {**kwargs, "window_size": 6, "patch_size": 4}}
    resized = create_model(make_config(data={"image_size": 48}, model=other), num_classes=5).eval()
    assert resized.layers[0].blocks[0].attn.relative_position_bias_table.shape == (121, 2)
    assert resized(images(48)).shape == (1, 5)
    assert torch.equal(resized.layers[1].blocks[1].attn.qkv.weight, same.layers[1].blocks[1].attn.qkv.weight)


def test_the_authors_names_load():
    ours = randomise(small(absolute_position=True))
    theirs = {}
    for key, value in ours.state_dict().items():
        key = key.replace("layers.1.downsample", "layers.0.downsample").replace("pos_embed", "absolute_pos_embed")
        theirs[key] = value.flatten(1, 2) if "absolute" in key else value
    theirs["layers.0.blocks.1.attn_mask"] = theirs["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(1)
    again = small(absolute_position=True)
    again.load_state_dict(checkpoint_filter_fn(theirs, again))
    assert torch.equal(again.eval()(images()), ours(images()))


def test_weights_of_another_variant_name_the_first_shape(tmp_path):
    timms = timm.create_model("swin_tiny_patch4_window7_224", img_size=32, **SMALL)
    torch.save(timms.state_dict(), tmp_path / "narrow.pth")
    kwargs = {**SMALL, "embed_dim": 32, "depths": [2, 12]}
    model = {"name": "swin_b", "kwargs": kwargs, "pretrained": str(tmp_path / "narrow.pth")}
    with pytest.raises(ValueError, match=r"patch_embed.proj.weight is \[24, 3, 2, 2\], the model has \[32, 3, 2, 2\]"):
        create_model(make_config(data={"image_size": 32}, model=model), num_classes=5)


# ---------------------------------------------------------------- windows, against a place-by-place account


def test_windows_are_cut_and_put_back():
    x = torch.arange(2 * 6 * 9 * 4).view(2, 6, 9, 4)
    windows = window_partition(x, (2, 3))
    assert torch.equal(windows[1, 2, 0], x[1, 4:6, :3]) and torch.equal(window_reverse(windows), x)


@pytest.mark.parametrize(
    ("grid", "window", "shift"), [((8, 8), 4, 2), ((10, 7), 4, 2), ((9, 12), 5, 2), ((6, 11), 3, 0)]
)
def test_who_attends_to_whom(grid, window, shift):
    """Two real places see each other exactly if they fall into one window of the shifted, unrolled grid."""
    padded = [side + -side % window for side in grid]
    mask = attention_mask(grid, (window, window), (shift, shift), True)
    rows = padded[0] // window * (padded[1] // window)
    mask = torch.zeros(rows, window**2, window**2) if mask is None else mask
    number = torch.arange(padded[0] * padded[1]).view(1, *padded).roll((-shift, -shift), (1, 2))
    number = window_partition(number, (window, window)).reshape(rows, -1)
    seen = {(number[w, i].item(), number[w, j].item()) for w, i, j in (mask == 0).nonzero().tolist()}

    def cell(place):
        row, column = divmod(place, padded[1])
        return (row - shift) // window, (column - shift) // window  # -1: the strip that the shift wraps around

    real = [p for p in range(padded[0] * padded[1]) if p // padded[1] < grid[0] and p % padded[1] < grid[1]]
    expected = {(a, b) for a in real for b in real if cell(a) == cell(b)}
    assert {pair for pair in seen if pair[0] in real or pair[1] in real} == expected
    assert not mask.isinf().all(-1).any()  # a row of nothing would be NaN


# ---------------------------------------------------------------- switches


@pytest.mark.parametrize(
    "switch",
    [
        {"shift": False},
        {"relative_position_bias": False},
        {"absolute_position": True},
        {"window_size": 2},
        {"merging": "pool"},
        {"global_attention": True},
        {"mask_padding": False, "window_size": 3},
        {"patch_size": 4},
    ],
    ids=str,
)
def test_every_switch_changes_the_output(switch):
    base = {"window_size": switch["window_size"]} if len(switch) > 1 else {}
    plain, changed = randomise(small(**base), std=0.5), randomise(small(**switch), std=0.5)
    assert (plain(images()) - changed(images())).abs().max() > 1e-3


def test_without_shift_a_window_sees_itself_alone():
    image = images()
    elsewhere = image.clone()
    elsewhere[..., 24:, 24:] += 1  # far from the first window of 4x4 patches of 2 px
    for shift, reach in ((False, 0), (True, 2)):
        model = randomise(small(shift=shift, depths=[4], num_heads=[2]))
        before, after = (model.layers[0](model.patch_embed(x)) for x in (image, elsewhere))
        changed = (before - after).abs().amax((0, 3)) > 1e-6
        first = changed[:12, :12].any()
        assert first == bool(reach)


def test_shift_that_the_size_makes_idle_is_reported(caplog):
    assert small().idle_switches == []
    assert small(window_size=8).idle_switches == ["layers.1 never shifts: its 8x8 grid is one window"]
    assert "layers.1 never shifts" in caplog.text
    assert "it has a single block" in small(depths=[2, 1]).idle_switches[0]
    assert "this is global attention" in small(window_size=16).idle_switches[-1]
    assert "1x1 grid" in small(img_size=4, window_size=2).idle_switches[1]
    assert "mask_padding changes nothing" in small(mask_padding=False).idle_switches[0]
    assert "with global_attention" in small(global_attention=True).idle_switches[0]
    assert "windows of one token" in small(window_size=1).idle_switches[0]
    assert "are ignored" in small(img_size=33).idle_switches[0]


def test_switches_called_idle_are_idle():
    one_window, unshifted = (randomise(small(window_size=16, shift=shift)) for shift in (True, False))
    whole = randomise(small(global_attention=True))
    torch.testing.assert_close(one_window(images()), unshifted(images()))
    torch.testing.assert_close(one_window(images()), whole(images()))


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("window_size", [3, 4, 7])
def test_every_parameter_gets_a_gradient(patch_size, window_size):
    model = randomise(small(patch_size=patch_size, window_size=window_size, absolute_position=True))
    model(images()).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_fused_and_open_attention_agree():
    model = randomise(small(window_size=3))
    with torch.inference_mode():
        fused = model(images())
        assert attention_kernel(model) == "fused"
        with unfused_attention(model):
            assert attention_kernel(model) == "unfused"
            torch.testing.assert_close(model(images()), fused)


@pytest.mark.parametrize(("bias", "gradient", "fused"), [(True, True, 0), (True, False, 4), (False, True, 4)])
def test_on_cpu_the_fused_kernel_runs_where_it_has_every_gradient(monkeypatch, bias, gradient, fused):
    calls, kernel = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *args, **kw: calls.append(1) or kernel(*args, **kw)
    )
    model = small(relative_position_bias=bias).requires_grad_(gradient)
    model(images())
    assert len(calls) == fused


@pytest.mark.parametrize(("size", "kwargs"), [(32, {}), (40, {"window_size": 3}), ((24, 40), {"mask_padding": False})])
def test_every_token_knows_its_cell(size, kwargs):
    for stage in small(img_size=size, **kwargs).layers:
        for block in stage.blocks:
            grid, positions = block.attn.grid, block.attn.token_positions()
            cells = positions[positions >= 0]
            assert sorted(cells.tolist()) == list(range(grid[0] * grid[1]))
            assert positions.min() >= -1 and len(cells) == grid[0] * grid[1]


def test_gmacs_are_timms():
    ours, timms = (
        timm.create_model(name, img_size=32, **SMALL).eval() for name in ("swin_t", "swin_tiny_patch4_window7_224")
    )
    counts = [count_gmacs(model, torch.zeros(1, 3, 32, 32))[0] for model in (ours, timms)]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


# ---------------------------------------------------------------- as part of the project


def test_tables_are_not_decayed_and_tuning_counts_blocks():
    model = small(absolute_position=True)
    assert "layers.1.blocks.0.attn.relative_position_bias_table" in model.no_weight_decay()
    apply_tuning(model, "last-1")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith(("layers.1.blocks.1.", "norm.", "head.")) for name in trained) and len(trained) > 4


def test_train_evaluate_explain_and_fine_tune(tmp_path, folder_root):
    values = {
        "data": {"dataset": "imagefolder", "root": str(folder_root), "image_size": 24, "val_fraction": 0.2},
        "model": {"name": "swin_32px", "kwargs": {**SMALL, "window_size": 5}},
        "train": {"epochs": 1, "batch_size": 8, "layer_decay": 0.8},
    }
    train.main([str(write_config(tmp_path, values, "swin")), f"output_root={tmp_path}"])
    evaluate.main([str(tmp_path / "swin")])
    gradcam.main([str(tmp_path / "swin"), "--random", "2"])
    assert len(list((tmp_path / "swin" / "gradcam").glob("test-*-sglrp.npy"))) == 2
    model = {
        "name": "swin_32px",
        "kwargs": {**SMALL, "window_size": 7},
        "pretrained": str(tmp_path / "swin" / "best.pt"),
    }
    tuned = create_model(make_config(data={"image_size": 48}, model=model), num_classes=9)
    assert tuned.head.out_features == 9
    assert tuned.layers[0].blocks[1].attn.relative_position_bias_table.shape == (169, 2)
    before = torch.load(tmp_path / "swin" / "best.pt", weights_only=True)["model"]
    assert torch.equal(tuned.layers[1].downsample.reduction.weight, before["layers.1.downsample.reduction.weight"])


def test_a_cam_looks_at_the_last_grid_that_holds_places():
    model = create_model(
        make_config(data={"image_size": [32, 64]}, model={"name": "swin_32px", "kwargs": SMALL}), num_classes=3
    )
    layer = map_layer(model)
    assert (layer.name, layer.grid) == ("layers.1.blocks.1.norm1", (8, 16))


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"patch_size": 64}, "an image of 32x32 px is smaller than a patch of 64 px"),
        ({"num_heads": [2, 5]}, "stage 1: its width 48 does not divide into 5 heads"),
        ({"num_heads": [2]}, "different numbers of stages"),
        ({"window_size": 0}, "window_size 0"),
        ({"depths": [2, 0]}, "must be at least 1"),
        ({"depths": [1, 1]}, "set shift to false"),
        ({"merging": "max"}, "merging = 'max' is none of concat, pool"),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_together(kwargs, part):
    model = {"name": "swin_32px", "kwargs": {**SMALL, **kwargs}}
    with pytest.raises(ValueError, match="cannot be built") as caught:
        create_model(make_config(data={"image_size": 32}, model=model), num_classes=3)
    assert part in str(caught.value)


def test_variants_are_registered():
    assert set(VARIANTS) <= set(timm.list_models())
