"""Pictures of two classes: each image keeps its side, and shares are those of the maps that gradcam.py wrote."""

import json

import numpy as np
import pytest
import torch

from benchmarks import two_classes
from common.runs import Run
from data import load_data_of


def test_two_images_are_joined_by_their_middles():
    left, right = torch.zeros(3, 4, 6), torch.arange(6).expand(3, 4, 6)
    joined = two_classes.side_by_side(left, right)
    assert joined.shape == (3, 4, 6) and joined[0, 0].tolist() == [0, 0, 0, 1, 2, 3]


@pytest.mark.parametrize(("width", "share"), [(4, 0.5), (3, 0.5), (1, 0.5)])
def test_an_even_map_has_half_of_itself_on_each_side(width, share):
    assert [two_classes.share_of_half(np.ones((2, width)), side) for side in (0, 1)] == [share, share]
    one_sided = np.zeros((2, 4))
    one_sided[:, 0] = 1
    assert [two_classes.share_of_half(one_sided, side) for side in (0, 1)] == [1, 0]


def test_pictures_are_explained_once_for_each_class(vit_run):
    result = two_classes.main([str(vit_run), "3", "7", "--pictures", "2", "--method", "layercam"])
    stored = json.loads((vit_run / "gradcam" / "two_classes.json").read_text())
    assert stored == result and len(stored["pictures"]) == 2
    run = Run.open(vit_run)
    labels = load_data_of(run.config, run.load_checkpoint("best.pt")).split("test").labels
    for found in stored["pictures"]:
        _, one, left, other, right = found["picture"].split("-")
        assert (labels[int(left)], labels[int(right)]) == (int(one), int(other)) == (3, 7)
        for name in ("3", "7"):
            about = json.loads((vit_run / "gradcam" / f"{found['picture']}-layercam-{name}.json").read_text())
            map_ = np.load(vit_run / "gradcam" / f"{found['picture']}-layercam-{name}.npy")
            assert about["target"] == name and map_.shape[1] % 2 == 0
            half = map_[:, : map_.shape[1] // 2] if name == "3" else map_[:, map_.shape[1] // 2 :]
            assert found[name] == pytest.approx(half.sum() / map_.sum(), abs=1e-4)


@pytest.mark.parametrize(("classes", "part"), [(["3", "x"], "not x"), (["3"], "name two"), (["3", "3"], "name two")])
def test_other_than_two_known_classes_are_refused(vit_run, classes, part):
    with pytest.raises(ValueError, match=part):
        two_classes.main([str(vit_run), *classes])
