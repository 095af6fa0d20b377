"""Reported numbers stand beside those that were measured here, and never in their place."""

import shutil

import pytest
from support import PROJECT, whole_statistics

import evaluate
from common.config_files import load_config
from common.runs import Run
from evaluation import reported

STUDIED = {
    "cifar10_lr": {"swin_base_lr5e-5": {"accuracy": 0.9893, "gmacs": 15.17, "ms_per_image": 30.79}},
    "cifar10_freeze": {"vit_base_patch32_full": {"map_mean": 0.3934, "map_high_region": 0.2041}},
    "cifar10_partial": {"vit_base": {"accuracy": 0.9599, "scorecam_seconds": 8.81}},
    "shallow_vit": {
        "resnet34": {"accuracy": 0.255, "val_accuracy": 0.22},
        "a0": {"val_accuracy": 0.2044, "epochs_to_target": 14},
        "a2": {"accuracy": 0.1844, "val_accuracy": 0.2089},
        "a3": {"epochs_to_target": None},
        "a4": {"accuracy": 0.1933, "val_accuracy": 0.2067, "epochs_to_target": 9},
    },
}


@pytest.fixture
def run(evaluated, tmp_path):
    return Run.open(shutil.copytree(evaluated, tmp_path / "copy"))


def table_of(run, numbers):
    """The sections' tables by title, of a run of which these numbers are reported."""
    run.config = run.config.model_copy(update={"reported": numbers})
    return {s.title: s.table for s in reported.sections([("it", run, run.read_json("metrics.json"))])}


@pytest.mark.parametrize("study", STUDIED)
def test_configs_hold_what_the_studies_reported(study):
    for name, numbers in STUDIED[study].items():
        found = load_config(PROJECT / "configs" / study / f"{name}.yaml").reported
        assert {key: found[key] for key in numbers} == numbers


def test_a_run_of_which_nothing_is_reported_has_no_table(run):
    assert table_of(run, {}) == {}


def test_epochs_to_a_target(run):
    training = run.read_json("train.json")
    run.save_json("train.json", training | {"target": 0.5, "stopped_because": "target_reached", "epochs_run": 4})
    [row] = table_of(run, {"epochs_to_target": 9, "val_accuracy": 0.2067})["Reported elsewhere"]
    assert (row["reported epochs to the target"], row["epochs to the target"]) == ("9", "4")
    assert row["reported validation accuracy (%)"] == "20.67"
    assert row["validation accuracy (%)"] == f"{100 * training['val_accuracy']:.2f}"
    run.save_json("train.json", training | {"target": 0.99, "stopped_because": "all_epochs_done", "epochs_run": 4})
    [row] = table_of(run, {"epochs_to_target": None})["Reported elsewhere"]
    assert list(row.values()) == ["it", "not reached", "not reached in 4"]


def test_heat_maps_and_score_cam_of_these_weights_alone(run):
    weights = run.read_json("metrics.json")["checkpoint_sha256"]
    numbers = {"map_mean": 0.3934, "map_centre_to_edge": 1.1743, "scorecam_seconds": 8.81}
    stored = whole_statistics("gradcam", mean=0.25, std=0.125, half_max_area=0.5, centre_to_edge=1.5)
    seen = {"target": "1", "prediction": "1", "probability": 0.9, "label": "1", "channels": None}
    for digest, cells in ((weights, ["it", "39.34", "25.00", "1.1743", "1.5000"]), ("of before", None)):
        run.save_json("gradcam/statistics.json", stored | {"checkpoint_sha256": digest})
        for image, seconds in (("a", 0.5), ("b", 0.75), ("c", 9.0)):
            about = {"image": image, "method": "scorecam", "layer": "patch_embed", "checkpoint_sha256": digest}
            run.save_json(f"gradcam/{image}-scorecam-patch_embed.json", seen | about | {"seconds": seconds})
        tables = table_of(run, numbers)
        [row], [form] = tables["Reported elsewhere"], tables["Heat maps: reported elsewhere"]
        assert list(row.values()) == ["it", "8.81", "0.75" if cells else "–"]
        assert list(form.values()) == (cells or ["it", "39.34", "–", "1.1743", "–"])


def test_the_page_of_one_run_shows_them(run):
    path = run.path("config.yaml")
    path.write_text(path.read_text().replace("reported: {}", "reported: {accuracy: 0.4604, top5_accuracy: 0.7603}"))
    evaluate.main([str(run.directory), "--from-predictions"])
    page = run.path("report.html").read_text()
    assert "Reported elsewhere" in page and ">46.04<" in page and ">76.03<" in page
