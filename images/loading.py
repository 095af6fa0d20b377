"""Photos -> batches of pixels: read by workers, or resized once into a memory-mapped file.

Legend: B images in a batch, N images, H W height and width in pixels; RGB, channels first.
"""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from common.cache import cache_folder, locked
from images.files import printable
from images.index import decoder
from images.sources import DETAIL, Photos, Source

Request = tuple[np.ndarray, np.ndarray | None, tuple[int, int] | None]
"""A batch: positions in the source, int64 B; crops, float32 B 4 as from `random_crops`, or None; output size or None."""

WHOLE = np.array([0, 0, 1, 1], np.float32)
"""The crop that contains the whole photo."""


class Reader:
    """Reads requested batches of a source in worker processes, which are kept from one pass to the next."""

    def __init__(self, source: Source, num_workers: int, *, pin_memory: bool = False, keep: bool = True):
        self._requests = _Requests()
        self._loader = torch.utils.data.DataLoader(
            _Batches(source),
            sampler=self._requests,
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            persistent_workers=keep and num_workers > 0,
            generator=torch.Generator(),  # the worker seed must not advance the global generator
        )

    def read(self, requests: Iterable[Request]) -> Iterator[Tensor]:
        """Yield uint8 B 3 H W of each request. Raises ValueError for a photo that cannot be read."""
        self._requests.current = requests
        for batch in self._loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


class _Requests(torch.utils.data.Sampler):
    """The requests of this pass; the loader asks for an iterator at the start of each pass."""

    def __init__(self):
        self.current: Iterable[Request] = ()

    def __iter__(self) -> Iterator[Request]:
        return iter(self.current)


class _Batches(torch.utils.data.Dataset):
    """Runs in the workers. The error of an unreadable photo is returned, since torch would rewrite a raised one."""

    def __init__(self, source: Source):
        self.source = source

    def __getitem__(self, request: Request) -> Tensor | ValueError:
        indices, crops, size = request
        crops = [None] * len(indices) if crops is None else torch.from_numpy(crops)
        try:
            return torch.stack([self.source.read(i, crop, size) for i, crop in zip(indices.tolist(), crops)])
        except ValueError as error:
            return error


def _unchanged(batch):
    return batch


# ---------------------------------------------------------------- resized photos in the cache


def stored_photos(
    source: Photos, indices: np.ndarray, size: tuple[int, int], *, whole: bool, num_workers: int, limit_mb: int
) -> Tensor | None:
    """Photos resized once to ``size``, uint8 N 3 H W in a memory-mapped file; None if there is no room for the file.

    The file's name is a hash of the photos' pixels and of how they are read, so that no outdated file is read. One process
    writes it while others wait; it gets its name when it is complete.

    Args:
        source, indices: which photos, int64 N.
        whole: resize the whole photo, whatever its shape, so that random crops can be taken from it; else as the source
            reads it.
        limit_mb: how much disk space all such files may take together; the least recently used are deleted first.
    Raises:
        ValueError: a photo cannot be read.
    """
    shape = (len(indices), 3, *size)
    num_bytes = math.prod(shape)
    place = cache_folder() / "photos" / f"{_key(source, indices, size, whole)}.npy"
    if num_bytes > limit_mb * 1e6:
        return None
    with locked(place.with_suffix(".lock")):
        pixels = _open(place, shape)
        if pixels is None:
            try:
                _make_room(place.parent, num_bytes, limit_mb)
                _write(place, shape, lambda into: _fill(into, source, indices, whole, num_workers))
            except OSError as error:
                where = f"{printable(place.parent)} cannot hold the resized photos ({error.strerror})"
                print(f"note: {where}; they are read again at the next start", file=sys.stderr)
                return None
            pixels = _open(place, shape)
    return pixels


def read_photos(source: Photos, indices: np.ndarray, size: tuple[int, int], *, whole: bool, num_workers: int) -> Tensor:
    """As `stored_photos`, but in memory."""
    pixels = np.empty((len(indices), 3, *size), np.uint8)
    _fill(pixels, source, indices, whole, num_workers)
    return torch.from_numpy(pixels)


def _fill(pixels: np.ndarray, source: Photos, indices: np.ndarray, whole: bool, num_workers: int) -> None:
    size, batch, filled = pixels.shape[-2:], 64, 0
    parts = (indices[i : i + batch] for i in range(0, len(indices), batch))
    requests = ((part, np.tile(WHOLE, (len(part), 1)) if whole else None, size) for part in parts)
    with tqdm(total=len(indices), desc="reading photos", unit=" photos", leave=False, delay=1) as bar:
        for images in Reader(source, num_workers, keep=False).read(requests):
            pixels[filled : filled + len(images)] = images.numpy()
            filled += len(images)
            bar.update(len(images))


def _key(source: Photos, indices: np.ndarray, size: tuple[int, int], whole: bool) -> str:
    look = (*size, source.interpolation, source.crop_pct, source.crop_mode, whole, DETAIL, decoder())
    return hashlib.blake2b(source.digests[indices].tobytes() + repr(look).encode(), digest_size=16).hexdigest()


def _open(place: Path, shape: tuple[int, ...]) -> Tensor | None:
    """The stored pixels, and set the file's time of use; None if the file is missing or damaged."""
    try:
        pixels = np.load(place, mmap_mode="c", allow_pickle=False)  # copy-on-write: changes would stay in this process
        os.utime(place)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(pixels) if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _write(place: Path, shape: tuple[int, ...], fill: Callable[[np.ndarray], None]) -> None:
    """Let ``fill`` write the pixels into a temporary file, and rename it. Raises OSError if the disk is full."""
    temporary = place.with_name(f".{os.getpid()}-{place.name}")
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        with temporary.open(
            "r+b"
        ) as file:  # reserve the space: a full disk would otherwise crash the process while it writes
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(temporary))
        fill(pixels)
        pixels.flush()
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)


def _make_room(folder: Path, num_bytes: int, limit_mb: int) -> None:
    """Delete the least recently used files until ``num_bytes`` more fit within the limit."""
    files = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob("*.npy"))
    excess = sum(size for _, size, _ in files) + num_bytes - limit_mb * 1e6
    for _, size, path in files:
        if excess <= 0:
            break
        path.unlink(missing_ok=True)  # a process that has mapped it can still read it
        excess -= size
