"""The page of one run: what comes first, its classification report, and no figure of other weights."""

import json
import re
import shutil

import pytest

import evaluate
from common.runs import Run
from evaluation.page import compose


@pytest.fixture(scope="module")
def run(vit_run, tmp_path_factory):
    evaluate.main([str(vit_run)])
    copy = tmp_path_factory.mktemp("page") / "copy"
    shutil.copytree(vit_run, copy)
    return copy


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
