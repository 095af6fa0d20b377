"""The studies in small, from a folder of images to their reports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, make_folder

OLD_RUN = PROJECT / "tests/common/before_packages"


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on an idle machine
@pytest.mark.parametrize(
    ("study", "name", "runs"),
    [
        ("study-c", "cifar10_partial", ["swin_base", "swin_base_recommended", "vit_base", "vit_base_recommended"]),
        ("study-d", "shallow_vit", ["a0", "a1", "a2", "a3", "a4", "resnet34"]),
    ],
)
def test_a_small_study_comes_to_its_report(tmp_path, study, name, runs):
    """With four test images of a class, and a run beside the others that came to no end."""
    root = make_folder(tmp_path / "images", splits=("train",), size=(32, 40), count=24)
    make_folder(tmp_path / "images", splits=("test",), size=(32, 40), count=4, seed=1)
    shutil.copytree(OLD_RUN, tmp_path / name / "stopped")
    (tmp_path / name / "stopped" / "train.json").unlink()
    command = ["make", study, "SMALL=1", f"DATA={root}", f"OUTPUTS={tmp_path}", "INSTALLED="]
    command.append(f"BIN={Path(sys.executable).parent}")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    assert "stopped is left out: it is unfinished" in made.stderr and "Traceback" not in made.stderr
    folder = tmp_path / "comparisons" / name
    report = (folder / "report.md").read_text()
    assert all(f"{name}/{run}" in report for run in runs) and (folder / "report.html").stat().st_size > 10_000
    assert (folder / "explanations.json").is_file() and list(folder.glob("**/grid*.png"))
