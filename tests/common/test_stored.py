"""Files from elsewhere: one sentence that names the file, whatever is in it."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from support import whole_statistics

import evaluate
import gradcam
import train
from common import stored
from common.runs import LOG_COLUMNS, Run
from evaluation.predictions import load_predictions

OLD_RUN = Path(__file__).parent / "before_packages"


@pytest.fixture
def run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "run"))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def checkpoints(name):
    good = torch.load(OLD_RUN / name, weights_only=True)
    yield [1, 2]
    yield {}
    yield good | {"model": {"a": "text"}}
    yield good | {"class_names": [1, 2]}
    yield good | {"input_spec": good["input_spec"] | {"size": [8]}}
    yield good | {"input_spec": good["input_spec"] | {"colour": 1}}
    if name == "last.pt":
        yield good | {"log": [{"epoch": 1}]}
        yield good | {"optimizer": 3}
        yield good | {"progress": {"step": 1}}
        yield good | {"ema": {"a": 1}}
        yield good | {"target": [1, 2, 3]}


@pytest.mark.parametrize("name", ["best.pt", "last.pt"])
def test_checkpoints_of_any_shape(run, name):
    for values in checkpoints(name):
        torch.save(values, run / name)
        with pytest.raises(ValueError, match=rf"{name} is not as this project writes it \(.+\); use the other of"):
            stored.load_checkpoint(run / name)
    stored.load_checkpoint(OLD_RUN / name)


def test_no_pickle_is_run(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for content in (pickle.dumps(Bomb()), b"", b"\x80", (OLD_RUN / "best.pt").read_bytes()[:999]):
        (run / "best.pt").write_bytes(content)
        with pytest.raises(ValueError, match=r"best\.pt is damaged or not a checkpoint"):
            stored.load_checkpoint(run / "best.pt")
    with (run / "predictions.npz").open("wb") as file:
        np.savez(file, logits=np.array([Bomb()], dtype=object))
    with pytest.raises(ValueError, match=r"predictions\.npz cannot be used"):
        stored.load_arrays(run / "predictions.npz", {"logits": ("f", "NK")})
    assert not Path("exploded").exists()


@pytest.mark.parametrize("name", ["train.json", "metrics.json", "environment.json"])
@pytest.mark.parametrize("content", ["", "[1]", "null", '"text"', "{", "[" * 100_000, "\x00", '{"accuracy": "high"}'])
def test_json_of_any_shape(run, name, content):
    if name == "environment.json" and content.startswith('{"'):
        content = '{"pretrained": 5}'
    (run / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} .*run the stage that writes it again"):
        stored.read_json(run / name)


@pytest.mark.parametrize("key", ["command", "python", "packages", "device", "cpu", "threads", "git_commit"])
def test_an_environment_of_other_values_is_named(run, key):
    values = json.loads((run / "environment.json").read_text())
    assert stored.read_json(run / "environment.json")[key] == values[key]
    for value in [[1, 2, 3], -1, *([] if key == "git_commit" else [None])]:
        (run / "environment.json").write_text(json.dumps(values | {key: value}))
        with pytest.raises(ValueError, match=rf"environment\.json is not as this project writes it \({key}"):
            stored.read_json(run / "environment.json")


def test_a_key_that_a_file_lacks_names_the_file(run):
    values = json.loads((run / "metrics.json").read_text())
    del values["top5_accuracy"]
    (run / "metrics.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"metrics\.json lacks top5_accuracy; run the stage"):
        stored.read_json(run / "metrics.json")["top5_accuracy"]


NESTED = {
    "metrics.json": [
        ("gmacs",), ("macro_f1",), ("per_class",), ("per_class", "0", "support"), ("per_class", "3", "accuracy_ci95"),
        ("most_confused", 0, "share"), ("latency_ms", "1"), ("latency_ms", "1", "p90"),
    ],
    "corruptions.json": [
        ("corruptions", "blur"), ("corruptions", "blur", 2), ("corruptions", "blur", 1, "accuracy"),
        ("corruptions", "blur", 0, "accuracy_ci95"),
    ],
    "statistics.json": [
        ("maps", "auto"), ("maps", "auto", "blank"), ("maps", "auto", "common", "std", "mean"), ("faithfulness", "centre"),
        ("faithfulness", "auto", "road"), ("randomization", "auto"), ("randomization", "auto", 0, "mean"),
        ("paired", 0), ("paired", 0, "second"), ("paired", 1, "insertion_blur", "ci95"),
    ],
}  # fmt: skip


def good_values(name):
    """What a whole file of this name holds, as far as a later stage reads it."""
    if name == "metrics.json":
        return json.loads((OLD_RUN / name).read_text())
    if name == "corruptions.json":
        return {"checkpoint": "best", "corruptions": {"blur": [{"accuracy": 0.5, "accuracy_ci95": [0.4, 0.6]}] * 3}}
    return whole_statistics("auto")


@pytest.mark.parametrize(("name", "keys"), [(name, keys) for name, found in NESTED.items() for keys in found])
def test_values_that_a_file_lacks_or_holds_as_another_type_are_named(tmp_path, name, keys):
    """Wherever they lie: else the report fails in the middle of its tables."""
    path = tmp_path / name
    path.write_text(json.dumps(good_values(name)))
    stored.read_json(path)
    for damage in (None, "0.5", {"x": 1}):
        values = json.loads(json.dumps(good_values(name)))
        place = values
        for key in keys[:-1]:
            place = place[key]
        if damage is None:
            del place[keys[-1]]
        elif damage == "0.5" and keys[-1] == "second":
            continue  # it is a text
        else:
            place[keys[-1]] = damage
        path.write_text(json.dumps(values))
        with pytest.raises(ValueError, match=rf"{name} is not as this project writes it \(.+\); run the stage"):
            stored.read_json(path)


@pytest.mark.parametrize("content", ["", "epoch,lr\n1,2\n", "epoch,lr\nx,2\n", "epoch\n1,2,3\n", "\x00\x01"])
def test_logs_of_any_shape(run, content):
    (run / "log.csv").write_text(content)
    with pytest.raises(ValueError, match=r"log\.csv is not a log as train\.py writes it"):
        stored.read_log(run / "log.csv", LOG_COLUMNS)


@pytest.mark.parametrize("kind", ["folder", "loop"])
def test_a_log_that_is_missing_or_no_file_is_named(tmp_path, kind):
    place = tmp_path / "log.csv"
    with pytest.raises(ValueError, match=r"log\.csv does not exist; train\.py writes it"):
        stored.read_log(place, LOG_COLUMNS)
    place.mkdir() if kind == "folder" else place.symlink_to(place)
    with pytest.raises(ValueError, match=r"log\.csv is not a log as train\.py writes it"):
        stored.read_log(place, LOG_COLUMNS)


ARRAYS = {"logits": np.zeros((3, 2), np.float32), "labels": np.array([0, 1, 1]), "class_names": np.array(["a", "b"])}


@pytest.mark.parametrize(
    "damage",
    [
        *[
            {"logits": value}
            for value in (np.array(["text"] * 3), np.zeros((2, 2)), np.zeros((3, 1)), np.zeros((3, 2, 1)))
        ],
        *[
            {"labels": value}
            for value in (np.array(["0"] * 3), np.array([0, 1]), np.array([0, 1, 2]), np.array([0, 1, -1]))
        ],
        *[{"class_names": value} for value in (np.array([0, 1]), np.array(["a"]), np.array("ab"))],
        *[{"copies": value} for value in (np.array([True]), np.zeros(3))],
        {key: value[:0] for key, value in ARRAYS.items()},
    ],
    ids=str,
)
def test_predictions_of_any_shape(run, damage):
    opened = Run.open(run)
    good, names = load_predictions(opened, "predictions.npz")
    assert len(good.labels) == len(good.logits) and good.logits.shape[1] == len(names) and good.copies is None
    np.savez(run / "predictions.npz", **ARRAYS)
    assert load_predictions(opened, "predictions.npz")[1] == ["a", "b"]
    np.savez(run / "predictions.npz", **ARRAYS | damage)
    with pytest.raises(
        ValueError, match=r"predictions\.npz (is not as this project writes it|has labels beyond its 2)"
    ):
        load_predictions(opened, "predictions.npz")


@pytest.mark.parametrize("main", [evaluate.main, gradcam.main])
def test_a_checkpoint_of_another_run_is_named(run, main, vit_run):
    shutil.copy(vit_run / "best.pt", run / "best.pt")
    with pytest.raises(ValueError, match=r"weights do not fit the model that config\.yaml describes"):
        main([str(run), *(["--random", "1"] if main is gradcam.main else [])])


def test_a_resume_from_the_state_of_another_optimizer_is_refused(tmp_path, vit_run):
    run = Path(shutil.copytree(vit_run, tmp_path / "run"))
    (run / "train.json").unlink()
    values = torch.load(run / "last.pt", weights_only=True)
    state = values["optimizer"]["state"]
    good = {index: dict(one) for index, one in state.items()}
    for damage in ("shape", "key", "groups", "step"):
        values["optimizer"]["state"] = {index: dict(one) for index, one in good.items()}
        if damage == "shape":
            values["optimizer"]["state"][0]["exp_avg"] = torch.zeros(3)
        elif damage == "key":
            values["optimizer"]["state"] = {index: {"momentum_buffer": one["exp_avg"]} for index, one in good.items()}
        elif damage == "groups":
            values["optimizer"] = values["optimizer"] | {"param_groups": values["optimizer"]["param_groups"][:1]}
        else:
            values["optimizer"] = torch.load(vit_run / "last.pt", weights_only=True)["optimizer"]
            progress = {"step": 1000, "seconds": 1.0, "sums": [torch.zeros(3)], "states": [{"torch": 1}]}
            values["progress"] = progress
        torch.save(values, run / "last.pt")
        with pytest.raises(ValueError, match=r"last\.pt is not of this run"):
            train.main([str(run / "config.yaml"), "--resume"])
