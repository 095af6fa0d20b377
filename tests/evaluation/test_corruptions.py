"""Corruptions against the published definitions, worked out anew with NumPy, SciPy, Matplotlib and Pillow, image by image."""

import io

import numpy as np
import pytest
import torch
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import correlate, gaussian_filter1d, zoom

from common.intervals import mean_interval
from data import Split
from evaluation import corruptions
from evaluation.corruptions import CORRUPTIONS, LARGE, SMALL
from images.sources import Pixels

POSITIONS = torch.arange(4)


@pytest.fixture
def images():
    """Smooth pictures, as photos are."""
    random = np.random.default_rng(0)
    noise = gaussian_filter1d(gaussian_filter1d(random.normal(size=(4, 3, 40, 40)), 4, axis=2), 4, axis=3)
    return torch.from_numpy((128 + 400 * noise).clip(0, 255).astype(np.uint8))


def pixels(image) -> np.ndarray:
    """3 H W -> float H W 3 in [0, 1]."""
    return image.permute(1, 2, 0).numpy() / 255


def check(function, images, amount, expected, *, within=1):
    """``expected``: of float H W 3 in [0, 1] the corrupted one, which is cut to grey levels as the benchmark does."""
    found = function(images, POSITIONS, amount)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    for ours, image in zip(found, images):
        theirs = np.uint8(np.clip(expected(pixels(image)), 0, 1) * 255)
        assert np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= within


def test_gaussian_noise_is_as_strong_as_it_says_and_the_same_for_every_model(images):
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = corruptions.gaussian_noise(grey, torch.arange(50), 0.1).float()
    assert noisy.std().item() == pytest.approx(25.5, rel=0.01) and noisy.mean().item() == pytest.approx(127.5, abs=0.3)
    for function in (corruptions.gaussian_noise, corruptions.shot_noise, corruptions.impulse_noise):
        whole = function(images, POSITIONS, 0.1)
        part = function(images[2:3], torch.tensor([2]), 0.1)
        torch.testing.assert_close(part[0], whole[2], rtol=0, atol=0)
        assert (function(images, POSITIONS + 9, 0.1) != whole).any()


def test_shot_noise_is_that_of_counted_photons():
    grey = torch.full((50, 3, 32, 32), 102, dtype=torch.uint8)  # 0.4 of white
    noisy = corruptions.shot_noise(grey, torch.arange(50), 60).double() / 255
    assert noisy.mean().item() == pytest.approx(0.4 - 0.5 / 255, abs=0.002)
    assert noisy.var().item() == pytest.approx(0.4 / 60, rel=0.03)


def test_impulse_noise_is_half_salt_and_half_pepper():
    grey = torch.full((50, 3, 32, 32), 102, dtype=torch.uint8)
    noisy = corruptions.impulse_noise(grey, torch.arange(50), 0.17)
    for value, share in ((0, 0.085), (255, 0.085), (102, 0.83)):
        assert (noisy == value).float().mean().item() == pytest.approx(share, abs=0.004)


@pytest.mark.parametrize(("radius", "smoothing"), [(0.3, 0.4), (1.5, 0.1), (3, 0.1), (10, 0.5)])
def test_defocus_blur_is_correlation_with_a_smoothed_disk(images, radius, smoothing):
    reach, half = (8, 1) if radius <= 8 else (10, 2)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = (x**2 + y**2 <= radius**2) / np.sum(x**2 + y**2 <= radius**2)
    edge = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * smoothing**2))
    kernel = correlate(kernel, np.outer(edge, edge) / edge.sum() ** 2, mode="mirror")
    check(
        corruptions.defocus_blur,
        images,
        (radius, smoothing),
        lambda image: np.stack([correlate(image[..., c], kernel, mode="mirror") for c in range(3)], -1),
    )


@pytest.mark.parametrize("amount", [SMALL.amounts("zoom blur")[0], LARGE.amounts("zoom blur")[4]])
def test_zoom_blur_is_the_mean_of_scipys_zooms(images, amount):
    def clipped(image, factor):
        side = image.shape[0]
        kept = int(np.ceil(side / factor))
        top = (side - kept) // 2
        large = zoom(image[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
        trim = (large.shape[0] - side) // 2
        return large[trim : trim + side, trim : trim + side]

    factors = np.arange(1, *amount)
    check(
        corruptions.zoom_blur,
        images,
        amount,
        lambda image: (image + sum(clipped(image, factor) for factor in factors)) / (len(factors) + 1),
    )


@pytest.mark.parametrize("amount", [0.05, 0.5])
def test_brightness_adds_to_the_value(images, amount):
    def expected(image):
        hsv = rgb_to_hsv(image)
        hsv[..., 2] = np.clip(hsv[..., 2] + amount, 0, 1)
        return hsv_to_rgb(hsv)

    images[0, :, 5:8] = 0  # black turns grey
    check(corruptions.brightness, images, amount, expected)


@pytest.mark.parametrize("amount", [(0.3, 0), (2.5, 0.2), (20, 0.2)])
def test_saturation_is_scaled_and_shifted(images, amount):
    def expected(image):
        hsv = rgb_to_hsv(image)
        hsv[..., 1] = np.clip(hsv[..., 1] * amount[0] + amount[1], 0, 1)
        return hsv_to_rgb(hsv)

    images[:, :, :4] = images[:, :1, :4]  # grey, whose hue is red
    check(corruptions.saturate, images, amount, expected)


def test_contrast_is_taken_around_the_mean_of_each_channel(images):
    check(
        corruptions.contrast,
        images,
        0.15,
        lambda image: (image - image.mean((0, 1))) * 0.15 + image.mean((0, 1)),
    )


@pytest.mark.parametrize("amount", [0.95, 0.65, 0.25])
def test_pixelation_is_pillows(images, amount):
    for found, image in zip(corruptions.pixelate(images, POSITIONS, amount), images):
        small = Image.fromarray(image.permute(1, 2, 0).numpy()).resize([int(40 * amount)] * 2, Image.Resampling.BOX)
        expected = np.asarray(small.resize((40, 40), Image.Resampling.BOX)).astype(int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize("quality", [80, 25, 7])
def test_jpeg_is_pillows(images, quality):
    for found, image in zip(corruptions.jpeg(images, POSITIONS, quality), images):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(int)
        decoded, original = found.permute(1, 2, 0).numpy(), image.permute(1, 2, 0).numpy().astype(int)
        assert np.abs(decoded - expected).mean() < 0.2 * np.abs(expected - original).mean() + 0.5


@pytest.mark.parametrize("benchmark", [SMALL, LARGE])
def test_every_corruption_grows_with_its_severity(images, benchmark):
    pictures = corruptions.fit_to_side(images, benchmark.side)
    assert tuple(pictures.shape[-2:]) == (benchmark.side, benchmark.side)
    for name, corruption in CORRUPTIONS.items():
        changed = [corruption.function(pictures, POSITIONS, amount).float() for amount in benchmark.amounts(name)]
        errors = [(x - pictures).abs().mean().item() for x in changed]
        first = 2 if name == "saturation" else 0  # severities 1 and 2 take it away, the others add to it
        assert errors[0] > 0 and errors[first] < errors[first + 1] < errors[4]


@pytest.mark.parametrize(("side", "benchmark"), [(16, SMALL), (32, SMALL), (64, SMALL), (65, LARGE), (300, LARGE)])
def test_the_constants_go_with_the_images_and_not_with_the_model(side, benchmark):
    source = Pixels(torch.zeros(3, 3, side, side, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))
    split = Split(source, torch.arange(3), name="test", resident=True)
    assert corruptions.benchmark_of(split) is benchmark
    shapes = {
        tuple(version(source.images[:1], torch.tensor([0])).shape[-2:])
        for version in corruptions.versions_of(benchmark)
    }
    assert shapes == {(benchmark.side, benchmark.side)}


def test_scores_follow_from_hits():
    random = np.random.default_rng(1)
    hits = random.random((51, 300)) < np.linspace(0.9, 0.3, 51)[:, None]
    found = corruptions.score_corrupted(hits, SMALL)
    assert list(found["corruptions"]) == list(CORRUPTIONS) and (found["benchmark"], found["side"]) == ("CIFAR-10-C", 32)
    second = found["corruptions"]["shot noise"][1]
    assert (second["severity"], second["amount"]) == (2, 250) and second["accuracy"] == hits[7].mean()
    share = hits[1:].mean(axis=0)
    assert (
        found["mean_corruption_accuracy"] == pytest.approx(share.mean()) and found["clean_accuracy"] == hits[0].mean()
    )
    np.testing.assert_allclose(found["mean_corruption_accuracy_ci95"], mean_interval(share)[1], atol=0.003)
    assert found["relative_corruption_accuracy"] == pytest.approx(share.mean() / hits[0].mean())
    chosen = random.integers(0, 300, (4000, 300))
    ratios = share[chosen].mean(1) / hits[0][chosen].mean(1)
    np.testing.assert_allclose(
        found["relative_corruption_accuracy_ci95"], np.percentile(ratios, [2.5, 97.5]), atol=0.005
    )
    nothing = corruptions.score_corrupted(np.zeros((51, 10), bool), LARGE)
    assert nothing["relative_corruption_accuracy"] is None and nothing["mean_corruption_accuracy"] == 0
