"""Exact copies and near ones."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from images.duplicates import SHIFT, SIDE, _aligned, _coarse, _smooth, _windows, copies_of, near_copies, thumbnails


@pytest.fixture(scope="module")
def pictures():
    """200 images of smooth random colours, uint8 200 3 32 32."""
    coarse = torch.rand(200, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (SIDE, SIDE), mode="bicubic") * 255).clamp(0, 255).to(torch.uint8)


def test_exact_copies_are_found_at_their_first_place():
    random = np.random.default_rng(0)
    among = random.integers(0, 4, (300, 3), dtype=np.uint8)
    digests = random.integers(0, 4, (100, 3), dtype=np.uint8)
    expected = [next((i for i, a in enumerate(among) if (a == d).all()), -1) for d in digests]
    assert copies_of(digests, among).tolist() == expected
    assert -1 in expected or len(set(expected)) > 10
    assert copies_of(digests, among[:0]).tolist() == [-1] * 100


def reencoded(image):
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


PLANTED = {
    "same": lambda image: image,
    "re-encoded": reencoded,
    "larger": lambda image: F.interpolate(image[None], (80, 56), mode="bilinear")[0],
    "mirrored": lambda image: image.flip(-1),
    "shifted": lambda image: F.pad(image, (2, 0, 0, 1), "replicate")[:, 1:, :SIDE],
    "darker": lambda image: (image * 0.6).to(torch.uint8),
}


@pytest.mark.parametrize("change", PLANTED.values(), ids=PLANTED)
def test_planted_copies_are_found_and_nothing_else(pictures, change):
    images = pictures[:20].clone()
    for i in (3, 11):
        images[i] = thumbnails(change(pictures[50 + i])[None])[0]
    found = near_copies(images, pictures[40:])
    assert sorted(zip(found.images.tolist(), found.others.tolist())) == [(3, 13), (11, 21)]
    assert (np.diff(found.correlation) <= 0).all() and (found.correlation >= 0.96).all()
    assert found.mirrored.tolist() == [change is PLANTED["mirrored"]] * 2


def test_images_of_one_colour_and_empty_splits_are_like_nothing(pictures):
    plain = torch.full((2, 3, SIDE, SIDE), 200, dtype=torch.uint8)
    assert len(near_copies(plain, plain).images) == 0
    assert len(near_copies(pictures, pictures[:0]).images) == len(near_copies(pictures[:0], pictures).images) == 0


def test_blank_images_have_a_correlation_that_is_a_number(pictures):
    plain = torch.arange(200)[:, None, None, None].expand(200, 3, SIDE, SIDE).to(torch.uint8)
    found = _aligned(_smooth(pictures), _smooth(plain))
    assert found.isfinite().all() and found.abs().max() < 0.5


def test_the_threshold_is_the_least_correlation(pictures):
    noise = torch.randint(-255, 256, (40, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    noisy = pictures[:40] + noise * torch.linspace(0.05, 0.9, 40)[:, None, None, None]
    found = near_copies(noisy.clamp(0, 255).to(torch.uint8), pictures, threshold=0.8)
    assert 0.8 <= found.correlation[-1] < 0.9 and 10 < len(found.images) < 40
    again = near_copies(noisy.clamp(0, 255).to(torch.uint8), pictures, threshold=float(found.correlation[4]))
    assert again.images.tolist() == found.images[:5].tolist()


def test_sums_over_windows_are_those_of_average_pooling(generator):
    values = torch.rand(2, 3, SIDE, SIDE, generator=generator)
    for side in (1, 3, 26, SIDE):
        torch.testing.assert_close(_windows(values, side), F.avg_pool2d(values, side, 1) * side**2)


def test_the_shift_of_the_best_match_may_be_three_pixels(pictures):
    """As numpy correlates the middle of an image with each part of the other of the same size, colours mean-free."""
    images, others = _smooth(pictures[:4]), _smooth(pictures[4:8])
    images[0, :, SHIFT:, : SIDE - SHIFT] = others[0, :, : SIDE - SHIFT, SHIFT:]  # moved by as much as is looked for
    found = _aligned(images, others).numpy()
    inner = SIDE - 2 * SHIFT
    for image, other, value in zip(images.numpy(), others.numpy(), found):
        middle = image[:, SHIFT : SHIFT + inner, SHIFT : SHIFT + inner]
        parts = [other[:, y : y + inner, x : x + inner] for y in range(2 * SHIFT + 1) for x in range(2 * SHIFT + 1)]
        flat = [(part - part.mean((1, 2), keepdims=True)).ravel() for part in (middle, *parts)]
        best = max(np.corrcoef(flat[0], part)[0, 1] for part in flat[1:])
        assert value == pytest.approx(best, abs=1e-4)
    assert found[0] > 0.999 > found[1:].max()


def test_smoothed_and_coarse_pictures_are_means(pictures):
    image = pictures[:1]
    padded = np.pad(image[0].numpy().astype(float), ((0, 0), (1, 1), (1, 1)), "edge")
    means = sum(padded[:, y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)) / 9
    np.testing.assert_allclose(_smooth(image)[0].numpy(), means, rtol=1e-5)
    cells = image[0].numpy().astype(float).reshape(3, 8, 4, 8, 4).mean((2, 4))
    cells = (cells - cells.mean((1, 2), keepdims=True)).ravel()
    np.testing.assert_allclose(_coarse(image)[0].numpy(), cells / np.linalg.norm(cells), atol=1e-5)


def test_thumbnails_are_means_over_areas(pictures):
    assert thumbnails(pictures) is pictures
    large = pictures[:2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert thumbnails(large).shape == (2, 3, SIDE, SIDE) and thumbnails(large).dtype == torch.uint8
    coarse = torch.full((1, 3, 2 * SIDE, 3 * SIDE), 101, dtype=torch.uint8)
    coarse[..., ::2] = 100
    assert set(thumbnails(coarse).unique().tolist()) <= {100, 101}
    wide = thumbnails(torch.arange(0, 192, 2, dtype=torch.uint8).expand(1, 3, SIDE, 96).contiguous())
    inner = wide[0, 0, 0, 1:-1].float()
    torch.testing.assert_close(inner, 6 * torch.arange(1.0, SIDE - 1) + 2, atol=1, rtol=0)


def test_more_images_than_are_compared_at_once(pictures):
    """The second part begins at the 500th image; of an image's candidates the most alike counts, upright or mirrored."""
    many = torch.randint(0, 256, (620, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    many[510], many[519] = pictures[7], pictures[8].flip(-1)
    worse = (0.7 * pictures[7] + 0.3 * pictures[9]).to(torch.uint8)
    among = torch.cat([worse[None], pictures])
    found = near_copies(many, among, threshold=0.9)
    assert sorted(zip(found.images.tolist(), found.others.tolist(), found.mirrored.tolist())) == [
        (510, 8, False),
        (519, 9, True),
    ]
    assert found.correlation == pytest.approx([1, 1], abs=1e-3)
