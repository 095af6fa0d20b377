"""One writer at a time."""

import os
import signal
import socket
import time

import pytest

from common.locks import FILE, Lock


def hold(directory, *, shared=False, workers=False):
    """A process that holds the lock until it is killed; with ``workers`` it has a child that outlives it."""
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        Lock(directory, shared=shared).__enter__()
        worker = os.fork() if workers else 1
        if not worker:
            time.sleep(20)
            os._exit(0)
        os.write(tell, f"{worker}\n".encode())
        time.sleep(20)
        os._exit(0)
    worker = int(os.read(ready, 100))
    return child, worker


def kill(process):
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


def test_the_second_is_told_who_the_first_is_until_that_dies(tmp_path):
    child, _ = hold(tmp_path)
    for shared in (False, True):
        with pytest.raises(ValueError, match=rf"is in use by process {child} on {socket.gethostname()}"):
            Lock(tmp_path, shared=shared).__enter__()
    kill(child)
    with Lock(tmp_path):
        pass


def test_workers_do_not_keep_the_lock_of_their_parent(tmp_path):
    child, worker = hold(tmp_path, workers=True)
    kill(child)
    with Lock(tmp_path):
        os.kill(worker, signal.SIGKILL)  # it was there all the time


def test_several_may_read_and_nobody_writes_meanwhile(tmp_path):
    child, _ = hold(tmp_path, shared=True)
    with Lock(tmp_path, shared=True):
        pass
    with pytest.raises(ValueError, match=f"process {child} "):
        Lock(tmp_path).__enter__()
    kill(child)
    with Lock(tmp_path):
        assert (tmp_path / FILE).read_text().startswith(f"{os.getpid()} ")
    assert (tmp_path / FILE).read_text() == ""


def test_a_lock_on_a_folder_that_was_replaced_is_none(tmp_path, monkeypatch):
    path = tmp_path / "run"
    path.mkdir()
    opened = os.open

    def replaced_meanwhile(*arguments):
        descriptor = opened(*arguments)
        (path / FILE).unlink()
        return descriptor

    monkeypatch.setattr(os, "open", replaced_meanwhile)
    with pytest.raises(ValueError, match="in use by another process"):
        Lock(path).__enter__()
