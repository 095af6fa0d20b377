"""Faithfulness on models whose best map is known, and against grad-cam's metrics called directly."""

import contextlib
import math

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.stats import spearmanr
from support import make_config
from torch import nn

from explanation.attention import record_attention
from explanation.quality import faithfulness, randomization
from explanation.quality.heads import attention_distance, attention_entropy
from models import create_model, input_spec


class Evidence(nn.Module):
    """Two classes; the score of the first is the sum of weight times pixel: each pixel's part in it is known."""

    def __init__(self, side, seed=0):
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.rand(3, side, side, generator=random) ** 4)

    def forward(self, images):
        score = (images * self.weight).sum((1, 2, 3)) / 4 - 4
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.fixture
def linear():
    model = Evidence(8).eval()
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    targets = torch.zeros(5, dtype=torch.long)
    predict = faithfulness.class_probability(model, targets, contextlib.nullcontext)
    return model, images, predict, (images * model.weight).sum(1).detach() / 4


def ranks_of(maps, seed=3):
    ties = faithfulness.random_maps(len(maps), maps.shape[1:], torch.Generator().manual_seed(seed))
    return faithfulness.pixel_ranks(maps, ties, tuple(maps.shape[1:]))


def test_curves_of_a_linear_model_are_its_sums(linear):
    _, images, predict, evidence = linear
    reference = torch.zeros_like(images)
    deletion, insertion = faithfulness.perturbation_curves(predict, images, reference, ranks_of(evidence))
    for b in range(len(images)):
        parts = sorted(evidence[b].flatten().tolist(), reverse=True)
        for s, fraction in enumerate(faithfulness.FRACTIONS):
            taken = sum(k / 64 < fraction - 1e-9 for k in range(64))
            left = 1 / (1 + math.exp(4 - sum(parts[taken:])))
            alone = 1 / (1 + math.exp(4 - sum(parts[:taken])))
            assert deletion[b, s] == pytest.approx(left, abs=1e-5) and insertion[b, s] == pytest.approx(alone, abs=1e-5)


def test_no_map_beats_the_best_map_of_a_linear_model(linear):
    _, images, predict, evidence = linear
    reference = torch.zeros_like(images)

    def areas(maps):
        curves = faithfulness.perturbation_curves(predict, images, reference, ranks_of(maps))
        return [faithfulness.area_under(curve) for curve in curves]

    best, worst = areas(evidence), areas(evidence.max() - evidence)
    for seed in range(5):
        maps = faithfulness.random_maps(5, (8, 8), torch.Generator().manual_seed(seed))
        for candidate in (areas(maps), areas(0.05 * maps + evidence)):
            assert (best[0] <= candidate[0] + 1e-6).all() and (best[1] >= candidate[1] - 1e-6).all()
            assert (worst[0] >= candidate[0] - 1e-6).all() and (worst[1] <= candidate[1] + 1e-6).all()
        assert (areas(maps)[0] > best[0] + 0.01).all()  # and a random one is worse by more than rounding


def test_area_of_a_straight_line():
    assert faithfulness.area_under(np.linspace(0, 1, 11)[None])[0] == pytest.approx(0.5)


def test_what_a_map_does_not_order_follows_the_random_map():
    ties = torch.rand(2, 4, 4)
    blank, half = torch.zeros(2, 4, 4), torch.zeros(2, 4, 4)
    half[:, 0] = 1
    first = faithfulness.pixel_ranks(blank, ties, (4, 4))
    assert torch.equal(first, faithfulness.pixel_ranks(ties, ties, (4, 4)))
    ranks = faithfulness.pixel_ranks(half, ties, (4, 4))
    assert (ranks[:, 0] < 0.25).all() and (ranks[:, 1:] >= 0.25).all()
    assert torch.equal(ranks[:, 1:].flatten(1).argsort(), ties[:, 1:].flatten(1).argsort(descending=True))
    assert sorted(ranks[0].flatten().tolist()) == [k / 16 for k in range(16)]


def test_baselines_and_references():
    centre = faithfulness.centre_map((7, 9))
    assert centre.argmax() == 3 * 9 + 4
    torch.testing.assert_close(centre, centre.flip(0, 1))
    images = torch.randn(2, 3, 24, 32)
    found = faithfulness.references(images)
    torch.testing.assert_close(found["mean"], images.mean((2, 3), keepdim=True).expand_as(images))
    assert found["blur"].shape == images.shape and found["blur"].std() < 0.3 * images.std()
    torch.testing.assert_close(found["blur"].mean((2, 3)), images.mean((2, 3)), atol=0.15, rtol=0)


def test_the_centre_is_a_gaussian_of_a_quarter_of_each_side():
    centre = faithfulness.centre_map((4, 6))
    for row, column in ((0, 0), (1, 4), (3, 2)):
        away = ((row + 0.5) / 4 - 0.5) ** 2 + ((column + 0.5) / 6 - 0.5) ** 2
        assert centre[row, column] == pytest.approx(math.exp(-away / (2 * 0.25**2)), rel=1e-5)


@pytest.mark.parametrize("size", [(24, 32), (64, 16)])
def test_the_blur_is_a_gaussian_of_an_eighth_of_the_longer_side(size):
    side = max(size)
    spike = torch.zeros(1, 3, *size)
    middle = [length // 2 for length in size]
    spike[:, :, middle[0], middle[1]] = 1
    found = faithfulness.references(spike)["blur"][0, 0]
    radius = min(side // 4, min(size) - 1)
    for axis in [axis for axis in (0, 1) if 2 * radius < size[axis]]:  # the other one is reflected at its edges
        line, centre = found.sum(1 - axis), middle[axis]
        for step in (1, 3, radius):
            assert line[centre + step] / line[centre] == pytest.approx(
                math.exp(-(step**2) / (2 * (side / 8) ** 2)), rel=1e-3
            )
        if centre + radius + 1 < size[axis]:
            assert line[centre + radius + 1] == 0


def test_the_shares_of_the_area_that_are_removed():
    assert list(faithfulness.FRACTIONS) == pytest.approx([tenths / 10 for tenths in range(11)])
    assert faithfulness.ROAD_PERCENTILES == (20, 40, 60, 80)


def test_confidence_change_is_grad_cams(linear):
    model, images, predict, _ = linear
    maps = torch.rand(5, 4, 4)
    targets = [ClassifierOutputSoftmaxTarget(0)] * 5
    cams = scale_cam_image(maps.numpy(), (8, 8))
    change = faithfulness.confidence_change(predict, images, maps)
    np.testing.assert_allclose(np.maximum(-change, 0), DropInConfidence()(images, cams, targets, model), atol=1e-5)
    np.testing.assert_array_equal(change > 0, IncreaseInConfidence()(images, cams, targets, model))


def test_road_is_grad_cams(linear):
    model, images, _, evidence = linear
    targets = [ClassifierOutputSoftmaxTarget(0)] * 5
    before = torch.get_rng_state()
    found = faithfulness.road(model, images, ranks_of(evidence), [0] * 5, percentiles=(30, 60), seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    scaled = (
        evidence / evidence.max()
    )  # no two pixels are equal, so that percentiles cut this map as they cut its ranks
    expected = ROADCombined(percentiles=[30, 60])(images, scaled.numpy(), targets, model)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.mean() > 0.02
    sparse = torch.where(evidence > evidence.flatten(1).quantile(0.8, 1)[:, None, None], evidence, 0)
    assert np.isfinite(faithfulness.road(model, images, ranks_of(sparse), [0] * 5)).all()


# ---------------------------------------------------------------- randomisation


def test_rank_correlation_is_scipys():
    random = np.random.default_rng(0)
    first, second = random.integers(0, 6, (2, 4, 5, 5)).astype(float)
    second[3] = 2
    found = randomization.rank_correlation(first, second)
    for i in range(3):
        assert found[i] == pytest.approx(spearmanr(first[i].ravel(), second[i].ravel()).statistic)
    assert np.isnan(found[3])


@pytest.mark.parametrize(
    ("model", "size", "groups"),
    [
        ({"name": "shallow_vit", "kwargs": {"depth": 2}}, 32, ["head", "blocks.1", "blocks.0", "stem"]),
        ({"name": "resnet18"}, 32, ["head", "layer4.1"]),
        (
            {
                "name": "swin_tiny_patch4_window7_224",
                "kwargs": {"patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
            },
            16,
            ["head", "layers.1.blocks.1"],
        ),
    ],
)
def test_the_cascade_goes_from_head_to_stem_and_leaves_the_model_alone(model, size, groups):
    trained, fresh = (
        create_model(make_config(data={"image_size": size}, model=model), num_classes=3).eval() for _ in range(2)
    )
    with torch.no_grad():
        for value in [*trained.parameters(), *trained.buffers()]:
            if value.is_floating_point():
                value.add_(1)
    before = {key: value.clone() for key, value in trained.state_dict().items()}
    names, changed = [], set()
    for name, randomized in randomization.cascade(trained, fresh):
        now = {k for k, v in randomized.state_dict().items() if not torch.equal(v, before[k])}
        assert now > changed, name
        names, changed = [*names, name], now
    assert names[: len(groups)] == groups and names[-1] == "stem" and len(set(names)) == len(names)
    state = randomized.state_dict()
    assert all(torch.equal(state[key], value) for key, value in fresh.named_parameters())
    assert all(torch.equal(value, before[key]) for key, value in trained.state_dict().items())


def test_a_map_of_the_input_alone_fails_the_randomisation_test():
    """A map that ignores the model keeps its correlation of 1; one made of the weights loses it."""
    trained, fresh = Evidence(8, seed=0), Evidence(8, seed=1)
    for model in (trained, fresh):
        model.group_matcher = lambda coarse: {"stem": "^weight"}
    images = np.random.default_rng(0).random((3, 8, 8))
    _, blind = randomization.correlation_with_depth(lambda model: images, trained, fresh)
    _, sighted = randomization.correlation_with_depth(
        lambda model: model.weight.detach().mean(0).numpy()[None].repeat(3, 0), trained, fresh
    )
    assert blind == pytest.approx(1) and (abs(sighted) < 0.5).all()


# ---------------------------------------------------------------- attention heads


SWIN = {"patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2], "num_heads": [2]}


@pytest.mark.parametrize(
    ("model", "size", "shifts"),
    [
        ({"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8, "depth": 1, "embed_dim": 48}}, (16, 32), [None]),
        ({"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN}, (20, 12), [(0, 0), (2, 2)]),  # grid 10 x 6: padded
    ],
)
def test_distance_and_entropy_against_loops(model, size, shifts):
    torch.manual_seed(0)
    model = create_model(make_config(data={"image_size": list(size)}, model=model), num_classes=3).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    height, width = input_spec(model).size
    _, layers = record_attention(model, torch.randn(2, 3, height, width))
    assert len(layers) == len(shifts)
    for layer, shift in zip(layers, shifts):
        (rows, columns), (_, windows, _, tokens, _) = layer.grid, layer.weights.shape

        def place(window, token, rows=rows, columns=columns, shift=shift):
            """Row and column of a token in the image; None without one."""
            if shift is None:
                return divmod(token - 1, columns) if token else None  # after the class token
            across = -(-columns // 4)
            r, c = 4 * (window // across) + token // 4, 4 * (window % across) + token % 4
            return ((r + shift[0]) % rows, (c + shift[1]) % columns) if r < rows and c < columns else None

        for b in range(2):
            for head in range(layer.weights.shape[2]):
                distances, entropies = [], []
                for w in range(windows):
                    for q in range(tokens):
                        if place(w, q) is None:
                            continue
                        keys = [k for k in range(tokens) if place(w, k) is not None]
                        shares = np.array([float(layer.weights[b, w, head, q, k]) for k in keys])
                        shares = shares / shares.sum()
                        steps = [
                            math.hypot(
                                (place(w, q)[0] - place(w, k)[0]) * height / rows,
                                (place(w, q)[1] - place(w, k)[1]) * width / columns,
                            )
                            for k in keys
                        ]
                        distances.append((shares * steps).sum())
                        entropies.append(-sum(p * math.log(p) for p in shares if p > 0))
                assert len(distances) == rows * columns
                found = attention_distance(layer, (height, width))[b, head]
                assert found == pytest.approx(np.mean(distances), rel=1e-4)
                assert attention_entropy(layer)[b, head] == pytest.approx(np.mean(entropies), rel=1e-4)


def test_bands_are_of_the_differences_between_maps_of_the_same_images():
    random = np.random.default_rng(0)
    level = random.normal(scale=10, size=(200, 1))  # of each image, shared by all maps
    noise = random.normal(size=(3, 200, 2))
    curves = [level + offset + values for offset, values in zip((0, 1, 2), noise)]
    bands = faithfulness.paired_bands(curves)
    assert bands.shape == (3, 2, 2)
    np.testing.assert_allclose(bands.mean(axis=2), np.stack(curves).mean(axis=1), atol=0.02)
    half = (bands[..., 1] - bands[..., 0]) / 2
    np.testing.assert_allclose(half, 1.96 / np.sqrt(200), rtol=0.2)  # of the noise alone
    assert np.ptp(faithfulness.paired_bands([curves[0], curves[0]]), axis=2).max() < 1e-9  # equal curves
