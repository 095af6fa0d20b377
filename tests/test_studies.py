"""The studies in small, from a folder of images to their reports."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, make_folder

OLD_RUN = PROJECT / "tests/common/before_packages"


CLASSES = ("cat", "dog", "frog", "ship", "deer", "bird")  # six have a top-5 accuracy
STUDIES = {
    "a": (
        "cifar10_lr",
        [f"{model}_base_{which}" for model in ("swin", "vit") for which in ("lr5e-5", "lr7e-4", "recommended")],
        ["reported accuracy (%) ", " 98.93 ", "reported GMACs", "gradcam at "],
    ),
    "b": (
        "cifar10_freeze",
        [f"{m}_{w}" for m in ("swin_base", "vit_base_patch32") for w in ("full", "last_layers", "recommended")],
        ["Heat maps: reported elsewhere", " 1.1743 ", "gradcam at layers.1,", "attention at blocks.3.attn"],
    ),
    "c": (
        "cifar10_partial",
        ["swin_base", "swin_base_recommended", "vit_base", "vit_base_recommended"],
        ["scorecam at patch_embed, ", " s a map", "reported Score-CAM (s/image)", " 8.81 "],
    ),
    "d": (
        "shallow_vit",
        ["a0", "a1", "a2", "a3", "a4", "resnet34"],
        [" epochs to the target ", "reported epochs to the target", " not reached ", " 20.89 "],
    ),
    "e": ("swin_cifar100", ["as_studied", "recommended"], [" 46.04 ", " 76.03 ", " 2.5975 "]),
}


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes on an idle machine
@pytest.mark.parametrize("study", STUDIES)
def test_a_small_study_comes_to_its_report(tmp_path, study):
    """With four test images of a class, and a run beside the others that came to no end."""
    name, runs, texts = STUDIES[study]
    images = {"size": (32, 40), **({"classes": CLASSES} if study == "e" else {})}
    root = make_folder(tmp_path / "images", splits=("train",), count=24, **images)
    make_folder(tmp_path / "images", splits=("test",), count=4, seed=1, **images)
    shutil.copytree(OLD_RUN, tmp_path / name / "stopped")
    (tmp_path / name / "stopped" / "train.json").unlink()
    command = ["make", f"study-{study}", "SMALL=1", f"DATA={root}", f"OUTPUTS={tmp_path}", "INSTALLED="]
    command.append(f"BIN={Path(sys.executable).parent}")
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, cwd=PROJECT, env=env, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr[-2000:]
    assert "stopped is left out: it is unfinished" in made.stderr and "Traceback" not in made.stderr
    assert "(ignored)" not in made.stderr  # nothing failed
    folder = tmp_path / "comparisons" / name
    report = (folder / "report.md").read_text()
    assert all(f"{name}/{run}" in report for run in runs) and (folder / "report.html").stat().st_size > 10_000
    assert not [text for text in texts if text not in report]
    assert (folder / "explanations.json").is_file() and list(folder.glob("**/grid*.png"))
    if study == "e":
        assert (tmp_path / "attention_complexity.png").is_file()
        assert (tmp_path / "comparisons/swin_flowers/grid-gradcam-label-each1.png").is_file()
        assert (tmp_path / "swin_flowers/finetuned/gradcam/two_classes.json").is_file()
        assert "val_top5_accuracy" in (tmp_path / name / "recommended/log.csv").read_text()


def planned(*words):
    """The commands of train.py that make would run."""
    made = subprocess.run(["make", "-n", *words, "INSTALLED="], cwd=PROJECT, capture_output=True, text=True)
    return [line.strip() for line in made.stdout.splitlines() if "train.py" in line]


def test_what_is_recommended_is_trained_first():
    for study in ("study-a", "study-b", "study-c"):
        [line] = planned(study)
        marked = ["_recommended.yaml" in word for word in line.split() if word.startswith("configs/")]
        assert sum(marked) == 2 and marked == sorted(marked, reverse=True)


def test_seeds_are_those_of_every_model_but_the_baseline():
    """The runs that stop at a share of the baseline's accuracy name it without a seed."""
    [line] = planned("study", "STUDY=flowers", "SEEDS=0 1 2")
    assert "configs/flowers/vit_full.yaml" in line and line.endswith(" --seeds 0 1 2")
    baseline, variants = planned("study-d", "SEEDS=1 2")
    assert baseline.endswith("configs/shallow_vit/resnet34.yaml") and variants.endswith(" --seeds 1 2")
