"""An index of image files in the cache: a digest of each one's decoded pixels, and their height and width.

A file that was decoded once is not decoded again as long as its path, size and times stay the same. Each folder of data has
one index file of 32 bytes per image in `common.cache.cache_folder`; if it is missing, damaged or made by another decoder, it
is made again.
"""

import hashlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
import torch
from PIL import features
from tqdm import tqdm

from common.cache import cache_folder, locked, replace_file
from images.files import open_image, printable

DIGEST_BYTES = 16
RECORD = np.dtype([("key", "u8"), ("digest", "u1", DIGEST_BYTES), ("height", "i4"), ("width", "i4")])
FEW = 1000  # this many files are decoded in less time than a worker needs to start


@dataclass(frozen=True)
class ImageFacts:
    """Digest and size of each image file, in the order of the paths."""

    digests: np.ndarray  # uint8 N 16
    sizes: np.ndarray  # int32 N 2: height, width, after rotation by the EXIF orientation


class UnreadableImages(ValueError):
    """Image files that cannot be read: ``reasons`` has a sentence for each path."""

    def __init__(self, reasons: dict[str, str], num_files: int):
        self.reasons, broken = reasons, list(reasons.values())
        more = f" {len(broken):,} of {num_files:,} image files cannot be read:" if len(broken) > 1 else ""
        shown = "; ".join(broken[:3]) + ("; ..." if len(broken) > 3 else "")
        super().__init__(f"{more} {shown}".strip())


def digest_pixels(pixels: np.ndarray) -> bytes:
    """BLAKE2b digest (16 bytes) of an image, uint8 H W 3: equal images have equal digests, whatever file they come from."""
    digest = hashlib.blake2b(f"{pixels.shape[0]}x{pixels.shape[1]} ".encode(), digest_size=DIGEST_BYTES)
    digest.update(np.ascontiguousarray(pixels))
    return digest.digest()


def digest_all(images: np.ndarray) -> np.ndarray:
    """uint8 N 3 H W -> uint8 N 16, as `digest_pixels` of each."""
    digests = b"".join(digest_pixels(image.transpose(1, 2, 0)) for image in images)
    return np.frombuffer(digests, np.uint8).reshape(-1, DIGEST_BYTES)


def index_images(paths: Sequence[str], root: str | Path, *, num_workers: int = 0) -> ImageFacts:
    """Digests and sizes of image files below ``root``; decodes those that the index lacks, and adds them to it.

    A second process that needs the same index waits for the first. Raises UnreadableImages if any file cannot be read.
    """
    name = hashlib.blake2b(os.fsencode(os.path.realpath(root)), digest_size=8).hexdigest()
    place = cache_folder() / "images" / f"{name}.npz"
    keys = np.fromiter((_key(path, len(os.fspath(root))) for path in paths), np.uint64, len(paths))
    rows = _find(_load(place), keys)
    if rows is None:
        with locked(place.with_suffix(".lock")):
            rows = _complete(_load(place), keys, paths, place, num_workers)
    return ImageFacts(rows["digest"], np.stack([rows["height"], rows["width"]], axis=1))


def _complete(known: np.ndarray, keys: np.ndarray, paths: Sequence[str], place: Path, num_workers: int) -> np.ndarray:
    """The records of all ``keys``; those missing in ``known`` are made from the files and saved."""
    missing = np.flatnonzero(~np.isin(keys, known["key"]))
    made, broken = np.zeros(len(missing), RECORD), {}
    done = 0
    try:
        for results in _decode(paths, missing, num_workers):
            for result in results:
                if isinstance(result, str):
                    broken[paths[missing[done]]] = result
                    made["key"][done] = 0
                else:
                    digest, height, width = result
                    made[done] = (keys[missing[done]], np.frombuffer(digest, np.uint8), height, width)
                done += 1
    finally:  # after an interruption, the next start continues from here
        known = np.concatenate([known, made[:done][made["key"][:done] > 0]])
        known = known[np.unique(known["key"], return_index=True)[1]]
        _save(place, known)
    if broken:
        raise UnreadableImages(broken, len(paths))
    return _find(known, keys)


def _decode(paths: Sequence[str], missing: np.ndarray, num_workers: int) -> Iterable[list]:
    """Batches of results for the ``missing`` files: (digest, height, width), or a sentence that says what is wrong."""
    loader = torch.utils.data.DataLoader(
        _Files(paths, missing),
        batch_size=64,
        num_workers=min(num_workers, len(missing) // FEW),
        collate_fn=list,
        generator=torch.Generator(),  # the worker seed must not advance the global generator
    )
    with tqdm(total=len(missing), desc="checking image files", unit=" files", leave=False, delay=1) as bar:
        for results in loader:
            yield results
            bar.update(len(results))


class _Files(torch.utils.data.Dataset):
    def __init__(self, paths: Sequence[str], missing: np.ndarray):
        self.paths, self.missing = paths, missing

    def __len__(self) -> int:
        return len(self.missing)

    def __getitem__(self, i: int) -> tuple[bytes, int, int] | str:
        try:
            image = open_image(self.paths[self.missing[i]])
        except ValueError as error:
            return str(error)
        return digest_pixels(np.asarray(image)), image.height, image.width


def _key(path: str, start: int) -> int:
    """Hash of a file's path (from character ``start`` on), size and times; 0 for a missing file."""
    try:
        facts = os.stat(path)
    except OSError:
        return 0
    text = os.fsencode(path[start:]) + f"\0{facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") or 1


def _find(known: np.ndarray, keys: np.ndarray) -> np.ndarray | None:
    """Records of all ``keys``; None if any is missing. ``known`` is sorted by key."""
    places = np.searchsorted(known["key"], keys)
    if len(keys) and (not len(known) or places.max() == len(known) or (known["key"][places] != keys).any()):
        return None
    return known[places]


def decoder() -> str:
    """Versions of the decoder, since another one may give other pixels; the files are then decoded again."""
    return f"1 Pillow {PIL.__version__} {features.version('libjpeg_turbo') or features.version('jpg')}"


def _load(place: Path) -> np.ndarray:
    nothing = np.zeros(0, RECORD)
    try:
        with np.load(place, allow_pickle=False) as stored:
            records, maker = stored["records"], str(stored["decoder"])
    except Exception:  # missing, damaged, or not ours: it is made again
        return nothing
    return records if records.dtype == RECORD and records.ndim == 1 and maker == decoder() else nothing


def _save(place: Path, records: np.ndarray) -> None:
    content = io.BytesIO()
    np.savez(content, records=records, decoder=decoder())
    try:
        replace_file(place, content.getvalue())
    except OSError as error:
        print(
            f"note: {printable(place)} cannot be written ({error.strerror}); image files are decoded again at the next start",
            file=sys.stderr,
        )
