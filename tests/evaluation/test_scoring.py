"""What is evaluated: the images that a run was trained and tested on, known by their pixels."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support import make_config, make_folder, write_config

import evaluate
import gradcam
import train
from common.runs import open_runs
from comparison.entries import group_by_seed
from data import load_dataset
from evaluation.scoring import reason_to_evaluate
from evaluation.variant import Variant

MODEL = {"name": "shallow_vit", "kwargs": {"embed_dim": 16, "num_heads": 1, "depth": 1, "patch_size": 8}}
SETTINGS = {"train": {"epochs": 1, "batch_size": 12, "amp": "fp32"}, "evaluate": {"latency_seconds": 0.001}}


def train_on(root, folder, *overrides):
    data = {"dataset": "imagefolder", "root": str(root), "image_size": 16, "val_fraction": 0.25, "num_workers": 0}
    config = write_config(folder, {"data": data, "model": MODEL, **SETTINGS}, name="run")
    train.main([str(config), f"output_root={folder}", *overrides])
    return folder / "run"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder of images, two of whose test images also stand in train, and a run on it, evaluated."""
    folder = tmp_path_factory.mktemp("scoring")
    root = make_folder(folder / "images", splits=("train", "test"), count=8, size=(16, 16))
    for path in (root / "test").rglob("*.png"):
        invert(path)  # what make_folder draws is the same in both
    for name in ("000.png", "003.png"):
        shutil.copy(root / "train/dog" / name, root / "test/dog" / name)
    run = train_on(root, folder)
    evaluate.main([str(run)])
    return root, run


@pytest.fixture
def copied(finished, tmp_path):
    """The folder and the run, to be changed; the run still names the old folder."""
    root, run = finished
    return shutil.copytree(root, tmp_path / "images"), shutil.copytree(run, tmp_path / "run")


def invert(path):
    """Other pixels under the old name, size and time."""
    facts = path.stat()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def metrics_of(run):
    return json.loads((run / "metrics.json").read_text())


def test_a_moved_folder_holds_the_same_images(copied, capsys):
    root, run = copied
    evaluate.main([str(run), f"data.root={root}"])
    assert metrics_of(run)["images_since_training"] == "unchanged"
    assert "note: " not in capsys.readouterr().err
    (run / "train.json").unlink()
    train.main([str(run / "config.yaml"), "--resume", f"data.root={root}", f"output_root={run.parent}"])
    assert (run / "train.json").is_file()


@pytest.mark.parametrize("name", ["train/dog/001.png", "train/cat/002.png"])
def test_other_pixels_under_the_old_names_are_refused(copied, name):
    root, run = copied
    invert(root / name)
    said = r"data\.root holds other (train|val) images than when the run was trained"
    for script in (evaluate, gradcam):
        with pytest.raises(ValueError, match=said):
            script.main([str(run), f"data.root={root}", *(["--index", "0"] if script is gradcam else [])])
    (run / "train.json").unlink()
    with pytest.raises(ValueError, match=said):
        train.main([str(run / "config.yaml"), "--resume", f"data.root={root}", f"output_root={run.parent}"])


def test_changed_test_images_are_named_and_evaluated_anew(copied, capsys):
    root, run = copied
    for path in (root / "test").rglob("*.png"):
        invert(path)
    arguments = [str(run), f"data.root={root}"]
    gradcam.main([*arguments, "--index", "0"])
    assert "note: the test images differ from those when the run was trained" in capsys.readouterr().err
    args = evaluate.parse_arguments(arguments)
    (opened,) = open_runs(args.runs, None, args.overrides)
    assert reason_to_evaluate(opened, Variant()) == "the test images differ from those when it was evaluated"
    evaluate.main(arguments)
    assert metrics_of(run)["images_since_training"] == "changed"
    assert reason_to_evaluate(opened, Variant()) is None


def test_runs_on_other_test_images_are_not_compared(finished, copied):
    (root, run), (_, second) = copied, finished
    invert(root / "test/dog/001.png")
    (run / "config.yaml").write_text((run / "config.yaml").read_text().replace("name: run", "name: changed"))
    evaluate.main([str(run), f"data.root={root}"])
    with pytest.raises(ValueError, match=r"not evaluated on the same images \(24 and 24; told by their pixels"):
        evaluate.main([str(run), str(second), "--from-predictions"])


def test_predictions_of_other_weights_are_not_recomputed(copied):
    _, run = copied
    arrays = dict(np.load(run / "predictions.npz"))
    np.savez(run / "predictions.npz", **arrays | {"checkpoint_sha256": "0"})
    with pytest.raises(ValueError, match=r"predictions\.npz is of other weights or images than metrics\.json"):
        evaluate.main([str(run), "--from-predictions"])


def test_exact_copies_are_named_and_left_out_beside_the_accuracy(finished, copied, capsys):
    _, run = finished
    found, arrays = metrics_of(run), np.load(run / "predictions.npz")
    rest = np.delete(arrays["logits"].argmax(1) == arrays["labels"], [8, 11])
    assert np.flatnonzero(arrays["copies"]).tolist() == [8, 11]  # dog/000 and dog/003, behind eight cats
    assert (found["num_copies"], found["accuracy_without_copies"]) == (2, rest.mean())
    assert "without 2 exact copies of training or validation images" in (run / "report.txt").read_text()
    evaluate.main([str(copied[1]), "--from-predictions"])
    assert metrics_of(copied[1])["num_copies"] == 2


def test_other_training_images_make_no_seed_of_the_same_model():
    def entry(seed, **metrics):
        config = make_config(name=f"vit-seed{seed}", seed=seed, data={"root": f"folder{seed}"})
        alike = {"fingerprint": "t", "train_fingerprint": "a", "val_fingerprint": "v"}
        return SimpleNamespace(name=config.name, run=SimpleNamespace(config=config), metrics=alike | metrics)

    assert len(group_by_seed([entry(0), entry(1)])) == 1
    assert len(group_by_seed([entry(0), entry(1, train_fingerprint="b")])) == 2
    assert len(group_by_seed([entry(0), entry(1, val_fingerprint="b")])) == 2


def test_fingerprints_are_of_pixels_and_labels_in_their_order(finished):
    root, _ = finished
    cfg = make_config(data={"dataset": "imagefolder", "root": str(root), "image_size": 8, "num_workers": 0}).data
    split = load_dataset(cfg, seed=0).test
    larger = load_dataset(cfg.model_copy(update={"image_size": 16, "residency": "stream"}), seed=0).test
    assert split.fingerprint() == larger.fingerprint()  # of the files, not of what is made of them
    other = load_dataset(cfg, seed=0).test
    other.labels = split.labels.flip(0)
    assert other.fingerprint() != split.fingerprint()
    other.labels, other.indices = split.labels, torch.arange(len(split)).roll(1)
    assert other.fingerprint() != split.fingerprint()


def test_fingerprints_of_names_are_verified_by_names_and_said_to_be(capsys):
    dataset = load_dataset(make_config(data={"image_size": 8, "test_fraction": 0.2}).data, seed=0)
    old = dataset.test._fingerprint_of_names()
    assert not old.endswith("-pixels") and dataset.test.has_fingerprint(old)
    dataset.check_images({"train": dataset.train._fingerprint_of_names()})
    assert "cannot be verified" in capsys.readouterr().err
    with pytest.raises(ValueError, match="other val images"):
        dataset.check_images({"val": dataset.train._fingerprint_of_names()})
