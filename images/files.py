"""Image files: listing them in folders of classes, and decoding one."""

import os
import stat
import warnings
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")
IMAGE_SUFFIXES = frozenset([*PHOTO_SUFFIXES, ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".avif"])
"""Suffixes of files that are read. Other files in a class folder are left out and reported; hidden files are ignored."""

# An image of up to twice PIL's limit of 89 million pixels is read without a warning; for a larger one PIL raises an error.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class PathList(Sequence[str]):
    """Paths in one block of memory: a third of the size of strings, and shared with workers, which would copy strings."""

    def __init__(self, paths: Iterable[str] = ()):
        self._bytes, self._ends = bytearray(), array("q")
        self.extend(paths)

    def extend(self, paths: Iterable[str]) -> None:
        for path in paths:
            self._bytes += os.fsencode(path)
            self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]  # negative indices count from the end
        return os.fsdecode(bytes(self._bytes[self._ends[i - 1] if i else 0 : self._ends[i]]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


@dataclass(frozen=True)
class ClassFolder:
    """The images of a folder that holds one folder per class."""

    class_names: list[str]
    paths: PathList
    labels: list[int]
    left_out: list[str]
    """Files that are not read as images, and links to folders that were already listed."""


def list_classes(root: str | Path) -> ClassFolder:
    """Images at any depth below the folders in ``root``, sorted by class, then by path.

    Raises ValueError if ``root`` has no folders, or one of them has no images.
    """
    root = os.fspath(root)
    class_names = sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith("."))
    paths, labels, left_out, empty = PathList(), [], [], []
    for label, name in enumerate(class_names):
        _check_name(root, name)
        before = len(paths)
        paths.extend(_walk(os.path.join(root, name), left_out))
        labels += [label] * (len(paths) - before)
        if len(paths) == before:
            empty.append(name)
    if not class_names or empty:
        what = f"no images in {name_some(empty)}" if empty else "no folders in it"
        raise ValueError(f"{root}: {what}; every class needs a folder with images in it")
    return ClassFolder(class_names, paths, labels, left_out)


def list_images(folder: str | Path) -> list[str]:
    """Images at any depth below a folder, sorted by path. Raises ValueError if there are none."""
    if not os.path.isdir(folder):
        raise ValueError(f"{printable(folder)}: no such folder of images")
    paths = list(_walk(os.fspath(folder), []))
    if not paths:
        raise ValueError(f"{printable(folder)}: no image files in it or below it")
    return paths


def describe_left_out(paths: Sequence[str]) -> str | None:
    """One sentence about files that are not read, or None."""
    if not paths:
        return None
    kinds = Counter(
        "links to folders listed before" if os.path.isdir(p) else Path(p).suffix or "no suffix" for p in paths
    )
    counted = ", ".join(f"{kind}: {count:,}" for kind, count in kinds.most_common(5))
    files = "file is" if len(paths) == 1 else "files are"
    return (
        f"{len(paths):,} {files} left out, not being images by their names ({counted}), such as {printable(paths[0])}"
    )


def open_image(path: str | Path, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Decode an image file of any mode to RGB, rotated as its EXIF orientation says; the first frame of an animation.

    With ``at_least`` (height, width) a JPEG is decoded at a half, a quarter or an eighth of its size if that is still at
    least so large, which is faster.

    Raises ValueError, naming the file, if it is missing, cannot be decoded, or holds floating-point pixels.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for its writer
            raise ValueError("it is no regular file")
        with Image.open(path) as image:
            if at_least:
                turned = image.getexif().get(ExifTags.Base.Orientation, 1) > 4  # rows are stored as columns
                image.draft(None, at_least if turned else at_least[::-1])
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # makes no copy if it is upright
            if image.mode == "F":
                raise ValueError("its pixels are floating-point numbers of no known range")
            if image.mode.startswith("I"):  # 16 bits per pixel: keep the upper eight
                image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
            return image if image.mode == "RGB" else image.convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{printable(path)}: no such image file") from None
    except MemoryError:
        raise ValueError(f"{printable(path)}: the image does not fit into memory; shrink or remove the file") from None
    except Exception as error:  # damaged files raise different errors in each decoder
        raise ValueError(f"{printable(path)}: not a readable image ({error}); repair or remove the file") from None


def printable(path: str | Path) -> str:
    """A path as printable text, with other bytes and characters escaped."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def name_some(names: Sequence[str], count: int = 4) -> str:
    """The first ``count`` names of a list, and how many there are if there are more."""
    more = f", ... ({len(names):,} in all)" if len(names) > count else ""
    return ", ".join(printable(name) for name in names[:count]) + more


def _walk(folder: str, left_out: list[str]) -> Iterator[str]:
    """Image files below ``folder``, sorted by folder, then by name; other files are appended to ``left_out``.

    Links are followed, but no folder is listed twice: a link to a folder that contains it would never end.
    """
    seen, waiting = {os.path.realpath(folder)}, [folder]
    files: dict[str, list[str]] = {}
    while waiting:
        here = waiting.pop()
        files[here] = []
        for entry in os.scandir(here):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                real = os.path.realpath(entry.path)
                if real in seen or os.path.realpath(here).startswith(os.path.join(real, "")):
                    left_out.append(entry.path)
                    continue
                seen.add(real)
                waiting.append(entry.path)
            elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
                files[here].append(entry.name)
            else:
                left_out.append(entry.path)
    for here in sorted(files):
        yield from (os.path.join(here, name) for name in sorted(files[here]))


def _check_name(root: str, name: str) -> None:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(
            f"{printable(root)}: the folder {printable(name)} has a name that is not UTF-8 text; rename it"
        ) from None
