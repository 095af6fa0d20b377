"""What is remembered of image files."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support import make_folder

from images import index
from images.files import list_classes
from images.index import digest_all, digest_pixels, index_images


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """The files that are decoded, as they are; in a cache of its own."""
    monkeypatch.setenv("VIT_VS_SWIN_CACHE", str(tmp_path / "cache"))
    paths = []

    def spy(path):
        paths.append(Path(path).name)
        return original(path)

    original = index.open_image
    monkeypatch.setattr(index, "open_image", spy)
    return paths


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "images", splits=("",), classes=("a", "b"), count=3, size=(7, 5))


def index_folder(folder):
    return index_images(list_classes(folder).paths, folder)


def test_a_second_start_opens_nothing(folder, opened):
    first = index_folder(folder)
    assert len(opened) == 6
    assert first.sizes.tolist() == [[7, 5]] * 6
    second = index_folder(folder)
    assert len(opened) == 6
    assert np.array_equal(first.digests, second.digests)


def test_only_what_changed_is_opened_again(folder, opened):
    before = index_folder(folder).digests
    path, facts = folder / "a/001.png", (folder / "a/001.png").stat()
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] = 255 - pixels[0, 0]
    content = path.read_bytes()
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # the same name and time of change
    (folder / "b/000.png").rename(folder / "b/new.png")
    del opened[:]
    after = index_folder(folder).digests
    assert opened == ["001.png", "new.png"]
    assert not np.array_equal(after[1], before[1])
    assert np.array_equal(after[[0, 2, 3, 4, 5]], before[[0, 2, 4, 5, 3]])  # b/new.png now comes last


def test_a_moved_folder_has_the_same_digests(folder, opened, tmp_path):
    before = index_folder(folder).digests
    folder.rename(tmp_path / "moved")
    assert np.array_equal(index_folder(tmp_path / "moved").digests, before)


@pytest.mark.parametrize("damage", [lambda b: b"", lambda b: b[:200], lambda b: b.replace(b"records", b"sdrocer")])
def test_a_damaged_index_is_made_anew(folder, opened, tmp_path, damage):
    before = index_folder(folder).digests
    (place,) = (tmp_path / "cache/images").glob("*.npz")
    place.write_bytes(damage(place.read_bytes()))
    assert np.array_equal(index_folder(folder).digests, before)
    assert len(opened) == 12


def test_another_decoder_decodes_anew(folder, opened, monkeypatch):
    index_folder(folder)
    monkeypatch.setattr(index.PIL, "__version__", "0")
    index_folder(folder)
    assert len(opened) == 12


def test_broken_files_are_counted_and_named_and_the_others_remembered(folder, opened):
    for name in ("a/000.png", "a/002.png", "b/000.png", "b/001.png"):
        (folder / name).write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"^4 of 6 image files cannot be read: .*a/000\.png.*; .*a/002\.png.*; \.\.\.$"
    ):
        index_folder(folder)
    for path in sorted(folder.rglob("*.png")):
        if not path.stat().st_size:
            path.unlink()
    del opened[:]
    assert len(index_folder(folder).digests) == 2
    assert opened == []


def test_a_folder_that_cannot_be_written_is_no_obstacle(folder, opened, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VIT_VS_SWIN_CACHE", str(tmp_path / "file"))
    assert len(index_folder(folder).digests) == 6
    assert "cannot be written" in capsys.readouterr().err


def test_two_processes_share_the_work(folder, opened, tmp_path):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        found = pool.map(index_folder, [folder] * 4, chunksize=1)
    assert all(np.array_equal(one.digests, found[0].digests) for one in found)
    assert len(list((tmp_path / "cache/images").iterdir())) == 2  # the index and its lock


def test_workers_give_what_one_process_gives(folder, opened, monkeypatch):
    alone = index_folder(folder)
    monkeypatch.setattr(index, "FEW", 1)
    monkeypatch.setenv("VIT_VS_SWIN_CACHE", str(folder.parent / "other"))
    paths = list_classes(folder).paths
    assert np.array_equal(index_images(paths, folder, num_workers=2).digests, alone.digests)


def test_digests_are_of_pixels_wherever_they_come_from(folder):
    path = folder / "a/000.png"
    pixels = np.asarray(Image.open(path))
    copy = folder / "a/copy.bmp"
    Image.fromarray(pixels).save(copy)
    facts = index_images([str(path), str(copy)], folder)
    assert facts.digests[0].tobytes() == facts.digests[1].tobytes() == digest_pixels(pixels)
    assert digest_all(pixels.transpose(2, 0, 1)[None]).tobytes() == digest_pixels(pixels)
    assert digest_pixels(pixels.reshape(5, 7, 3)) != digest_pixels(pixels)
