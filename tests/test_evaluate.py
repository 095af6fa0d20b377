import base64
import csv
import json
import os
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from support import TINY_VIT, make_config, make_folder, write_config

import evaluate
import gradcam
import train
from common.config_files import load_config
from common.runs import Run
from comparison.entries import group_by_seed, read_entry
from comparison.illustrations import _draw_cost
from data import Preprocess, Split, load_dataset
from evaluation import calibration
from evaluation.corruptions import CORRUPTIONS, fit_to_side
from evaluation.predictions import load_predictions, predict_split
from images.sources import Pixels
from models import create_model, restore_model


def copy_run(run, directory, **values):
    """A copy of a run under its directory's name."""
    shutil.copytree(run, directory)
    config = load_config(directory / "config.yaml").model_copy(update={"name": directory.name, **values})
    (directory / "config.yaml").write_text(config.to_yaml())
    return directory


@pytest.fixture(scope="module")
def evaluated(vit_run):
    evaluate.main([str(vit_run)])
    return vit_run


def test_a_split_is_predicted_in_its_order_and_weighed_by_images():
    dataset = load_dataset(make_config().data, seed=0)
    model = create_model(make_config(), num_classes=10)
    kwargs = {"device": torch.device("cpu"), "precision": "fp32"}
    whole = predict_split(model, dataset.test, batch_size=1000, **kwargs)
    parts = predict_split(model, dataset.test, batch_size=70, **kwargs)
    np.testing.assert_allclose(parts.logits, whole.logits, atol=1e-5)
    np.testing.assert_array_equal(parts.labels, dataset.test.labels)
    assert whole.accuracy == np.mean(whole.logits.argmax(1) == whole.labels)
    empty = load_dataset(make_config(data={"val_fraction": 0}).data, seed=0).val
    with pytest.raises(ValueError, match="the val split is empty"):
        predict_split(model, empty, batch_size=70, **kwargs)


# ---------------------------------------------------------------- the script


def test_one_run_is_evaluated(evaluated, drawn):
    evaluate.main([str(evaluated), "--from-predictions"])
    result = json.loads((evaluated / "metrics.json").read_text())
    assert {
        *("split", "checkpoint", "num_images", "accuracy", "accuracy_ci95", "top1_error", "top5_accuracy", "loss"),
        *("ece", "macro_f1", "per_class", "params", "trainable_params", "gmacs", "uncounted_ops", "latency_ms"),
        *("images_per_second", "peak_memory_mb", "device", "precision", "attention_kernel"),
    } <= set(result)
    assert result["num_images"] == 180 and set(result["latency_ms"]) == {"1", "180"}
    low, high = result["accuracy_ci95"]
    assert low < result["accuracy"] < high
    for name in ("confusion_matrix", "per_class_accuracy", "reliability", "risk_coverage"):
        assert (evaluated / "figures" / f"{name}.png").stat().st_size > 5000
    arrays = np.load(evaluated / "predictions.npz")
    assert (arrays["logits"].argmax(1) == arrays["labels"]).mean() == result["accuracy"]
    assert len(arrays["indices"]) == 180
    assert f"accuracy {result['accuracy']:.2%}" in (evaluated / "report.txt").read_text()


def test_accuracy_equals_that_of_training(vit_run, capsys):
    evaluate.main([str(vit_run), "--split", "val"])
    at_training = json.loads((vit_run / "train.json").read_text())["val_accuracy"]
    result = json.loads((vit_run / "metrics-val.json").read_text())
    assert result["accuracy"] == at_training and result["split"] == "val"
    last = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert last["accuracy"] == at_training


def test_every_family_is_evaluated_and_compared(family_runs, folder_root, tmp_path, capsys):
    directories = [str(path) for path in family_runs.values()]
    evaluate.main([*directories, "--output", str(tmp_path / "all")])
    with (tmp_path / "all" / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["vit", "swin", "resnet"]
    stored = json.loads((tmp_path / "all" / "comparison.json").read_text())
    for row, run in zip(rows, stored["runs"]):
        assert float(row["accuracy"]) == run["accuracy"]  # to the last digit
        assert float(row["latency_ms.1.median"]) == run["latency_ms"]["1"]["median"]
    report = (tmp_path / "all" / "report.md").read_text()
    assert "| vit | vit_tiny_patch16_224 |" in report and (tmp_path / "all" / "accuracy.png").is_file()
    assert stored["runs"][1]["top5_accuracy"] is None  # three classes
    assert "memory" not in report.lower() and stored["runs"][0]["peak_memory_mb"] is None  # on CPU
    assert f"Data set {folder_root.name} (imagefolder): 3 classes, 28 training images, 36 test images." in report
    assert (
        "- Parameters differ by a factor of 146 (vit: 0.93 M; swin: " in report
        and "The intervals of all 3 pairs hold at once" in report
    )
    assert all(run["latency_timed_with"] == ["resnet", "swin", "vit"] for run in stored["runs"])
    assert len(stored["pairs"]) == 3 and all(f"- {pair['sentence']}" in report for pair in stored["pairs"])
    capsys.readouterr()
    before = (family_runs["vit"] / "metrics.json").stat().st_mtime_ns
    evaluate.main([*directories, "--output", str(tmp_path / "all")])
    assert "is evaluated already" in capsys.readouterr().out
    assert (family_runs["vit"] / "metrics.json").stat().st_mtime_ns == before


def test_runs_on_different_images_are_not_compared(tmp_path, evaluated, family_runs):
    with pytest.raises(ValueError, match="cannot be compared: their data are imagefolder and digits"):
        evaluate.main([str(evaluated), str(family_runs["vit"])])
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "name=other", "data.split_seed=1", "train.epochs=1"])
    with pytest.raises(ValueError, match="not evaluated on the same images"):
        evaluate.main([str(evaluated), str(tmp_path / "other")])


def test_what_is_not_current_is_evaluated_again(tmp_path, evaluated, capsys):
    run = copy_run(evaluated, tmp_path / "copy")
    for file in (
        "metrics.json",
        "predictions.npz",
    ):  # what counts is of which weights they are, not when they were written
        os.utime(run / file, (1e9, 1e9))
    comparison = ["--output", str(tmp_path / "comparison")]
    evaluate.main([str(evaluated), str(run), *comparison])
    assert f"{run} is evaluated already" in capsys.readouterr().out
    weights = torch.load(run / "best.pt", weights_only=True)
    torch.save(weights | {"model": {key: -value for key, value in weights["model"].items()}}, run / "best.pt")
    evaluate.main([str(evaluated), str(run), *comparison])
    assert f"evaluating {run}: metrics.json is not of this best.pt" in capsys.readouterr().out
    (run / "metrics.json").unlink()
    evaluate.main([str(evaluated), str(run), *comparison])
    assert f"evaluating {run}: not evaluated yet" in capsys.readouterr().out
    metrics_ = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps(metrics_ | {"checkpoint": "last"}))
    evaluate.main([str(evaluated), str(run), *comparison])
    assert f"evaluating {run}: metrics.json is of last.pt and the test split" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "suffix", "said"),
    [
        (["--tta", "flip"], "-flip", "(test split, averaged with the mirrored image)"),
        (["--split", "val"], "-val", "(val split)"),
        (["--checkpoint", "last"], "-last", "(test split, last.pt)"),
        (
            ["--checkpoint", "last", "--split", "val", "--tta", "flip"],
            "-val-flip-last",
            "(val split, last.pt, averaged",
        ),
    ],
)
def test_what_is_not_the_plain_evaluation_leaves_it_alone_and_is_named(
    evaluated, tmp_path, monkeypatch, arguments, suffix, said
):
    monkeypatch.chdir(tmp_path)
    copies = [copy_run(evaluated, tmp_path / name, output_root=str(tmp_path)) for name in ("a", "b")]
    for path in list(tmp_path.rglob(f"*{suffix}.*")):  # what tests of the same run have evaluated before this one
        if path.name != "predictions-val.npz":  # the plain evaluation's own
            path.unlink()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    evaluate.main([*map(str, copies), *arguments])
    folder = tmp_path / "comparisons" / f"a-vs-b{suffix}"
    assert list(folder.parent.iterdir()) == [folder]
    assert said in (folder / "report.md").read_text().splitlines()[0]
    assert all(path.read_bytes() == content for path, content in before.items())
    assert all((copy / f"predictions{suffix}.npz").is_file() for copy in copies)
    kept = json.loads((copies[0] / f"metrics{suffix}.json").read_text())
    evaluate.main([str(copies[0]), *arguments, "--from-predictions"])
    assert json.loads((copies[0] / f"metrics{suffix}.json").read_text()) == kept


@pytest.mark.parametrize("main", [evaluate.main, gradcam.main])
def test_two_runs_of_one_name_are_refused(evaluated, tmp_path, main, monkeypatch):
    shutil.copytree(evaluated, tmp_path / "copy")
    images = ["--random", "1"] if main is gradcam.main else []
    with pytest.raises(ValueError, match=rf"{evaluated} and .*copy are both named tiny; edit name in .*config\.yaml"):
        main([str(evaluated), str(tmp_path / "copy"), *images])
    monkeypatch.chdir(evaluated.parent)
    main([str(evaluated), evaluated.name, *images])  # the same directory twice
    assert not (evaluated.parent / "comparisons").exists()


def test_a_folder_for_the_comparison_of_one_run_is_refused(evaluated, tmp_path):
    with pytest.raises(ValueError, match="--output is the folder of a comparison; name another run"):
        evaluate.main([str(evaluated), str(evaluated), "--output", str(tmp_path / "report")])


def test_trainable_parameters_are_those_of_training(tmp_path):
    path = write_config(tmp_path, TINY_VIT)
    train.main([str(path), f"output_root={tmp_path}", "train.epochs=1", "model.tune=head"])
    evaluate.main([str(tmp_path / "tiny")])
    result = json.loads((tmp_path / "tiny" / "metrics.json").read_text())
    assert (
        result["trainable_params"]
        == 330
        == json.loads((tmp_path / "tiny" / "train.json").read_text())["trainable_params"]
    )


def test_scores_are_recomputed_without_the_model(evaluated, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    before = json.loads((run / "metrics.json").read_text())
    (run / "best.pt").unlink()
    (run / "metrics.json").write_text(json.dumps(before | {"accuracy": -1, "temperature_scaling": None}))
    evaluate.main([str(run), "--from-predictions"])
    assert json.loads((run / "metrics.json").read_text()) == before
    assert before["temperature_scaling"]["num_images"] == 180
    (run / "predictions.npz").write_bytes(b"not an archive")
    with pytest.raises(ValueError, match=r"predictions\.npz cannot be used"):
        evaluate.main([str(run), "--from-predictions"])
    (run / "predictions.npz").unlink()
    with pytest.raises(ValueError, match=r"predictions\.npz does not exist yet; make it with: python evaluate\.py"):
        evaluate.main([str(run), "--from-predictions"])
    with pytest.raises(ValueError, match="--corrupt needs the model"):
        evaluate.main([str(run), "--from-predictions", "--corrupt"])


def test_the_temperature_is_fitted_on_validation_images(evaluated):
    held_out, _ = load_predictions(Run.open(evaluated), "predictions-val.npz")
    test, _ = load_predictions(Run.open(evaluated), "predictions.npz")
    scaling = json.loads((evaluated / "metrics.json").read_text())["temperature_scaling"]
    dataset = load_dataset(Run.open(evaluated).config.data, seed=0)
    np.testing.assert_array_equal(held_out.labels, dataset.val.labels)
    assert scaling["temperature"] == calibration.fit_temperature(held_out) != calibration.fit_temperature(test)
    assert scaling["ece"] == calibration.calibration(calibration.scale_logits(test, scaling["temperature"]))["ece"]


def test_flips_are_averaged(evaluated, capsys):
    evaluate.main([str(evaluated), "--tta", "flip"])
    run = Run.open(evaluated)
    flipped, _ = load_predictions(run, "predictions-flip.npz")
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    split = load_dataset(run.config.data, seed=0).test
    images = torch.stack([split.image(i) for i in range(20)])
    spec = model.input_spec
    preprocess = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation)
    with torch.no_grad():
        mean = (model(preprocess(images)).softmax(1) + model(preprocess(images.flip(-1))).softmax(1)) / 2
    np.testing.assert_allclose(flipped.probabilities[:20], mean, atol=1e-5)
    plain, doubled = (json.loads((evaluated / f"metrics{suffix}.json").read_text()) for suffix in ("", "-flip"))
    assert doubled["gmacs"] == pytest.approx(2 * plain["gmacs"]) and (doubled["tta"], plain["tta"]) == ("flip", None)


def test_corrupted_images_are_scored(evaluated, drawn):
    evaluate.main([str(evaluated), "--corrupt"])
    stored = json.loads((evaluated / "corruptions.json").read_text())
    scores = stored["corruptions"]
    assert set(scores) == set(CORRUPTIONS) and all(len(found) == 5 for found in scores.values())
    assert (evaluated / "figures" / "corruptions.png").stat().st_size > 5000
    run = Run.open(evaluated)
    model, split = restore_model(run.config, run.load_checkpoint("best.pt")), load_dataset(run.config.data, seed=0).test
    images = fit_to_side(split.source.images, 32).double()
    mean = images.mean((2, 3), keepdim=True)
    flat = Pixels((0.15 * images + 0.85 * mean).to(torch.uint8), split.source.labels)
    changed = Split(flat, split.indices, name="test", resident=True)
    arguments = {"batch_size": 64, "device": torch.device("cpu"), "precision": "fp32"}
    by_hand = predict_split(model, changed, **arguments).accuracy
    assert scores["contrast"][4]["accuracy"] == pytest.approx(by_hand, abs=0.03)  # rounding turns a few
    hits = np.load(evaluated / "corruptions.npz")["hits"]
    assert hits.shape == (51, 180) and stored["clean_accuracy"] == hits[0].mean()


REPORTED = "reported={accuracy: 0.9876, gmacs: 16.86}"


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    """Two seeds of one model and one longer run, evaluated together with corruptions."""
    folder = tmp_path_factory.mktemp("seeds")
    path = write_config(folder, TINY_VIT)
    train.main([str(path), f"output_root={folder}", "train.epochs=1", "name=a-seed0"])
    train.main([str(path), f"output_root={folder}", "train.epochs=1", "name=a-seed1", "seed=1"])
    train.main([str(path), f"output_root={folder}", "name=b", "data.val_fraction=0.2", "data.image_size=20", REPORTED])
    runs = [str(folder / name) for name in ("a-seed0", "a-seed1", "b")]
    evaluate.main([*runs, "--corrupt", "--output", str(folder / "report")])
    return folder / "report"


def test_runs_that_differ_in_their_seed_are_one_model(seeds):
    stored = json.loads((seeds / "comparison.json").read_text())
    assert {name: found["n"] for name, found in stored["groups"].items()} == {"a": 2, "b": 1}
    accuracy = [run["accuracy"] for run in stored["runs"]]
    assert stored["groups"]["a"]["mean"] == pytest.approx(np.mean(accuracy[:2]))
    [pair] = stored["pairs"]
    assert (pair["first"], pair["second"], pair["runs"]) == ("a", "b", [2, 1])
    assert pair["difference"] == pytest.approx(np.mean(accuracy[:2]) - accuracy[2])


def test_what_is_unfair_is_named(seeds):
    caveats = "\n".join(json.loads((seeds / "comparison.json").read_text())["caveats"])
    assert "Input size: data.image_size 16 (a), 20 (b); input size 16x16 (a), 20x20 (b)" in caveats
    assert (
        "Epochs: train.epochs 1 (a), 2 (b); epochs run 1 (a), 2 (b)" in caveats
        and "Training images: data.val" in caveats
    )
    assert "Numbers of seeds (a: 2; b: 1)" in caveats
    assert "Pretraining" not in caveats  # mean and spread of the training images differ, since those do


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.cells, self.cell = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.links += [values[key] for key in ("src", "href") if key in values]
        self.images += [values["src"]] if tag == "img" else []

    def handle_data(self, data):
        self.cells.append(data)


def test_the_page_needs_no_other_file(seeds):
    text = (seeds / "report.html").read_text()
    page = Page(text)
    assert (
        [link for link in page.links if link[0] != "#"] == page.images and "url(" not in text and "@import" not in text
    )
    drawn = [path.read_bytes() for path in seeds.glob("*.png")]
    assert sorted(base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.images) == sorted(
        drawn
    )
    names = {path.stem for path in seeds.glob("*.png")}
    expected = {
        "accuracy",
        "cost",
        "overview",
        "curves",
        "corruptions",
        "class_differences",
        "per_class_accuracy",
        "confusion",
        "disagreements",
        "risk_coverage",
    }
    assert names == expected
    stored = json.loads((seeds / "comparison.json").read_text())
    for run in stored["runs"]:
        assert run["run"] in page.cells and f"{100 * run['accuracy']:.2f}" in page.cells
        assert f"{run['params'] / 1e6:.2f}" in page.cells and f"{2 * run['gmacs']:.4g}" in page.cells
    assert stored["pairs"][0]["sentence"] in page.cells
    assert any(text.startswith("Data set digits: 10 classes, ") for text in page.cells)
    assert {"reported accuracy (%)", "98.76", "reported GMACs", "16.86"} <= set(page.cells)
    markdown = (seeds / "report.md").read_text()
    assert all(f"({name}.png)" in markdown for name in names)
    assert f"Accuracy minus that of {stored['reference']} in each class" in markdown
    assert "By the first seed of each model." in markdown
    assert "None" not in markdown and "hold at once with 95 %, and" not in markdown


def test_seeds_are_one_point_of_the_front(seeds):
    entries = [read_entry(Run.open(seeds.parent / name), "") for name in ("a-seed0", "a-seed1", "b")]
    for entry, milliseconds in zip(entries, (1.0, 3.0, 5.0)):  # runs of one network are measured once, and are alike
        entry.metrics["latency_ms"]["1"]["median"] = milliseconds
    figure, _ = _draw_cost(group_by_seed(entries), seeded=True)
    drawn = np.concatenate([line.get_xdata() for line in figure.axes[1].lines if len(line.get_xydata())])
    assert {2.0, 5.0} <= set(drawn) and not {1.0, 3.0} & set(drawn)


def test_seeds_of_one_model_alone(vit_run, tmp_path):
    one = copy_run(vit_run, tmp_path / "x")
    evaluate.main([str(one), "--corrupt"])
    two = copy_run(one, tmp_path / "x-seed1", seed=1)
    (two / "corruptions.json").unlink()
    evaluate.main([str(one), str(two), "--output", str(tmp_path / "report")])
    report = (tmp_path / "report" / "report.md").read_text()
    assert "There is nothing to test: all runs are seeds of one model." in report
    assert "| x (2 seeds) | 2 |" in report and "Numbers of seeds (x (2 seeds): 2)" in report
    assert "0 is the clean image. Not evaluated with --corrupt: x-seed1." in report


def test_a_class_without_test_images(tmp_path):
    make_folder(tmp_path / "data", splits=("train",))
    make_folder(tmp_path / "data", splits=("test",), classes=("cat",), count=6)
    values = {
        "data": {"dataset": "imagefolder", "root": str(tmp_path / "data"), "image_size": 24, "val_fraction": 0.2},
        "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 16, "num_heads": 2}},
        "train": {"epochs": 1},
        "evaluate": {"latency_seconds": 0.01},
    }
    path = write_config(tmp_path, values)
    train.main([str(path), f"output_root={tmp_path}"])
    train.main([str(path), f"output_root={tmp_path}", "seed=1", "name=other"])
    evaluate.main([str(tmp_path / "tiny"), str(tmp_path / "other"), "--output", str(tmp_path / "report")])
    result = json.loads((tmp_path / "tiny" / "metrics.json").read_text())
    assert result["num_images"] == 6 and result["per_class"]["dog"]["accuracy"] is None
    assert result["balanced_accuracy"] == result["per_class"]["cat"]["accuracy"] == result["accuracy"]


def test_images_that_changed_after_training_are_refused(tmp_path):
    """One photo more, and the splits would be cut anew: images of the training split among those of the test split."""
    root = make_folder(tmp_path / "photos", splits=("",), count=20)
    values = {**TINY_VIT, "data": {"dataset": "imagefolder", "root": str(root), "image_size": 16}}
    config = str(write_config(tmp_path, values, "photos-run"))
    train.main([config, f"output_root={tmp_path}", "train.epochs=1"])
    run = tmp_path / "photos-run"
    added = root / "cat" / "0000.png"
    added.write_bytes((root / "cat" / "000.png").read_bytes())
    (run / "train.json").rename(tmp_path / "train.json")
    with pytest.raises(ValueError, match="other train and val images than when the run was trained"):
        train.main([config, f"output_root={tmp_path}", "train.epochs=1", "--resume"])
    (tmp_path / "train.json").rename(run / "train.json")
    for main, arguments in ((evaluate.main, []), (gradcam.main, ["--index", "0"]), (gradcam.main, ["--analyze", "2"])):
        with pytest.raises(ValueError, match="other train and val images"):
            main([str(run), *arguments])
    gradcam.main([str(run), "--image", str(added), "--method", "eigencam"])  # needs none of them
    added.unlink()
    evaluate.main([str(run)])


def test_test_images_of_their_own_may_change(tmp_path):
    root = make_folder(tmp_path / "photos", splits=("train", "test"), count=12)
    values = {**TINY_VIT, "data": {"dataset": "imagefolder", "root": str(root), "image_size": 16}}
    train.main([str(write_config(tmp_path, values, "own-test")), f"output_root={tmp_path}", "train.epochs=1"])
    (root / "test" / "cat" / "0000.png").write_bytes((root / "test" / "cat" / "000.png").read_bytes())
    evaluate.main([str(tmp_path / "own-test")])
    assert Run.open(tmp_path / "own-test").read_json("metrics.json")["num_images"] == 37
