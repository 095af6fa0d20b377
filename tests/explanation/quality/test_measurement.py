"""gradcam.py --analyze end to end, and what it says about numbers that are known."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from support import SAVE_FIGURE

import gradcam
from common.folders import Folder
from common.runs import Run
from comparison import sections
from data import Preprocess, load_dataset
from explanation.attribution import heat_maps
from explanation.layers import map_layer
from explanation.quality import measurement, report
from explanation.quality.form import map_statistics
from explanation.quality.sample import Sample
from models import input_spec, restore_model


@pytest.fixture(scope="module", autouse=True)
def small_samples():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ROAD_IMAGES", "ATTENTION_IMAGES", "RANDOMIZED_IMAGES"):
            patch.setattr(measurement, name, 3)
        yield


@pytest.fixture(scope="module")
def analyzed(family_runs, tmp_path_factory):
    output = tmp_path_factory.mktemp("comparison")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", SAVE_FIGURE)  # drawn
        gradcam.main([*(str(family_runs[n]) for n in ("vit", "swin")), "--analyze", "8", "--output", str(output)])
    return {
        name: json.loads((family_runs[name] / "gradcam/statistics.json").read_text()) for name in ("vit", "swin")
    }, output


def test_runs_are_measured_and_compared(analyzed, family_runs):
    results, output = analyzed
    for name, result in results.items():
        assert result["num_images"] == 8 and set(result["faithfulness"]) == {*result["methods"], "random", "centre"}
        for scores in result["faithfulness"].values():
            assert all(score["images"] == (3 if key == "road" else 8) for key, score in scores.items())
            assert all(0 <= scores[key]["mean"] <= 1 for key in scores if key != "road")
            assert scores["insertion_blur"]["ci95"][0] <= scores["insertion_blur"]["mean"]
        assert result["randomization"]["groups"][0] == "head" and len(result["attention"]["layers"]) in (2, 4)
        figures = ("statistics", "faithfulness", "randomization", "attention")
        assert all((family_runs[name] / f"gradcam/{figure}.png").stat().st_size > 5000 for figure in figures)
    both = json.loads((output / "explanations.json").read_text())
    assert [run["run"] for run in both["runs"]] == ["vit", "swin"] and len(both["pairs"]) == 4
    report = (output / "explanations.md").read_text().replace("\\", "")  # as Markdown shows it
    assert all(sentence in report for sentence in [*results["swin"]["verdict"], *both["pairs"]])
    for name, result in results.items():
        assert result["verdict"][0].startswith(f"{name}'s default map ({result['auto']}) is ")
        for pair in result["paired"]:
            for one in (pair["insertion_blur"], pair["deletion_blur"]):
                (low, high), single = one["ci95_together"], one["ci95"]
                assert low <= one["mean"] <= high and (high - low >= single[1] - single[0] or high == low)
    assert (output / "explanations.png").stat().st_size > 5000


@pytest.mark.parametrize("damage", ["text", "shorter"])
def test_damaged_numbers_are_named_by_a_report(analyzed, family_runs, tmp_path, damage):
    run = Run.open(shutil.copytree(family_runs["vit"], tmp_path / "vit"))
    with np.load(run.path("gradcam/statistics.npz")) as stored:
        arrays = dict(stored)
    scores = arrays["random/insertion_blur"]
    arrays["random/insertion_blur"] = scores.astype(str) if damage == "text" else scores[1:]
    np.savez(run.path("gradcam/statistics.npz"), **arrays)
    entry = SimpleNamespace(run=run, name="vit", metrics={"checkpoint_sha256": run.checksum("best.pt")})
    with pytest.raises(
        ValueError, match=r"statistics\.npz is not as this project writes it \(random/insertion_blur is"
    ):
        sections._explanation_numbers([entry], Folder(tmp_path))


def test_statistics_are_those_of_the_maps(analyzed, family_runs):
    """The file's means against maps that are made one image at a time."""
    result, run = analyzed[0]["swin"], Run.open(family_runs["swin"])
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    spec, layer = input_spec(model), map_layer(model)
    split, values = load_dataset(run.config.data, seed=run.config.data.split_seed).test, []
    for i in Sample.draw(split, 8, 0).positions:
        image = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation)(split.image(i)[None])
        target = model(image).argmax(1).tolist()
        map_, faults = heat_maps(model, layer, image, target, method="layercam")
        if not faults:
            values.append(map_statistics(map_))
    form = result["maps"]["layercam"]
    assert len(values) == 8 - form["blank"]
    for name in values[0]:
        assert form["native"][name]["mean"] == pytest.approx(np.mean([v[name][0] for v in values]), abs=1e-4)


def test_models_without_attention_and_the_same_seed(family_runs):
    run = Run.open(family_runs["resnet"])
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    split = load_dataset(run.config.data, seed=run.config.data.split_seed).test
    arguments = dict(methods=["gradcam"], device=torch.device("cpu"))
    layer, sample = map_layer(model), Sample.draw(split, 2, seed=5)
    first, arrays = measurement.analyze(run, model, layer, sample, **arguments)
    config = run.config.model_copy(update={"evaluate": run.config.evaluate.model_copy(update={"batch_size": 1})})
    run = Run(run.directory, config)  # how images fall into batches changes nothing but the noise of ROAD
    _, again = measurement.analyze(run, model, layer, sample, **arguments)
    assert first["attention"] is None and "attention" not in report.figures_of(first)
    for key in arrays:
        if "road" not in key:
            np.testing.assert_allclose(arrays[key], again[key], atol=2e-3, err_msg=key)


def test_progress_moves_image_by_image_where_an_image_takes_long(family_runs, monkeypatch):
    run = Run.open(family_runs["vit"])
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    size = measurement._batch_size(run, model, torch.device("cpu"))
    assert size == min(run.config.evaluate.batch_size, 2**16 // 24**2)
    assert measurement._batch_size(run, model, torch.device("cuda")) == run.config.evaluate.batch_size
    monkeypatch.setattr(model, "input_spec", dataclasses.replace(input_spec(model), size=(224, 224)))
    assert measurement._batch_size(run, model, torch.device("cpu")) == 1


def test_no_images_to_measure_is_an_error(vit_run):
    with pytest.raises(ValueError, match="ask for 1 to that"):
        gradcam.main([str(vit_run), "--analyze", "0"])
    with pytest.raises(ValueError, match="explains the predicted class"):
        gradcam.main([str(vit_run), "--analyze", "2", "--target", "3"])


def test_runs_on_other_images_are_not_compared():
    arrays = [{"indices": np.arange(3), "labels": np.zeros(3)}, {"indices": np.arange(1, 4), "labels": np.zeros(3)}]
    with pytest.raises(ValueError, match="different images"):
        report.compare([{}, {}], arrays)


def test_a_batch_of_blank_maps_has_no_statistics():
    values = measurement.describe_maps(torch.zeros(2, 4, 4))
    assert len(values) == 14 and all(np.isnan(numbers).all() and len(numbers) == 2 for numbers in values.values())


def test_a_centred_gaussian_has_a_centre_beside_maps_of_2x2_cells():
    maps = measurement.baselines((2, 2), 0, 0, 3)
    assert maps["random"].shape == (3, 2, 2) and maps["centre"].shape == (3, 14, 14)
    assert maps["centre"].amax() > 10 * maps["centre"].amin()
