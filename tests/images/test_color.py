"""Colours, greyscale, blur and flips of a batch equal torchvision's, image by image, at the same factors."""

import pytest
import torch
import torchvision.transforms.functional as TF
from support import random_images, smooth_images
from torchvision.transforms import ColorJitter

from common.config import AugmentConfig
from data import Augment
from images import augmentation, color

OFF = {"crop_padding": 0, "hflip": 0.0}
THEIRS = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]


def per_image(change, images, *values):
    return torch.stack([change(image, *(v.tolist() for v in row)) for image, *row in zip(images, *values)])


def largest_gap(ours, theirs):
    return (ours.int() - theirs.int()).abs().max()


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [(color.BRIGHTNESS, THEIRS[0]), (color.CONTRAST, THEIRS[1]), (color.SATURATION, THEIRS[2])],
)
def test_blends_equal_torchvisions(generator, kind, theirs):
    images, factors = random_images(generator, 6), torch.tensor([0.0, 0.3, 0.9, 1.0, 1.4, 2.0])
    assert largest_gap(color.blend(images, torch.full((6,), kind), factors), per_image(theirs, images, factors)) <= 1


def test_turned_hue_equals_torchvisions(generator):
    images, turns = random_images(generator, 6), torch.tensor([-0.5, -0.2, 0.0, 0.07, 0.3, 0.5])
    images[0, :, :2], images[1, :, :2], images[2, 0] = 255, 0, images[2, 1]  # white, black, two channels alike
    assert largest_gap(color.turn_hue(images, turns), per_image(TF.adjust_hue, images, turns)) <= 1


@pytest.mark.parametrize("size", [(32, 24), (8, 9), (1, 5)])
def test_blur_equals_torchvisions(generator, size):
    images, sigmas = torch.randint(256, (4, 3, *size), dtype=torch.uint8, generator=generator), [0.1, 0.5, 1.3, 2.0]
    kernel = [2 * min(11, side - 1) + 1 for side in size[::-1]]
    theirs = torch.stack([TF.gaussian_blur(image, kernel, [s, s]) for image, s in zip(images, sigmas)])
    assert largest_gap(color.blur(images, torch.tensor(sigmas)), theirs) <= 1


def test_greyscale_and_vertical_flip_equal_torchvisions(generator):
    images, chosen = random_images(generator, 4), torch.tensor([True, False, True, False])
    expected = [TF.rgb_to_grayscale(x, 3) if c else x for x, c in zip(images, chosen)]
    assert largest_gap(color.grey_where(images, chosen), torch.stack(expected)) <= 1
    expected = [TF.vflip(x) if c else x for x, c in zip(images, chosen)]
    assert torch.equal(augmentation.flip_where(images, chosen, side=-2), torch.stack(expected))


def test_jitter_is_torchvisions_with_the_same_draws(generator, monkeypatch):
    """What each image went through, step by step, done again by torchvision: its own factors, in its own order."""
    images, steps = smooth_images(generator, 24), []
    blend, turn_hue = color.blend, color.turn_hue
    monkeypatch.setattr(color, "blend", lambda x, which, f: steps.append((which, f)) or blend(x, which, f))
    monkeypatch.setattr(color, "turn_hue", lambda x, f: steps.append(("hue", f)) or turn_hue(x, f))
    strengths = (0.4, 1.5, 0.2, 0.1)
    ours = color.color_jitter(images, strengths, torch.Generator().manual_seed(1))
    monkeypatch.undo()
    again = torch.Generator().manual_seed(1)
    drawn, order = torch.rand(24, 4, generator=again), torch.rand(24, 4, generator=again).argsort(1)
    jitter = ColorJitter(*strengths)
    low, high = torch.tensor([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue]).T
    factors, theirs = low + (high - low) * drawn, images.clone()
    for i, kinds in enumerate(order.tolist()):
        for kind in kinds:
            theirs[i] = THEIRS[kind](theirs[i], factors[i, kind].item())
    assert largest_gap(ours, theirs) <= 6  # four roundings, each made larger by the next factor
    assert len({tuple(row) for row in order.tolist()}) > 8 and len(steps) == 8


@pytest.mark.parametrize("strength", [0.4, 1.5])
def test_jitter_draws_from_torchvisions_range(strength):
    plain = torch.full((3000, 3, 1, 1), 100, dtype=torch.uint8)  # grey: only the brightness changes it
    ours = color.color_jitter(plain, strength, torch.Generator().manual_seed(0))[:, 0, 0, 0] / 100
    low, high = ColorJitter(strength).brightness
    assert low - 0.02 <= ours.min() < low + 0.02 and high - 0.02 < ours.max() <= high + 0.02  # of 100 levels
    assert abs(ours.mean() - (low + high) / 2) < 0.03 * high


@pytest.mark.parametrize(
    ("key", "changed"),
    [
        ("vflip", lambda x: TF.vflip(x)),
        ("grayscale_prob", lambda x: TF.rgb_to_grayscale(x, 3)),
        ("gaussian_blur_prob", None),
    ],
)
def test_probabilities_are_of_each_image(generator, key, changed):
    images = smooth_images(generator, 400, 16, 16)
    ours = Augment(AugmentConfig(**OFF, **{key: 0.25}))(images, torch.Generator().manual_seed(0))
    touched = (ours != images).flatten(1).any(1)
    assert 70 < touched.sum() < 130
    if changed:
        assert largest_gap(ours[touched], torch.stack([changed(x) for x in images[touched]])) <= 1
    else:
        rough = [(x.float().diff(dim=-1)).abs().mean() for x in (images[touched], ours[touched])]
        assert rough[1] < rough[0]


def test_colour_changes_repeat_and_keep_their_input(generator):
    images = smooth_images(generator, 8, 16, 16)
    before = images.clone()
    augment = Augment(
        AugmentConfig(**OFF, color_jitter=(0.4, 0.4, 0.4, 0.1), grayscale_prob=0.5, gaussian_blur_prob=0.5)
    )
    first, second = (augment(images, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second) and torch.equal(images, before) and not torch.equal(first, images)
    other = Augment(AugmentConfig(**OFF, color_jitter=0))(images, torch.Generator().manual_seed(3))
    assert torch.equal(other, images)
