"""gradcam.py --analyze end to end, and what it says about numbers that are known."""

import json

import numpy as np
import pytest
import torch

import gradcam
from common.runs import Run
from data import Preprocess, load_dataset
from explanation.attribution import heat_maps
from explanation.layers import map_layer
from explanation.quality import measurement, report
from explanation.quality.form import map_statistics
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
        assert all(
            (family_runs[name] / f"gradcam/{figure}.png").stat().st_size > 5000
            for figure in ("statistics", "faithfulness", "randomization", "attention")
        )
    both = json.loads((output / "explanations.json").read_text())
    assert [run["run"] for run in both["runs"]] == ["vit", "swin"] and len(both["pairs"]) == 4
    report = (output / "explanations.md").read_text().replace("\\", "")  # as Markdown shows it
    assert all(sentence in report for sentence in [*results["swin"]["verdict"], *both["pairs"]])
    assert (output / "explanations.png").stat().st_size > 5000


def test_statistics_are_those_of_the_maps(analyzed, family_runs):
    """The file's means against maps that are made one image at a time."""
    result, run = analyzed[0]["swin"], Run.open(family_runs["swin"])
    model = restore_model(run.config, run.load_checkpoint("best.pt"))
    spec, layer = input_spec(model), map_layer(model)
    split, values = load_dataset(run.config.data, seed=run.config.data.split_seed).test, []
    for i in measurement.sample_indices(split, 8, 0, option="--analyze"):
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
    arguments = dict(methods=["gradcam"], num_images=4, device=torch.device("cpu"))
    layer = map_layer(model)
    first, arrays = measurement.analyze(run, model, layer, split, seed=5, **arguments)
    config = run.config.model_copy(update={"evaluate": run.config.evaluate.model_copy(update={"batch_size": 3})})
    run = Run(run.directory, config)  # how images fall into batches changes nothing but the noise of ROAD
    _, again = measurement.analyze(run, model, layer, split, seed=5, **arguments)
    assert first["attention"] is None and "attention" not in report.figures_of(first)
    for key in arrays:
        if "road" not in key:
            np.testing.assert_allclose(arrays[key], again[key], atol=2e-3, err_msg=key)


def test_more_images_than_there_are_is_an_error(vit_run):
    with pytest.raises(ValueError, match="--analyze 100000: the test split has 180 images"):
        gradcam.main([str(vit_run), "--analyze", "100000"])
    with pytest.raises(ValueError, match="ask for 1 to that"):
        gradcam.main([str(vit_run), "--analyze", "0"])
    with pytest.raises(ValueError, match="explains the predicted class"):
        gradcam.main([str(vit_run), "--analyze", "2", "--target", "3"])


def test_verdicts_say_what_the_numbers_say():
    def value(mean, half=0.02):
        return {"mean": mean, "ci95": [mean - half, mean + half], "images": 500}

    pair = lambda a, b, mean: {"first": a, "second": b, "insertion_blur": value(mean)}  # noqa: E731
    result = {
        "run": "ViT",
        "num_images": 500,
        "methods": ["gradcam", "hirescam"],
        "maps": {"gradcam": {"blank": 2}, "hirescam": {"blank": 0}},
        "faithfulness": {
            name: {"insertion_blur": value(mean)}
            for name, mean in {"gradcam": 0.61, "hirescam": 0.62, "random": 0.44, "centre": 0.66}.items()
        },
        "paired": [
            pair("gradcam", "random", 0.17),
            pair("gradcam", "centre", -0.05),
            pair("hirescam", "random", 0.18),
            pair("hirescam", "centre", -0.01),
            pair("gradcam", "hirescam", -0.01),
        ],
        "randomization": {"gradcam": [value(0.5), value(0.04)], "hirescam": [value(0.3), {"mean": None}]},
    }
    sentences = report.verdict(result)
    assert sentences[0] == (
        "On 500 images ViT's gradcam has insertion AUC 0.61 [0.59, 0.63], a random map 0.44 (difference +0.170 [+0.150, "
        "+0.190]: better) and a centred Gaussian 0.66 (difference -0.050 [-0.070, -0.030]: worse)."
    )
    assert sentences[1] == "ViT's gradcam is blank on 2 of 500 images; there it counts as random."
    assert sentences[2].endswith("(difference -0.010 [-0.030, +0.010]: not distinguishable).")
    assert (
        sentences[3]
        == "By insertion hirescam is the most faithful of ViT's 2 methods, not distinguishable from gradcam."
    )
    assert "rank correlation with the trained model's map is 0.04 [0.02, 0.06]" in sentences[4] and len(sentences) == 5
    result["paired"][0] = pair("gradcam", "random", 0.01)
    result["paired"][2] = pair("hirescam", "random", 0.01)
    chance = "By insertion none of ViT's 2 methods is {} a random map."
    assert report.verdict(result)[3] == chance.format("distinguishable from")
    result["paired"][2] = pair("hirescam", "random", -0.1)
    assert report.verdict(result)[3] == chance.format("better than")


def test_runs_on_other_images_are_not_compared():
    arrays = [{"indices": np.arange(3), "labels": np.zeros(3)}, {"indices": np.arange(1, 4), "labels": np.zeros(3)}]
    with pytest.raises(ValueError, match="different images"):
        report.compare([{}, {}], arrays)


def test_a_batch_of_blank_maps_has_no_statistics():
    values = measurement.describe_maps(torch.zeros(2, 4, 4))
    assert len(values) == 14 and all(np.isnan(numbers).all() and len(numbers) == 2 for numbers in values.values())
