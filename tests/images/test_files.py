"""Which image files a folder holds, and what is said of those that cannot be read."""

import importlib
import os
import struct
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from support import make_folder
from torchvision.datasets import ImageFolder

from images import files
from images.files import PathList, describe_left_out, list_classes, open_image, printable


def test_a_folder_is_listed_as_torchvision_lists_it(tmp_path):
    make_folder(tmp_path, splits=("",), count=3)
    for name in ("cat/b/1.png", "cat/a/2.PNG", "cat/a.png", "dog/Z.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        (tmp_path / "cat/000.png").rename(path) if name == "cat/a.png" else path.write_bytes(b"")
    found, theirs = list_classes(tmp_path), ImageFolder(tmp_path)
    assert list(zip(found.paths, found.labels)) == theirs.samples
    assert found.class_names == theirs.classes


def test_gifs_and_jfifs_are_read_and_other_files_are_named(tmp_path):
    make_folder(tmp_path, splits=("",), classes=("a", "b"), count=1)
    for name in ("x.gif", "y.jfif", "notes.txt", "z.heic", ".hidden.png"):
        (tmp_path / "a" / name).write_bytes(b"")
    (tmp_path / ".ipynb_checkpoints").mkdir()
    found = list_classes(tmp_path)
    assert found.class_names == ["a", "b"]
    assert [os.path.basename(path) for path in found.paths] == ["000.png", "x.gif", "y.jfif", "000.png"]
    assert describe_left_out(found.left_out).startswith("2 files are left out")
    assert ".heic: 1" in describe_left_out(found.left_out)
    assert describe_left_out([]) is None


def test_links_are_followed_and_loops_are_not(tmp_path):
    make_folder(tmp_path / "root", splits=("",), classes=("a", "b"), count=2)
    make_folder(tmp_path / "elsewhere", splits=("",), classes=("more",), count=2)
    (tmp_path / "root/a/more").symlink_to(tmp_path / "elsewhere/more")
    for name, target in (("a/self", "."), ("a/up", ".."), ("a/more/back", "../../root/a"), ("b/far", "../..")):
        (tmp_path / "root" / name).symlink_to(target)
    found = list_classes(tmp_path / "root")
    assert found.labels == [0] * 4 + [1] * 2
    assert len(found.left_out) == 4
    assert "links to folders" in describe_left_out(found.left_out)


def test_names_of_any_characters_are_listed_and_printed(tmp_path):
    names = ["$x_1$", "a=b, c", "é ü 猫", "-rf", "[red]", "line\nbreak"]
    make_folder(tmp_path, splits=("",), classes=names, count=1)
    os.rename(tmp_path / "-rf/000.png", os.fsencode(tmp_path / "-rf") + b"/\xff.png")
    found = list_classes(tmp_path)
    assert found.class_names == sorted(names)
    assert all(open_image(path).size == (24, 24) for path in found.paths)
    assert printable(found.paths[sorted(names).index("-rf")]).endswith("/\\xff.png")
    assert printable("line\nbreak é") == "line\\nbreak é"
    os.mkdir(os.fsencode(tmp_path) + b"/\xfe")
    with pytest.raises(ValueError, match=r"\\xfe has a name that is not UTF-8"):
        list_classes(tmp_path)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    parts = [header, *chunks, (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


BOMBS = {
    "huge": (png(20_000, 20_000), "exceeds limit"),
    "text": (png(8, 8, (b"zTXt", b"k\0\0" + zlib.compress(b"a" * (PngImagePlugin.MAX_TEXT_CHUNK + 1)))), "too large"),
    "short": (png(8, 8), "truncated"),
    "empty": (b"", "cannot identify"),
    "html": (b"<html>", "cannot identify"),
    "header": (png(8, 8)[:20], "not a readable image"),
    "none": (png(0, 8), "not a readable image"),
}


@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, message):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"x.png: not a readable image .*{message}|x.png: {message}") as raised:
        open_image(path)
    assert "\n" not in str(raised.value)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"x\.jpg: not a readable image \(it is no regular file\)"):
        open_image(tmp_path / "x.jpg")


def test_a_large_image_is_read_without_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    Image.fromarray(np.zeros((10, 10), np.uint8)).save(tmp_path / "large.png")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        importlib.reload(files)
        assert files.open_image(tmp_path / "large.png").size == (10, 10)
    assert said == []


def test_a_list_of_paths_is_one_block_of_memory():
    paths = [f"/photos/class {i}/é{i}.jpg" for i in range(1000)] + ["/odd/\udcff.png"]
    found = PathList(paths)
    assert found == paths and list(found) == paths and found[-1] == paths[-1] and found[::500] == paths[::500]
    with pytest.raises(IndexError):
        found[len(paths)]
    size = sum(sys.getsizeof(part) for part in (found._bytes, found._ends)) / len(paths)
    assert size < 60 < sum(map(sys.getsizeof, paths)) / len(paths)
