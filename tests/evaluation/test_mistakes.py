"""mistakes.csv: every wrong prediction with its file."""

import csv

import numpy as np
import torch

import evaluate
from data import Split
from evaluation.metrics import most_confidently_wrong
from evaluation.predictions import Predictions
from evaluation.tables import mistake_rows
from images.sources import Photos, Pixels

LOGITS = np.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 1], [0, 1, 0]], dtype=np.float32)
FOUND = Predictions(LOGITS, np.array([0, 0, 1, 1]))  # the second and the third are wrong


def test_each_mistake_is_a_row_with_the_file_the_split_holds():
    paths = [f"photos/{i}.png" for i in range(9)]
    split = Split(
        Photos(paths, torch.zeros(9, dtype=torch.int64), (8, 8), "bicubic"),
        torch.tensor([8, 6, 4, 2]),
        name="test",
        resident=False,
    )
    rows = mistake_rows(FOUND, split, ["ash", "beech", "cedar"])
    assert [row["index"] for row in rows] == [1, 2] == most_confidently_wrong(FOUND).tolist()
    assert [(row["file"], row["true"], row["predicted"]) for row in rows] == [
        ("photos/6.png", "ash", "beech"),
        ("photos/4.png", "beech", "cedar"),
    ]
    assert rows[0]["probability"] == round(float(np.exp(3) / (np.exp(3) + 2)), 6)
    assert rows[0]["probability_of_true"] == round(float(1 / (np.exp(3) + 2)), 6)


def test_images_without_files_have_none():
    pixels = Pixels(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 0, 1, 1]))
    split = Split(pixels, torch.arange(4), name="test", resident=True)
    assert [row["file"] for row in mistake_rows(FOUND, split, ["ash", "beech", "cedar"])] == [None, None]


def test_an_evaluation_writes_its_mistakes(vit_run):
    evaluate.main([str(vit_run)])
    with (vit_run / "mistakes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with np.load(vit_run / "predictions.npz") as stored:
        wrong = np.flatnonzero(stored["logits"].argmax(axis=1) != stored["labels"])
    assert sorted(int(row["index"]) for row in rows) == wrong.tolist() and all(row["file"] == "" for row in rows)
    probabilities = [float(row["probability"]) for row in rows]
    assert probabilities == sorted(probabilities, reverse=True)
