"""Corruptions against Pillow and SciPy, image by image."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter1d

from evaluation import corruptions
from evaluation.predictions import Predictions


@pytest.fixture
def images():
    """Smooth pictures, as photos are."""
    random = np.random.default_rng(0)
    noise = gaussian_filter1d(gaussian_filter1d(random.normal(size=(4, 3, 48, 32)), 4, axis=2), 4, axis=3)
    return torch.from_numpy((128 + 400 * noise).clip(0, 255).astype(np.uint8))


def pillow(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def test_noise_is_as_strong_as_it_says_and_the_same_for_every_model(images):
    grey = torch.full((50, 3, 32, 32), 128, dtype=torch.uint8)
    noisy = corruptions.gaussian_noise(grey, torch.arange(50), 0.1).float()
    assert noisy.std().item() == pytest.approx(25.5, rel=0.01) and noisy.mean().item() == pytest.approx(128, abs=0.3)
    whole = corruptions.gaussian_noise(images, torch.arange(4), 0.1)
    part = corruptions.gaussian_noise(images[2:3], torch.tensor([2]), 0.1)
    torch.testing.assert_close(part[0], whole[2], rtol=0, atol=0)
    assert (corruptions.gaussian_noise(images, torch.arange(4) + 9, 0.1) != whole).any()


def test_blur_is_scipys(images):
    sigma = 0.08 * 32
    radius = int(np.ceil(3 * sigma))
    options = {"sigma": sigma, "mode": "mirror", "radius": radius}
    expected = gaussian_filter1d(gaussian_filter1d(images.numpy().astype(float), axis=2, **options), axis=3, **options)
    found = corruptions.blur(images, torch.arange(4), 0.08)
    assert np.abs(found.numpy() - expected).max() <= 1


@pytest.mark.parametrize("quality", [90, 30, 5])
def test_jpeg_is_pillows(images, quality):
    for found, image in zip(corruptions.jpeg(images, torch.arange(4), quality), images):
        file = io.BytesIO()
        pillow(image).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(int)
        decoded, original = found.permute(1, 2, 0).numpy(), np.asarray(pillow(image)).astype(int)
        assert np.abs(decoded - expected).mean() < 0.2 * np.abs(expected - original).mean() + 0.5


def test_contrast_is_pillows(images):
    for found, image in zip(corruptions.contrast(images, torch.arange(4), 0.3), images):
        expected = np.asarray(ImageEnhance.Contrast(pillow(image)).enhance(0.3)).astype(int)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() <= 2


@pytest.mark.parametrize("side", [16, 33, 224])
def test_every_corruption_grows_with_its_severity(images, side):
    enlarged = torch.nn.functional.interpolate(images, size=(side, side))
    for function, amounts in corruptions.CORRUPTIONS.values():
        changed = [function(enlarged, torch.arange(4), amount) for amount in amounts]
        assert all(x.dtype == torch.uint8 and x.shape == enlarged.shape for x in changed)
        errors = [(x.float() - enlarged).abs().mean().item() for x in changed]
        assert 0 < errors[0] < errors[1] < errors[2]


def test_scores_are_those_of_the_corrupted_images(images):
    def predict(corrupt):
        brightness = corrupt(images, torch.arange(4)).float().std(dim=(1, 2, 3))
        flat = (brightness < 10).long()  # lost contrast turns the answer
        return Predictions(torch.nn.functional.one_hot(flat, 2).float().numpy(), np.zeros(4, dtype=int))

    scores = corruptions.score_corrupted(predict)
    assert [found["severity"] for found in scores["contrast"]] == [1, 2, 3]
    assert scores["contrast"][2]["accuracy"] == 0 and scores["JPEG"][0]["accuracy"] == 1
    low, high = scores["JPEG"][0]["accuracy_ci95"]
    assert 0.4 < low < high == pytest.approx(1)
