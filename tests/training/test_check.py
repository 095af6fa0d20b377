"""train.py CONFIG --check, and what is said of the data before a run."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from support import TINY_VIT, layout_faults, make_config, make_folder, write_config

import train
from common.runs import Run
from training import preview, trainer
from training.check import FILES
from training.rehearsal import prepare


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Random images; in test one exact copy under another class and one re-encoded and mirrored, a text file in train."""
    root = make_folder(
        tmp_path_factory.mktemp("check") / "images", splits=("train", "val", "test"), size=(32, 32), count=6
    )
    random = np.random.default_rng(1)
    for path in sorted(root.rglob("*.png")):
        small = random.integers(0, 256, (5, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((32, 32), Image.Resampling.BICUBIC).save(path)
    shutil.copy(root / "train/dog/001.png", root / "test/cat/000.png")
    with Image.open(root / "train/frog/002.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(root / "test/frog/copy.jpg", quality=80)
    (root / "train/cat/notes.txt").write_text("")
    return root


def start(root, folder, *arguments):
    values = {**TINY_VIT, "data": {"dataset": "imagefolder", "root": str(root), "image_size": 32, "num_workers": 0}}
    train.main([str(write_config(folder, values)), f"output_root={folder}", *arguments])


def test_a_check_names_what_the_data_hold_and_trains_nothing(root, tmp_path, drawn, capsys):
    start(root, tmp_path, "--check")
    folder, said = tmp_path / "checks/tiny", capsys.readouterr().out
    assert not (tmp_path / "tiny").exists()
    assert "all    18     18   19" in said
    assert "note: 1 file is left out, not being images by their names (.txt: 1), such as " in said
    exact = "note: 1 of 19 test images are exact copies of training images, 1 of them of another class"
    assert f"{exact} (test/cat/000.png is train/dog/001.png)" in said
    assert "note: 1 of 19 test images look like training images, 1 of them of the same class" in said
    found = json.loads((folder / "check.json").read_text())
    assert found["exact_copies"] == {"test in train": 1, "test in val": 0, "val in train": 0}
    assert found["near_copies"] == {"test in train": 1, "test in val": 0, "val in train": 0}
    assert found["per_class"]["test"] == [6, 6, 7]
    rows = list(csv.reader((folder / "copies.csv").open()))
    assert rows[1] == ["test/cat/000.png", "cat", "train/dog/001.png", "dog", "exact", "no"]
    assert rows[2][:4] == ["test/frog/copy.jpg", "frog", "train/frog/002.png", "frog"] and rows[2][5] == "yes"
    assert len(rows) == 3
    assert Image.open(folder / "near_copies.png").height > 200
    assert list(csv.reader((folder / "files.csv").open())) == [
        ["file", "why"],
        [str(root / "train/cat/notes.txt"), "left out: no image by its name"],
    ]


def test_a_check_says_what_the_run_will_take_and_leaves_its_folder_alone(root, tmp_path, capsys):
    start(root, tmp_path, "--check", "train.mixup=0.8", "model.tune=head", "train.model_ema=true")
    cost = json.loads((tmp_path / "checks/tiny/check.json").read_text())["cost"]
    said = capsys.readouterr().out
    assert {path.name for path in (tmp_path / "checks/tiny").iterdir()} <= set(FILES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checks", "tiny.yaml"]
    start(root, tmp_path, "train.epochs=1", "train.mixup=0.8", "model.tune=head", "train.model_ema=true")
    run = Run.open(tmp_path / "tiny")
    result = run.read_json("train.json")
    assert (cost["params"], cost["trainable_params"]) == (result["params"], result["trainable_params"])
    assert 0 < cost["trainable_params"] < cost["params"]
    sizes = [run.path(name).stat().st_size / 1e6 for name in ("best.pt", "last.pt", "last.pt")]
    assert cost["checkpoints_mb"] == pytest.approx(sum(sizes), rel=0.3)
    assert cost["steps"] == preview.MOST_STEPS - 1 and cost["step_seconds"] == cost["epoch_seconds"] > 0  # of one batch
    assert cost["free_mb"] > 0 and (cost["peak_memory_mb"] is None or cost["peak_memory_mb"] > 50)
    rows = ("images", "in two splits", "parameters", "a training step", "an epoch", "peak memory", "checkpoints")
    assert all(f"\n{row} " in said for row in rows) and "inputs.png" in said


def test_a_check_leaves_no_file_of_an_earlier_one(root, tmp_path):
    start(root, tmp_path, "--check")
    start(make_folder(tmp_path / "images"), tmp_path, "--check")  # with nothing left out, and no two alike
    names = {path.name for path in (tmp_path / "checks/tiny").iterdir()}
    assert names == {"check.json", "copies.csv", "inputs.png"}


def trainer_of(root, folder, **sections):
    augment = {"crop_padding": 0, "hflip": 0, **sections.pop("augment", {})}
    data = {"dataset": "imagefolder", "root": str(root), "image_size": 32, "num_workers": 0, "augment": augment}
    config, device = make_config(data=data, **sections), torch.device("cpu")
    return preview.create_trainer(Run(folder, config), prepare(config, folder, device, resume=False), device)


def test_the_sheet_shows_images_as_they_are_where_nothing_changes_them(root, tmp_path):
    figure = preview.draw_inputs(trainer_of(root, tmp_path))
    rows = np.stack([axes.images[0].get_array() for axes in figure.axes]).reshape(-1, 6, 32, 32, 3)
    assert len(rows) == 3  # of 18 images in five versions
    assert (rows == rows[:, :1]).all() and (rows[0] != rows[1]).any() and not layout_faults(figure)


def test_the_sheet_shows_what_the_augmentation_and_the_mixing_do(root, tmp_path):
    mixing = trainer_of(root, tmp_path, augment={"scale": [0.3, 0.5]}, train={"mixup": 0.8})
    figure = preview.draw_inputs(mixing)
    rows = np.stack([axes.images[0].get_array() for axes in figure.axes]).reshape(-1, 6, 32, 32, 3)
    assert all((row[i] != row[k]).any() for row in rows for i in range(6) for k in range(i))
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("% cat" in text or "% dog" in text for text in texts)


def test_what_would_stop_the_run_is_said_after_the_data(root, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"train\.opt = adahessian cannot take a step"):
        start(root, tmp_path, "--check", "train.opt=adahessian")
    assert "all    18     18   19" in capsys.readouterr().out and (tmp_path / "checks/tiny/copies.csv").is_file()


def test_too_little_memory_for_a_step_is_said_with_its_remedy(root, tmp_path, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trainer.Trainer, "train_step", fail)
    with pytest.raises(ValueError, match=r"out of memory on cpu with train\.batch_size=128; try"):
        start(root, tmp_path, "--check")


def test_a_first_step_that_takes_all_the_time_is_the_only_one(root, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "SECONDS", 1e-9)
    start(root, tmp_path, "--check")
    cost = json.loads((tmp_path / "checks/tiny/check.json").read_text())["cost"]
    assert cost["steps"] == 1 and "start included" in preview.Cost(**cost).rows()[1][1]


def test_a_check_of_clean_data_says_so(tmp_path, capsys):
    root = make_folder(tmp_path / "images")  # noise: no two are alike
    (tmp_path / "tiny").mkdir()  # a run of that name is no obstacle
    (tmp_path / "tiny/file").write_text("")
    start(root, tmp_path, "--check")
    assert "no image stands in two splits, and no file is left out" in capsys.readouterr().out
    assert not (tmp_path / "checks/tiny/near_copies.png").exists()


def test_a_run_starts_with_the_notes(root, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise ValueError("stop here")

    monkeypatch.setattr(trainer, "check_space", stop)
    with pytest.raises(ValueError, match="stop here"):
        start(root, tmp_path)
    assert "(test/cat/000.png is train/dog/001.png); evaluate.py also gives" in capsys.readouterr().err


def test_broken_images_in_any_split_are_said_at_once_and_listed_by_a_check(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "images")
    for name in ("test/dog/003.png", "train/cat/001.png"):
        (copy / name).write_bytes((copy / name).read_bytes()[:200])
    with pytest.raises(ValueError, match=r"2 of 55 image files cannot be read: .*cat/001\.png: not a readable image"):
        start(copy, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "tiny.yaml"]
    with pytest.raises(ValueError, match=r"2 of 55 image files cannot be read: .*cat/001\.png: not a readable image"):
        start(copy, tmp_path, "--check")
    rows = list(csv.reader((tmp_path / "checks/tiny/files.csv").open()))
    assert [row[0] for row in rows[1:]] == [str(copy / "train/cat/001.png"), str(copy / "test/dog/003.png")]
    assert all(row[1].startswith("not a readable image") for row in rows[1:])
