"""The cache: files that can be made again, outside of the project and of the data, safe to delete at any time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "VIT_VS_SWIN_CACHE"
CACHE_HELP = (
    "The cache holds the sizes and checksums of image files, and resized photos (data.cache_mb). It lies in\n"
    f"$XDG_CACHE_HOME/vit-vs-swin, or ~/.cache/vit-vs-swin; {VARIABLE} names another folder.\n"
    "It can be deleted at any time."
)


def cache_folder() -> Path:
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vit-vs-swin"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on the file ``path``; another process that wants it waits. The system releases it when the process ends.

    Where the system has no such locks, or the folder cannot be written, no process waits.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(path.open("ab"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def replace_file(path: Path, content: bytes) -> None:
    """Write a temporary file in the same folder, then rename it to ``path``. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
