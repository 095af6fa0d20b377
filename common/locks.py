"""One writer at a time: a lock on a run's directory, which the system releases when the process ends or is killed."""

import contextlib
import os
import socket
import sys
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILE = ".lock"

_held: set[int] = set()


class Lock:
    """The lock of ``directory``. Within this context no other process holds it; several may hold ``shared`` ones.

    Raises ValueError if another process holds it, or if the lock file cannot be written.
    """

    def __init__(self, directory: Path, *, shared: bool = False):
        self.directory, self.shared, self._descriptor = directory, shared, None

    def __enter__(self) -> "Lock":
        if fcntl is None:
            return self
        path = self.directory / FILE
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            if self.shared:  # where nothing can be written, nothing can be trained
                return self
            raise ValueError(f"{path} cannot be written ({error.strerror})") from None
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if self.shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            replaced = not path.exists() or os.stat(path).st_ino != os.fstat(descriptor).st_ino
        except BlockingIOError:
            replaced = True
        except OSError:  # a file system without locks
            replaced = False
        if replaced:
            os.close(descriptor)
            raise ValueError(
                f"{self.directory} is in use by {_holders(path)}; wait until it is done, or take another name"
            )
        self._descriptor = descriptor
        _held.add(descriptor)
        with contextlib.suppress(OSError):  # on a full disk the lock still holds
            if not self.shared:
                os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {socket.gethostname()} {Path(sys.argv[0]).name}\n".encode())
        return self

    def __exit__(self, *exception) -> None:
        self.release()

    def release(self) -> None:
        if self._descriptor is not None:
            _held.discard(self._descriptor)
            with contextlib.suppress(OSError):  # the last process to leave deletes the names
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def _holders(path: Path) -> str:
    """The last process that wrote its number into the lock file and, as far as this machine can tell, still runs."""
    try:
        lines = [line.split(" ", 2) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        lines = []
    here = socket.gethostname()
    others = [line for line in lines if len(line) == 3 and line[:2] != [str(os.getpid()), here]]
    living = [line for line in others if line[1] != here or Path("/proc", line[0]).exists()]
    if not living:
        return "another process"
    process, host, script = living[-1]
    return f"process {process} on {host} ({script})"


def _close_in_child() -> None:
    """Close the locks in forked workers, so that they do not keep them after their parent was killed."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
