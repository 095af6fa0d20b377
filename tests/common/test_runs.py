"""Run directories."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluate
import gradcam
from common.runs import Run

OLD_RUN = Path(__file__).parent / "before_packages"
"""Written when all modules stood at the root: digits at 8 px, a shallow ViT of width 8, two epochs."""


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(OLD_RUN, tmp_path / "before_packages"))


def test_a_run_of_the_old_layout_is_evaluated_to_the_same_logits(old_run, capsys):
    evaluate.main([str(old_run)])
    for name in ("predictions.npz", "predictions-val.npz"):
        with np.load(old_run / name) as new, np.load(OLD_RUN / name) as old:
            assert np.allclose(new["logits"], old["logits"], atol=1e-4)
            assert np.array_equal(new["labels"], old["labels"])
    new, old = (json.loads((folder / "metrics.json").read_text()) for folder in (old_run, OLD_RUN))
    assert old.keys() <= new.keys()
    assert new["accuracy"] == old["accuracy"]


def test_a_run_of_the_old_layout_is_explained_and_resumed(old_run):
    gradcam.main([str(old_run), "--index", "0", "1", "--method", "layercam"])
    assert (old_run / "gradcam/grid-layercam.png").is_file()
    run = Run.open_finished(old_run)
    assert len(run.read_log()) == 2
    assert {"model", "optimizer"} <= run.load_checkpoint("last.pt").keys()
