"""The part of a photo that the model sees is known, so that a map can be laid over the photo itself."""

import numpy as np
import pytest
import torch
from PIL import Image
from support import make_config

from explanation.pictures import pick_pictures, read_pictures, seen_area
from images.sources import Photos


def ramp(width: int, height: int) -> Image.Image:
    """A photo that says in red how far right, in green how far down each pixel is; blue 128."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    return Image.fromarray(np.rint(np.stack([255 * x, 255 * y, 128 + 0 * x], axis=2)).astype(np.uint8))


def measured_area(pixels: torch.Tensor, width: int, height: int) -> list[float]:
    """Where in the ramp the pixels, uint8 3 H W, lie: left, top, right, bottom, by a line through its inner values."""
    edges = []
    for colour, axis, length in ((pixels[0], 0, width), (pixels[1], 1, height)):
        values = colour.float().mean(dim=axis).numpy() / 255 * length
        padded = (pixels[2].float() - 128).abs().amax(dim=axis).numpy() > 3
        places = np.arange(len(values)) + 0.5
        good = ~padded & (np.arange(len(values)) > 2) & (np.arange(len(values)) < len(values) - 3)
        slope, offset = np.polyfit(places[good], values[good], 1)
        edges.append((offset, offset + slope * len(values)))
    return [edges[0][0], edges[1][0], edges[0][1], edges[1][1]]


@pytest.mark.parametrize("shape", [(300, 200), (200, 320), (240, 240)])
@pytest.mark.parametrize(
    ("crop_pct", "crop_mode", "size"),
    [
        (None, "center", (96, 96)),
        (None, "center", (96, 144)),
        (0.875, "center", (96, 96)),
        (0.9, "center", (80, 120)),
        (0.9, "squash", (96, 96)),
        (None, "squash", (96, 96)),
    ],
)
def test_what_the_model_sees_is_where_it_is_said_to_be(tmp_path, shape, crop_pct, crop_mode, size):
    ramp(*shape).save(tmp_path / "ramp.png")
    photos = Photos([str(tmp_path / "ramp.png")], torch.zeros(1), size, "bilinear", crop_pct, crop_mode)
    measured = measured_area(photos.read(0), *shape)
    np.testing.assert_allclose(seen_area(*shape, photos), measured, atol=1.6)


def test_a_photo_with_a_border_is_all_seen(tmp_path):
    photos = Photos([], torch.zeros(0), (96, 96), "bilinear", 1.0, "border")
    assert seen_area(300, 200, photos) == (0, -50, 300, 250)


def test_pictures_keep_their_photos_own_resolution(tmp_path):
    ramp(300, 200).save(tmp_path / "ramp.png")
    config = make_config(data={"image_size": 24})
    run = type("Run", (), {"config": config, "path": staticmethod(tmp_path.joinpath)})
    (picture,) = read_pictures(run, [tmp_path / "ramp.png"])
    assert picture.pixels.shape == (3, 24, 24)
    assert picture.view().photo.shape == (200, 300, 3) and picture.view().seen == (50, 0, 250, 200)
    small = picture.view(longest=60)
    assert small.photo.shape == (40, 60, 3) and small.seen == (10, 0, 50, 40)


def test_pictures_of_a_split_show_the_files_they_come_from(family_runs):
    from common.runs import Run

    run = Run.open(family_runs["vit"])
    pictures = pick_pictures(run, "val", run.load_checkpoint("best.pt"), random=3)
    for picture in pictures:
        np.testing.assert_array_equal(picture.view().photo, picture.pixels.permute(1, 2, 0))
        assert picture.view().seen == (0, 0, 24, 24)
