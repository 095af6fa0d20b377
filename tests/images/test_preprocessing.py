"""Resizing and normalising a batch equals what PIL and torchvision do to one image."""

import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from support import from_pil, random_images, smooth_images, to_pil

from data import Preprocess

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
