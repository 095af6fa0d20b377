"""Run directories: made at once, replaced at once, and nothing in them deleted that no run wrote."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch
from support import TINY_VIT, write_config

import evaluate
import gradcam
import train
from common.config_files import load_config
from common.runs import RUN_FILE, Run, leftovers, remove_run, strangers

OLD_RUN = Path(__file__).parent / "before_packages"
CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


def start(folder, *arguments):
    train.main([str(write_config(folder, TINY_VIT)), f"output_root={folder}", "train.epochs=1", *arguments])
    return folder / "tiny"


def in_child(function):
    """Whether a forked child, which ``function`` may kill, came to the end of it."""
    child = os.fork()
    if not child:
        try:
            function()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1


def dies_at(call, number):
    """Replace a function of os, in a child alone, by one that kills the process at its ``number``-th call."""
    function, calls = getattr(os, call), []

    def deadly(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            os._exit(137)
        return function(*args, **kwargs)

    setattr(os, call, deadly)


@pytest.mark.parametrize(("call", "number"), [("mkdir", 1), ("fsync", 1), ("replace", 2), ("rename", 1)])
def test_a_kill_while_a_run_is_made_leaves_nothing_in_the_way(tmp_path, call, number):
    config = load_config(OLD_RUN / "config.yaml")

    def killed():
        dies_at(call, number)
        Run.create(tmp_path / "new", config, device=CPU)

    assert not in_child(killed)
    assert not (tmp_path / "new").exists()
    _, lock = Run.create(tmp_path / "new", config, device=CPU)
    lock.release()
    assert {path.name for path in tmp_path.iterdir()} == {"new"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"config.yaml", "environment.json", ".lock"}


@pytest.mark.parametrize(
    ("call", "number", "is_there"), [("rename", 1, True), ("rename", 2, False), ("unlink", 2, True)]
)
def test_a_kill_while_a_run_is_replaced_leaves_the_old_one_whole_or_gone(run, call, number, is_there):
    files = {path.name for path in run.iterdir()}
    config = load_config(run / "config.yaml")

    def killed():
        dies_at(call, number)
        Run.create(run, config, device=CPU, replace=True)

    assert not in_child(killed)
    if number == 1:
        assert {path.name for path in run.iterdir()} == files
    assert run.exists() is is_there
    _, lock = Run.create(run, config, device=CPU, replace=run.exists())
    lock.release()
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert not (run / "best.pt").exists()


def test_two_that_make_one_run_at_once(tmp_path):
    config = load_config(OLD_RUN / "config.yaml")
    _, lock = Run.create(tmp_path / "run", config, device=CPU)
    with pytest.raises(ValueError, match="another process has just made it"):
        Run.create(tmp_path / "run", config, device=CPU)
    lock.release()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "strange", ["thesis.txt", "sub/config.yaml", "figures/notes.txt", "gradcam/mine/a.png", "empty/"]
)
def test_nothing_that_no_run_writes_is_deleted(run, strange):
    path = run / strange
    path.mkdir() if strange.endswith("/") else (
        path.parent.mkdir(parents=True, exist_ok=True),
        path.write_text("years of work"),
    )
    assert strangers(run)
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match="also holds files that are not a run's"):
        train.main([str(run / "config.yaml"), "--overwrite"])
    with pytest.raises(ValueError, match="also holds files that are not a run's"):
        remove_run(run)
    assert sorted(run.rglob("*")) == before


def test_what_the_scripts_write_is_a_run_alone(vit_run):
    evaluate.main([str(vit_run)])
    gradcam.main([str(vit_run), "--random", "1"])
    assert strangers(vit_run) == []
    with pytest.raises(AssertionError, match="add it to RUN_FILE"):
        Run.open(vit_run).save_text("thesis.txt", "text")
    assert RUN_FILE.fullmatch("figures/curves.png") and not RUN_FILE.fullmatch("figures/sub/curves.png")


def test_a_link_to_a_run_stays_when_the_run_is_replaced(tmp_path):
    start(tmp_path)
    (tmp_path / "tiny").rename(tmp_path / "elsewhere")
    (tmp_path / "tiny").symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere" / "best.pt").read_bytes()
    start(tmp_path, "--overwrite", "seed=1")
    assert (tmp_path / "tiny").is_symlink() and Run.open(tmp_path / "elsewhere").finished
    assert (tmp_path / "elsewhere" / "best.pt").read_bytes() != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comparisons", "is not for runs"),
        ("pretrained/vit", "is not for runs"),
        ("a" * 256, "200 bytes at most"),
        ("tiny/inner", "would lie within the run"),
    ],
)
def test_names_that_no_run_may_have(tmp_path, vit_run, name, message):
    shutil.copytree(vit_run, tmp_path / "tiny")
    with pytest.raises(ValueError, match=message):
        start(tmp_path, f"name={name}")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["tiny"]


def test_a_moved_run_is_resumed_where_it_lies(tmp_path, vit_run, monkeypatch):
    moved = Path(shutil.copytree(vit_run, tmp_path / "my runs" / "copy (1)"))
    (moved / "train.json").unlink()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises(ValueError, match="holds an unfinished run; finish it with: ") as caught:
        evaluate.main([str(moved)])
    assert str(caught.value).endswith(f"python train.py '{moved}/config.yaml' --resume")
    train.main([f"{moved}/config.yaml", "--resume"])
    assert Run.open(moved).finished
    train.main([f"{moved}/config.yaml", "--overwrite", "train.epochs=1"])
    assert Run.open(moved).config.train.epochs == 1
    assert not list((tmp_path / "cwd").iterdir())
    train.main([f"{moved}/config.yaml", f"output_root={tmp_path}", "name=other", "train.epochs=1"])
    assert Run.open(tmp_path / "other").finished


def test_a_run_is_resumed_without_the_weights_that_it_started_from(tmp_path, vit_run):
    weights = shutil.copy(vit_run / "best.pt", tmp_path / "start.pth")
    directory = start(tmp_path, f"model.pretrained={weights}")
    (directory / "train.json").unlink()
    Path(weights).unlink()
    train.main([f"{directory}/config.yaml", "--resume"])
    assert Run.open(directory).finished


def test_a_folder_that_is_gone_is_said_and_not_made_again(run):
    opened = Run.open(run)
    shutil.rmtree(run)
    with pytest.raises(ValueError, match=r"run was moved or deleted meanwhile; log\.csv was not written"):
        opened.save_log([])
    assert not run.exists()


def test_the_holder_of_a_lock_cleans_up_after_killed_writers(run):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    (run / "figures").mkdir()
    for name in (
        f".{child}-last.pt",
        f"figures/.{child}-curves.png",
        f".{child}-thesis.txt",
        f".{os.getppid()}-best.pt",
    ):
        (run / name).write_text("half")
    with Run.open(run).lock():
        pass
    assert {path.name for path in run.rglob(".*-*")} == {f".{child}-thesis.txt", f".{os.getppid()}-best.pt"}
    assert [path.name for path in leftovers(run)] == [f".{child}-thesis.txt"]


def test_runs_that_a_killed_process_was_making_or_putting_away_go_with_the_next_lock_beside_them(tmp_path, run):
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    for name in (f".{child}-old-run", f".{child}-run", f".{child}-old-mine", f".{os.getppid()}-old-run"):
        shutil.copytree(OLD_RUN, tmp_path / name)
    (tmp_path / f".{child}-old-mine" / "thesis.txt").write_text("mine")
    with Run.open(run).lock():
        pass
    kept = {f".{child}-old-mine", f".{os.getppid()}-old-run"}
    assert {path.name for path in tmp_path.glob(".*-*")} == kept


@pytest.mark.parametrize("main", [train.main, evaluate.main, gradcam.main])
def test_nobody_enters_a_run_that_is_being_trained(run, main):
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        with Run.open(run).lock():
            os.write(tell, b".")
            time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
    arguments = {train.main: [f"{run}/config.yaml", "--overwrite"], gradcam.main: [str(run), "--random", "1"]}
    try:
        with pytest.raises(ValueError, match=f"run is in use by process {child} on "):
            main(arguments.get(main, [str(run)]))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
