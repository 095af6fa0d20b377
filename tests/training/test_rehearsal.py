"""What cannot work shows itself before the first step, in one sentence, and leaves nothing behind."""

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from support import TINY_VIT, write_config

import train
from common import folders
from common.runs import Run
from training.trainer import Trainer


def start(folder, *arguments, values=TINY_VIT):
    train.main([str(write_config(folder, values)), f"output_root={folder}", "train.epochs=1", *arguments])
    return Run.open(folder / "tiny")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model={name: vit_tiny_patch16_224, kwargs: {in_chans: 1, patch_size: 8, depth: 1}}"],
            "cannot take a step on 2 images",
        ),
        (["model={name: vit_tiny_patch16_224, kwargs: {global_pool: '', patch_size: 8, depth: 1}}"], "its output is"),
        (["model={name: inception_next_atto, kwargs: {num_classes: 3}}"], "is set by the dataset"),
        (["train.opt=adahessian"], "train.opt = adahessian cannot take a step"),
        (["data.augment.crop_padding=100000"], "cropped to nothing but padding; 15 is the most"),
        (["train.mixup=.inf"], "train.mixup = inf should be a finite number"),
        (["train.lr=.nan"], "train.lr = nan should be a finite number"),
        (["model.kwargs.checkpoint_path=x.pth"], "model.kwargs.checkpoint_path is set by model.pretrained"),
        (["train.class_weights={cat: 2}"], "there is no class cat"),
    ],
)
def test_configs_that_cannot_be_trained(tmp_path, overrides, message):
    with pytest.raises(ValueError, match=message):
        start(tmp_path, *overrides)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_batch_of_one_image_that_batchnorm_cannot_train_on(tmp_path):
    with pytest.raises(
        ValueError, match=r"resnet18 .* cannot take a step on 1 image of 16x16 pixels \(ValueError: Expected more"
    ):
        start(tmp_path, "model={name: resnet18}", "train.batch_size=1")


def test_all_of_several_configs_are_tried_before_the_first_is_trained(tmp_path, monkeypatch):
    fitted = []
    monkeypatch.setattr(Trainer, "fit", lambda trainer: fitted.append(trainer.run.config.name))
    good, bad = (str(write_config(tmp_path, TINY_VIT, name)) for name in ("good", "bad"))
    write_config(tmp_path, {**TINY_VIT, "model": {"name": "shallow_vit", "kwargs": {"num_heads": 5}}}, "bad")
    with pytest.raises(ValueError, match="shallow_vit cannot be built with"):
        train.main([good, bad, f"output_root={tmp_path}"])
    assert not fitted and not (tmp_path / "good").exists()


def test_a_run_may_start_from_one_that_the_same_command_makes(tmp_path):
    first = str(write_config(tmp_path, TINY_VIT, "first"))
    model = {**TINY_VIT["model"], "pretrained": str(tmp_path / "first" / "best.pt")}
    stop = {"run": str(tmp_path / "first"), "fraction": 0.1}
    second = {**TINY_VIT, "model": model, "train": {**TINY_VIT["train"], "stop_at_fraction_of": stop}}
    train.main([first, str(write_config(tmp_path, second, "second")), f"output_root={tmp_path}", "train.epochs=1"])
    environment = json.loads((tmp_path / "second" / "environment.json").read_text())
    assert environment["pretrained"]["corpus"] == model["pretrained"] and environment["pretrained"]["head"] == "loaded"


def test_room_for_the_checkpoints(tmp_path, monkeypatch):
    monkeypatch.setattr(folders.shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000))
    with pytest.raises(ValueError, match=r"the checkpoints need 0\.\d MB, and 0\.0 MB are free; make room"):
        start(tmp_path)
    assert not (tmp_path / "tiny").exists()
    monkeypatch.undo()
    run = start(tmp_path)
    sizes = [run.path(name).stat().st_size for name in ("best.pt", "last.pt")]
    asked = []
    monkeypatch.setattr("training.trainer.check_space", lambda directory, num_bytes: asked.append(num_bytes))
    start(tmp_path, "name=again")
    assert asked[0] == pytest.approx(sizes[0] + 2 * sizes[1], rel=0.2)


def test_a_head_of_other_classes_is_named_and_new(tmp_path, vit_run, caplog):
    weights = torch.load(vit_run / "best.pt", weights_only=True)
    for names, head in ((weights["class_names"], "loaded"), ([f"class {i}" for i in range(10)], "new")):
        torch.save(weights | {"class_names": names}, tmp_path / "start.pth")
        with caplog.at_level(logging.WARNING):
            run = start(tmp_path, f"model.pretrained={tmp_path / 'start.pth'}", "--overwrite")
        assert run.read_json("environment.json")["pretrained"]["head"] == head
        assert ("its head is of other classes (class 0, class 1" in caplog.text) is (head == "new")
