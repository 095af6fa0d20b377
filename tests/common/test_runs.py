"""Run directories."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

import evaluate
import gradcam
from common.comparisons import comparison_folder
from common.runs import Run, open_runs

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
    assert (old_run / "gradcam/grid-layercam-index-0-1.png").is_file()
    run = Run.open_finished(old_run)
    assert len(run.read_log()) == 2
    assert {"model", "optimizer"} <= run.load_checkpoint("last.pt").keys()


def test_figures_are_also_written_as_vectors_where_a_format_is_asked_for(old_run, tmp_path, drawn):
    figure = Figure(figsize=(1, 1))
    for figure_format, start in (("pdf", b"%PDF"), ("svg", b"<?xml")):
        (run,) = open_runs([old_run], None, figure_format=figure_format)
        for folder in (run, comparison_folder([run], tmp_path / "comparison")):
            assert folder.save_figure("figures/v1.5.png", figure) == folder.path("figures/v1.5.png")
            assert folder.path("figures/v1.5.png").read_bytes().startswith(b"\x89PNG")
            assert folder.path(f"figures/v1.5.{figure_format}").read_bytes().startswith(start)
    Run.open(old_run).save_figure("figures/plain.png", figure)
    assert [path.name for path in old_run.glob("figures/plain.*")] == ["plain.png"]
