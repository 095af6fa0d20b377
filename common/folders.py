"""A folder for results: every file is written under a temporary name, flushed to the disk, then renamed.

So no reader sees an incomplete file, and after a crash or on a full disk the earlier version is still there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes seconds, and a wrong argument should be reported at once
    import numpy as np

VECTOR_FORMATS = ("pdf", "svg")
VECTOR_DPI = 300  # of the photos in them
LEFTOVER = re.compile(r"\.(\d+)-(.+)")  # a temporary name: the process that writes it, and the final name


class Folder:
    """A folder for results. Names of files are relative to it; each is written under a temporary name, then renamed."""

    figure_format: str | None = None
    """One of VECTOR_FORMATS: every figure is also written in this format, beside its PNG."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)

    def path(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, writer: Callable[[Path], Any]) -> Path:
        """Let ``writer`` write a temporary file, then rename it to ``name``.

        Raises ValueError if the system refuses; the earlier file is then unchanged.
        """
        target = self.path(name)
        temporary = beside(target)  # keeps the suffix, from which some writers take the format
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            for old in leftovers(target.parent):
                if old.name.endswith(f"-{target.name}") and not old.is_dir():
                    old.unlink()
            writer(temporary)
            flush(temporary)
            os.replace(temporary, target)
            flush(target.parent)
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"{target} cannot be written ({reason}); an earlier version of it is unchanged") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return target

    def save_text(self, name: str, text: str) -> Path:
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def save_json(self, name: str, values: dict) -> Path:
        return self.save_text(name, json.dumps(values, indent=2, default=_plain, allow_nan=False) + "\n")

    def save_figure(self, name: str, figure) -> Path:
        """Write the figure as the PNG ``name`` and, if `figure_format` is set, in that format; returns the PNG's path."""
        path = self.write(name, figure.savefig)
        if self.figure_format:
            from matplotlib import rc_context

            with rc_context({"pdf.fonttype": 42}):  # TrueType, which publishers ask for
                vector = str(Path(name).with_suffix(f".{self.figure_format}"))
                self.write(vector, lambda path: figure.savefig(path, dpi=VECTOR_DPI))
        return path

    def save_arrays(self, name: str, **arrays: np.ndarray) -> Path:
        import numpy as np

        return self.write(name, lambda path: np.savez_compressed(path, **arrays))

    def save_checkpoint(self, name: str, values: dict) -> Path:
        """Write tensors and plain values, which ``torch.load(weights_only=True)`` can open."""
        import torch

        def writer(path: Path) -> None:
            try:
                torch.save(values, path)
            except RuntimeError:  # torch's error for a full disk
                free = shutil.disk_usage(path.parent).free
                raise OSError(f"the disk or a quota is full; {free / 1e6:,.0f} MB of the disk are free") from None

        return self.write(name, writer)


def beside(target: Path, mark: str = "") -> Path:
    """A temporary path in the folder of ``target`` that only this process uses."""
    return target.with_name(f".{os.getpid()}-{mark}{target.name}")


def flush(path: Path) -> None:
    """Wait until a file's content, or a directory's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems do not support this for directories
            raise
    finally:
        os.close(descriptor)


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders whose process has ended."""
    matches = [(path, LEFTOVER.fullmatch(path.name)) for path in folder.glob(".*-*")]
    return [path for path, match in matches if match and not _is_another(int(match[1]))]


def check_space(directory: Path, num_bytes: int) -> None:
    """Raise ValueError unless the disk that holds ``directory``, or will hold it, has room for ``num_bytes``."""
    existing, free = free_space(directory)
    if free < num_bytes:
        raise ValueError(
            f"{existing}: the checkpoints need {num_bytes / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB are free; make room, or "
            "set output_root to another disk"
        )


def free_space(directory: Path) -> tuple[Path, int]:
    """The folder that holds ``directory``, or will hold it, and the bytes that are free on its disk."""
    existing = next(path for path in (directory, *directory.absolute().parents) if path.is_dir())
    return existing, shutil.disk_usage(existing).free


def _is_another(process: int) -> bool:
    """Whether a process other than this one runs under this number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process != os.getpid()


def _plain(value: Any) -> Any:
    """numpy values -> JSON's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
