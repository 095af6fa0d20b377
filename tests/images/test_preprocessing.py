"""Resizing and normalising a batch equals what PIL and torchvision do to one image."""

import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from support import from_pil, random_images, smooth_images, to_pil

from data import Preprocess
from images import preprocessing

# ---------------------------------------------------------------- batched operations against torchvision and PIL


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [((32, 32), (224, 224)), ((64, 48), (24, 40))])
def test_resize_equals_pil_within_one_grey_level(generator, mode, source, target):
    # bicubic overshoots on pure noise, where clamping between the two passes differs by a few levels
    images = (random_images if mode == "bilinear" else smooth_images)(generator, 4, *source)
    resize = Preprocess(target, (0, 0, 0), (1, 1, 1), mode).resize
    pil_filter = Image.Resampling[mode.upper()]
    theirs = torch.stack([from_pil(to_pil(image).resize(target[::-1], pil_filter)) for image in images])
    assert (resize(images).int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [((32, 32), (224, 224)), ((64, 48), (24, 40))])
def test_two_passes_give_what_the_kernel_for_grey_levels_gives(generator, mode, source, target):
    images = smooth_images(generator, 4, *source)
    images[0] = 255 * (images[0] > 127)  # edges, over which bicubic weights shoot
    ours, theirs = (way(images, target, mode) for way in (preprocessing._resize_in_two_passes, preprocessing.resize))
    difference = (ours.int() - theirs.int()).abs()
    assert ours.dtype == torch.uint8 and difference.max() <= 2 and (difference > 1).float().mean() < 1e-3
    assert {int(ours[0].min()), int(ours[0].max())} == {0, 255}


def test_images_of_the_wanted_size_are_left_alone(generator):
    images = random_images(generator, 2, 24, 40)
    assert preprocessing.resize(images, (24, 40), "bilinear") is images
    assert preprocessing.resize(images, (40, 24), "bilinear").shape == (2, 3, 40, 24)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_resize_on_cuda_equals_resize_on_cpu(generator, mode):
    images = smooth_images(generator, 4, 32, 32)
    resize = Preprocess((224, 224), (0, 0, 0), (1, 1, 1), mode).resize
    assert (resize(images).int() - resize(images.cuda()).cpu().int()).abs().max() <= 1


def test_preprocess_equals_to_tensor_and_normalize(generator):
    images = random_images(generator, 4, 32, 32)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    ours = Preprocess((32, 32), mean, std, "bilinear")(images)
    theirs = torch.stack([TF.normalize(TF.to_tensor(to_pil(image)), mean, std) for image in images])
    torch.testing.assert_close(ours, theirs)


def test_undo_gives_the_images_back(generator):
    images = random_images(generator, 2, 16, 24)
    preprocess = Preprocess((16, 24), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010), "bilinear")
    assert torch.equal(preprocess.undo(preprocess(images)), images)
    far = torch.stack([torch.full((3, 16, 24), value) for value in (-100.0, 100.0)])
    assert [part.unique().tolist() for part in preprocess.undo(far)] == [[0], [255]]


# ---------------------------------------------------------------- crops


@pytest.mark.parametrize(
    ("crop", "rows", "columns"),
    [
        ((0, 0, 1, 1), (0, 10), (0, 20)),
        ((0.2, 0.25, 0.5, 0.5), (2, 7), (5, 15)),
        ((0.94, 0.97, 0.06, 0.03), (9, 10), (19, 20)),  # half a pixel at the edge is the last one
        ((0.96, 0.98, 0.04, 0.02), (9, 10), (19, 20)),  # and so is less than that
        ((0.04, 0.02, 0.01, 0.001), (0, 1), (0, 1)),  # less than a pixel is one
        ((0.26, 0.13, 0.34, 0.38), (3, 6), (3, 11)),  # to the nearest pixels
    ],
)
def test_a_crop_is_cut_at_the_nearest_pixels(generator, crop, rows, columns):
    (image,) = random_images(generator, 1, 10, 20)
    expected = image[:, slice(*rows), slice(*columns)]
    assert torch.equal(preprocessing.cut(image, crop), expected)
    assert torch.equal(preprocessing.cut(image, torch.tensor(crop)), expected)


def test_crops_of_another_size_are_cut_and_resized(generator):
    images = smooth_images(generator, 3, 40, 60)
    crops = torch.tensor([[0, 0, 1, 1], [0.25, 0.5, 0.5, 0.4], [0.6, 0.1, 0.4, 0.3]])
    ours = preprocessing.crop_and_resize(images, crops, (16, 24))
    for image, one, (top, left, high, wide) in zip(images, ours, crops.tolist()):
        box = (round(60 * left), round(40 * top), round(60 * (left + wide)), round(40 * (top + high)))
        theirs = from_pil(to_pil(image).crop(box).resize((24, 16), Image.Resampling.BILINEAR))
        assert (one.int() - theirs.int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(16, 24), (40, 60), (80, 90)])
def test_crops_sampled_at_once_are_close_to_those_cut_one_by_one(generator, size):
    images = smooth_images(generator, 3, 40, 60)
    crops = torch.tensor([[0.1, 0.2, 0.8, 0.8], [0.25, 0.5, 0.5, 0.4], [0.5, 0.1, 0.4, 0.3]])
    ours = preprocessing._sample_crops(images, crops, size)
    theirs = torch.stack(
        [
            preprocessing.resize(preprocessing.cut(image, crop)[None], size, "bilinear")[0]
            for image, crop in zip(images, crops)
        ]
    )
    assert ours.shape == theirs.shape and ours.dtype == torch.uint8
    difference = (ours.float() - theirs.float()).abs()  # they are cut at whole pixels; neighbours differ by 4.4 levels
    assert difference.mean() < 0.8 and difference.max() < 12


def test_sampled_crops_of_many_pixels_are_averaged():
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 200
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    sampled = preprocessing._sample_crops(stripes, whole, (16, 16))
    assert sampled.unique().tolist() == [100]
