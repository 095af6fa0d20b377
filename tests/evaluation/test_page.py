"""The page of one run: what comes first, its classification report, and no figure of other weights."""

import json
import re
import shutil

import pytest
from PIL import Image

import evaluate
from common.runs import Run
from evaluation.explained import overlays_of, section
from evaluation.page import compose


@pytest.fixture
def run(evaluated, tmp_path):
    return shutil.copytree(evaluated, tmp_path / "copy")


def test_the_result_comes_first_and_every_class_has_its_scores(run):
    text, result = (run / "report.html").read_text(), json.loads((run / "metrics.json").read_text())
    low, high = result["accuracy_ci95"]
    verdict = f"{100 * result['accuracy']:.2f} % of the 180 images of the test split are recognised, 95 % interval "
    verdict += f"{100 * low:.2f} to {100 * high:.2f} %."
    order = ["<h1>tiny on digits (test split)</h1>", verdict, "<figure>", "Trained by: python ", "<nav", "<h2>"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "src=" in text and not re.findall(r'(?:src|href)="(?!data:|#)', text)  # needs no other file
    for scores in result["per_class"].values():
        assert all(f">{100 * scores[key]:.2f}<" in text for key in ("precision", "recall", "f1"))
    assert f">{100 * result['macro_f1']:.2f}<" in text and "macro average" in text


def test_figures_of_other_weights_stay_out(run):
    (run / "figures" / "embedding.png").write_bytes((run / "figures" / "reliability.png").read_bytes())
    stored = json.loads((run / "metrics.json").read_text())
    title = "What do its features look like?"
    for origin, shown in (({}, True), ({"checkpoint_sha256": "of before"}, False), ({"fingerprint": "other"}, False)):
        values = {key: stored[key] for key in ("checkpoint_sha256", "fingerprint")} | origin
        (run / "embedding.json").write_text(json.dumps(values))
        titles = [section.title for section in compose(Run.open(run), "", stored, [])]
        assert (title in titles) == shown


def write_map(run: Run, image: str, method: str, **values) -> None:
    stem = f"gradcam/{image}-{method}"
    for part in ("photo", "heat"):
        run.write(f"{stem}-{part}.png", Image.new("RGBA", (4, 4)).save)
    about = {"image": image, "method": method, "layer": "norm", "target": "3", "probability": 0.75, "label": "5"}
    run.save_json(f"{stem}.json", about | {"prediction": "3"} | values)


def test_heat_maps_of_these_weights_are_laid_over_their_photos_and_others_stay_out(run):
    weights = json.loads((run / "metrics.json").read_text())["checkpoint_sha256"]
    opened = Run.open(run)
    write_map(opened, "test-1", "lrp", checkpoint_sha256=weights)
    write_map(opened, "test-2", "lrp", checkpoint_sha256="of before")
    write_map(opened, "test-3", "lrp")  # by an older version, which did not say
    write_map(opened, "test-4", "lrp")
    opened.save_json("gradcam/test-4-lrp.json", {"image": "test-4"})  # nor what else is read today
    write_map(opened, "train-5", "lrp", checkpoint_sha256=weights)  # no train.json
    maps = overlays_of(opened, "tiny", weights)
    assert list(maps) == ["test-1", "train-5"]
    assert maps["test-1"][0].caption == "tiny, test-1: lrp at norm, for 3 (75%); true class 5"
    evaluate.main([str(run), "--from-predictions"])
    text = (run / "report.html").read_text()
    assert "What does it look at?" in text and text.count('class="stack"') == 2


def test_maps_of_several_runs_stand_beside_each_other_where_all_explained_the_image():
    one, other = {"a": ["one a"], "b": ["one b"]}, {"b": ["other b"], "c": ["other c"]}
    assert section("Maps", [one, other]).overlays == ["one b", "other b"]
    assert section("Maps", [one, {"c": []}]) is None
