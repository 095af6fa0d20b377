"""Cross-validated runs: put together as folds, compared on all images by the rule for single runs."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from support import TINY_VIT, make_config, write_config

import evaluate
import train
from common.runs import Run
from comparison import folds
from comparison.entries import read_entry
from comparison.significance import compare_pairs
from evaluation.predictions import Predictions, load_predictions

COUNT = 30  # images of a fold
ABOUT = {"date": "2026-01-01", "command": "python evaluate.py", "code": "none"}


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, vit_run):
    """An evaluated run, whose numbers every fold below has."""
    copy = tmp_path_factory.mktemp("folds") / "tiny"
    shutil.copytree(vit_run, copy)
    evaluate.main([str(copy)])
    return read_entry(Run.open(copy), "")


@pytest.fixture
def make(evaluated):
    def make(name, fold, *, number=None, **config):
        """A fold of which each image is right with a chance of 0.7; ``number`` stands for its images."""
        number = number or fold or "none"
        data = {"fold": fold} | config.pop("data", {})
        config = make_config(name=name, data=data, **config)
        random = np.random.default_rng(sum(map(ord, f"{name}{fold}")))
        labels, predicted = np.zeros(COUNT, dtype=int), (random.random(COUNT) > 0.7).astype(int)
        return replace(
            evaluated,
            name=name,
            run=SimpleNamespace(
                config=config, directory=f"runs/{name}", figure_format=None, read_json=evaluated.run.read_json
            ),
            predictions=Predictions(np.eye(10, dtype=np.float32)[predicted], labels),
            metrics=evaluated.metrics | {"fingerprint": number, "num_images": COUNT},
            training=evaluated.training | {"num_images": {"train": 2 * COUNT - 10, "val": 10, "test": COUNT}},
        )

    return make


@pytest.fixture
def three(make):
    def three(name, **config):
        return [make(f"{name}-fold{k}_3", f"{k}/3", **config) for k in (3, 1, 2)]

    return three


def test_folds_are_put_together_and_compared_as_single_runs(three, tmp_path, monkeypatch):
    entries = three("vit") + three("swin", model={"name": "swin_t"})
    monkeypatch.setattr(folds, "read_entries", lambda runs, suffix: entries)
    folds.compare_folds([entry.run for entry in entries], "", tmp_path, ABOUT)
    stored, hits = json.loads((tmp_path / "comparison.json").read_text()), {}
    for name, group in (("vit", entries[:3]), ("swin", entries[3:])):
        ordered = [group[1], group[2], group[0]]  # by fold, so that the same image stands in the same place
        hits[name] = np.concatenate([entry.predictions.correct for entry in ordered])[None]
        assert stored["groups"][name]["mean"] == hits[name].mean() and stored["groups"][name]["num_images"] == 3 * COUNT
        assert stored["groups"][name]["folds"] == [entry.predictions.accuracy for entry in ordered]
    [pair], [expected] = stored["pairs"], compare_pairs(list(hits), list(hits.values()))
    assert pair["difference_ci95"] == expected["difference_ci95"] and pair["runs"] == [1, 1]
    assert pair["sentence"].endswith("between these two sets of 3 models, one per fold, on such images (90 images).")
    report = (tmp_path / "report.md").read_text()
    assert pair["sentence"] in report and "each tested once" in report and "not averaged as repetitions" in report


def test_folds_of_one_configuration(three, tmp_path, monkeypatch, capsys):
    entries = three("vit")
    monkeypatch.setattr(folds, "read_entries", lambda runs, suffix: entries)
    folds.compare_folds([entry.run for entry in entries], "", tmp_path, ABOUT)
    said = capsys.readouterr().out
    assert "vit recognises" in said and "by 3 models, one per fold." in said and "seed0" not in said


def test_another_seed_is_another_configuration(three):
    assert list(folds.group_by_fold(three("vit-seed0") + three("vit-seed1", seed=1))) == ["seed0", "seed1"]


def test_what_are_no_complete_and_equal_folds(three, make):
    vit, swin = three("vit"), three("swin", model={"name": "swin_t"})

    def refused(entries, message):
        with pytest.raises(ValueError, match=message):
            folds.group_by_fold(entries)

    refused(vit[:2], "vit: data.fold 2/3 is missing; train and name all 3 folds")
    refused([*vit, *swin[1:]], "swin: data.fold 3/3 is missing")
    refused([*vit, make("again-fold1_3", "1/3")], "data.fold 1/3 occurs twice; name one run of each fold")
    refused([*vit[:2], make("vit-fold2_4", "2/4")], "its folds are 1/3, 2/4, 3/3; all should have the same n in k/n")
    refused([*vit, make("plain", None)], "plain has no data.fold, but other runs have")
    same = make("vit-fold2_3", "2/3", number="1/3")  # the images of the first fold again
    refused([*vit[:2], same], "its folds are not of the same images")
    two = [make(f"swin-fold{k}_2", f"{k}/2", model={"name": "swin_t"}) for k in (1, 2)]
    for entry in two:
        entry.training["num_images"]["train"] = COUNT - 10
    refused([*vit, *two], "has 2 folds and runs/vit-fold1_3 3; compare configurations that have the same folds")
    other = [make(f"swin-fold{k}_3", f"{k}/3", number=f"other {k}", model={"name": "swin_t"}) for k in (1, 2, 3)]
    refused([*vit, *other], "were not evaluated on the same images")


def test_names_lose_their_fold():
    def group(name):
        return [SimpleNamespace(run=SimpleNamespace(config=SimpleNamespace(name=name)))]

    assert folds.names_of([group("a/vit-fold1_5"), group("a/swin-fold1_5")]) == ["vit", "swin"]
    assert folds.names_of([group("m-fold1_5-lr2e-3"), group("m-fold1_5-lr1e-4")]) == ["lr2e-3", "lr1e-4"]


@pytest.mark.slow
def test_folds_by_the_scripts(tmp_path):
    path, fast = write_config(tmp_path, TINY_VIT), ["train.epochs=1", "evaluate.latency_seconds=0.001"]
    train.main([str(path), f"output_root={tmp_path}/runs", *fast, "--grid", "train.lr=1e-5,3e-3", "data.fold=1/2,2/2"])
    evaluate.main([str(tmp_path / "runs"), "--output", str(tmp_path / "report")])
    stored = json.loads((tmp_path / "report" / "comparison.json").read_text())
    runs = [Run.open(tmp_path / "runs" / f"tiny-lr3e-3-fold{k}_2") for k in (1, 2)]
    hits = np.concatenate([load_predictions(run, "predictions.npz")[0].correct for run in runs])
    assert len(hits) == 1797 and stored["groups"]["lr3e-3"]["mean"] == hits.mean()  # every digit once
    with pytest.raises(ValueError, match="put together on their test images; leave out --split"):
        evaluate.main([*(str(run.directory) for run in runs), "--split", "val"])
