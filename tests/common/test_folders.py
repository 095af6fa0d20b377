"""Files are whole or not there: flushed, renamed, and what killed writers left is cleaned up."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import torch

from common import folders
from common.folders import Folder, check_space


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def test_a_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: calls.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("renamed"), replace(old, new)))
    Folder(tmp_path).save_text("a.txt", "text")
    assert calls == [str(tmp_path / f".{os.getpid()}-a.txt"), "renamed", str(tmp_path)]


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path, dead):
    (tmp_path / f".{dead}-a.txt").write_text("half")
    (tmp_path / f".{os.getppid()}-a.txt").write_text("in the making")  # of a living process
    (tmp_path / f".{dead}-b.txt").write_text("half of another")
    Folder(tmp_path).save_text("a.txt", "text")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", f".{os.getppid()}-a.txt", f".{dead}-b.txt"}


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("a.pt", lambda folder, size: folder.save_checkpoint("a.pt", {"a": torch.ones(size)})),
        ("a.npz", lambda folder, size: folder.save_arrays("a.npz", a=np.random.default_rng(0).random(size))),
        ("a.json", lambda folder, size: folder.save_json("a.json", {"a": [1] * size})),
    ],
)
def test_a_full_disk_is_one_sentence_and_costs_nothing(tmp_path, name, save):
    folder = Folder(tmp_path)
    before = save(folder, 1).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # what the system refuses looks the same
    try:
        with pytest.raises(
            ValueError, match=rf"{name} cannot be written \(.+\); an earlier version of it is unchanged"
        ):
            save(folder, 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_bytes() == before


def test_room_is_asked_for_where_the_folder_will_be(tmp_path, monkeypatch):
    asked = []
    usage = type("Usage", (), {"free": 5_000_000})
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: asked.append(Path(path)) or usage)
    check_space(tmp_path / "not" / "yet", 4_000_000)
    with pytest.raises(ValueError, match=r"the checkpoints need 6\.0 MB, and 5\.0 MB are free"):
        check_space(tmp_path / "not" / "yet", 6_000_000)
    assert asked == [tmp_path, tmp_path]
