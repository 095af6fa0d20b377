"""train.py CONFIG --check, and what is said of the data before a run."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from support import TINY_VIT, make_folder, write_config

import train
from training import trainer


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


def test_a_check_names_what_the_data_hold_and_trains_nothing(root, tmp_path, capsys):
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


def test_a_broken_image_in_any_split_is_said_at_once_and_leaves_nothing(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "images")
    (copy / "test/dog/003.png").write_bytes((copy / "test/dog/003.png").read_bytes()[:200])
    for arguments in ([], ["--check"]):
        with pytest.raises(ValueError, match=r"test/dog/003\.png: not a readable image"):
            start(copy, tmp_path, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "tiny.yaml"]
