"""Run a function in a forked child: torch is imported once, each case has a process of its own, and a time limit."""

import contextlib
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KILLED = -signal.SIGKILL


@dataclass(frozen=True)
class Outcome:
    code: int
    """Exit code; of a child that a signal ended, its number below 0."""
    output: str
    """What it printed, both streams."""
    seconds: float
    hung: bool
    """Whether it was ended by the time limit."""

    @property
    def last_line(self) -> str:
        return (self.output.strip().splitlines() or [""])[-1]


def run_in_child(function: Callable[[], Any], *, limit: float, kill_after: float | None = None) -> Outcome:
    """Fork, call ``function``, wait for the end. ``kill_after``: send SIGKILL after so many seconds, if it still runs."""
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        child = os.fork()
        if not child:
            os._exit(_call(function, output.fileno()))
        hung, code = False, None
        while code is None:
            done, status = os.waitpid(child, os.WNOHANG)
            seconds = time.monotonic() - start
            if done:
                code = os.waitstatus_to_exitcode(status)
            elif seconds > min(limit, limit if kill_after is None else kill_after):
                hung = kill_after is None or seconds > limit
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                code = KILLED
            else:
                time.sleep(0.002)
        output.seek(0)
        return Outcome(code, output.read().decode(errors="replace"), seconds, hung)


def count_and_kill(point: int | None) -> Callable[[], int]:
    """Make this process count the calls that change files, before and after each, and die at number ``point``.

    Returns what tells the count. A checkpoint also has a point at which half of it is written.
    """
    import torch

    passed = 0

    def step() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(call):
        def around(*args, **kwargs):
            step()
            result = call(*args, **kwargs)
            step()
            return result

        return around

    for name in ("mkdir", "rename", "replace", "fsync", "ftruncate", "unlink", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))
    save = torch.save

    def save_in_halves(values, path):
        save(values, path)
        whole = Path(path).read_bytes()
        with open(path, "wb") as file:
            file.write(whole[: len(whole) // 2])
        step()
        Path(path).write_bytes(whole)

    torch.save = save_in_halves
    return lambda: passed


def _call(function: Callable[[], Any], output: int) -> int:
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False, buffering=1) for number in (1, 2))
    code = 0
    try:
        function()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    return code
