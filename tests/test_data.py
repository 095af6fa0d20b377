import math

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from support import make_config, make_folder
from timm.data import auto_augment

from common.config import AugmentConfig
from data import Augment, Preprocess, load_dataset
from images import augmentation, preprocessing
from images.augmentation import RAND_AUGMENT, rand_augment
from images.sources import PIL_FILTERS, fit_image, open_image

CPU = torch.device("cpu")


def random_images(generator, count=6, height=32, width=32):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def smooth_images(generator, count=6, height=32, width=32):
    """Images without pixel noise, on which two bilinear kernels must agree to a grey level."""
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return (255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")).to(torch.uint8)


def to_pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def from_pil(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def folder_config(root, **keys):
    return make_config(data={"dataset": "imagefolder", "root": str(root), "image_size": 16, **keys}).data


# ---------------------------------------------------------------- batched operations against torchvision and PIL


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("source", "target"), [((32, 32), (224, 224)), ((64, 48), (24, 40))])
def test_resize_equals_pil_within_one_grey_level(generator, mode, source, target):
    # bicubic overshoots on pure noise, where clamping between the two passes differs by a few levels
    images = (random_images if mode == "bilinear" else smooth_images)(generator, 4, *source)
    resize = Preprocess(target, (0, 0, 0), (1, 1, 1), mode).resize
    theirs = torch.stack([from_pil(to_pil(image).resize(target[::-1], PIL_FILTERS[mode])) for image in images])
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


def test_augment_draws_per_image_and_repeats_with_the_seed():
    image = smooth_images(torch.Generator().manual_seed(1), 1).expand(64, -1, -1, -1)
    augment = Augment(AugmentConfig(crop_padding=4, hflip=0.5, degrees=10, translate=0.1))
    first = augment(image, torch.Generator().manual_seed(0))
    assert len({sample.numpy().tobytes() for sample in first}) == 64
    torch.testing.assert_close(augment(image, torch.Generator().manual_seed(0)), first)
    assert not torch.equal(augment(image, torch.Generator().manual_seed(1)), first)


def test_augment_with_everything_off_changes_nothing(generator):
    images = random_images(generator)
    assert torch.equal(Augment(AugmentConfig(crop_padding=0, hflip=0))(images, generator), images)


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
    results = RAND_AUGMENT[name](images, level, -torch.ones(4))
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
        return RAND_AUGMENT[name](ramp, torch.tensor([magnitude / 10]), torch.tensor([sign]))[0, 0].flatten()

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


# ---------------------------------------------------------------- splits


def digits(**keys):
    cfg = make_config(data={"val_fraction": 0.2, "test_fraction": 0.2, **keys}).data
    return load_dataset(cfg, seed=cfg.split_seed)


def test_digits_are_split_60_20_20_stratified_and_disjoint():
    dataset = digits()
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [1077, 360, 360]
    together = torch.cat([dataset.train.indices, dataset.val.indices, dataset.test.indices])
    assert together.sort().values.tolist() == list(range(1797))
    for split in (dataset.train, dataset.val, dataset.test):
        shares = torch.bincount(split.labels, minlength=10) / len(split)
        assert (shares - 0.1).abs().max() < 0.01
    assert dataset.test.image(0).shape == (3, 16, 16) and dataset.test.image(0).dtype == torch.uint8


def test_splits_depend_on_their_seed_alone():
    assert torch.equal(digits().test.indices, digits().test.indices)
    assert not torch.equal(digits().test.indices, digits(split_seed=1).test.indices)


def test_no_validation_split():
    dataset = digits(val_fraction=0)
    assert len(dataset.val) == 0 and len(dataset.train) == 1797 - 360
    assert list(dataset.val.batches(8, CPU)) == []


@pytest.mark.parametrize("residency", ["device", "stream"])
def test_batches_hold_each_image_once(residency):
    split = digits(residency=residency, num_workers=0).train
    for generator in (None, torch.Generator().manual_seed(0)):
        batches = list(split.batches(100, CPU, generator))
        assert len(batches) == len(split.plan(100)) == 11
        assert sum(len(labels) for _, labels in batches) == len(split)
        seen = sorted(image.numpy().tobytes() for images, _ in batches for image in images)
        assert seen == sorted(split.image(i).numpy().tobytes() for i in range(len(split)))
    in_order = next(split.batches(100, CPU))
    assert torch.equal(in_order[1], split.labels[:100]) and torch.equal(in_order[0][7], split.image(7))


def test_the_order_follows_the_generator():
    split = digits().train
    orders = [
        torch.cat([labels for _, labels in split.batches(64, CPU, torch.Generator().manual_seed(seed))])
        for seed in (0, 0, 1)
    ]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_a_single_leftover_joins_its_neighbour():
    split = digits(val_fraction=0).test  # 360 images
    assert [len(selection.indices) for selection in split.plan(100)] == [100, 100, 100, 60]
    assert [len(selection.indices) for selection in split.plan(359)] == [360]
    assert [len(selection.indices) for selection in split.plan(119, smallest=4)] == [119, 119, 122]
    assert [len(selection.indices) for selection in split.plan(500)] == [360]


def test_parts_of_a_plan_make_up_the_whole():
    plan = digits().train.plan(100, torch.Generator().manual_seed(0))
    for selection in plan:
        parts = [selection.part(rank, 3).indices for rank in range(3)]
        assert sorted(torch.cat(parts).tolist()) == sorted(selection.indices.tolist())


def test_repeated_augmentation_shows_each_image_several_times():
    split = digits().train
    plan = split.plan(60, torch.Generator().manual_seed(0), repeats=3)
    assert sum(len(selection.indices) for selection in plan) == len(split)
    assert all((selection.indices.bincount() % 3 == 0).all() for selection in plan)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [{}, {"scale": [0.3, 1.0]}])
def test_streaming_gives_what_residency_gives(tmp_path, workers, augment):
    make_folder(tmp_path, splits=("train",), size=(16, 16))
    batches = []
    for residency in ("device", "stream"):
        cfg = folder_config(tmp_path, residency=residency, num_workers=workers, augment=augment)
        split = load_dataset(cfg, seed=0).train
        batches.append(list(split.batches(5, CPU, torch.Generator().manual_seed(0))))
    for (resident, labels), (streamed, other_labels) in zip(*batches):
        assert torch.equal(labels, other_labels)
        difference = (resident.int() - streamed.int()).abs()
        if augment:  # cropped by PIL from the file against cropped by grid_sample from the tensor, of pure noise
            assert difference.float().mean() < 25
        else:
            assert difference.max() == 0


def test_residency_follows_the_budget(tmp_path):
    make_folder(tmp_path, count=300, size=(64, 64), classes=("a", "b"))  # 600 x 3 x 64 x 64 bytes = 7.4 MB
    assert load_dataset(folder_config(tmp_path, image_size=64, resident_budget_mb=8), seed=0).train.resident
    assert not load_dataset(folder_config(tmp_path, image_size=64, resident_budget_mb=7), seed=0).train.resident


# ---------------------------------------------------------------- folders of images


def test_a_single_folder_is_split_by_fraction(tmp_path):
    make_folder(tmp_path, splits=("",), count=20)
    dataset = load_dataset(folder_config(tmp_path, val_fraction=0.2, test_fraction=0.1), seed=0)
    assert dataset.class_names == ["cat", "dog", "frog"]
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [42, 12, 6]
    for split, count in ((dataset.val, 4), (dataset.test, 2)):
        assert torch.bincount(split.labels).tolist() == [count] * 3


@pytest.mark.parametrize(
    ("splits", "sizes"),
    [(("train", "val", "test"), [60, 60, 60]), (("train", "test"), [54, 6, 60]), (("train",), [48, 6, 6])],
)
def test_missing_splits_are_cut_from_train(tmp_path, splits, sizes):
    make_folder(tmp_path, splits=splits, count=20)
    dataset = load_dataset(folder_config(tmp_path), seed=0)
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == sizes


def test_small_images_keep_their_size_and_photos_are_fitted(tmp_path):
    make_folder(tmp_path / "small", size=(12, 12))
    make_folder(tmp_path / "wide", size=(20, 40))
    assert load_dataset(folder_config(tmp_path / "small"), seed=0).train.image(0).shape == (3, 12, 12)
    wide = load_dataset(folder_config(tmp_path / "wide"), seed=0).train
    assert wide.image(0).shape == (3, 16, 16)
    photo = Image.open(wide.source.paths[int(wide.indices[0])])
    centre = photo.resize((16, 16), Image.Resampling.BICUBIC, box=(10, 0, 30, 20))
    assert torch.equal(wide.image(0), from_pil(centre))


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    grey = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = (
            Image.fromarray(grey).quantize(64) if mode == "P" else Image.fromarray(grey).convert("RGB").convert(mode)
        )
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    image.save(path)
    rgb = np.array(open_image(path))
    assert rgb.shape == (8, 8, 3)
    if mode != "1":
        assert np.abs(rgb.astype(int) - grey[..., None]).max() <= 2


def test_pixels_without_a_range_are_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).random((8, 8), dtype=np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"float\.tif: not a readable image .*floating-point"):
        open_image(tmp_path / "float.tif")


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    first, second = (Image.new("RGB", (9, 7), color) for color in ("red", "blue"))
    first.save(tmp_path / "two.gif", save_all=True, append_images=[second])
    assert np.asarray(open_image(tmp_path / "two.gif"))[3, 4].tolist() == [255, 0, 0]


def test_exif_orientation_is_honoured(tmp_path):
    image = Image.new("RGB", (20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # turn right to see it upright
    image.save(tmp_path / "photo.jpg", exif=exif)
    assert open_image(tmp_path / "photo.jpg").size == (10, 20)


def test_fit_image_takes_the_centre(generator):
    image = to_pil(random_images(generator, 1, 10, 30)[0])
    assert torch.equal(fit_image(image, (10, 10), "bilinear"), from_pil(image.crop((10, 0, 20, 10))))


# ---------------------------------------------------------------- mistakes


def test_unknown_datasets_name_the_nearest():
    with pytest.raises(ValueError, match="did you mean cifar10"):
        load_dataset(make_config(data={"dataset": "cifar-10"}).data, seed=0)


def test_folders_that_are_no_datasets(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        load_dataset(folder_config(tmp_path / "missing"), seed=0)
    with pytest.raises(ValueError, match="every class needs a folder"):
        load_dataset(folder_config(tmp_path), seed=0)
    make_folder(tmp_path)
    (tmp_path / "train" / "empty").mkdir()
    with pytest.raises(ValueError, match="empty"):
        load_dataset(folder_config(tmp_path), seed=0)
    (tmp_path / "train" / "empty").rmdir()
    make_folder(tmp_path, splits=("test",), classes=("cat", "wolf"))
    with pytest.raises(ValueError, match="wolf"):
        load_dataset(folder_config(tmp_path), seed=0)


def test_one_class_or_too_few_images_per_class(tmp_path):
    make_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match="one class only"):
        load_dataset(folder_config(tmp_path / "one"), seed=0)
    make_folder(tmp_path / "few", count=1)
    with pytest.raises(ValueError, match=r"data\.test_fraction"):
        load_dataset(folder_config(tmp_path / "few"), seed=0)


@pytest.mark.parametrize("residency", ["device", "stream"])
def test_a_corrupt_image_is_named(tmp_path, residency):
    make_folder(tmp_path)
    broken = tmp_path / "train" / "dog" / "003.png"
    broken.write_bytes(broken.read_bytes()[:600])
    cfg = folder_config(tmp_path, residency=residency, num_workers=2, val_fraction=0, test_fraction=0)
    with pytest.raises(ValueError, match=r"003\.png: not a readable image"):
        list(load_dataset(cfg, seed=0).train.batches(8, CPU))


def test_an_index_out_of_range_names_the_range():
    with pytest.raises(ValueError, match="test split has images 0 to 359"):
        digits().test.image(360)
