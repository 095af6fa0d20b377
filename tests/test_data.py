import numpy as np
import pytest
import torch
from support import folder_config, make_config, make_folder, random_images, smooth_images

from common.config import AugmentConfig
from data import Augment, Split, load_dataset
from images.sources import Pixels

CPU = torch.device("cpu")


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
    plan = split.plan(len(split), torch.Generator().manual_seed(0), repeats=10**12)  # more than there are images
    assert plan[0].indices.unique().numel() == 1 and len(plan[0].indices) == len(split)


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_residency_gives(tmp_path, workers):
    make_folder(tmp_path, splits=("train",), size=(16, 16))
    batches = []
    for residency in ("device", "stream"):
        cfg = folder_config(tmp_path, residency=residency, num_workers=workers)
        split = load_dataset(cfg, seed=0).train
        batches.append(list(split.batches(5, CPU, torch.Generator().manual_seed(0))))
    for (kept, labels), (streamed, other_labels) in zip(*batches):
        assert torch.equal(labels, other_labels) and torch.equal(kept, streamed)


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


def test_one_class_or_too_few_images_per_class(tmp_path):
    make_folder(tmp_path / "one", classes=("cat",))
    with pytest.raises(ValueError, match="only one class"):
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


def test_pixel_statistics_are_those_of_the_training_images():
    split = load_dataset(make_config().data, seed=0).train
    pixels = split.source.images[split.indices].double() / 255
    mean, std = split.pixel_statistics(torch.device("cpu"))
    np.testing.assert_allclose(mean, pixels.mean(dim=(0, 2, 3)), atol=5.1e-5)
    np.testing.assert_allclose(std, pixels.transpose(0, 1).flatten(1).std(dim=1, unbiased=False), atol=5.1e-5)
    grey = Split(
        Pixels(torch.full((3, 3, 4, 4), 128, dtype=torch.uint8), torch.zeros(3)),
        torch.arange(3),
        name="train",
        resident=True,
    )
    assert grey.pixel_statistics(torch.device("cpu")) == ((0.502,) * 3, (0.0039,) * 3)
