"""Every mistake ends with exit code 2 and one clear line, and nothing that was written is lost."""

import json
import runpy
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from support import TINY_VIT, make_folder, write_config

import evaluate
import gradcam
import train
from common import network
from common.console import run_script

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def fails(capsys):
    """Run a script's main; return its one line of complaint."""

    def run(main, *arguments):
        with pytest.raises(SystemExit) as stop:
            run_script(main, [str(argument) for argument in arguments])
        assert stop.value.code == 2
        message = capsys.readouterr().err.strip().splitlines()[-1]
        assert message.startswith("error: ") or ": error: " in message
        return message

    return run


def on_folder(tmp_path, root, *overrides):
    """Arguments that train on a folder of images."""
    values = {**TINY_VIT, "data": {"dataset": "imagefolder", "root": str(root), "image_size": 16}}
    return write_config(tmp_path, values), f"output_root={tmp_path / 'outputs'}", *overrides


def unfinished(tmp_path, vit_run, *, without):
    """A copy of a run that lacks some files."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in {"config.yaml", "environment.json", "best.pt", "last.pt", "train.json"} - set(without):
        (copy / name).write_bytes((vit_run / name).read_bytes())
    return copy


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("train.epoch=1", "did you mean train.epochs?"),
        ("train.epochs=few", "train.epochs = 'few'"),
        ("data.dataset=digit", "did you mean digits?"),
        ("model.name=shallow_vitt", "nearest: shallow_vit"),
        ("model.kwargs.colour=red", "colour"),
        ("model.pretrained=no/such/file.pth", "no such file"),
        ("model.tune=last-9", "the model has 1 blocks"),
        ("train.opt=adamm", "adamm"),
        ("train.opt_kwargs={beta: 1}", "adamw does not take 'beta'"),
        ("data.augment.color_jitter=[0.4, 0.4]", "should be one number of at least 0, three, or four"),
        ("train.amp=fp16", "needs CUDA"),
        ("data.image_size=15", "15"),
        (
            "data={dataset: digits, val_fraction: 0.9, test_fraction: 0.5}",
            "asks for 1,618 images, but only 898 are left",
        ),
    ],
)
def test_config_mistakes(tmp_path, fails, override, part):
    if override.endswith("fp16") and torch.cuda.is_available():
        pytest.skip("fp16 works here")
    path = write_config(tmp_path, TINY_VIT)
    assert part in fails(train.main, path, f"output_root={tmp_path}", override)
    assert not (tmp_path / "tiny").exists()


def test_config_files(tmp_path, fails):
    assert "no such config file" in fails(train.main, tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("data: {dataset")
    assert "not valid YAML" in fails(train.main, tmp_path / "broken.yaml")
    assert "name at least one config" in fails(train.main, "train.epochs=3")


def test_devices(tmp_path, fails):
    path = write_config(tmp_path, TINY_VIT)
    if not torch.cuda.is_available():
        assert "no CUDA device is available" in fails(train.main, path, "--device", "cuda")
    assert "should be cpu" in fails(train.main, path, "--device", "gpu")


def test_image_folders(tmp_path, fails):
    assert "no such folder" in fails(train.main, *on_folder(tmp_path, tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    assert "every class needs a folder" in fails(train.main, *on_folder(tmp_path, tmp_path / "empty"))
    root = make_folder(tmp_path / "images")
    (root / "train" / "wolf").mkdir()
    assert "wolf" in fails(train.main, *on_folder(tmp_path, root))
    (root / "train" / "wolf").rmdir()
    broken = root / "train" / "cat" / "005.png"
    broken.write_bytes(b"not an image")
    for _ in range(2):  # nothing is left behind that would have to be overwritten
        assert f"{broken}: not a readable image" in fails(train.main, *on_folder(tmp_path, root))


@pytest.mark.parametrize("main", [evaluate.main, gradcam.main])
def test_directories_that_are_no_finished_runs(tmp_path, fails, vit_run, main):
    arguments = ["--random", 1] if main is gradcam.main else []
    assert "no such run directory" in fails(main, tmp_path / "none", *arguments)
    assert "is not a run directory" in fails(main, tmp_path, *arguments)
    copy = unfinished(tmp_path, vit_run, without=["train.json"])
    assert f"python train.py {copy / 'config.yaml'} --resume" in fails(main, copy, *arguments)


@pytest.mark.parametrize("main", [evaluate.main, gradcam.main])
def test_checkpoints_that_are_missing_or_damaged(tmp_path, fails, vit_run, main):
    arguments = ["--random", 1] if main is gradcam.main else []
    copy = unfinished(tmp_path, vit_run, without=["best.pt"])
    assert "has no best.pt" in fails(main, copy, *arguments)
    (copy / "best.pt").write_bytes((vit_run / "best.pt").read_bytes()[:5000])
    assert "best.pt is damaged" in fails(main, copy, *arguments)
    assert (copy / "last.pt").is_file()
    run_script(main, [str(copy), "--checkpoint", "last", *map(str, arguments)])


@pytest.mark.parametrize("main", [evaluate.main, gradcam.main])
def test_a_config_that_was_changed_after_training(tmp_path, fails, vit_run, main):
    arguments = ["--random", 1] if main is gradcam.main else []
    copy = unfinished(tmp_path, vit_run, without=[])
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["model"]["kwargs"]["depth"] = 2
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    message = fails(main, copy, *arguments)
    assert "blocks.1.norm1.weight is missing (and 11 more)" in message and "back to what was trained" in message


def test_gradcam_arguments(fails, vit_run, tmp_path):
    assert "did you mean gradcam?" in fails(gradcam.main, vit_run, "--random", 1, "--method", "grad-cam")
    assert "test split has images 0 to 179" in fails(gradcam.main, vit_run, "--index", 180)
    assert "has 180 images; ask for 1 to that" in fails(gradcam.main, vit_run, "--random", 0)
    assert "one image of each class" in fails(gradcam.main, vit_run, "--per-class", 0)
    assert "should be at least 0" in fails(gradcam.main, vit_run, "--random", 1, "--seed", -1)
    assert "classes: 0, 1, 2" in fails(gradcam.main, vit_run, "--random", 1, "--target", "cat")
    assert "did you mean blocks.0.norm" in fails(gradcam.main, vit_run, "--random", 1, "--layer", "blocks.0.norm")
    assert "no such image file" in fails(gradcam.main, vit_run, "--image", tmp_path / "none.jpg")
    (tmp_path / "text.jpg").write_text("text")
    assert "not a readable image" in fails(gradcam.main, vit_run, "--image", tmp_path / "text.jpg")
    assert "required" in fails(gradcam.main, vit_run)
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:1000])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name in ("cut", "empty", "folder"):
        assert "not a readable image" in fails(gradcam.main, vit_run, "--image", tmp_path / f"{name}.png")
    Image.new("RGB", (60, 1)).save(tmp_path / "line.png")
    assert "60x1 pixels" in fails(gradcam.main, vit_run, "--image", tmp_path / "line.png")
    assert "would be called" in fails(gradcam.main, vit_run, "--image", *[tmp_path / "whole.png"] * 2)


def test_gradcam_arguments_that_contradict_each_other(fails, vit_run):
    some = [gradcam.main, vit_run, "--random", 1]
    assert "both are class 3" in fails(*some, "--target", "3", "4", "3")
    assert "both are class label" in fails(*some, "--target", "label", "label")
    assert "--method gradcam is given twice" in fails(*some, "--method", "gradcam", "layercam", "gradcam")
    assert "--layer default is given twice" in fails(*some, "--layer", "default", "default")
    assert "--layer" in fails(*some, "--layer", "")
    assert "no effect on rollout" in fails(*some, "--method", "rollout", "--layer", "blocks.0.norm1")
    assert "for --method scorecam alone" in fails(*some, "--channels", 8)
    assert "at least 1" in fails(*some, "--method", "scorecam", "--channels", 0)
    assert "is not a map over the image" in fails(*some, "--layer", "blocks.0.attn.qkv")


def test_without_a_network_a_download_fails_at_once(tmp_path, fails, monkeypatch):
    def unreachable(*args, **kwargs):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *args: None)
    path = write_config(tmp_path, TINY_VIT)
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)  # of repeated tries
    message = fails(train.main, path, "data.dataset=cifar10", f"data.root={tmp_path}", f"output_root={tmp_path}")
    assert "cifar-10-python.tar.gz" in message and str(tmp_path) in message
    message = fails(
        train.main, path, "model={name: resnet18, pretrained: true}", "data.image_size=32", f"output_root={tmp_path}"
    )
    assert "model.pretrained=false" in message and "timm/resnet18.a1_in1k" in message
    message = fails(train.main, path, "model={name: 'hf-hub:someone/vit'}", f"output_root={tmp_path}")
    assert "set model.name to local-dir:FOLDER" in message and "config.json of someone/vit" in message
    assert sum(waits) < 15


def test_a_network_that_never_answers_is_given_up(monkeypatch):
    released, ended = threading.Event(), []

    def hang(*args, **kwargs):
        released.wait(120)
        ended.append(True)
        raise TimeoutError

    monkeypatch.setattr(network.urllib.request, "urlopen", hang)
    message = r"Testing needs the network, and example\.org cannot be reached\. Go offline\."
    with pytest.raises(ValueError, match=message):
        network.require_network("https://example.org/x", purpose="Testing", remedy="Go offline.", timeout=0.2)
    assert not ended  # the request still hangs
    released.set()


def test_a_directory_that_cannot_be_written(tmp_path, fails):
    (tmp_path / "file").write_text("in the way")
    path = write_config(tmp_path, TINY_VIT)
    assert "cannot be written" in fails(train.main, path, f"output_root={tmp_path / 'file'}")


def test_defects_of_our_own_keep_their_traceback():
    with pytest.raises(ValueError, match="Expecting value"):
        run_script(lambda argv: json.loads("x"))


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "gradcam.py"])
def test_scripts_explain_themselves(script, monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(PROJECT / script), run_name="__main__")
        return stop.value.code, capsys.readouterr()

    code, shown = run("--help")
    assert code == 0 and "usage:" in shown.out and "python " in shown.out
    code, failed = run("none", "--bad")
    assert code == 2 and "Traceback" not in failed.err
