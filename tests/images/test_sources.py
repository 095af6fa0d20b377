"""Image files of any kind are read as they are meant, and what is no dataset is refused."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from support import folder_config, from_pil, make_config, make_folder, random_images, smooth_images, to_pil

from data import load_dataset
from images import sources
from images.sources import Photos, fit_image, open_image


def test_small_images_keep_their_size_and_photos_are_fitted(tmp_path):
    make_folder(tmp_path / "small", size=(12, 12))
    make_folder(tmp_path / "wide", size=(20, 40))
    assert load_dataset(folder_config(tmp_path / "small"), seed=0).train.image(0).shape == (3, 12, 12)
    wide = load_dataset(folder_config(tmp_path / "wide", interpolation="bilinear"), seed=0).train
    assert wide.image(0).shape == (3, 16, 16)
    photo = Image.open(wide.source.paths[int(wide.indices[0])])
    centre = photo.crop((10, 0, 30, 20)).resize((16, 16), Image.Resampling.BILINEAR)
    assert (wide.image(0).int() - from_pil(centre).int()).abs().max() <= 1  # bicubic differs more, on pure noise


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


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_large_jpegs_are_decoded_at_a_fraction_and_look_the_same(generator, tmp_path, orientation):
    photo, exif = to_pil(smooth_images(generator, 1, 600, 800)[0]), Image.Exif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "photo.jpg"))
    assert open_image(tmp_path / "photo.jpg").size == upright.size
    small = open_image(tmp_path / "photo.jpg", at_least=(150, 140))
    assert small.size == tuple(side // 4 for side in upright.size)
    photos = Photos([str(tmp_path / "photo.jpg")], torch.zeros(1), (48, 64), "bicubic")
    left, top, width, height = (round(part * side) for part, side in zip((0.25, 0.1, 0.5, 0.6), (*upright.size,) * 2))
    part = upright.resize((64, 48), Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))
    for crop, expected in (
        (torch.tensor([0.1, 0.25, 0.6, 0.5]), part),
        (None, ImageOps.fit(upright, (64, 48), Image.Resampling.BICUBIC)),
    ):
        difference = (photos.read(0, crop).int() - from_pil(expected).int()).abs().float()
        assert difference.mean() < 1 and difference.max() <= 8


def test_reading_a_photo_opens_no_more_of_it_than_the_crop_needs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        sources, "open_image", lambda path, at_least=None: asked.append(at_least) or Image.new("RGB", (99, 99))
    )
    photos = Photos(["photo.jpg"], torch.zeros(1), (10, 20), "bicubic")
    photos.read(0)
    photos.read(0, torch.tensor([0.0, 0.0, 0.5, 0.25]))
    assert asked == [(20, 40), (40, 160)]


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


# ---------------------------------------------------------------- CIFAR


def cifar(root, dataset="cifar10"):
    return load_dataset(make_config(data={"dataset": dataset, "root": str(root)}).data, seed=0)


def refuse_network(*_, **__):
    raise AssertionError("the network must not be asked for a file that is there")


def test_a_truncated_cifar_file_says_found_and_expected_size(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "require_network", refuse_network)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, size in sources.CIFAR_BYTES.items():
        if name.startswith("cifar-10-batches-py/"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(size)  # sparse
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: a file is not as it was published .*checksums"):
        cifar(tmp_path)
    (folder / "data_batch_3").write_bytes(b"x" * 1000)
    with pytest.raises(
        ValueError, match=r"data_batch_3 has 1,000 bytes, and 31,035,999 bytes are expected; put a whole"
    ):
        cifar(tmp_path)
    (folder / "data_batch_2").unlink()
    with pytest.raises(ValueError, match=r"data_batch_2 is missing, and 31,035,320 bytes are expected"):
        cifar(tmp_path)


def test_a_truncated_cifar_archive_says_found_and_expected_size(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "require_network", refuse_network)
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(b"x" * 10)
    with pytest.raises(ValueError, match=r"cifar-100-python\.tar\.gz has 10 bytes, and 169,001,437 bytes are expected"):
        cifar(tmp_path, "cifar100")
