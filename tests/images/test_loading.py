"""Photos are the same wherever they are kept, and are decoded once."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from support import folder_config, smooth_images, to_pil

from data import load_dataset
from images import loading, sources

CPU = torch.device("cpu")


def make_photos(root, count=6, size=(48, 64)):
    """Smooth photos of 4:3 in two classes."""
    generator = torch.Generator().manual_seed(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i, image in enumerate(smooth_images(generator, count, *size)):
            to_pil(image).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize("scale", [None, [0.3, 1.0]])
def test_crops_of_photos_are_the_same_wherever_photos_are_kept(tmp_path, scale):
    """4:3 photos at twice the size of the input, on the device, in a file, and streamed: within resampling error."""
    make_photos(tmp_path, count=3, size=(192, 256))
    ways = {"device": {"residency": "device"}, "disk": {"resident_budget_mb": 1}, "stream": {"residency": "stream"}}
    batches = {}
    for way, keys in ways.items():
        cfg = folder_config(
            tmp_path, image_size=96, num_workers=0, test_fraction=0, val_fraction=0, augment={"scale": scale}, **keys
        )
        split = load_dataset(cfg, seed=0).train
        split.resident = way == "device"  # a budget of 1 MB is too much for so few images
        drawn, in_order = (list(split.batches(4, CPU, g)) for g in (torch.Generator().manual_seed(0), None))
        batches[way] = torch.cat([images for images, _ in drawn + in_order]).float()
        assert split.kept_size == ((175, 175) if scale else (96, 96)) and batches[way].shape[-2:] == (96, 96)
    assert torch.equal(batches["device"], batches["disk"])
    difference = (batches["device"] - batches["stream"]).abs()
    assert difference.mean() < 1.5 and difference.amax() < 16
    assert torch.equal(batches["device"], batches["stream"]) == (scale is None)


def test_random_crops_have_the_shape_that_was_asked_for_on_photos_of_any_shape(tmp_path):
    make_photos(tmp_path, count=100)
    cfg = folder_config(tmp_path, val_fraction=0, test_fraction=0, augment={"scale": [0.1, 0.4], "ratio": [0.9, 1.1]})
    crops = load_dataset(cfg, seed=0).train.plan(200, torch.Generator().manual_seed(0))[0].crops
    ratio = crops[:, 3] * 64 / (crops[:, 2] * 48)
    assert 0.9 <= ratio.min() < 0.92 and 1.08 < ratio.max() <= 1.1001


def test_photos_are_decoded_once_and_kept_on_disk(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos")
    monkeypatch.setenv("VIT_VS_SWIN_CACHE", str(tmp_path / "cache"))
    opened = []
    original = sources.open_image
    monkeypatch.setattr(sources, "open_image", lambda path, **options: opened.append(path) or original(path, **options))

    def batches(**keys):
        opened.clear()
        cfg = folder_config(tmp_path / "photos", num_workers=0, **keys)
        return torch.cat([images for images, _ in load_dataset(cfg, seed=0).train.batches(4, CPU)])

    first = batches()
    assert len(opened) == len(first) and torch.equal(first, batches()) and not opened
    assert torch.equal(batches(cache_mb=0), first) and len(opened) == len(first)
    [stored] = (tmp_path / "cache" / "photos").glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:-1])  # damaged: made anew
    assert torch.equal(batches(), first) and len(opened) == len(first)
    path = tmp_path / "photos" / "cat" / "0.png"
    Image.new("RGB", (64, 48)).save(path)  # other pixels under the old name
    assert (batches()[0] == 0).all() or not torch.equal(batches(), first)


def test_what_was_not_used_for_longest_makes_room(tmp_path):
    for age, name in enumerate("abc"):
        (tmp_path / f"{name}.npy").write_bytes(bytes(400_000))
        os.utime(tmp_path / f"{name}.npy", (1000 - age, 1000 - age))
    loading._make_room(tmp_path, 500_000, limit_mb=1)
    assert [path.stem for path in sorted(tmp_path.glob("*.npy"))] == ["a"]


def test_a_full_disk_means_memory_and_says_so(tmp_path, monkeypatch, capsys):
    make_photos(tmp_path)

    def refuse(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loading, "_write", refuse)
    cfg = folder_config(tmp_path, num_workers=0)
    assert len(list(load_dataset(cfg, seed=0).train.batches(4, CPU))) == 2
    assert "cannot hold the resized photos (No space left on device)" in capsys.readouterr().err


def test_two_processes_write_one_file(tmp_path, monkeypatch):
    make_photos(tmp_path / "photos")
    monkeypatch.setenv("VIT_VS_SWIN_CACHE", str(tmp_path / "cache"))
    source = load_dataset(folder_config(tmp_path / "photos"), seed=0).train.source
    written, original = [], loading._write
    monkeypatch.setattr(loading, "_write", lambda *arguments: written.append(1) or original(*arguments))
    wanted = (source, np.arange(12), (16, 16))
    with ThreadPoolExecutor(2) as pool:  # each opens the lock file for itself, as two processes do
        one, other = pool.map(
            lambda _: loading.stored_photos(*wanted, whole=False, num_workers=0, limit_mb=9), range(2)
        )
    assert len(written) == 1 and torch.equal(one, other)


def test_workers_stay_from_pass_to_pass(tmp_path):
    make_photos(tmp_path)
    split = load_dataset(folder_config(tmp_path, residency="stream", num_workers=1, val_fraction=0), seed=0).train
    first = torch.cat([images for images, _ in split.batches(4, CPU)])
    process = split._reader._loader._iterator._workers[0]
    next(split.batches(4, CPU))  # a pass that is left in the middle
    assert torch.equal(torch.cat([images for images, _ in split.batches(4, CPU)]), first)
    assert split._reader._loader._iterator._workers[0] is process and process.is_alive()
