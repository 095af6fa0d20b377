"""Random changes of a batch equal those of torchvision and timm, image by image."""

import math

import pytest
import torch
import torchvision.transforms.functional as TF
from support import random_images, smooth_images
from timm.data import auto_augment
from torch.utils._python_dispatch import TorchDispatchMode

from common.config import AugmentConfig
from data import Augment
from images import augmentation, preprocessing
from images.augmentation import RAND_AUGMENT, apply_operations, rand_augment


def test_crop_equals_pad_and_crop_per_image(generator):
    images = random_images(generator)
    offsets = torch.randint(0, 9, (len(images), 2), generator=generator)
    ours = augmentation.crop_at(images, 4, offsets)
    for image, (top, left), crop in zip(images, offsets.tolist(), ours):
        torch.testing.assert_close(crop, TF.crop(TF.pad(image, 4), top, left, 32, 32))


def test_flip_equals_hflip_where_asked(generator):
    images = random_images(generator, 4)
    flipped = torch.tensor([True, False, True, False])
    expected = torch.stack([TF.hflip(image) if flip else image for image, flip in zip(images, flipped)])
    torch.testing.assert_close(augmentation.flip_where(images, flipped), expected)


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_affine_equals_torchvision_per_image(generator, size):
    images = smooth_images(generator, 6, *size)
    degrees = torch.tensor([0.0, 8.0, -30.0, 90.0, 45.0, 5.0])
    shifts = torch.tensor([[3, 0], [0, -2], [1, 4], [0, 0], [-3, 2], [0, 1]])
    ours = augmentation.affine(images, degrees, shifts.float())
    for image, angle, shift, result in zip(images, degrees.tolist(), shifts.tolist(), ours):
        theirs = TF.affine(image, angle, shift, 1.0, [0.0, 0.0], TF.InterpolationMode.BILINEAR)
        assert (result.int() - theirs.int()).abs().max() <= 1


def test_crop_and_resize_equals_resized_crop_per_image(generator):
    images = smooth_images(generator, 4, 32, 40)
    boxes = [(0, 0, 32, 40), (4, 10, 20, 20), (12, 0, 16, 30), (8, 8, 8, 8)]  # top, left, height, width in pixels
    crops = torch.tensor([[t / 32, x / 40, h / 32, w / 40] for t, x, h, w in boxes])
    ours = preprocessing.crop_and_resize(images, crops)
    for image, box, result in zip(images, boxes, ours):
        theirs = TF.resized_crop(image, *box, [32, 40], antialias=False)
        inner = (slice(None), slice(3, -3), slice(3, -3))  # torchvision clamps at the box, we see what is beside it
        assert (result.int() - theirs.int())[inner].abs().max() <= 3


def test_random_crops_stay_in_range_and_cover_the_image(generator):
    crops = augmentation.random_crops(4000, (0.3, 0.9), (3 / 4, 4 / 3), aspect=(30, 40), generator=generator)
    top, left, high, wide = crops.unbind(-1)
    assert crops.min() >= 0 and (top + high).max() <= 1 + 1e-6 and (left + wide).max() <= 1 + 1e-6
    whole = (high < 1) & (wide < 1)
    area, ratio = (high * wide)[whole], (wide * 40 / (high * 30))[whole]
    assert 0.3 - 1e-5 <= area.min() < 0.32 and area.max() <= 0.9 + 1e-5
    assert 0.75 - 1e-5 <= ratio.min() < 0.77 and 1.31 < ratio.max() <= 4 / 3 + 1e-5


# The same operation by torchvision, for one image at level 0.7 with sign -1.
SHEAR = math.degrees(math.atan(-0.21))
PER_IMAGE = {
    "identity": lambda x: x,
    "rotate": lambda x: TF.affine(x, -21.0, [0, 0], 1.0, [0.0, 0.0], TF.InterpolationMode.BILINEAR),
    "shear_x": lambda x: TF.affine(x, 0.0, [0, 0], 1.0, [SHEAR, 0.0], TF.InterpolationMode.BILINEAR),
    "shear_y": lambda x: TF.affine(x, 0.0, [0, 0], 1.0, [0.0, SHEAR], TF.InterpolationMode.BILINEAR),
    "translate_x": lambda x: TF.affine(x, 0.0, [-10, 0], 1.0, [0.0, 0.0]),
    "translate_y": lambda x: TF.affine(x, 0.0, [0, -10], 1.0, [0.0, 0.0]),
    "brightness": lambda x: TF.adjust_brightness(x, 0.37),
    "color": lambda x: TF.adjust_saturation(x, 0.37),
    "contrast": lambda x: TF.adjust_contrast(x, 0.37),
    "sharpness": lambda x: TF.adjust_sharpness(x, 0.37),
    "posterize": lambda x: TF.posterize(x, 2),
    "solarize": lambda x: TF.solarize(x, 256 * (1 - 0.7)),
    "autocontrast": TF.autocontrast,
    "equalize": TF.equalize,
}


@pytest.mark.parametrize("name", RAND_AUGMENT)
def test_rand_augment_operations_equal_torchvisions_per_image(generator, name):
    images = smooth_images(generator, 4)
    level = torch.full((4,), 0.7 if "translate" not in name else 10 / (0.45 * 32))
    results = apply_operations(images, torch.full((4,), RAND_AUGMENT.index(name)), level, -torch.ones(4))
    for image, result in zip(images, results):
        expected = PER_IMAGE[name](image).float()
        if name.startswith(("rotate", "shear", "translate")):  # what moved in from outside is grey
            expected += 128 * (1 - PER_IMAGE[name](torch.full_like(image, 255)) / 255)
        assert (result - expected).abs().max() <= 1.5
        assert name in ("identity", "autocontrast") or not torch.equal(result, image)


@pytest.mark.parametrize("magnitude", range(11))
def test_rand_augment_ranges_are_timms_and_leave_an_image(magnitude):
    """Every grey level once, so that what an operation makes of it shows its strength."""
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, -1, -1)

    def made(name, sign):
        number = torch.tensor([RAND_AUGMENT.index(name)])
        return apply_operations(ramp, number, torch.tensor([magnitude / 10]), torch.tensor([sign]))[0, 0].flatten()

    hparams = {"translate_pct": 0.45}
    bits = auto_augment.LEVEL_TO_ARG["PosterizeIncreasing"](magnitude, hparams)[0]
    assert len(made("posterize", 1.0).unique()) == 2 ** max(bits, 1)
    threshold = auto_augment.LEVEL_TO_ARG["SolarizeIncreasing"](magnitude, hparams)[0]
    assert abs((made("solarize", 1.0) == ramp[0, 0].flatten()).sum() - threshold) <= 1
    # timm draws the sign itself; of its two factors ours are the same.
    factors = {auto_augment.LEVEL_TO_ARG["BrightnessIncreasing"](magnitude, hparams)[0] for _ in range(64)}
    for sign, factor in zip((-1.0, 1.0), (min(factors), max(factors))):
        expected = (factor * ramp[0, 0].flatten().float()).clamp(max=255)
        assert (made("brightness", sign).float() - expected).abs().max() <= 1
    for name in RAND_AUGMENT:
        for sign in (-1.0, 1.0):
            assert made(name, sign).max() > 0


def test_rand_augment_draws_operations_per_image():
    image = smooth_images(torch.Generator().manual_seed(1), 1).expand(200, -1, -1, -1)
    results = rand_augment(image, "rand-m9-n1", torch.Generator().manual_seed(0))
    kinds = {sample.numpy().tobytes() for sample in results}
    assert 14 <= len(kinds) <= 2 * len(RAND_AUGMENT)  # 14 operations, most of them with two signs
    spread = rand_augment(image, "rand-m9-n2-mstd0.5", torch.Generator().manual_seed(0))
    assert len({sample.numpy().tobytes() for sample in spread}) > 100
    assert torch.equal(spread, rand_augment(image, "rand-m9-n2-mstd0.5", torch.Generator().manual_seed(0)))
    assert augmentation.parse_policy("rand-m7-n3-mstd0.5-inc1") == (7, 3, 0.5)


def test_random_erasing_blanks_one_box_in_the_given_share_of_images():
    images = torch.ones(2000, 3, 32, 32)
    erased = Augment(AugmentConfig(reprob=0.25)).erase(images, torch.Generator().manual_seed(0))[:, 0] == 0
    hit = erased.any((1, 2))
    assert hit.float().mean() == pytest.approx(0.25, abs=0.03)
    rows, columns = erased[hit].any(2), erased[hit].any(1)
    assert torch.equal(erased[hit], rows[:, :, None] & columns[:, None, :])  # a box
    share = erased[hit].float().mean((1, 2))
    assert share.max() < 0.36 and share.mean() == pytest.approx(0.175, abs=0.03)
    assert torch.equal(Augment(AugmentConfig()).erase(images, torch.Generator()), images)


class CountKernels(TorchDispatchMode):
    """Operations that compute something, and copies that wait for the device."""

    VIEWS = ("view", "expand", "select", "slice", "unsqueeze", "permute", "unbind", "detach", "alias", "transpose")

    def __enter__(self):
        self.names = []
        return super().__enter__()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        if name not in self.VIEWS:
            self.names.append(name)
        return operation(*args, **(kwargs or {}))


def test_rand_augment_takes_few_kernels_and_no_scalar_leaves_the_device(generator):
    images = smooth_images(generator, 64)
    with CountKernels() as kernels:
        rand_augment(images, "rand-m9-n2-mstd0.5", generator)
    assert len(kernels.names) < 400  # 632 with kernels of its own for each operation
    assert "_local_scalar_dense" not in kernels.names
    with CountKernels() as kernels:
        Augment(AugmentConfig(reprob=0.5)).erase(images.float(), generator)
    assert "_local_scalar_dense" not in kernels.names
    colours = {"vflip": 0.5, "color_jitter": (0.4, 0.4, 0.4, 0.1), "grayscale_prob": 0.5, "gaussian_blur_prob": 0.5}
    with CountKernels() as kernels:
        Augment(AugmentConfig(**colours))(images, generator)
    assert len(kernels.names) < 400  # of one image: 8 and more for each of 64
    assert "_local_scalar_dense" not in kernels.names
