"""Predictions of a folder of photos."""

import csv
import json
import shutil

import numpy as np
import pytest

import evaluate
from common.runs import Run
from evaluation.predictions import load_predictions
from images.sources import Photos


def table(folder):
    with (folder / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_agrees_with_the_predictions_of_the_test_split(family_runs, folder_root, tmp_path, capsys):
    run = family_runs["swin"]
    evaluate.main([str(run)])
    evaluate.main([str(run), "--images", str(folder_root / "test"), "--output", str(tmp_path)])
    rows, (expected, names) = table(tmp_path), load_predictions(Run.open(run), "predictions.npz")
    assert [row["file"] for row in rows[:2]] == ["cat/000.png", "cat/001.png"]
    assert [row["label"] for row in rows] == [names[k] for k in expected.labels]
    assert [row["class_1"] for row in rows] == [names[k] for k in expected.predicted]
    assert [row["correct"] == "yes" for row in rows] == expected.correct.tolist()
    shown = np.array([[float(row[f"probability_{k}"]) for k in (1, 2, 3)] for row in rows])
    np.testing.assert_allclose(shown, -np.sort(-expected.probabilities, axis=1), atol=2e-3)  # bf16 where it is there
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert found["accuracy"] == expected.accuracy and found["num_labelled"] == len(rows)
    assert f"{expected.accuracy:.2%}" in capsys.readouterr().out


def test_unreadable_files_have_their_reason_in_the_table(vit_run, folder_root, tmp_path, capsys):
    photos = tmp_path / "photos"
    (photos / "deep" / "er").mkdir(parents=True)
    shutil.copy(folder_root / "test" / "cat" / "000.png", photos / "deep" / "er" / "one.png")
    (photos / "broken.jpg").write_text("no image")
    (photos / "notes.txt").write_text("nothing")
    evaluate.main([str(vit_run), "--images", str(photos), "--output", str(tmp_path / "out")])
    rows = table(tmp_path / "out")
    assert [row["file"] for row in rows] == ["broken.jpg", "deep/er/one.png"]
    assert "not a readable image" in rows[0]["error"] and rows[0]["class_1"] == ""
    assert rows[1]["class_1"] and rows[1]["label"] == rows[1]["correct"] == ""
    found = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert found["unreadable"] == ["broken.jpg"] and found["accuracy"] is None
    assert "unreadable  1, such as broken.jpg" in capsys.readouterr().out


def test_a_table_that_was_cut_off_is_continued(vit_run, folder_root, tmp_path, monkeypatch):
    arguments = [str(vit_run), "--images", str(folder_root / "test"), "--output", str(tmp_path)]
    evaluate.main(arguments)
    whole = (tmp_path / "predictions.csv").read_bytes()
    cut = whole[: len(whole) // 2]
    (tmp_path / "predictions.csv").write_bytes(cut)
    asked, read = [], Photos.read
    monkeypatch.setattr(Photos, "read", lambda self, index, crop=None: asked.append(index) or read(self, index, crop))
    evaluate.main(arguments)
    assert (tmp_path / "predictions.csv").read_bytes() == whole
    assert len(asked) == 36 - (cut.count(b"\n") - 1)
    asked.clear()
    evaluate.main(arguments)  # all there
    assert not asked
    (tmp_path / "predictions.json").write_text(json.dumps({"folder": "elsewhere"}))
    with pytest.raises(ValueError, match="holds the predictions of elsewhere"):
        evaluate.main(arguments)


def test_what_cannot_be_predicted_is_said(vit_run, tmp_path):
    with pytest.raises(ValueError, match="no image files in it or below it"):
        evaluate.main([str(vit_run), "--images", str(tmp_path)])
    with pytest.raises(ValueError, match="no such folder"):
        evaluate.main([str(vit_run), "--images", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="leave out --tta"):
        evaluate.main([str(vit_run), "--images", str(tmp_path), "--tta", "flip"])
